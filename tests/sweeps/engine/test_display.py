"""Estimates, lines and the final table."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from lightning_modules.training.progress import format_duration
from sweeps import gate_start
from sweeps.engine.display import Pace, say, summary_table, view
from sweeps.sweep import REFERENCE, Factor, Metric, Sweep

SWEEP = Sweep(
    name="threshold",
    question="?",
    origin="a test",
    factors=[Factor("method.gate.threshold", [0.4, 0.5, 0.6])],
    baseline={"method.gate.threshold": 0.5},
    metrics=[Metric("success", "Success"), Metric("fid", "FID", "lower")],
    headline="success",
)


def console(terminal: bool = False, width: int = 160) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=width), stream


def test_the_rest_is_estimated_from_finished_trials_of_the_same_kind() -> None:
    pace = Pace()
    assert pace.left(["reference", "trained"]) is None
    pace.add("reference", 4.0)
    assert pace.left(["reference", "trained"]) == 8.0
    pace.add("trained", 10.0)
    pace.add("trained", 14.0)
    assert pace.left(["reference", "trained"]) == 16.0
    assert pace.left(["trained"], [("trained", 5.0, 0.2)]) == 19.0
    assert pace.left([], [("trained", 50.0, 0.9)]) == 0.0
    pace.add("shared", 2.0)
    assert pace.left(["shared", "shared", "trained"]) == 16.0


def test_trials_that_run_at_once_share_the_time_but_none_is_quicker_than_itself() -> None:
    pace = Pace(2)
    pace.add("trained", 10.0)
    assert pace.left(["trained"] * 4) == 20.0
    assert pace.left([], [("trained", 2.0, 0.2), ("trained", 9.0, 0.9)]) == 8.0


def test_the_first_trial_tells_by_what_is_done_of_it() -> None:
    assert Pace().left(["trained"] * 2, [("trained", 5.0, 0.01)]) is None
    assert Pace().left(["trained"] * 2, [("trained", 5.0, 0.5)]) == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.2, "8 s"), (89, "89 s"), (200, "3 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def job(cell: str = "threshold=0.5", seed: int = 1) -> Any:
    return SimpleNamespace(key=(cell, seed), name=f"{cell}, seed {seed}", kind="trained")


@pytest.mark.parametrize("terminal", [False, True])
def test_both_views_say_the_same_when_a_trial_ends(terminal: bool) -> None:
    target, stream = console(terminal)
    with view(
        target, Pace(), 1, {("threshold=0.5", 1): "trained", ("threshold=0.6", 1): "trained"}
    ) as shown:
        shown.start(job())
        for step in range(3):
            shown.progress(job(), f"training: step {step}/3", step / 6)
        shown.finish(job(), "success 0.500", 20.0)
    assert "[2/3] threshold=0.5, seed 1: success 0.500 (20 s), about 20 s left" in stream.getvalue()
    if not terminal:
        assert stream.getvalue().count("training") == 1


def test_the_table_shows_every_trial_that_runs() -> None:
    target, stream = console(True)
    with view(target, Pace(2), 0, {("threshold=0.6", 1): "trained"}) as shown:
        shown.start(job(), "gpu 0")
        shown.start(job("threshold=[0.6]"), "gpu 1,2")
        shown.progress(job(), "training: step 20/60, loss 0.0812, 0.10 s a step, 4 s left", 0.3)
        say(target, shown.table())  # type: ignore[attr-defined]
    lines = stream.getvalue().splitlines()
    row = next(line for line in lines if "gpu 0" in line)
    assert (
        "threshold=0.5, seed 1" in row
        and "training: step 20/60, loss 0.0812" in row
        and "30%" in row
    )
    assert any(
        "gpu 1,2" in line and "threshold=[0.6]" in line and "starting" in line for line in lines
    )
    assert any("trial 2 of 3" in line for line in lines)


def test_a_closed_pipe_does_not_stop_the_sweep() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    say(Console(file=Closed()), "a line")


def test_the_table_pairs_seeds() -> None:
    values = {
        "threshold=0.4": {0: {"success": 0.4, "fid": 9.0}, 1: {"success": 0.5, "fid": 11.0}},
        "threshold=0.5": {
            0: {"success": 0.3},
            1: {"success": 0.6},
            2: {"success": 0.9},
            7: {"success": 50.0},
        },
        "threshold=0.6": {2: {"success": float("nan")}},
    }
    target, stream = console()
    say(target, summary_table(SWEEP, SWEEP.cells(), [0, 1, 2], values, 160))
    rows = [
        [part.strip() for part in line.split("│")]
        for line in stream.getvalue().splitlines()
        if "│" in line
    ]
    lines = {row[1]: row[2:-1] for row in rows}
    assert lines["threshold=0.5"] == ["3", "0.600 ± 0.745", "–", "–"]
    assert lines["threshold=0.4"] == ["2", "0.450 ± 0.635", "+0.000 ± 1.271", "10.000"]
    assert lines["threshold=0.6"] == ["0", "–", "–", "–"] and lines[REFERENCE] == [
        "0",
        "–",
        "–",
        "–",
    ]


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    values = {"threshold=0.5": {0: {"success": 0.3, "fid": 3.0}}}
    for width, shown in ((79, False), (80, True)):
        target, stream = console(width=width)
        say(target, summary_table(SWEEP, SWEEP.cells(), [0], values, width))
        assert ("FID" in stream.getvalue()) == shown and "…" not in stream.getvalue()


def test_long_names_and_large_numbers_fit() -> None:
    sweep = replace(
        gate_start.SWEEP,
        metrics=[Metric("success", "Success"), Metric("parameters", "Trained parameters", "lower")],
    )
    values = {
        cell.text: {0: {"success": 0.5, "parameters": 465921.0}}
        for cell in sweep.cells()
        if not cell.reference
    }
    for width in (80, 160):
        target, stream = console(width=width)
        say(target, summary_table(sweep, sweep.cells(), [0], values, width))
        text = stream.getvalue()
        assert (
            "…" not in text
            and text.count("0.500") == len(values)
            and ("465921 │" in text) == (width == 160)
            and "465921." not in text
        )
