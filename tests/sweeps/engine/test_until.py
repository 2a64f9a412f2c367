"""Sweeps with until=: looks, what they add to finished trials, and what is left when they are
stopped at any moment. The engine is real, images are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.extending import Extending
from helpers.image_worlds import ImageWorld
from helpers.sweep_states import CELLS, SWEEP, runs, trials

from sweeps.command import main
from sweeps.engine import until
from sweeps.engine.designs import Costs
from sweeps.engine.queue import TrialQueue

Command = Callable[..., int]
LEVELS = ["threshold=0.5", "threshold=0.4", "threshold=0.6"]
# Seeds and prompts of a split at the looks of until=.18 that nothing stops
UNINTERRUPTED = [(3, 28), (3, 52), (5, 52)]


@pytest.fixture
def extending() -> Extending:
    return Extending()


@pytest.fixture
def world() -> ImageWorld:
    return ImageWorld.draw(0, [0.0, 0.4], cells=LEVELS, splits=2, size=(21, 1024))


@pytest.fixture
def looked() -> list[tuple[int, int]]:
    """Seeds and prompts of a split at each look."""
    return []


@pytest.fixture
def command(
    output: Path,
    trainer: Any,
    reports: Any,
    extending: Extending,
    world: ImageWorld,
    looked: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    train = extending.train(trainer)

    def read(plan: Any, level: float) -> Any:
        design = plan.request.design
        done = {t.user_attrs["cell"]: 0 for t in plan.queue.trials("COMPLETE")}
        for key in plan.done():
            done[key[0]] += 1
        assert all(done[cell] == count for cell, count in design.seeds.items()), "it is whole"
        looked.append((design.most_seeds, design.prompts))
        return world.read(design, level), ""

    monkeypatch.setattr(until, "read_comparisons", read)

    def run(*words: str, first: tuple[str, ...] = ("seeds=3", "evaluation.prompts=28")) -> int:
        given = {word.partition("=")[0] for word in words}
        more = [word for word in first if word.partition("=")[0] not in given]
        return main(SWEEP, [f"output={output}", *more, *words], train=train)

    return run


def stored(output: Path) -> dict[str, Any]:
    return json.loads((output / "threshold" / "looks.json").read_text())


@pytest.mark.usefixtures("dear_trainings")
def test_prompts_come_first(
    command: Command,
    extending: Extending,
    output: Path,
    looked: list[tuple[int, int]],
    capsys: pytest.CaptureFixture[str],
    mlflow: Any,
) -> None:
    assert command("until=.18") == 0
    assert looked[0] == (3, 28) and looked[1][0] == 3 and looked[1][1] > 28
    said = capsys.readouterr().out
    assert "look 1 (3 seeds, 28 prompts of each split): widest ±" in said
    assert "every half-width is at most 0.18" in said
    # Finished trials got more prompts, none was trained twice
    first = [(name, seed) for name, seed, _, more in extending.ran if not more]
    assert len(first) == len(set(first)) == len(CELLS) * looked[-1][0]
    assert any(more for *_, more in extending.ran)
    told = stored(output)["rounds"][0]
    assert told["planned"] == [3, 5, 8, 12, 20] and told["stopped"]
    assert [look["design"]["prompts"] for look in told["taken"]] == [p for _, p in looked]
    tags = mlflow.get_experiment_by_name("threshold").tags
    assert json.loads(tags["seeds"]) == list(range(looked[-1][0]))
    assert len(json.loads(tags["looks"])["rounds"][0]["taken"]) == len(looked)
    # Nothing is done twice, and a narrower width goes on from there
    ran, before = len(extending.ran), len(looked)
    assert command("until=.18") == 0 and (len(extending.ran), len(looked)) == (ran, before)
    assert command("until=.1") == 0 and len(extending.ran) > ran
    assert looked[before][0] == looked[before - 1][0] and len(stored(output)["rounds"]) == 2


def test_it_begins_with_a_pilot_and_goes_on_from_more(
    command: Command, extending: Extending, output: Path, looked: list[tuple[int, int]]
) -> None:
    assert command("until=1", "evaluation.splits=[val,heldout]", first=()) == 0
    assert looked == [(2, 16)] and stored(output)["rounds"][0]["planned"][0] == 2
    assert {more for *_, more in extending.ran[: 2 * len(CELLS)]} == {False}
    # What a plain command measured is not left out
    assert command("seeds=3", "evaluation.prompts=28", first=()) == 0
    before = len(looked)
    assert command("until=.29", first=()) == 0 and looked[before] == (3, 28)


@pytest.fixture
def dear_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the load of this machine, prompts come before seeds."""
    costs = Costs(training=295.0, image=1.0, start=10.0, splits=2, measured=True)
    monkeypatch.setattr(until, "measure_costs", lambda *_: costs)


