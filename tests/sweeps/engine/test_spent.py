"""Where time went."""

from __future__ import annotations

from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import optuna
import pytest
from helpers.sweep_states import trials
from rich.console import Console

from sweeps.engine.spent import spent, spent_table
from sweeps.run import main
from sweeps.threshold import SWEEP


def finished(seconds: float, phases: dict[str, float] | None) -> optuna.trial.FrozenTrial:
    trial = optuna.trial.create_trial(
        value=0.5, user_attrs={} if phases is None else {"phases": phases}
    )
    trial.datetime_start = datetime(2026, 1, 1)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


def test_phases_are_added_up_and_what_is_between_them_is_said() -> None:
    found = spent(
        [
            finished(10, {"start": 1, "train": 6}),
            finished(5, {"start": 1, "sample": 3}),
            finished(99, None),
        ]
    )
    assert found == pytest.approx({"start": 2, "train": 6, "sample": 3, "rest": 4})
    # clocks of two machines may differ
    assert spent([finished(1, {"train": 6})])["rest"] == 0
    table = spent_table(
        [finished(10, {"start": 1, "train": 6}), finished(5, {"start": 1, "sample": 3})]
    )
    out = StringIO()
    Console(file=out, width=100).print(table)
    lines = out.getvalue()
    assert "where the time of 2 trials went" in lines and lines.index("start:") < lines.index(
        "training"
    ) < lines.index("sampling")
    assert "40%" in lines and "3.0 s" in lines
    assert spent_table([finished(99, None)]) is None


def test_a_sweep_ends_with_it(output: Any, trainer: Any, reports: Any, capsys: Any) -> None:
    assert main(SWEEP, [f"output={output}", "seeds=1", "levels=[0.4]"], trainer=trainer) == 0
    assert "where the time of 3 trials went" in capsys.readouterr().out
    assert all(
        trial.user_attrs["phases"] == {"train": 1.5, "evaluate": 0.5} for trial in trials(output)
    )
