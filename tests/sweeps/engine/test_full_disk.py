"""A disk that is full while a sweep runs: the path is named, no other trial is begun, and the same
command goes on when there is room."""

from __future__ import annotations

import errno
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.driving import behave, ended, ran, starting
from helpers.full_disk import file_size_limit
from helpers.sweep_states import SWEEP, everything, finished, states

from conf.files import DiskFull
from lightning_modules.tracking.store import StoreUnavailable, client
from reports import report
from reports.files import drafting
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


# --- the system's own limit -----------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["trial", "driver"])
def test_a_file_that_cannot_grow_ends_the_sweep(
    output: Path,
    trainer: Any,
    reports: Any,
    capsys: pytest.CaptureFixture[str],
    whose: str,
) -> None:
    with ExitStack() as stack:

        def fill(config: Any, count: int) -> None:
            if count == 3 and whose == "driver":  # From now on its journal cannot grow, either
                stack.enter_context(file_size_limit(0))
            elif count == 3:
                with file_size_limit(100):
                    (output / "table").write_bytes(bytes(200))

        trainer.before, words = fill, [f"output={output}", "seeds=2"]
        assert command.main(SWEEP, words, trainer) == 3
    line = capsys.readouterr().err
    assert str(output) in line and "cannot be written: no space left" in line, line
    assert "Traceback" not in line and len(trainer.ran) == 3
    assert not [path for path in output.rglob("*") if "draft" in path.name]
    trainer.before = lambda config, count: None
    assert command.main(SWEEP, words, trainer) == 0
    assert len(trainer.ran) == 3 + 6 and states(output)["COMPLETE"] == 8


def test_a_report_without_room_ends_all(
    output: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(uri: str, name: str, folder: Path) -> Path:
        with drafting(folder) as draft, file_size_limit(10):
            (draft / "report.pdf").write_bytes(bytes(99))
        return folder / "report.pdf"

    monkeypatch.setattr(report, "write_report", write)
    words, other = [f"output={output}", "seeds=1"], replace(SWEEP, name="another")
    assert run_all(words, [SWEEP, other], trainer) == 3
    assert len(trainer.ran) == 4, "the other sweep is not begun"
    error = capsys.readouterr().err
    assert "no report: " in error and "cannot be written: no space left" in error


@pytest.mark.slow
def test_mlflow_without_room_is_named_and_keeps_what_it_has(output: Path) -> None:
    path = output / "mlflow.db"
    store: Any = client(f"sqlite:///{path}", patience=0.0)
    experiment = store.create_experiment("here", (output / "files").as_uri())
    run = store.create_run(experiment).info.run_id
    store.log_param(run, "first", "1")
    large = output / "scores.parquet"
    large.write_bytes(bytes(9000))
    with file_size_limit(1000), pytest.raises(DiskFull, match="no space left") as caught:
        store.log_artifact(run, str(large))
    assert str(output / "files") in str(caught.value) and "\n" not in str(caught.value)
    with file_size_limit(path.stat().st_size), pytest.raises((DiskFull, StoreUnavailable)) as told:
        for i in range(500):
            store.log_param(run, f"p{i}", "x" * 400)
    assert str(path) in str(told.value) and "\n" not in str(told.value)
    assert store.get_run(run).data.params["first"] == "1"
    store.log_artifact(run, str(large))
    store.set_terminated(run, "FINISHED")
