"""Workers: what a trial leaves, what ends a worker, and that none outlives who started it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from conf.schema import Run
from sweeps.engine import worker

ROOT = Path(__file__).parents[3]


@pytest.fixture
def request_line(tmp_path: Path) -> str:
    conf.write(Run(), tmp_path / "run.yaml")
    return json.dumps({"run": str(tmp_path / "run.yaml"), "tracking": None}) + "\n"


def serve(lines: str, run: Any, tmp_path: Path, monkeypatch: Any) -> list[dict[str, Any]]:
    """What a worker answers; it takes its own standard output away, so that comes back at the
    end."""
    kept = [os.dup(1), os.dup(2)]
    answers = (tmp_path / "answers").open("w")
    os.dup2(answers.fileno(), 1)
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    try:
        worker.serve(run)
    except (KeyboardInterrupt, SystemExit) as stop:
        return [
            *map(json.loads, (tmp_path / "answers").read_text().splitlines()),
            {"ended by": type(stop).__name__},
        ]
    finally:
        for number, old in enumerate(kept, 1):
            os.dup2(old, number)
            os.close(old)
        answers.close()
    return list(map(json.loads, (tmp_path / "answers").read_text().splitlines()))


def test_a_failed_trial_is_told_and_the_next_one_taken(
    request_line: str, tmp_path: Path, monkeypatch: Any
) -> None:
    said = iter([ValueError("no\nluck"), None])

    def run(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
        progress("training: step 1/2", 0.5)
        error = next(said)
        if error:
            raise error
        return {}

    assert serve(request_line * 2, run, tmp_path, monkeypatch) == [
        {"reason": "ValueError: no luck"},
        {"reason": None},
    ]
    assert json.loads((tmp_path / "failed.json").read_text()) == {"reason": "ValueError: no luck"}
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "progress.json").read_text()) == {
        "text": "training: step 1/2",
        "share": 0.5,
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_signal_ends_the_worker_and_not_the_trial_alone(
    error: type[BaseException], request_line: str, tmp_path: Path, monkeypatch: Any
):
    def run(*_: Any) -> dict[str, Any]:
        raise error

    assert serve(request_line * 2, run, tmp_path, monkeypatch) == [{"ended by": error.__name__}]


def test_a_reason_is_told_though_the_disk_is_full(
    request_line: str, tmp_path: Path, monkeypatch: Any
) -> None:
    def run(*_: Any) -> dict[str, Any]:
        monkeypatch.setattr(worker, "write_atomically", full)
        raise OSError(28, "No space left on device")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = Path(json.loads(request_line)["run"]).parent
    reason = f"DiskFull: {folder} cannot be written: no space left on the disk; make room"
    assert serve(request_line, run, tmp_path, monkeypatch) == [{"reason": reason}]


@pytest.mark.slow
def test_a_worker_whose_parent_is_gone_already_ends_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = os.environ | {worker.PARENT: str(gone.pid)}
    orphan = subprocess.run(
        [sys.executable, "-m", "sweeps.engine.worker", "run.yaml"],
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert orphan.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "1"}, True),
        ({"RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, False),
        ({"RANK": "0", "TORCHELASTIC_RUN_ID": "x"}, True),
    ],
)
def test_only_the_ranks_of_torchrun_count(
    environment: dict[str, str], first: bool, monkeypatch: Any
) -> None:
    for name in ("RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert worker.is_first_rank() == first


@pytest.mark.parametrize(("error", "status"), [(None, 0), (ValueError("no luck"), 1)])
def test_a_command_runs_one_trial(
    request_line: str, tmp_path: Path, monkeypatch: Any, error: Any, status: int
) -> None:
    ran: list[Any] = []

    def train(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
        ran.append((folder, tracking.params))
        if error:
            raise error
        return {}

    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    tracking = {"uri": "", "experiment_id": "1", "parent_run_id": "2", "params": {"seed": "0"}}
    monkeypatch.setenv(worker.TRACKING, json.dumps(tracking))
    assert worker.main([str(tmp_path / "run.yaml")], train) == status
    assert ran == [(tmp_path, {"seed": "0"})]
    assert (tmp_path / "failed.json").exists() == bool(error)
