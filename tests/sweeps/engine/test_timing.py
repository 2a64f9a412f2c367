"""Where time went."""

from __future__ import annotations

from datetime import datetime, timedelta
from io import StringIO

import optuna
import pytest
from rich.console import Console

from sweeps.engine.timing import timing, timing_table


def finished(seconds: float, phases: dict[str, float] | None) -> optuna.trial.FrozenTrial:
    attributes = {} if phases is None else {"phases": phases}
    trial = optuna.trial.create_trial(value=0.5, user_attrs=attributes)
    trial.datetime_start = datetime(2026, 1, 1)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


TRIALS = [finished(10, {"start": 1, "train": 6}), finished(5, {"start": 1, "sample": 3})]


def test_phases_are_added_up_and_what_is_between_them_is_the_rest() -> None:
    sums = timing([*TRIALS, finished(99, None)])
    assert sums == pytest.approx({"start": 2, "train": 6, "sample": 3, "rest": 4})
    # Clocks of two machines may differ
    assert timing([finished(1, {"train": 6})])["rest"] == 0
    out = StringIO()
    Console(file=out, width=100).print(timing_table(TRIALS))
    text = out.getvalue()
    assert "where the time of 2 trials went" in text and "40%" in text and "3.0 s" in text
    assert text.index("start:") < text.index("training") < text.index("sampling")
    assert timing_table([finished(99, None)]) is None
