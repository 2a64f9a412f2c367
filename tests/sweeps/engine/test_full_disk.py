"""A disk that is full while a sweep runs: the path is named, no other trial is begun, and the same
command goes on when there is room."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.driving import behave, ended, ran, starting
from helpers.sweep_states import SWEEP, everything, finished, states

from sweeps import command
from sweeps.engine.run_all import main as run_all


class FullOnce:
    """The third trial finds no room, until there is some."""

    room = False

    def __call__(self, config: Any, count: int) -> None:
        if count == 3 and not self.room:
            path = Path(config.output) / "scores.parquet"
            raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_no_further_trial_is_begun_and_nothing_is_lost(
    output: Path, trainer: Any, reports: Any, mlflow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.before, words = (disk := FullOnce()), [f"output={output}", "seeds=2"]
    assert command.main(SWEEP, words, trainer) == 3
    error = capsys.readouterr().err
    assert "scores.parquet cannot be written: no space left" in error and "Traceback" not in error
    assert len(trainer.ran) == 3 and states(output)["COMPLETE"] == 2
    disk.room = True
    assert command.main(SWEEP, words, trainer) == 0
    assert len(trainer.ran) == 3 + 6 and states(output)["COMPLETE"] == 8
    assert finished(mlflow) == everything(2)


def test_all_sweeps_stop_as_well(output: Path, trainer: Any, reports: Any) -> None:
    trainer.before = FullOnce()
    words, other = [f"output={output}", "seeds=1"], replace(SWEEP, name="another")
    assert run_all(words, [SWEEP, other], trainer) == 3 and len(trainer.ran) == 3


@pytest.mark.slow
def test_trials_beside_it_may_end(output: Path) -> None:
    behave(output, seconds=1.0, **{"0.5-0": "full disk"})
    with starting(output) as start:
        driver = start()
        _, err = ended(driver)
        assert driver.returncode == 3 and "no space left" in err, err
        begun = Counter(name for name, *_ in ran(output))
        assert states(output)["COMPLETE"] == sum(begun.values()) - 1 < 8
        again = start()
        _, err = ended(again)
        assert again.returncode == 0, err
    assert states(output)["COMPLETE"] == 8
