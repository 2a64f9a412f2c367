"""``mode=path``: from the control to a cell, the largest gain first, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from conf.schema import Run
from sweeps.command import main
from sweeps.engine.errors import PlanError
from sweeps.engine.path import AblationPath, plan_path
from sweeps.engine.resolve import resolve
from sweeps.gate_start import SWEEP as THREE
from sweeps.released import SWEEP as WITHIN
from sweeps.sweep import Factor, Sweep

GAINS = {"bias": 0.02, "width": 0.08, "stage": 0.04, "threshold": 0.01}
SWEEP = replace(
    THREE,
    factors=[
        Factor("method.gate.bias", [0.0, 2.0]),
        Factor("method.gate.width", [32, 128]),
        Factor("method.gate.stage", ["mid", "all"]),
        Factor("method.gate.threshold", [0.4, 0.5]),
    ],
    control={
        "method.gate.bias": 2.0,
        "method.gate.width": 128,
        "method.gate.stage": "mid",
        "method.gate.threshold": 0.5,
    },
)
TO = "bias=0.0, width=32, stage=all, threshold=0.4"


def changed(values: Mapping[str, Any]) -> set[str]:
    control = SWEEP.control
    return {key.rpartition(".")[2] for key in control if values[key] != control[key]}


def gain(values: Mapping[str, Any]) -> float:
    return 0.5 + sum(GAINS[name] for name in changed(values))


def path(sweep: Sweep = SWEEP) -> AblationPath:
    return plan_path(sweep, TO, "train")


def means(ablation: AblationPath, known: int | None = None) -> dict[str, float]:
    """Of the cells of ``ablation`` as far as they are known from each other."""
    found: dict[str, float] = {}
    for _ in range(10):
        for cell in ablation.cells(found)[:known]:
            found[cell.text] = gain(cell.values)
    return found


def test_steps_follow_the_largest_gain() -> None:
    ablation = path()
    first = ablation.cells({})
    assert [len(changed(cell.values)) for cell in first] == [4, 3, 3, 3, 3, 1, 1, 1, 1]
    every = ablation.cells(means(ablation))
    pairs = [changed(cell.values) for cell in every if len(changed(cell.values)) == 2]
    assert all("width" in pair for pair in pairs) and len(pairs) == 3
    threes = [changed(cell.values) for cell in every if len(changed(cell.values)) == 3]
    assert len(threes) == 4 and len(every) + 1 == ablation.most_cells == 13
    lower = path(replace(SWEEP, headline="fid"))
    pairs = [changed(cell.values) for cell in lower.cells(means(lower))]
    assert all("threshold" in pair for pair in pairs if len(pair) == 2), "less is better"


def test_the_next_step_waits_for_all_of_the_last() -> None:
    ablation = path()
    assert len(ablation.cells(means(ablation, known=8))) == 9
    undefined = means(ablation) | {ablation.cell(["method.gate.bias"]).text: float("nan")}
    assert len(ablation.cells(undefined)) == 9


def test_combinations_that_are_left_out_are_no_steps() -> None:
    gap = {"method.gate.width": 32, "method.gate.stage": "mid", "method.gate.bias": 2.0}
    sweep = replace(SWEEP, without=[gap])
    ablation = path(sweep)
    found = [changed(cell.values) for cell in ablation.cells(means(ablation))]
    assert {"width"} not in found and {"stage"} in found and len(found[0]) == 4


def run(trainer: Any, output: Path, *words: str) -> int:
    given = ["mode=path", f"to={TO}", f"output={output}", "seeds=2", *words]
    return main(SWEEP, given, train=trainer)


def measure(config: Run, metrics: dict[str, float]) -> dict[str, float]:
    gate = config.method.gate
    if config.method.name == "untouched":
        return metrics
    values = {f"method.gate.{name}": getattr(gate, name) for name in GAINS}
    return {**metrics, "eval/success": gain(values)}


def stop_at(number: int) -> Callable[[Run, int], None]:
    def stop(config: Run, count: int) -> None:
        if count == number:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("stopped", [None, 3, 21, 25])
def test_a_path_runs_what_it_needs_and_goes_on(
    output: Path, trainer: Any, reports: list[str], stopped: int | None
) -> None:
    trainer.change = measure
    if stopped:
        trainer.before = stop_at(stopped)
        assert run(trainer, output) == 130
        trainer.before = lambda config, count: None
        del trainer.ran[-1]
    assert run(trainer, output) == 0
    assert len(trainer.ran) == 2 * (13 + 1)
    assert run(trainer, output) == 0 and len(trainer.ran) == 28
    trials = {p.name for p in (output / "gate_start" / "trials").iterdir()}
    assert len(trials) == 28
    pairs = [set_of(r) for r in trainer.ran if len(set_of(r)) == 2]
    assert pairs and all("width" in pair for pair in pairs)


def set_of(config: Run) -> set[str]:
    gate = config.method.gate
    if config.method.name == "untouched":
        return set()
    return changed({f"method.gate.{name}": getattr(gate, name) for name in GAINS})


@pytest.mark.parametrize(
    ("sweep", "words", "message"),
    [
        (SWEEP, ["mode=path"], "expected to=CELL, a cell of gate_start as --plan prints it, such"),
        (SWEEP, ["mode=path", "to=x"], "to=x: expected bias=…, width=…"),
        (SWEEP, [f"to={TO}"], "to is for mode=path, but mode=grid"),
        (
            SWEEP,
            ["mode=path", "to=bias=0.0, width=128, stage=mid, threshold=0.5"],
            "in 1 factor: a path puts 2 changes or more",
        ),
        (
            SWEEP,
            ["mode=path", "to=bias=2.0, width=128, stage=mid, threshold=0.5"],
            "differs from the control in nothing",
        ),
        (WITHIN, ["mode=path"], "one for each recipe; use mode=grid"),
    ],
)
def test_nonsense_is_refused_in_a_line(sweep: Sweep, words: list[str], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        resolve(sweep, conf.load(words, sweep.preset), words)
    assert message in str(caught.value) and "\n" not in str(caught.value)
