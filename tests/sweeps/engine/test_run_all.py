"""All sweeps in one command, on the fake trainer."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.printed_commands import check_printed
from helpers.sweep_states import SWEEP, states

from sweeps.engine import eta, run_all, status
from sweeps.engine.catalogue import discover
from sweeps.sweep import Factor

GRID = replace(
    SWEEP,
    name="grid",
    brief="one_factor",
    factors=[*SWEEP.factors, Factor("method.gate.bias", [0.0, 2.0])],
    control={**SWEEP.control, "method.gate.bias": 2.0},
)
NEEDY = replace(SWEEP, name="needy", needs="a library of books", instead="read this instead")
SWEEPS = (SWEEP, GRID, NEEDY)


def run(output: Path, *words: str, train: Any = None, sweeps: Any = SWEEPS) -> int:
    return run_all.main([f"output={output}", "seeds=1", *words], sweeps, train)


def test_all_sweeps_run_in_their_short_form_and_are_found_again(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    assert run(output, train=trainer) == 0
    printed = capsys.readouterr()
    assert states(output) == {"COMPLETE": 4} and states(output, "grid") == {"COMPLETE": 5}  # Not 7
    assert "left out: needy needs a library of books" in printed.err
    assert "read this instead" in printed.err and not (output / "needy").exists()
    for text in ("[1/2] threshold: Does the engine work?", "[2/2] grid", "4/4", "5/5"):
        assert text in printed.out
    assert f"all in one: python -m reports all output={output}" in printed.out
    check_printed(printed.out)
    assert run(output, "mode=grid", train=trainer) == 0 and len(trainer.ran) == 9 + 2
    assert states(output, "grid") == {"COMPLETE": 7}
    # The short form again keeps what is there, in the report as well
    capsys.readouterr()
    assert run(output, train=trainer) == 0 and len(trainer.ran) == 9 + 2
    assert "7/7" in capsys.readouterr().out


def test_a_failed_sweep_does_not_stop_the_others(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    def fail(config: Any, count: int) -> None:
        if config.method.gate.threshold == 0.4 and count < 5:
            raise RuntimeError("no more")

    trainer.before = fail
    assert run(output, "retries=0", train=trainer) == 1
    assert "3/4 (failed)" in capsys.readouterr().out and states(output, "grid")["COMPLETE"] == 5


def test_a_stopped_catalogue_goes_on(output: Path, trainer: Any, reports: Any) -> None:
    def stop(config: Any, count: int) -> None:
        if count == 3:
            signal.raise_signal(signal.SIGTERM)

    trainer.before = stop
    assert run(output, train=trainer) == 128 + signal.SIGTERM
    assert states(output)["COMPLETE"] == 2 and not (output / "grid").exists()
    trainer.before = lambda config, count: None
    assert run(output, train=trainer) == 0
    assert states(output)["COMPLETE"] == 4 and states(output, "grid")["COMPLETE"] == 5


def test_the_plan_knows_what_is_done_and_what_was_recorded(
    output: Path, trainer: Any, reports: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"untrained": 30.0, "trained": 90.0}
    record = {"date": "2000-01-01", "hardware": "an abacus", "sweeps": {"threshold": seconds}}
    for module in (eta, run_all, status):
        monkeypatch.setattr(module, "recorded_run", lambda: record)
    assert run(output, "seeds=2", "--plan") == 0
    printed = capsys.readouterr().out
    assert "by the catalogue's run of 2000-01-01 on an abacus" in printed
    assert "10 min *" in printed and "unknown" in printed  # 2 × 30 s + 6 × 90 s
    assert "2 sweeps, 18 trials, 0 done; about 10 min to come, without 1 of which" in printed
    # What was recorded says nothing of other settings
    assert run(output, "trainer.steps=99", "--plan") == 0
    assert "abacus" not in capsys.readouterr().out and not (output / "threshold").exists()
    assert run(output, train=trainer) == 0
    capsys.readouterr()
    assert run(output, "--plan") == 0
    assert "2 sweeps, 9 trials, 9 done; nothing is left to run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.stepz=3"], "did you mean trainer.steps?"),
        (["levels=[0.4]", "method.gate.threshold=0.4"], "is what this sweep varies"),
        (["evaluation.prompts=0"], "evaluation.prompts=0 measures nothing"),
        (["workers=some"], "workers=some: expected auto or a number of at least 1"),
    ],
)
def test_what_fits_no_sweep_is_refused_before_anything_runs(
    output: Path, words: list[str], message: str, capsys: Any
) -> None:
    assert run(output, *words) == 2
    assert message in capsys.readouterr().err and not (output / "threshold").exists()


def test_what_does_not_fit_one_sweep_leaves_it_out(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    assert run(output, "levels=[0.4]", train=trainer) == 0
    expected = "left out: grid: levels= replaces the levels of a single factor"
    assert expected in capsys.readouterr().err and states(output) == {"COMPLETE": 3}


def test_the_record_is_of_sweeps_that_exist() -> None:
    names = {sweep.name for sweep in discover()}
    for name, seconds in eta.recorded_run()["sweeps"].items():
        assert name in names and set(seconds) <= {"untrained", "shared", "trained"}, name
        assert all(value > 0 for value in seconds.values()), name


def test_help(capsys: Any) -> None:
    assert run_all.main(["--help"]) == 0 and "--plan" in capsys.readouterr().out
