"""Which slots a command gets on which machine, and what they make of processes that end."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.sweep_states import SWEEP, everything, finished, states

from conf import load as conf
from lightning_modules.tracking.mlflow import Tracking
from sweeps.command import main
from sweeps.engine import slots
from sweeps.engine.errors import LaunchError
from sweeps.engine.slots import (
    InlineSlot,
    Outcome,
    ProcessSlot,
    describe_launcher,
    make_slots,
    visible_gpus,
)

# Stands for the worker: quick to start. A file `action` in the trial's folder says what goes wrong.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path

def work(run):
    folder = Path(run).parent
    action = (folder / "action").read_text() if (folder / "action").exists() else ""
    names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
    seen = {"pid": os.getpid(), "argv": sys.argv[1:], **{n: os.environ.get(n) for n in names}}
    (folder / "seen.json").write_text(json.dumps(seen))
    (folder / "progress.json").write_text('{"text": "training: step 1/2", "share": 0.5}')
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang":
        signal.pause()
    if action == "preempt early":
        os.kill(os.getpid(), signal.SIGUSR1)
    if action == "preempt":
        (folder / "preempted.json").write_text('{"reason": "preempted by SIGTERM"}')
        sys.exit(75)
    if action == "fail":
        (folder / "failed.json").write_text('{"reason": "no luck"}')
        return "no luck"
    metrics = {"eval/success": 0.5, "eval/fid": 1.0}
    (folder / "result.json").write_text(json.dumps({"metrics": metrics, "seconds": {"train": 1}}))

if sys.argv[1:]:
    sys.exit(bool(work(sys.argv[-1])))
for line in sys.stdin:
    print(json.dumps({"reason": work(json.loads(line)["run"])}), flush=True)
"""


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


def test_a_launcher_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTER", "nosuchprogram")
    assert not describe_launcher(None) and not describe_launcher("sh -c 'true x'")
    for launch in ("nosuchprogram --nodes=2", "$STARTER x"):
        assert "no program 'nosuchprogram' on this machine" in describe_launcher(launch)
    assert "no program ''" in describe_launcher(" ")


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
        (["workers=02"], "", "workers=02: expected auto or a number of at least 1"),
        (
            ["workers=1001"],
            "",
            "workers=1001: expected auto or a number of at least 1 and of at most 1,000",
        ),
        (["workers=3"], "0,1", "trainer.devices=1 take 3 GPUs, but there are 2 (0, 1)"),
        (["trainer.devices=4"], "0,1", "trainer.devices=4 take 4 GPUs, but there are 2 (0, 1)"),
        (["launch=srun 'x"], "", "launch=srun 'x: cannot be read as a command: No closing"),
        (["devices=1,1"], "0,1", "devices=1,1: expected each GPU once"),
        (["launcher=inline", "devices=1"], "0,1", "uses the first GPU; use launcher=process"),
        (["devices=0,7"], "0,1", "devices=0,7: no GPU 7 here; there are 0, 1"),
        (["devices=cpu"], "0,1", "devices=cpu: expected auto, or numbers of GPUs such as 0,1; for"),
        (["devices=GPU-7f"], "0", "devices=GPU-7f: no GPU GPU-7f here; there are 0"),
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

    monkeypatch.setattr("conf.devices.ctypes.CDLL", missing)
    assert visible_gpus(conf.load([]), {}) == []


def test_a_signal_that_a_library_turned_into_an_exit_comes_out(tmp_path: Path) -> None:
    def swallow(*_: Any) -> dict[str, Any]:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1) from None

    def leave(*_: Any) -> dict[str, Any]:
        raise SystemExit(3)

    job: Any = SimpleNamespace(folder=tmp_path, config=None, tracking=None, extends=None)
    with pytest.raises(SystemExit):
        InlineSlot(swallow).start(job)
    slot = InlineSlot(leave)
    slot.start(job)
    outcome = slot.poll()
    assert outcome is not None and outcome.result is None and outcome.reason == "SystemExit: 3"


