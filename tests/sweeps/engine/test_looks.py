"""When a sweep is narrow enough or settled, and what is measured next, on made-up images."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from helpers.image_worlds import ImageWorld

from reports.statistics import error_of_looks
from sweeps.engine.designs import Costs, Design, predict
from sweeps.engine.looks import History, Round, begin_small, decide, plan_stages

COSTS = Costs(training=295.0, image=1.0, start=10.0, measured=True)
SWEEPS = 500  # Simulated in each scenario


def run(
    world: ImageWorld,
    until: str,
    first: int = 3,
    prompts: int = 112,
    most: int | None = 512,
    costs: Costs = COSTS,
    budget: float | None = None,
) -> tuple[Round, float]:
    """The looks until it ends, and what it cost."""
    plan, design = (
        Round(until, plan_stages(first), alone=len(world.cells) == 2),
        Design(dict.fromkeys(world.cells, first), prompts),
    )
    spent = costs.between(Design({}, 0), design)
    for _ in range(30):
        look = decide(
            plan,
            world.read(design, plan.level),
            design,
            costs,
            most_prompts=most,
            seconds=spent,
            budget=budget,
        )
        plan = dataclasses.replace(plan, taken=(*plan.taken, look))
        if look.after is None:
            return plan, spent
        spent += costs.between(design, look.after)
        design = look.after
    raise AssertionError("it does not end")


def sizes(plan: Round) -> list[tuple[int, int]]:
    return [(look.design.most_seeds, look.design.prompts) for look in plan.taken]


def test_images_alone_are_added_where_trainings_do_not_scatter() -> None:
    plan, _ = run(ImageWorld.draw(1, [0.0] * 4, images=0.3, prompts=0.02), ".06")
    seeds = [seeds for seeds, _ in sizes(plan)]
    assert seeds[:2] == [3, 3] and max(seeds) <= 5
    assert plan.stopped == "every half-width is at most 0.06"
    assert plan.taken[-1].widest <= 0.06


def test_seeds_come_first_where_trainings_scatter() -> None:
    plan, _ = run(ImageWorld.draw(2, [0.0] * 4, trainings=0.06, images=0.2), ".06")
    seeds = [seeds for seeds, _ in sizes(plan)]
    assert seeds[1] == 5 and seeds[2] in (6, 8) and max(p for _, p in sizes(plan)) < 512


def test_a_width_ends_it_at_once() -> None:
    world = ImageWorld.draw(3, [0.0] * 2, images=0.1, prompts=0.01)
    assert sizes(run(world, ".2")[0]) == [(3, 112)]
    assert sizes(run(world, ".5", first=2, prompts=16)[0]) == [(2, 16)]


def test_it_begins_with_a_pilot_unless_words_say_otherwise() -> None:
    assert begin_small(".05", 3, 56, 2, ()) == (2, 16)
    assert begin_small(".05", 3, 56, 1, ()) == (2, 32)
    assert begin_small(".05", 3, 56, 8, ()) == (2, 8), "a few of each split"
    assert begin_small(".05", 3, 4, 2, ()) == (2, 4), "never more than the settings say"
    assert begin_small(".05", 5, 56, 2, {"seeds"}) == (5, 16)
    assert begin_small(".05", 3, 56, 2, {"seeds", "evaluation.prompts"}) == (3, 56)
    assert begin_small("settled", 3, 56, 2, ()) == (3, 56), "a look by claims costs"


def test_outcomes_that_were_not_seen_to_differ_end_nothing() -> None:
    """Two seeds of 16 right images on both sides leave open that one in nine is wrong."""
    y = np.ones((2, 21, 512))
    world = ImageWorld(("c0", "c1"), y, binary=True)
    (reading,) = world.read(Design(dict.fromkeys(world.cells, 2), 16), 0.95)
    assert reading.half < 0.1 and reading.sure_half == pytest.approx(math.log(2 / 0.05) / 32)
    plan, _ = run(world, ".1", first=2, prompts=16)
    assert len(sizes(plan)) > 1 and "too few seeds, or images that differ" in plan.taken[0].reason
    seeds, prompts = sizes(plan)[-1]
    assert seeds * prompts >= math.log(2 / 0.05) / 0.1


def test_settled_cells_get_no_more_seeds_and_stay_settled() -> None:
    plan, _ = run(ImageWorld.draw(4, [0.5, 0.01, 0.02]), "settled", most=None)
    assert plan.level == pytest.approx(0.99) and len(plan.taken) <= 5
    first = plan.taken[0]
    assert "c1" in first.settled and first.after is not None
    assert first.after.seeds["c1"] == 3 and first.after.seeds["c0"] == 5
    assert all("c1" in look.settled for look in plan.taken)


def test_a_budget_buys_the_narrowest_that_it_pays_for() -> None:
    world = ImageWorld.draw(5, [0.0] * 4)
    whole, cost = run(world, ".05")
    part, spent = run(world, ".05", budget=cost / 2)
    assert spent <= cost / 2 and part.taken[-1].widest > 0.05
    assert part.stopped == "the budget does not pay for more"
    assert len(run(world, ".05", budget=1.0)[0].taken) == 1


def test_all_that_there_is_ends_it() -> None:
    plan, _ = run(ImageWorld.draw(6, [0.0] * 2, trainings=0.2), ".01", most=128)
    assert sizes(plan)[-1] == (20, 128)
    assert plan.stopped == "20 seeds and 128 prompts a split are the most"


def test_few_seeds_end_it_by_a_wider_interval() -> None:
    world = ImageWorld.draw(7, [0.0] * 4, images=0.4)
    for seeds in (2, 4, 5):
        design = Design(dict.fromkeys(world.cells, seeds), 64)
        wide = world.read(design, 0.97 if seeds < 5 else 0.95)
        for reading, other in zip(world.read(design, 0.95), wide, strict=True):
            assert reading.sure_half == pytest.approx(other.half)
            assert predict(reading, seeds, 64) == pytest.approx(reading.sure_half, rel=0.02)


def test_a_prediction_is_the_width_that_comes() -> None:
    world = ImageWorld.draw(7, [0.0] * 4, images=0.4)
    now = world.read(Design(dict.fromkeys(world.cells, 8), 112), 0.95)
    then = world.read(Design(dict.fromkeys(world.cells, 8), 448), 0.95)
    for before, after in zip(now, then, strict=True):
        assert predict(before, 8, 112) == pytest.approx(before.half)
        assert predict(before, 8, 448) == pytest.approx(after.half, rel=0.3)


def test_what_is_stored_comes_back() -> None:
    plan, _ = run(ImageWorld.draw(8, [0.3, 0.0]), "settled", most=None)
    history = History().add(plan)
    assert History.read(history.describe()) == history
    assert history.level == plan.level and len(history.claimed()) == 1


def test_one_seed_has_no_look() -> None:
    world = ImageWorld.draw(9, [0.0])
    with pytest.raises(ValueError, match="two or more seeds"):
        run(world, ".05", first=1)


@pytest.mark.parametrize(("sizes", "error"), [((3,), 0.05), ((3, 5), 0.0796), ((3, 5, 8), 0.1052)])
def test_the_error_of_looking_again(sizes: tuple[int, ...], error: float) -> None:
    assert error_of_looks(sizes) == pytest.approx(error, abs=2e-4)
    walks = np.cumsum(np.random.default_rng(0).normal(size=(40_000, 8)), axis=1)
    z = np.stack([walks[:, n - 1] / n**0.5 for n in sizes])
    assert (np.abs(z) > 1.959964).any(axis=0).mean() == pytest.approx(error, abs=0.005)


def test_looks_on_no_more_count_once() -> None:
    assert error_of_looks([5, 3, 5]) == pytest.approx(0.05, abs=1e-4)
    with pytest.raises(ValueError, match="sizes above 0"):
        error_of_looks([])


# Sweeps of k levels: standard deviation of trainings (images have .5), and the half-width
SCORES = [
    (4, 0.0, ".2"),
    (4, 0.07, ".2"),
    (4, 0.07, ".12"),
    (2, 0.07, ".2"),
    (1, 0.07, ".2"),
    (1, 0.07, ".12"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "trainings", "until"), SCORES)
@pytest.mark.parametrize("first", [(2, 16), (3, 56)])
def test_intervals_hold_where_a_width_ended_it(
    levels: int, trainings: float, until: str, first: tuple[int, int]
) -> None:
    """From the pilot on, and from the first look of a command that names it."""
    misses = 0
    for seed in range(SWEEPS):
        world = ImageWorld.draw(seed, [0.0] * levels, trainings, size=(21, 512), splits=2)
        costs = dataclasses.replace(COSTS, splits=2)
        last = run(world, until, *first, most=256, costs=costs)[0].taken[-1]
        misses += any(not r["low"] <= 0 <= r["high"] for r in last.readings)
    print("family wise error", misses / SWEEPS)
    assert misses / SWEEPS <= 0.06


# Share of right images of the control that a level gets wrong, images that are drawn anew
OUTCOMES = [(1, 0.0, 0.03), (1, 0.03, 0.0), (4, 0.02, 0.02), (4, 0.03, 0.0), (4, 0.0, 0.1)]


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "worse", "drawn"), OUTCOMES)
@pytest.mark.parametrize("until", [".1", ".03"])
def test_intervals_hold_where_few_outcomes_differ(
    levels: int, worse: float, drawn: float, until: str
) -> None:
    misses = 0
    for seed in range(SWEEPS):
        rng, size = np.random.default_rng(seed), (levels + 1, 21, 512)
        share = np.broadcast_to(rng.beta(6, 0.5, (1, 1, 512)), size)
        right = np.broadcast_to(rng.random((1, 21, 512)), size) < share
        right = np.where(rng.random(size) < drawn, rng.random(size) < share, right)
        right[1:] &= rng.random((levels, 21, 512)) >= worse
        cells = tuple(f"c{i}" for i in range(levels + 1))
        world = ImageWorld(cells, right.astype(float), splits=2, binary=True)
        costs = dataclasses.replace(COSTS, splits=2)
        last = run(world, until, 2, 16, most=256, costs=costs)[0].taken[-1]
        true = -worse * 6 / 6.5
        misses += any(abs(r["mean"] - true) > r["half"] for r in last.readings)
    print("family wise error", misses / SWEEPS)
    assert misses / SWEEPS <= 0.06
