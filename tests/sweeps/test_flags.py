"""--plan, --fresh, and the list of all sweeps with how far they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import finished

from conf.schema import Run
from lightning_modules.training import keys
from sweeps.__main__ import main as listing
from sweeps.engine import plan

Command = Callable[..., int]


def test_a_plan_is_printed_and_nothing_is_run_or_written(
    sweep: Command, trainer: Any, output: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(output.iterdir())
    assert sweep("seeds=2", "--plan") == 0
    out = capsys.readouterr().out
    assert (
        "4 cells × 2 seeds = 8 trials; 0 of 8 done" in out
        and "6 trials with a method, 6 adapters to train for them" in out
    )
    assert "8 trials to run, 1 at a time; how long they take is known once one has finished" in out
    assert not trainer.ran and sorted(output.iterdir()) == before


def test_a_plan_knows_what_is_done_what_failed_and_how_long_the_rest_takes(
    sweep: Command, trainer: Any, capsys: pytest.CaptureFixture
) -> None:
    def fail(config: Run, count: int) -> None:
        if config.method.gate.threshold == 0.6:
            raise RuntimeError("out of memory")

    trainer.before = fail
    assert sweep("seeds=1", "retries=0") == 1
    capsys.readouterr()
    assert sweep("seeds=2", "--plan") == 0
    out = capsys.readouterr().out
    assert "3 of 8 done, 1 failed" in out
    rows = {
        row[1]: row[2:6]
        for row in ([part.strip() for part in line.split("│")] for line in out.splitlines())
        if len(row) > 5
    }
    assert rows["threshold=0.6"] == ["0/2", "", "1", ""] and rows["threshold=0.4"] == [
        "1/2",
        "",
        "",
        "",
    ]
    assert rows["threshold=0.5"][0] == "1/2" and "baseline" in rows["threshold=0.5"][3]
    assert (
        "about 10 s left, 1 at a time (a trial takes reference 2 s, trained 2 s; from 3 finished)"
        in out
    )
    assert len(trainer.ran) == 4


def test_a_plan_says_what_shares_an_adapter(sweep: Command, capsys: pytest.CaptureFixture) -> None:
    assert sweep("seeds=2", "when=evaluate", "--plan") == 0
    out = capsys.readouterr().out
    assert "6 trials with a method, 2 adapters to train for them" in out
    assert "one adapter a seed serves threshold=0.4; threshold=0.5; threshold=0.6" in out


def test_a_plan_that_cannot_be_is_refused(sweep: Command, capsys: pytest.CaptureFixture) -> None:
    assert sweep("mode=list", "--plan") == 2 and "cells=[…] names" in capsys.readouterr().err


def test_fresh_makes_everything_anew_and_can_be_taken_up(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")

    def stop(config: Run, count: int) -> None:
        if count == 6:
            raise KeyboardInterrupt

    trainer.before = stop
    assert sweep("seeds=1", "--fresh") == 130
    mark = re.search(r"fresh=[\d-]+", capsys.readouterr().err)
    assert mark and {config.fresh for config in trainer.ran[4:]} == {mark[0].removeprefix("fresh=")}
    trainer.before = lambda config, count: None
    assert sweep("seeds=1", mark[0]) == 0
    assert (
        len(trainer.ran) == 9
        and len([f for f in output.iterdir() if f.name.startswith("threshold-")]) == 1
    )
    assert sum(finished(mlflow).values()) == 4, "what was there before is kept"
    assert sweep("seeds=1") == 0 and len(trainer.ran) == 9


def test_trials_that_other_code_made_are_told(
    sweep: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")
    monkeypatch.setattr(plan, "code_version", lambda: "other")
    capsys.readouterr()
    assert sweep("seeds=1") == 0
    assert (
        "4 of 4 finished trials were made by other code than this: to make all of them anew, add --fresh"
        in capsys.readouterr().out
    )
    assert keys.code_version() != "other"


def test_the_list_says_how_far_every_sweep_is(
    sweep: Command, output: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")
    sweep("seeds=1", "trainer.steps=9")
    sweep("mode=search", "candidates=2", "seeds=1")
    capsys.readouterr()
    assert listing([f"output={output}"]) == 0
    out = capsys.readouterr().out
    assert f"6 cells, 18 trials: 4 of 4 done in {output / 'threshold'}\n" in out
    assert (
        len(re.findall(r"4 of 4 done in \S+/threshold", out)) == 3
        and f"in {output / 'threshold-search'}" in out
    )
    assert "python -m sweeps.objects" in out and out.count("not started") > 20


def test_other_words_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert (
        listing(["threshold"]) == 2
        and "to run a sweep: python -m sweeps.<name>" in capsys.readouterr().err
    )
    assert listing(["--help"]) == 0 and "python -m sweeps ui" in capsys.readouterr().out
