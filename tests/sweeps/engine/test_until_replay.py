"""until= replayed on finished trials of many seeds, by the engine's own decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks.until import count_prompts, count_seeds, replay, replay_sweep
from helpers.image_results import SUCCESS, make_results
from helpers.image_worlds import ImageWorld

from reports.image_tables import keep_first
from reports.judging import judge
from reports.results import SweepResults
from sweeps.engine.designs import Costs, Design, Reading
from sweeps.engine.looks import Round, plan_stages

COSTS = Costs(training=30.0, image=0.5, start=1.0, splits=1, measured=True)
NAMES = ("a", "b", "c")


def outcomes(seeds: int = 8, prompts: int = 80) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    share = rng.beta(6, 1, (1, prompts))
    first = rng.random((seeds, prompts)) < share
    return {
        name: np.where(
            rng.random((seeds, prompts)) < 0.05, rng.random((seeds, prompts)) < share, first
        )
        for name in NAMES
    }


@pytest.fixture(scope="module")
def results() -> SweepResults:
    tables = {name: {"success": table.astype(float)} for name, table in outcomes().items()}
    return make_results(tables, "a", SUCCESS)


def test_a_replay_is_what_the_engine_does_on_the_same_images() -> None:
    """Each look reads what the one before asked for, and costs are the engine's sum."""
    world = ImageWorld.draw(2, [0.0, 0.0], images=0.3, size=(21, 512))
    asked: list[Design] = []

    def read(design: Design, level: float) -> list[Reading]:
        asked.append(design)
        return world.read(design, level)

    start = Design(dict.fromkeys(world.cells, 2), 16)
    found = replay(Round(".06", plan_stages(2)), start, read, COSTS, seeds=21, prompts=512)
    taken = found.round.taken
    assert [look.design for look in taken] == asked and asked[0] == start
    assert [look.after for look in taken[:-1]] == asked[1:] and taken[-1].after is None
    designs = [Design({}, 0), *asked]
    steps = zip(designs, designs[1:], strict=False)
    assert found.seconds == pytest.approx(sum(COSTS.between(*pair) for pair in steps))
    assert not found.beyond and found.widest <= 0.06 and found.design == asked[-1]


@pytest.mark.parametrize(
    ("seeds", "prompts", "most", "lacks"),
    [
        (21, 40, 512, "prompts of a split, of which the trials have 40"),
        (3, 40, 40, "of which 3 have"),
    ],
)
def test_what_these_trials_lack_is_said(seeds: int, prompts: int, most: int, lacks: str) -> None:
    world = ImageWorld.draw(2, [0.0, 0.0], size=(21, 512))

    def read(design: Design, level: float) -> list[Reading]:
        assert design.most_seeds <= seeds and design.prompts <= prompts
        return world.read(design, level)

    found = replay(
        Round(".03", plan_stages(2)),
        Design(dict.fromkeys(world.cells, 2), 16),
        read,
        COSTS,
        seeds=seeds,
        prompts=prompts,
        most_prompts=most,
    )
    assert lacks in found.beyond and found.round.taken[-1].after is not None


def test_trials_are_cut_to_the_first_seeds_and_prompts(results: SweepResults) -> None:
    tables = outcomes()
    cut = keep_first(results, {"a": 4, "b": 4, "c": 2}, 20)
    trials = {c.name: {s: len(t.samples.ids) for s, t in c.trials.items()} for c in cut.cells}  # type: ignore[union-attr]
    full = dict.fromkeys(range(4), 20)
    assert trials == {"a": full, "b": full, "c": dict.fromkeys(range(2), 20)}
    assert cut.seeds == [0, 1, 2, 3] and [*cut.seeds_of("c")] == [0, 1]
    mean = cut.cells[1].trials[3].metrics["success"]
    assert mean == pytest.approx(tables["b"][3, :20].mean()), "the logged mean is that of these"
    # What stands for the whole sweep is as it was
    assert results.cells[1].trials[3].metrics["success"] == pytest.approx(tables["b"][3].mean())
    assert len(results.cells[1].trials[3].samples.ids) == 80  # type: ignore[union-attr]
    assert not judge(cut, SUCCESS).why


def test_a_finished_sweep_is_replayed(results: SweepResults) -> None:
    assert count_seeds(results) == 8 and count_prompts(results) == (80, 1)
    found = replay_sweep(results, "0.1", 2, 16, costs=COSTS)
    first, last = found.round.taken[0], found.round.taken[-1]
    assert first.design == Design(dict.fromkeys(NAMES, 2), 16)
    names = keep_first(results, last.design.seeds, last.design.prompts)
    shown = {v.cell: v.half for v in judge(names, SUCCESS).levels}
    assert {r["cell"]: r["half"] for r in last.readings} == pytest.approx(shown)
    assert not found.beyond and max(shown.values()) <= 0.1
    whole = COSTS.between(Design({}, 0), Design(dict.fromkeys(NAMES, 8), 80))
    assert found.seconds < whole


def test_a_seed_that_lacks_a_cell_does_not_count(results: SweepResults) -> None:
    def without(seeds: Sequence[int]) -> int:
        cut = keep_first(results, dict.fromkeys(NAMES, 8), 80)
        for seed in seeds:
            del cut.cells[1].trials[seed]
        return count_seeds(cut)

    assert (without([]), without([5]), without([2, 7])) == (8, 5, 2)
