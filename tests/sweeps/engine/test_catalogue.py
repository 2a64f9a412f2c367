"""All sweeps in one command, on the fake trainer."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import SWEEP, states

from conf import load as conf
from sweeps.engine import estimate
from sweeps.engine.catalogue import main
from sweeps.engine.place import kept_apart
from sweeps.sweep import Factor, Sweep

GRID = replace(
    SWEEP, name="grid", brief="one_factor",
    factors=[*SWEEP.factors, Factor("method.gate.bias", [0.0, 2.0])], baseline={**SWEEP.baseline, "method.gate.bias": 2.0},
)  # fmt: skip
NEEDY = replace(SWEEP, name="needy", needs="a library of books", instead="read this instead")


def catalogue(
    output: Path, *words: str, sweeps: tuple[Sweep, ...] = (SWEEP, GRID, NEEDY), trainer: Any = None
) -> int:
    return main([f"output={output}", "seeds=2", *words], sweeps, trainer)


def test_all_sweeps_run_in_their_short_form_and_are_found_again(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    assert catalogue(output, trainer=trainer) == 0
    said = capsys.readouterr()
    assert states(output) == {"COMPLETE": 8} and states(output, "grid") == {
        "COMPLETE": 10
    }  # not 14
    assert (
        "left out: needy needs a library of books" in said.err and "read this instead" in said.err
    )
    assert not (output / "needy").exists()
    assert (
        "[1/2] threshold: Does the engine work?" in said.out
        and "[2/2] grid" in said.out
        and "8/8" in said.out
        and "10/10" in said.out
    )
    assert f"all in one: python -m reports all output={output}" in said.out
    ran = len(trainer.ran)
    assert catalogue(output, trainer=trainer) == 0 and len(trainer.ran) == ran
    assert catalogue(output, "mode=grid", trainer=trainer) == 0 and len(trainer.ran) == ran + 4
    assert states(output, "grid") == {"COMPLETE": 14}
    # the short form again keeps what is there, in the report as well
    capsys.readouterr()
    assert catalogue(output, trainer=trainer) == 0 and len(trainer.ran) == ran + 4
    assert "14/14" in capsys.readouterr().out


def test_a_failed_sweep_does_not_stop_the_others(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    def broken(config: Any, count: int) -> None:
        if config.method.gate.threshold == 0.4 and count < 20:
            raise RuntimeError("no more")

    trainer.before = broken
    assert catalogue(output, "retries=0", trainer=trainer) == 1
    said = capsys.readouterr()
    assert "6/8 (failed)" in said.out and states(output, "grid")["COMPLETE"] == 8
    trainer.before = lambda config, count: None
    assert catalogue(output, "retries=0", trainer=trainer) == 0


def test_a_stopped_catalogue_goes_on_where_it_was(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    def stop(config: Any, count: int) -> None:
        if count == 3:
            signal.raise_signal(signal.SIGTERM)

    trainer.before = stop
    assert catalogue(output, trainer=trainer) == 128 + signal.SIGTERM
    assert states(output)["COMPLETE"] == 2 and not (output / "grid").exists()
    trainer.before = lambda config, count: None
    assert catalogue(output, trainer=trainer) == 0
    assert states(output)["COMPLETE"] == 8 and states(output, "grid")["COMPLETE"] == 10


def test_the_plan_knows_what_is_done_and_what_was_recorded(
    output: Path, trainer: Any, reports: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"reference": 30.0, "trained": 90.0}
    made_with = conf.digest(kept_apart(SWEEP, conf.load([], SWEEP.preset)))
    known = {
        "date": "2000-01-01",
        "hardware": "an abacus",
        "sweeps": {"threshold": {"digest": made_with, "seconds": seconds}},
    }
    monkeypatch.setattr(estimate, "record", lambda: known)
    assert catalogue(output, "--plan") == 0
    said = capsys.readouterr().out
    assert (
        "by the catalogue's run of 2000-01-01 on an abacus" in said and "10 min *" in said
    )  # 2 × 30 s + 6 × 90 s
    assert (
        "unknown" in said
        and "2 sweeps, 18 trials, 0 done; about 10 min to come, without 1 of which nothing is known yet"
        in said
    )
    # what was recorded says nothing of other settings
    assert catalogue(output, "trainer.steps=99", "--plan") == 0
    assert "abacus" not in capsys.readouterr().out and not (output / "threshold").exists()
    assert catalogue(output, trainer=trainer) == 0
    capsys.readouterr()
    assert catalogue(output, "--plan") == 0
    assert "2 sweeps, 18 trials, 18 done; nothing is left to run" in capsys.readouterr().out


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
    assert catalogue(output, *words) == 2
    assert message in capsys.readouterr().err and not (output / "threshold").exists()


def test_what_does_not_fit_one_sweep_is_said_and_the_others_run(
    output: Path, trainer: Any, reports: Any, capsys: Any
) -> None:
    assert catalogue(output, "levels=[0.4]", trainer=trainer) == 0
    said = capsys.readouterr()
    assert "left out: grid: levels= replaces the levels of a single factor" in said.err and states(
        output
    ) == {"COMPLETE": 6}


def test_the_record_is_of_sweeps_that_there_are() -> None:
    from sweeps.engine.catalogue import discover

    names = {sweep.name for sweep in discover()}
    for name, entry in estimate.record()["sweeps"].items():
        kinds = entry["seconds"]
        assert (
            name in names
            and set(kinds) <= {"reference", "shared", "trained"}
            and all(seconds > 0 for seconds in kinds.values())
        ), name
