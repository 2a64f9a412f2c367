"""Estimates, lines, and the table at the end."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.sweep_states import SWEEP
from rich.console import Console

from lightning_modules.training.progress import format_duration
from reports.statistics import mean_interval
from sweeps.engine.display import LiveDisplay, make_display, show
from sweeps.engine.eta import EtaEstimator
from sweeps.engine.summary import _format, _format_mean, summary_table
from sweeps.gate_start import SWEEP as GATE_START
from sweeps.sweep import UNTOUCHED, Metric


def console(terminal: bool = False, width: int = 160) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=width), stream


def estimator(slots: int = 1, **seconds: list[float]) -> EtaEstimator:
    eta = EtaEstimator(slots)
    for kind, known in seconds.items():
        for second in known:
            eta.add(kind, second)
    return eta


BOTH = {"untrained": [4.0], "trained": [10.0, 14.0]}


@pytest.mark.parametrize(
    ("eta", "waiting", "running", "expected"),
    [
        (estimator(), ["untrained", "trained"], [], None),
        (estimator(untrained=[4.0]), ["untrained", "trained"], [], 8.0),
        (estimator(**BOTH), ["untrained", "trained"], [], 16.0),
        (estimator(**BOTH), ["trained"], [("trained", 5.0, 0.2)], 19.0),
        # One that took longer than the others by its own pace: no "0 s" for minutes
        (estimator(**BOTH), [], [("trained", 45.0, 0.9)], 5.0),
        (estimator(**BOTH), [], [("trained", 30.0, 0.01)], 297.0),
        (estimator(**BOTH, shared=[2.0]), ["shared", "shared", "trained"], [], 16.0),
        # More prompts: as what trains nothing, until one has finished
        (estimator(**BOTH), ["extended"] * 2, [], 8.0),
        (estimator(**BOTH, extended=[1.0]), ["extended"] * 2, [], 2.0),
        # Trials that run at once share the time, but none is quicker than itself
        (estimator(2, trained=[10.0]), ["trained"] * 4, [], 20.0),
        (estimator(2, trained=[10.0]), [], [("trained", 2.0, 0.2), ("trained", 9.0, 0.9)], 8.0),
        # The first trial tells by what is done of it
        (estimator(), ["trained"] * 2, [("trained", 5.0, 0.01)], None),
        (estimator(), ["trained"] * 2, [("trained", 5.0, 0.5)], 25.0),
    ],
)
def test_the_rest_is_estimated_from_trials_of_the_same_kind(
    eta: EtaEstimator, waiting: list[str], running: Any, expected: float | None
) -> None:
    assert eta.remaining(waiting, running) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.2, "8 s"), (89, "89 s"), (200, "3 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def job(cell: str = "threshold=0.5", seed: int = 1) -> Any:
    return SimpleNamespace(key=(cell, seed), name=f"{cell}, seed {seed}", kind="trained")


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_and_table_say_the_same_when_a_trial_ends(terminal: bool) -> None:
    target, stream = console(terminal)
    waiting = {("threshold=0.5", 1): "trained", ("threshold=0.6", 1): "trained"}
    with make_display(target, EtaEstimator(), 1, waiting) as display:
        display.start(job())
        for step in range(3):
            display.progress(job(), f"training: step {step}/3", step / 6)
        display.finish(job(), "success 0.500", 20.0)
    assert "[2/3] threshold=0.5, seed 1: success 0.500 (20 s), about 20 s left" in stream.getvalue()
    if not terminal:
        assert stream.getvalue().count("training") == 1


def test_the_table_shows_every_running_trial() -> None:
    target, stream = console(True)
    with make_display(target, EtaEstimator(2), 0, {("threshold=0.6", 1): "trained"}) as display:
        assert isinstance(display, LiveDisplay)
        display.start(job(), "gpu 0")
        display.start(job("threshold=[0.6]"), "gpu 1,2")
        display.progress(job(), "training: step 20/60, loss 0.0812", 0.3)
        show(target, display.table())
    lines = stream.getvalue().splitlines()

    def line_with(*words: str) -> bool:
        return any(all(word in line for word in words) for line in lines)

    assert line_with("gpu 0", "threshold=0.5, seed 1", "step 20/60, loss 0.0812", "30%")
    assert line_with("gpu 1,2", "threshold=[0.6]", "starting") and line_with("trial 2 of 3")


def test_a_closed_pipe_does_not_stop_the_sweep() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    show(Console(file=Closed()), "a line")


def summary(sweep: Any, seeds: list[int], values: Any, width: int = 160, answer: Any = None) -> str:
    target, stream = console(width=width)
    show(target, summary_table(sweep, sweep.cells(), seeds, values, width, answer))
    return stream.getvalue()


def test_the_summary_pairs_seeds() -> None:
    control = {seed: {"success": value} for seed, value in ((0, 0.3), (1, 0.6), (2, 0.9), (7, 50))}
    values = {
        "threshold=0.4": {0: {"success": 0.4, "fid": 9.0}, 1: {"success": 0.5, "fid": 11.0}},
        "threshold=0.5": control,
        "threshold=0.6": {2: {"success": float("nan")}},
    }
    lines = [line for line in summary(SWEEP, [0, 1, 2], values).splitlines() if "│" in line]
    cells = [[part.strip() for part in line.split("│")] for line in lines]
    rows = {row[1]: row[2:-1] for row in cells}
    assert rows["threshold=0.5"] == ["3", "0.600 ± 0.745", "–", "–"]
    assert rows["threshold=0.4"] == ["2", "0.450 ± 0.635", "+0.000 ± 1.271", "10.000"]
    assert rows["threshold=0.6"] == rows[UNTOUCHED] == ["0", "–", "–", "–"]


def test_the_summary_says_what_the_answer_says() -> None:
    values = {"threshold=0.5": {0: {"success": 0.3, "fid": 3.0}}}
    rows = [
        {"cell": "threshold=0.4", "against": "control", "shift": "+0.015 [−0.003, +0.033]"},
        {"cell": "threshold=0.5", "against": "untouched backbone", "shift": "+0.1", "word": "open"},
    ]
    rows[0]["word"] = "no difference that matters"
    answer = {
        "headline": "success",
        "conclusive": "1 of 2",
        "comparisons": [{"metric": "success", **row} for row in rows],
    }
    text = summary(SWEEP, [0], values, answer=answer)
    line = next(line for line in text.splitlines() if "threshold=0.4" in line)
    shown = [part.strip() for part in line.split("│")[4:6]]
    assert shown == ["+0.015 [−0.003, +0.033]", "no difference that matters"]
    assert "conclusive: 1 of 2" in text and "open" not in text and "FID" in text
    narrow = summary(SWEEP, [0], values, 80, answer=answer)
    assert "FID" not in narrow and "…" not in narrow
    assert "+0.015 [−0.003, +0.033]" in narrow
    assert "corrected" not in text
    share = {"share": 0.3456, "low": 0.2, "high": 0.5}
    answer["corrected"] = {"shares": {"success": {"threshold=0.5": share}}}
    text = summary(SWEEP, [0], values, answer=answer)
    lines = [[part.strip() for part in line.split("│")] for line in text.splitlines()]
    columns = {line[1]: line[4] for line in lines if len(line) > 4}
    assert "corrected" in text
    assert columns["threshold=0.5"] == "0.346" and columns["threshold=0.4"] == "–"
    narrow = summary(SWEEP, [0], values, 80, answer=answer)
    assert "…" not in narrow and "corrected" not in narrow


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    values = {"threshold=0.5": {0: {"success": 0.3, "fid": 3.0}}}
    for width, shown in ((69, False), (70, True)):
        text = summary(SWEEP, [0], values, width)
        assert ("FID" in text) == shown and "…" not in text


@pytest.mark.parametrize("width", [80, 160])
def test_long_names_and_large_numbers_fit(width: int) -> None:
    metrics = [
        Metric("success", "Success"),
        Metric("parameters", "Trained parameters", "lower"),
    ]
    sweep = replace(GATE_START, metrics=metrics)
    numbers = {"success": 0.5, "parameters": 465921.0}
    values = {cell.text: {0: numbers} for cell in sweep.cells() if not cell.untouched}
    text = summary(sweep, [0], values, width)
    assert "…" not in text and text.count("0.500") == len(values)
    assert ("465921 │" in text) == (width == 160) and "465921." not in text


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.00041, 0.00043], "0.00042 ± 0.00013"),
        ([0.5, 0.5], "0.500 ± 0.000"),
        ([0.0, 0.0], "0.000 ± 0.000"),
        ([0.0234, 0.0236], "0.024 ± 0.001"),
    ],
)
def test_small_numbers_keep_two_digits(values: list[float], shown: str) -> None:
    assert _format(mean_interval(values)) == shown
    assert _format_mean(values, 2) == shown.partition(" ")[0]


def test_large_and_missing_numbers_are_as_before() -> None:
    assert _format_mean([12345.6], 1) == "12346" and _format_mean([0.25, 0.25], 3) == "0.250 (n=2)"
