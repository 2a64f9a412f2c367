"""Which failures are tried again, which are waited for, and which device is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.sweep_states import everything, finished, states, trials

from conf.schema import Run
from sweeps.engine import failures
from sweeps.engine.executors.local import LocalExecutor
from sweeps.engine.failures import comes_again, passes
from sweeps.engine.slots import Outcome


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ConfigError: trainer.steps=-1: expected an integer of at least 1", "final"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x'", "final"),
        ("ResultError: eval/success is not a number (NaN)", "final"),
        ("ValueError: the loss is not a number at step 3", "final"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB", "final"),
        ("MemoryError: CUDA out of memory. Tried to allocate 20.00 GiB", "final"),
        ("DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1234, timed out", "waited for"),
        ("RuntimeError: NCCL communicator was aborted on rank 1", "waited for"),
        ("StoreUnavailable: the MLflow server http://x cannot be used: refused", "waited for"),
        ("ConnectionResetError: [Errno 104] Connection reset by peer", "waited for"),
        ("OSError: [Errno 5] Input/output error", "tried again"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "tried again"),
        ("its process was killed by SIGKILL: out of memory?", "tried again"),
        ("it ended without a result", "tried again"),
    ],
)
def test_reasons(reason: str, kind: str) -> None:
    assert (comes_again(reason), passes(reason)) == {
        "final": (True, False),
        "waited for": (False, True),
        "tried again": (False, False),
    }[kind]


def fail_with(error: Exception, times: int) -> Callable[[Run, int], None]:
    """The trial of threshold 0.4 fails so often."""
    left = [times]

    def before(config: Run, count: int) -> None:
        if config.method.gate.threshold == 0.4 and left[0]:
            left[0] -= 1
            raise error

    return before


def test_what_would_fail_again_is_not_tried_again(
    sweep: Callable[..., int], trainer: Any, output: Path, mlflow: Any, capsys: Any
) -> None:
    trainer.before = fail_with(FileNotFoundError("no such images"), 1)
    assert sweep("seeds=1", "retries=5") == 1
    assert states(output) == {"COMPLETE": 3, "FAIL": 1}
    printed = capsys.readouterr().out
    assert "failed (not tried again: it would fail in the same way): FileNotFoundError" in printed
    assert sweep("seeds=1") == 0 and finished(mlflow) == everything(1)  # Its cause may be mended


def test_what_passes_is_waited_for_and_is_no_try(
    sweep: Callable[..., int], trainer: Any, output: Path, mlflow: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.1))
    trainer.before = fail_with(ConnectionError("the server went away"), 2)
    assert sweep("seeds=1", "retries=0") == 0 and finished(mlflow) == everything(1)
    ends = Counter(trial.user_attrs.get("status") for trial in trials(output))
    assert ends == {None: 4, "KILLED": 2}
    trainer.before = fail_with(ConnectionError("the server went away"), 3)
    assert sweep("seeds=2", "retries=0") == 1, "it is not waited for without end"


class FakeSlot:
    """A GPU that fails as told."""

    def __init__(self, device: str, broken: bool = False) -> None:
        self.device, self.broken, self.jobs = device, broken, 0

    def start(self, job: Any) -> None:
        self.jobs += 1

    def poll(self) -> Outcome:
        return Outcome(None, "CUDA error") if self.broken else Outcome({"metrics": {}})

    def stop(self) -> None:
        pass


def test_a_device_that_fails_what_passes_elsewhere_is_left_out(tmp_path: Path) -> None:
    slots = [FakeSlot("gpu 0", broken=True), FakeSlot("gpu 1")]
    executor = LocalExecutor(slots)
    waiting: list[Any] = [SimpleNamespace(key=("a", n), folder=tmp_path) for n in range(6)]
    while waiting:
        now = [waiting.pop(0) for _ in range(min(executor.at_once, len(waiting)))]
        for job in now:
            executor.place(job)
        executor.submit(now)
        waiting[:0] = [job for job in now if not executor.poll(job).result]  # type: ignore[union-attr]
    assert executor.at_once == 1 and slots[0].jobs == 3 and slots[1].jobs == 6
    assert executor.notes == ["left out: gpu 0, where two trials failed that passed elsewhere"]


def test_devices_that_fail_alike_are_kept(tmp_path: Path) -> None:
    executor = LocalExecutor([FakeSlot("gpu 0", True), FakeSlot("gpu 1", True)])
    for number in range(4):
        job: Any = SimpleNamespace(key=("a", number), folder=tmp_path)
        executor.place(job)
        executor.submit([job])
        executor.poll(job)
    assert executor.at_once == 2 and not executor.notes
