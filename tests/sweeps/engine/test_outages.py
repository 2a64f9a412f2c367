"""What a sweep does without: room on the disk, and the MLflow server for a while."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.driving import PROCESS, WORDS, alive, behave, ended, ran, starting, until
from helpers.mlflow_server import Server
from helpers.sweep_states import everything, finished, runs, states

from lightning_modules.tracking.mlflow import client

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path, empty_database: Path) -> Iterator[Path]:
    """An output on a file system of 24 MB; skipped where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    yield folder
    subprocess.run(
        ["umount", "--lazy", str(folder)], check=True
    )  # the database stays open in this process


def fill(folder: Path) -> Path:
    """The last byte of a file system is taken."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return folder / "filler"


def test_a_full_disk_ends_the_sweep_in_one_line_and_loses_nothing(small_disk: Path) -> None:
    behave(small_disk, seconds=1.0)
    with starting(small_disk) as start:
        driver = start()
        until(lambda: len(ran(small_disk)) >= 4)
        filler = fill(small_disk)
        _, err = ended(driver)
        assert driver.returncode == 3 and not alive(small_disk)
        assert str(small_disk) in err and "no space left" in err and "Traceback" not in err, err
        filler.unlink()
        again = start()
        _, err = ended(again)
        assert again.returncode == 0, err
    mlflow = client(f"sqlite:///{small_disk / 'mlflow.db'}")
    assert finished(mlflow) == everything(2) and states(small_disk)["COMPLETE"] == 8
    assert "RUNNING" not in {run.info.status for run in runs(mlflow, "seed")}


def test_a_server_that_is_away_for_a_while_is_waited_for(
    tmp_path: Path, empty_database: Path
) -> None:
    output = tmp_path / "runs"
    output.mkdir()
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    server = Server(tmp_path)
    server.start()
    server.wait()
    behave(output, seconds=0.5)
    try:
        with starting(output) as start:
            driver = start(*WORDS, f"tracking_uri={server.url}")
            until(lambda: len(ran(output)) >= 3)
            server.kill()
            time.sleep(3.0)
            server.start()
            server.wait()
            _, err = ended(driver)
            assert driver.returncode == 0, err
        mlflow: Any = client(server.url)
        assert finished(mlflow) == everything(2) and states(output) == {"COMPLETE": 8}
        losses = [
            len(mlflow.get_metric_history(run.info.run_id, "train/loss"))
            for run in runs(mlflow, "seed")
        ]
        assert losses == [3] * 8
    finally:
        server.kill()


def test_a_server_that_was_never_there_is_said_at_once(output: Path) -> None:
    with starting(output) as start:
        driver = start("seeds=1", *PROCESS, "tracking_uri=http://127.0.0.1:9")
        _, err = ended(driver)
    assert (
        driver.returncode == 2
        and "no MLflow server answers at tracking_uri=http://127.0.0.1:9" in err
        and not ran(output)
    )