STOPS = ["before", "told", "shown", "queued", "begin", "pending"]


@pytest.mark.usefixtures("dear_trainings")
@pytest.mark.parametrize("stop", STOPS)
def test_stopped_at_any_moment_the_same_looks_are_taken(
    command: Command,
    extending: Extending,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    looked: list[tuple[int, int]],
    stop: str,
) -> None:
    """At the first look, and in what it asks for."""
    remember, extend = TrialQueue.remember, until.queue_extensions

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def remember_and_stop(queue: TrialQueue, key: str, value: Any) -> None:
        remember(queue, key, value)
        if key == "looks" and value["rounds"][-1]["taken"]:
            raise KeyboardInterrupt

    def extend_and_stop(plan: Any) -> None:
        if extend(plan):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stop == "before":
            patch.setattr(until, "decide", interrupt)
        elif stop == "told":
            patch.setattr(TrialQueue, "remember", remember_and_stop)
        elif stop == "shown":
            patch.setattr(until.UntilPlan, "_queue_missing", interrupt)
        elif stop == "queued":
            patch.setattr(until, "queue_extensions", extend_and_stop)
        else:
            extending.stop_after = stop
            if stop == "begin":  # Of the trial that follows the first look
                extending.stop_after, extending.stop_from = "begin", 3 * len(CELLS)
        assert command("until=.18") == 130
    extending.stop_after = ""
    assert command("until=.18") == 0
    told = [look["design"] for look in stored(output)["rounds"][0]["taken"]]
    assert [(max(d["seeds"].values()), d["prompts"]) for d in told] == UNINTERRUPTED
    assert list(dict.fromkeys(looked)) == UNINTERRUPTED, "and none on other data"
    done = [t.user_attrs for t in trials(output) if t.state.name == "COMPLETE"]
    last = {(facts["cell"], facts["seed"]): facts["prompts"] for facts in done}
    assert last == {(c, s): UNINTERRUPTED[-1][1] for c in CELLS for s in range(5)}


