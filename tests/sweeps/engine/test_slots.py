"""Which slots a command gets on which machine, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf import load as conf
from sweeps.engine import slots
from sweeps.engine.errors import LaunchError
from sweeps.engine.slots import InlineSlot, ProcessSlot, make_slots, visible_gpus


def made(*words: str, gpus: str = "") -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        environment = {"CUDA_VISIBLE_DEVICES": gpus}
        patch.setattr(slots, "visible_gpus", lambda config: visible_gpus(config, environment))
        patch.setattr(slots.os, "cpu_count", lambda: 8)
        return list(make_slots(conf.load(list(words)), train=lambda *_: {}))


@pytest.mark.parametrize(
    ("words", "gpus", "expected"),
    [
        ([], "", [("inline", 1)]),
        (["launcher=process"], "", [("cpu", 1)]),
        (["workers=2"], "", [("cpu", 1)] * 2),
        (["trainer.devices=2"], "", [("cpu", 2)]),
        ([], "0,1,2", [("gpu 0", 1), ("gpu 1", 1), ("gpu 2", 1)]),
        (["workers=2"], "0,1,2", [("gpu 0", 1), ("gpu 1", 1)]),
        (["trainer.devices=2"], "0,1,2,3,4", [("gpu 0,1", 2), ("gpu 2,3", 2)]),
        (["devices=1,3", "trainer.devices=2"], "0,1,2,3", [("gpu 1,3", 2)]),
        (["trainer.accelerator=cpu"], "0,1", [("inline", 1)]),
        (["launcher=inline", "workers=1"], "0,1", [("inline", 1)]),
        (["launch=srun torchrun", "trainer.devices=8"], "0,1", [("8 processes", 8)]),
    ],
)
def test_slots(words: list[str], gpus: str, expected: list[tuple[str, int]]) -> None:
    assert [
        ("inline" if isinstance(slot, InlineSlot) else slot.device, getattr(slot, "processes", 1))
        for slot in made(*words, gpus=gpus)
    ] == expected


@pytest.mark.parametrize(
    ("words", "gpus", "threads"),
    [(["workers=2"], "", 4), (["workers=2", "trainer.devices=2"], "", 2), ([], "0,1", 0)],
)
def test_cores_are_shared_out(words: list[str], gpus: str, threads: int) -> None:
    assert [slot.threads for slot in made(*words, gpus=gpus)] == [threads] * 2


@pytest.mark.parametrize(
    ("words", "gpus", "message"),
    [
        (["workers=many"], "", "workers=many: expected auto or a number of at least 1"),
        (["workers=0"], "", "workers=0: expected auto or a number of at least 1"),
        (["workers=3"], "0,1", "trainer.devices=1 take 3 GPUs, but there are 2 (0, 1)"),
        (["trainer.devices=4"], "0,1", "trainer.devices=4 take 4 GPUs, but there are 2 (0, 1)"),
        (["devices=1,1"], "0,1", "devices=1,1: expected each GPU once"),
        (["launcher=inline", "devices=1"], "0,1", "uses the first GPU; use launcher=process"),
        (["devices=0,7"], "0,1", "devices=0,7: no GPU 7 here; there are 0, 1"),
        (["launcher=inline", "workers=2"], "", "launcher=inline with workers=2"),
        (["launcher=inline", "trainer.devices=2"], "", "launcher=inline with trainer.devices=2"),
        (["trainer.accelerator=gpu"], "", "trainer.accelerator=gpu but this machine has none"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], gpus: str, message: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(message)):
        made(*words, gpus=gpus)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(slots.ctypes, "CDLL", missing)
    assert visible_gpus(conf.load([]), {}) == []


def test_a_signal_that_a_library_turned_into_an_exit_comes_out(tmp_path: Path) -> None:
    def swallow(*_: Any) -> dict[str, Any]:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1) from None

    def leave(*_: Any) -> dict[str, Any]:
        raise SystemExit(3)

    job: Any = SimpleNamespace(folder=tmp_path, config=None, tracking=None)
    with pytest.raises(SystemExit):
        InlineSlot(swallow).start(job)
    slot = InlineSlot(leave)
    slot.start(job)
    outcome = slot.poll()
    assert outcome is not None and outcome.result is None and outcome.reason == "SystemExit: 3"


def test_nothing_runs_before_it_is_started() -> None:
    assert ProcessSlot(()).poll() is None and ProcessSlot(()).progress() == ("", 0.0)
