"""Sweeps from Python: a frame of what has finished, and names that no module takes away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import SWEEP

import sweeps
from conf.schema import Run
from sweeps.engine.errors import SweepAborted

ROOT = Path(__file__).parents[2]
ORDERS = {
    "names first": "from sweeps import results, run; import sweeps.command, sweeps.threshold",
    "command first": "import sweeps.command, sweeps.threshold; from sweeps import results, run",
    "everything": "import sweeps.engine.session, sweeps.__main__; from sweeps import results, run",
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_names_are_functions_in_any_order_of_import(order: str) -> None:
    code = f"{ORDERS[order]}\nimport sweeps\nassert callable(sweeps.run) and callable(run)\n"
    code += "assert sweeps.run is run and sweeps.results is results"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_is_a_frame(
    output: Path, trainer: Any, reports: list[str], capsys: pytest.CaptureFixture
) -> None:
    frame = sweeps.run(SWEEP, train=trainer, output=str(output), seeds=2)
    assert list(frame["cell"][:2]) == ["untouched backbone"] * 2 and len(frame) == 8
    assert list(frame["seed"]) == [0, 1] * 4
    (row,) = frame[(frame["method.gate.threshold"] == 0.6) & (frame["seed"] == 1)].to_dict(
        "records"
    )
    assert (row["success"], row["fid"], row["seconds"]) == (pytest.approx(0.61), 29.0, 2.0)
    assert frame.attrs == {"folder": str(output / "threshold"), "answer": "It does."}
    assert "[8/8]" in capsys.readouterr().out, "progress is shown"
    again = sweeps.results("threshold", output)
    assert len(trainer.ran) == 8 and again.equals(frame) and again.attrs == frame.attrs


def test_levels_of_the_command_have_their_column(
    output: Path, trainer: Any, reports: list[str]
) -> None:
    frame = sweeps.run(SWEEP, "seeds=1", train=trainer, output=str(output), levels=[0.25])
    assert 0.25 in set(frame["method.gate.threshold"])


def test_what_the_command_refuses_is_an_error(output: Path, trainer: Any) -> None:
    with pytest.raises(ValueError, match="did you mean trainer.steps"):
        sweeps.run(SWEEP, train=trainer, output=str(output), **{"trainer.step": 3})
    with pytest.raises(ValueError, match="no sweep 'treshold'; did you mean threshold"):
        sweeps.run("treshold")
    with pytest.raises(ValueError, match="'--plan'"):
        sweeps.run(SWEEP, "--plan")
    with pytest.raises(FileNotFoundError, match="no results of threshold in .*; there are none"):
        sweeps.results("threshold", output)
    assert not trainer.ran


def test_failures_are_told(output: Path, trainer: Any, reports: list[str]) -> None:
    def fail(config: Run, count: int) -> None:
        if config.method.gate.threshold == 0.6:
            raise RuntimeError("out of memory")

    trainer.before = fail
    with pytest.warns(UserWarning, match="failed"):
        frame = sweeps.run(SWEEP, train=trainer, output=str(output), seeds=1, retries=0)
    assert len(frame) == 3
    trainer.change = lambda *_: {}
    with pytest.raises(SweepAborted, match="the first"):
        sweeps.run(SWEEP, train=trainer, output=str(output), seeds=2, fresh="again")