def test_claims_have_their_share_of_the_error_and_settled_cells_get_no_more_seeds(
    command: Command,
    extending: Extending,
    output: Path,
    mlflow: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("until=settled", "data.eval_images=28") == 0
    told = stored(output)["rounds"][0]
    assert told["level"] == pytest.approx(0.99) and len(told["taken"]) == 5
    assert told["stopped"] == "none of 5 planned looks is left"
    assert told["taken"][1]["settled"] == ["threshold=0.6"]
    seeds = told["taken"][-1]["design"]["seeds"]
    assert seeds == {CELLS[0]: 20, "threshold=0.4": 20, "threshold=0.5": 20, "threshold=0.6": 5}
    assert len(extending.ran) == 65
    tags = mlflow.get_experiment_by_name("threshold").tags
    assert json.loads(tags["cell_seeds"]) == {"threshold=0.6": 5}
    assert json.loads(tags["looks"])["level"] == told["level"]
    # What was dropped is not missing
    assert "left to run" not in capsys.readouterr().out
    cells = {r.data.tags["cell"]: r.info.status for r in runs(mlflow, "cell")}
    assert set(cells.values()) == {"FINISHED"}


def test_a_budget_ends_it_and_a_larger_one_goes_on(
    command: Command, extending: Extending, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each trial takes two seconds, half a second of it for images
    assert command("until=.18", "budget=15s") == 0
    assert "budget=15s is spent" in capsys.readouterr().out and len(extending.ran) == 8
    assert command("until=.18", "budget=25s") == 0
    assert "the budget does not pay for more" in capsys.readouterr().out
    assert len(extending.ran) == 12 and len(stored(output)["rounds"][0]["taken"]) == 1
    assert command("until=.18", "budget=1h") == 0 and len(extending.ran) > 12
    assert [look["design"]["prompts"] for look in stored(output)["rounds"][0]["taken"]][0] == 28
    assert "every half-width is at most 0.18" in capsys.readouterr().out


def test_a_primary_contrast_is_fixed_before_trials_finish(
    command: Command, output: Path, mlflow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("seeds=2", "primary=threshold=0.6") == 0
    assert mlflow.get_experiment_by_name("threshold").tags["primary"] == "threshold=0.6"
    assert command("seeds=2") == 0, "it stays"
    assert command("seeds=2", "primary=threshold=0.4") == 2
    assert "fixed before trials finish, and it is threshold=0.6" in capsys.readouterr().err
    # Looks are about it alone
    assert command("until=settled") == 0
    told = stored(output)["rounds"][-1]
    assert told["stopped"] == "every comparison is settled"
    assert len(told["taken"]) == 2 and told["taken"][-1]["settled"] == ["threshold=0.6"]


def test_a_second_look_at_a_finished_sweep_says_what_it_costs(
    command: Command, output: Path, capsys: pytest.CaptureFixture[str], mlflow: Any
) -> None:
    assert command("seeds=3") == 0 and command("seeds=3") == 0
    assert "look 2" not in capsys.readouterr().out
    assert command("seeds=5", "--plan") == 0
    planned = " ".join(capsys.readouterr().out.split())
    assert command("seeds=5") == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (planned, said):
        assert "look 2 at the same trials and more" in text
        assert "(3 seeds × 28 prompts → 5 seeds × 28 prompts)" in text
        assert "in 8% of sweeps, not 5 %" in text
    assert command("seeds=5", "evaluation.prompts=56") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "→ 5 seeds × 28 prompts → 5 seeds × 56 prompts)" in said
    # A rule that comes later knows of them
    assert command("until=settled", "seeds=5") == 0
    told = stored(output)["rounds"][-1]
    assert told["spent"] == 3 and told["planned"] == [5, 8, 12, 20]
    assert told["level"] == pytest.approx(1 - 0.05 / 7)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["until=-1"], "above 0"),
        (["until=5%"], "above 0, such as until=.05, or settled"),
        (["until=setled"], "or settled; did you mean settled?"),
        (["until=.05", "mode=search"], "use mode=grid"),
        (["until=.05", "seeds=1"], "give two or more"),
        (["until=.05", "headline=fid"], "no value of each; choose another headline: success"),
        (["budget=2h"], "give until=, too"),
        (["until=.05", "budget=2"], "such as 90s, 30min, 2h"),
        (["until=.05", "budget=0s"], "such as 90s, 30min, 2h"),
        (["primary=threshold=0.9"], "expected one of threshold=0.4"),
        (["primary=treshold=0.6"], "did you mean threshold=0.6?"),
        (["primary=threshold=0.4", "mode=search"], "fixes no comparison"),
    ],
)
def test_nonsense_is_refused_in_a_line(
    command: Command, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert command(*words) == 2
    said = capsys.readouterr().err.strip()
    assert reason in said and "\n" not in said
