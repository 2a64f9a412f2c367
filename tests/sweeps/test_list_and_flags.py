"""--plan, --fresh, the list of all sweeps, and that none of them loads anything heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.printed_commands import check_printed
from helpers.sweep_states import finished

from conf.schema import Run
from sweeps.__main__ import main as listing
from sweeps.command import main
from sweeps.engine import eta, remeasure
from sweeps.threshold import SWEEP as THRESHOLD

Command = Callable[..., int]
ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "diffusers", "transformers", "mlflow", "optuna", "pandas")
HEAVY += ("matplotlib", "scipy")
PROGRAM = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    # What a plan can see takes quantiles
    heavy = set({HEAVY!r}) - ({{"scipy"}} if "--plan" in sys.argv else set())
    loaded = sorted(heavy & set(sys.modules))
    assert not loaded, loaded
"""


def test_a_plan_is_printed_and_nothing_is_run_or_written(
    sweep: Command, trainer: Any, output: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(eta, "recorded_run", lambda: {"sweeps": {}})
    before = sorted(output.iterdir())
    assert sweep("seeds=2", "--plan") == 0
    printed = capsys.readouterr().out
    assert "4 cells × 2 seeds = 8 trials; 0 of 8 done" in printed
    assert "6 trials with a method, 6 adapters to train for them" in printed
    assert "8 trials to run, 1 at a time; how long they take is known once" in printed
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
    printed = capsys.readouterr().out
    assert "3 of 8 done, 1 failed" in printed
    cells = [[part.strip() for part in line.split("│")] for line in printed.splitlines()]
    rows = {row[1]: row[2:6] for row in cells if len(row) > 5}
    assert rows["threshold=0.6"] == ["0/2", "", "1", ""]
    assert rows["threshold=0.4"] == ["1/2", "", "", ""]
    assert rows["threshold=0.5"][0] == "1/2" and "control" in rows["threshold=0.5"][3]
    rest = (
        "about 10 s left, 1 at a time (a trial takes untrained 2 s, trained 2 s; from 3 finished)"
    )
    assert rest in printed and len(trainer.ran) == 4


def test_a_plan_says_what_shares_an_adapter(sweep: Command, capsys: pytest.CaptureFixture) -> None:
    assert sweep("seeds=2", "when=evaluate", "--plan") == 0
    printed = capsys.readouterr().out
    assert "6 trials with a method, 2 adapters to train for them" in printed
    assert "one adapter a seed serves threshold=0.4; threshold=0.5; threshold=0.6" in printed


def test_fresh_makes_everything_again_and_can_be_taken_up(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")

    def stop(config: Run, count: int) -> None:
        if count == 6:
            raise KeyboardInterrupt

    trainer.before = stop
    assert sweep("seeds=1", "--fresh") == 130
    mark = re.search(r"fresh=[\d-]+", capsys.readouterr().err)
    assert mark
    assert {config.fresh for config in trainer.ran[4:]} == {mark[0].removeprefix("fresh=")}
    trainer.before = lambda config, count: None
    assert sweep("seeds=1", mark[0]) == 0
    assert len(trainer.ran) == 9 and len(list(output.glob("threshold-*"))) == 1
    assert sum(finished(mlflow).values()) == 4, "what was there before is kept"
    assert sweep("seeds=1") == 0 and len(trainer.ran) == 9


def test_trials_that_other_code_made_are_named(
    sweep: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")
    monkeypatch.setattr(remeasure, "made_by", lambda config: {"code": "other"})
    capsys.readouterr()
    assert sweep("seeds=1", "--plan") == 0
    assert "4 of 4 finished trials were made by other code" in capsys.readouterr().out
    assert sweep("seeds=1") == 0
    printed = capsys.readouterr().out
    assert "4 of 4 finished trials were made by other code" in printed and "--fresh" in printed


def test_the_list_says_how_far_every_sweep_is(
    sweep: Command, output: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")
    sweep("seeds=1", "trainer.steps=9")
    sweep("mode=search", "candidates=2", "seeds=1")
    capsys.readouterr()
    assert listing([f"output={output}"]) == 0
    printed = capsys.readouterr().out
    assert f"6 cells, 18 trials: 4 of 4 done in {output / 'threshold'}\n" in printed
    assert len(re.findall(r"4 of 4 done in \S+/threshold", printed)) == 3
    assert f"in {output / 'threshold-search'}" in printed
    commands = [line for line in printed.splitlines() if line.startswith("python -m")]
    check_printed("\n".join(commands))
    assert f"python -m sweeps.objects output={output}" in commands, "it can be pasted"
    assert printed.count("not started") > 20


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["threshold", "seeds=1"], "to run it: python -m sweeps.threshold seeds=1"),
        (["treshold"], "to run a sweep: python -m sweeps.<name> key=value …; did you mean thresho"),
        (["output=x", "seeds=2"], "got 'seeds=2'"),
        (["storage=sqlite:///x.db"], "got 'storage=sqlite:///x.db'"),
    ],
)
def test_other_words_are_refused(
    words: list[str], expected: str, capsys: pytest.CaptureFixture
) -> None:
    assert listing(words) == 2 and expected in capsys.readouterr().err
    assert listing(["--help"]) == 0 and "python -m sweeps ui" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer.step=3"], "did you mean trainer.steps"),
        (["levels=[0.2,1.5]"], "method.gate.threshold=1.5"),
        (["method.gate.threshold=0.4"], "levels=["),
        (["method=untouched"], "it reads none of method.gate.threshold, and every sweep has"),
        (["levels=[]", "--plan"], "levels=[] names no level; give some, or leave it out"),
        (["trainer.steps", "=", "4"], "no blanks around =: write trainer.steps=4"),
        (["trainer.steps=", "4"], "no blanks around =: write trainer.steps=4"),
        (["trainer.steps", "=4"], "no blanks around =: write trainer.steps=4"),
        (["trainer.steps = 4"], "no blanks around =: write trainer.steps=4"),
        (["seed=99999999999", "--plan"], "seed=99999999999 (command line): expected an integer"),
        (["seed=4294967294", "--plan"], "the last one, 4294967296, is beyond 4294967295"),
        (["data.eval_images=10", "--plan"], "set data.eval_images to 40 or higher"),
        (["method=mcgm"], "method=mcgm does not read method.gate.threshold"),
        (["--pln"], "--pln: no such flag; there are --plan, "),
        (["--seeds=1"], "write seeds=1"),
        (["--seeds", "1"], "write seeds=1"),
        (["--remeasure", "--plan"], "--remeasure trains nothing, and --plan says"),
        (["--remeasure", "--fresh", "--plan"], "--remeasure looks at what was made before"),
        (["--replay-pruning", "--plan"], "--replay-pruning trains nothing"),
        (["candidates=4"], "candidates is for mode=search"),
        (["mode=list", "--plan"], "cells=[…] names"),
        (["storage=postgresql://me@host/db"], "storage (command line) is no setting any more"),
        (["tracking_uri=http://127.0.0.1:9"], "no MLflow server answers"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(THRESHOLD, [f"output={tmp_path / 'runs'}", *words]) == 2
    printed = capsys.readouterr()
    assert expected in printed.err and printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["sweeps"], 0, "Is 0.5 the best gate threshold"),
        (["sweeps.threshold", "--help"], 0, "method.gate.threshold=0.5"),
        (["sweeps.threshold", "trainer.step=3"], 2, "did you mean trainer.steps"),
        (["sweeps.threshold", "seeds=1", "levels=[0.5]", "--plan"], 0, "2 of 2 done"),
        (["sweeps.generalisation", "data.train_images=64", "--plan"], 0, "0 of 9 done"),
    ],
)
def test_commands_load_nothing_heavy(
    words: list[str],
    status: int,
    expected: str,
    output: Path,
    trainer: Any,
    reports: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(output.parent)
    if "sweeps.threshold" in words and "--plan" in words:
        assert main(THRESHOLD, words[1:-1], train=trainer) == 0
    before = sorted(output.rglob("*"))
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stderr
    assert expected in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert sorted(output.rglob("*")) == before