def test_nothing_runs_before_it_is_started() -> None:
    assert ProcessSlot(()).poll() is None and ProcessSlot(()).progress() == ("", 0.0)


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return (str(tmp_path / "program.py"),)


def begin(slot: ProcessSlot, folder: Path, action: str = "") -> None:
    folder.mkdir()
    (folder / "action").write_text(action)
    slot.start(job_of(folder))


def job_of(folder: Path) -> Any:
    return SimpleNamespace(
        extends=None,
        folder=folder,
        config=conf.as_run(conf.load([])),
        tracking=Tracking("", "", ""),
    )


def outcome(slot: ProcessSlot) -> Outcome:
    end = time.monotonic() + 30
    while (found := slot.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def seen(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "seen.json").read_text())


def test_a_worker_takes_trial_after_trial_until_one_fails(
    tmp_path: Path, program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    slot = ProcessSlot(("3", "5"), threads=2, program=program)
    reasons = []
    for number, action in enumerate(["", "", "fail", "kill", ""]):
        begin(slot, tmp_path / str(number), action)
        reasons.append(outcome(slot).reason)
    slot.stop()
    assert reasons == ["", "", "no luck", "its process was killed by SIGKILL: out of memory?", ""]
    facts = [seen(tmp_path / str(number)) for number in range(5)]
    pids = [fact["pid"] for fact in facts]
    assert pids[0] == pids[1] == pids[2] and len(set(pids)) == 3
    assert {fact["CUDA_VISIBLE_DEVICES"] for fact in facts} == {"3,5"}
    assert {fact["OMP_NUM_THREADS"] for fact in facts} == {"2"}


@pytest.mark.parametrize(
    ("action", "reason"),
    [("preempt", "preempted by SIGTERM"), ("preempt early", "its process was killed by SIGUSR1")],
)
def test_what_was_preempted_has_not_failed(
    tmp_path: Path, program: tuple[str, ...], action: str, reason: str
) -> None:
    slot, folder = ProcessSlot((), program=program), tmp_path / "trial"
    begin(slot, folder, action)
    assert outcome(slot) == Outcome(None, reason, preempted=True)
    (folder / "action").write_text("fail")
    slot.start(job_of(folder))
    assert outcome(slot) == Outcome(None, "no luck")
    slot.stop()


def test_a_trial_that_hangs_is_stopped(tmp_path: Path, program: tuple[str, ...]) -> None:
    slot, folder = ProcessSlot((), program=program), tmp_path / "hangs"
    begin(slot, folder, "hang")
    while slot.progress() != ("training: step 1/2", 0.5):
        time.sleep(0.01)
    assert slot.poll() is None
    slot.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(seen(folder)["pid"], signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ({"processes": 2}, ["torchrun", "2"]),
        ({"processes": 4, "launch": "srun $PLACE"}, ["exec", "srun", "here", "program.py"]),
    ],
)
def test_a_trial_of_several_processes_has_its_own(
    tmp_path: Path, program: tuple[str, ...], monkeypatch: Any, words: Any, argv: list[str]
) -> None:
    monkeypatch.setenv("PLACE", "here")
    slot, folder = ProcessSlot((), program=program, **words), tmp_path / "trial"
    begin(slot, folder)
    assert outcome(slot).result is not None
    assert [Path(word).name for word in seen(folder)["argv"]] == [*argv, "run.yaml"]


def test_a_sweep_runs_in_workers(
    output: Path, program: tuple[str, ...], mlflow: Any, reports: list[str]
) -> None:
    failing = output / "threshold" / "trials" / "threshold=0.4-seed0"
    failing.mkdir(parents=True)
    (failing / "action").write_text("fail")
    words = ["seeds=1", "workers=2", "retries=0", "trainer.accelerator=cpu"]
    # Trials without a study are somebody's results: the sweep starts one of its own
    assert main(SWEEP, [f"output={output}", *words], program=program) == 0
    (name,) = (folder.name for folder in output.glob("threshold-*"))
    assert states(output, name) == {"COMPLETE": 4} and finished(mlflow, name) == everything(1)
    workers = {seen(folder)["pid"] for folder in (output / name / "trials").iterdir()}
    assert len(workers) <= 2
