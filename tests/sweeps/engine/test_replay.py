"""What pruning would have done on finished sweeps, and how important factors are called."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.sweep_states import SWEEP

from conf.schema import Run
from sweeps.command import main
from sweeps.engine.importance import FEWEST, measure_importance
from sweeps.engine.replay import Candidate, replay, replay_all

CONTROL = Candidate("control", (0.50, 0.52, 0.48, 0.50, 0.51, 0.49), seconds=(10.0,) * 6)


def cell(name: str, mean: float, losses: tuple[float, ...] = ()) -> Candidate:
    """With six seeds of ten seconds, of which eight train."""
    values = tuple(mean + value - 0.5 for value in CONTROL.values)
    steps = tuple((10 * (step + 1), loss) for step, loss in enumerate(losses))
    return Candidate(name, values, steps, CONTROL.seconds, 8.0, 2.0)


def test_seeds_drop_what_loses_four_times_and_never_the_winner_by_every_seed() -> None:
    cells = [cell("good", 0.6), cell("bad", 0.4), cell("worst", 0.3)]
    none, seeds, training = replay_all(cells, CONTROL, "higher")
    assert none.dropped == () and none.trials == 0 == none.seconds and none.best == "good"
    assert seeds.dropped == ("bad", "worst") and seeds.trials == 4 and seeds.seconds == 40
    assert seeds.best == "good" and seeds.loss == 0 == seeds.orders_lost
    assert training.dropped == (), "no training logged a loss"
    assert replay(cells, CONTROL, "lower", "seeds").dropped == ("good",), "after the control"


def test_losses_drop_a_training_of_the_winner_too() -> None:
    """Three candidates and the control train to the end before any is compared."""
    low, high = (0.5, 0.4, 0.3, 0.2), (0.9, 0.8, 0.7, 0.6)
    first = [cell(f"first{i}", 0.5 + i / 100, low) for i in range(3)]
    cells = [*first, cell("winner", 0.9, high), cell("last", 0.4, low)]
    outcome = replay(cells, CONTROL, "higher", "training")
    assert outcome.dropped == ("winner",) and outcome.best == "first2"
    assert outcome.loss == pytest.approx(0.38) and outcome.trials == 6
    # Asked at step 10 it ends at step 20 of 40: half of its training, what follows, five seeds
    assert outcome.seconds == pytest.approx(0.5 * 8 + 2 + 5 * 10)
    assert replay(cells, CONTROL, "lower", "training").dropped == ("winner",), "a loss is a loss"
    assert 0 < replay_all(cells, CONTROL, "higher")[2].orders_lost < 20


def test_too_few_seeds_or_losses_drop_nothing() -> None:
    few = [Candidate(c.name, c.values[:4]) for c in (cell("a", 0.1), cell("b", 0.2))]
    control = Candidate("control", CONTROL.values[:4])
    assert replay(few, control, "higher", "seeds").dropped == ()
    two = [cell(f"first{i}", 0.5, (0.2, 0.1)) for i in range(4)] + [cell("x", 0.5, (9.0, 8.0))]
    assert replay(two, CONTROL, "higher", "training").dropped == ()


@pytest.mark.parametrize("mode", ["grid", "search"])
def test_a_replay_trains_nothing_and_tells_the_report(
    output: Path, trainer: Any, mlflow: Any, reports: list[str], capsys: Any, mode: str
) -> None:
    def train(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
        loss = 1 - config.method.gate.threshold
        lines = [f"{step} {loss:.4f}\n" for step in (10, 20, 30, 40)]
        (folder / "losses.txt").write_text("".join(lines))
        return trainer(config, folder, tracking, progress)

    words = [f"output={output}", "seeds=5"]
    words += ["mode=search", "candidates=4", "sampler=random"] if mode == "search" else []
    assert main(SWEEP, [*words, "--replay-pruning"], train=train) == 2
    assert "run it first, without --replay-pruning" in capsys.readouterr().err
    assert main(SWEEP, words, train=train) == 0
    ran, name = len(trainer.ran), "threshold-search" if mode == "search" else "threshold"
    assert main(SWEEP, [*words, "--replay-pruning"], train=train) == 0
    printed = capsys.readouterr().out
    assert len(trainer.ran) == ran and "pruning replayed on" in printed
    told = json.loads(mlflow.get_experiment_by_name(name).tags["pruning"])
    assert told["candidates"] == (4 if mode == "search" else 2) and told["left_out"] == 0
    assert [one["prune"] for one in told["outcomes"]] == ["none", "seeds", "training"]
    seeds = told["outcomes"][1]
    assert seeds["dropped"] >= 1 and seeds["trials"] == seeds["dropped"]
    assert seeds["seconds"] == 2.0 * seeds["trials"] and seeds["loss"] == 0
    assert told["seconds"] == 2.0 * told["trials"] and told["with_losses"] == told["candidates"]
    assert reports[-1] == name and len(reports) == 2, "written again, with the table"


def test_a_replay_of_nothing_comparable_is_refused(
    sweep: Callable[..., int], trainer: Any, capsys: Any
) -> None:
    trainer.change = lambda config, known: {
        key: value for key, value in known.items() if key != "eval/fid" or config.seed
    }
    assert sweep("seeds=2") == 0
    assert sweep("seeds=2", "--replay-pruning", "headline=fid") == 2
    assert sweep("seeds=2", "--replay-pruning", "--remeasure") == 2
    assert "one at a time" in capsys.readouterr().err
    words = ("mode=search", "objectives=[success,fid]", "--replay-pruning")
    assert sweep(*words) == 2 and "only one metric" in capsys.readouterr().err


# ---- Importance


def study_of(count: int, value: Callable[..., tuple[float, ...]], **kind: Any) -> optuna.Study:
    """Random candidates: b is there only where c is "x"."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study, draw = optuna.create_study(sampler=sampler, **kind), random.Random(0)
    for _ in range(count):
        trial = study.ask()
        a, c = trial.suggest_float("a", 0, 1), trial.suggest_categorical("c", ["x", "y"])
        b = trial.suggest_float("b", 1e-4, 1, log=True) if c == "x" else 0.0
        study.tell(trial, value(a, b, draw.random()))
    return study


def of_one(study: optuna.Study) -> dict[str, Any]:
    return measure_importance(study, ["success"])["objectives"][0]


def test_what_the_value_follows_is_important_and_noise_is_not() -> None:
    study = study_of(30, lambda a, b, noise: (a + noise / 20,), direction="maximize")
    study.ask()  # Not finished
    found = of_one(study)
    assert found == of_one(study) and not found["why"]
    assert (found["metric"], found["best"]) == ("success", 5)
    first, *others = found["factors"]
    assert first["key"] == "a" and first["share"] > 0.5 and first["p"] < 0.05
    assert all(one["p"] > 0.05 for one in others)
    known = {one["key"]: one["candidates"] for one in found["factors"]}
    assert known["a"] == 30 == known["c"] and 5 < known["b"] < 25
    assert sum(one["share"] for one in found["factors"]) == pytest.approx(1, abs=1e-3)
    noise = of_one(study_of(30, lambda a, b, noise: (noise,)))
    assert all(one["p"] > 0.05 for one in noise["factors"])


def test_each_objective_has_its_own_importance() -> None:
    study = study_of(16, lambda a, b, noise: (a, a), directions=["maximize", "minimize"])
    first, second = measure_importance(study, ["one", "two"])["objectives"]
    assert first["factors"][0]["key"] == "a" == second["factors"][0]["key"]
    assert first["factors"] != second["factors"], "the best are other candidates"


@pytest.mark.parametrize(
    ("count", "value", "why"),
    [
        (FEWEST - 1, lambda a, b, noise: (a,), "9 measured"),
        (FEWEST, lambda a, b, noise: (1.0,), "10 of 10 are the best alike"),
        (30, lambda a, b, noise: (float(a < 0.9),), "of 30 are the best alike"),
    ],
)
def test_where_nothing_can_be_said_it_says_why(count: int, value: Any, why: str) -> None:
    found = of_one(study_of(count, value, direction="maximize"))
    assert why in found["why"] and found["factors"] == []


def test_a_search_tells_the_report_what_is_important(
    sweep: Callable[..., int], mlflow: Any, capsys: Any
) -> None:
    words = ("mode=search", "candidates=9", "seeds=1", "sampler=random")
    assert sweep(*words) == 0
    assert "importance for success: method.gate.threshold 1.00" in capsys.readouterr().out
    told = json.loads(mlflow.get_experiment_by_name("threshold-search").tags["importance"])
    factors = told["objectives"][0]["factors"]
    assert told["candidates"] == 10 == factors[0]["candidates"]
