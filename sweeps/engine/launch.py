"""Where trials run: slots, each a slice of this machine's devices that holds one trial at a time.

A slot runs its trial in this process, in a worker that takes one trial after another (imports and start-up are paid once), or in
processes of its own under torchrun. Whatever happens in another process ends there: the slot says why, and the next trial gets a new one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from conf import load as conf
from conf import schema

if TYPE_CHECKING:
    from lightning_modules.tracking.mlflow import Tracking
    from sweeps.engine.plan import Job

__all__ = ["Inline", "LaunchError", "Outcome", "Program", "Slot", "Trainer", "devices_of", "slots_for"]

Trainer = Callable[[schema.Run, Path, "Tracking | None", "Callable[[str, float], None] | None"], dict[str, Any]]
PROGRAM = ("-m", "lightning_modules.training.worker")
GRACE = 10.0  # seconds that a trial has to end by itself when it is told to stop
KILLED = re.compile(r"Signal \d+ \((\w+)\) received by PID")  # torchrun's words for a rank that was killed


class LaunchError(ValueError):
    """Devices, workers and launcher that do not go together, said in one line."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `result` is None where it failed, and `reason` says why."""

    result: dict[str, Any] | None
    reason: str = ""


class Slot(Protocol):
    """One trial at a time on `device`, which is "cpu" or names of GPUs."""

    device: str

    def start(self, job: Job) -> None:
        """Begin a trial."""

    def poll(self) -> Outcome | None:
        """How the trial ended; None while it runs."""

    def progress(self) -> tuple[str, float]:
        """The latest line of the trial and the share of it that is done."""

    def tell_to_stop(self) -> None:
        """Let the trial that runs know that it is to end, and return at once."""

    def stop(self) -> None:
        """End the trial that runs, and leave no process behind."""

    def close(self) -> None:
        """Let go of the device."""


class Inline:
    """Runs a trial in this process: `start` returns when it has ended. What it raises is kept for `poll`, but a signal comes out."""

    def __init__(self, trainer: Trainer, device: str = "") -> None:
        self.trainer, self.device = trainer, device
        self.told: Callable[[str, float], None] = lambda text, share: None
        self._outcome: Outcome | None = None
        self._last = ("", 0.0)

    def start(self, job: Job) -> None:
        from lightning_modules.tracking.mlflow import describe_error

        job.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._outcome = Outcome(self.trainer(job.config, job.folder, job.tracking, self._tell))
        except (Exception, SystemExit) as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # how some libraries answer a signal
                raise
            _log(job.folder, error)
            self._outcome = Outcome(None, describe_error(error))

    def _tell(self, text: str, share: float) -> None:
        self._last = (text, share)
        self.told(text, share)

    def poll(self) -> Outcome | None:
        return self._outcome

    def progress(self) -> tuple[str, float]:
        return self._last

    def tell_to_stop(self) -> None:
        """Nothing: whatever stops this process stops the trial."""

    def stop(self) -> None:
        """Nothing, likewise."""

    def close(self) -> None:
        """Nothing is held."""


class Program:
    """Runs trials in other processes, on the GPUs `visible` (none: the CPU) and with `threads` threads (0: as many as there are)."""

    def __init__(
        self, visible: tuple[str, ...], processes: int = 1, threads: int = 0, launch: str | None = None,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:  # fmt: skip
        self.visible, self.processes, self.launch, self.program = visible, processes, launch, program
        self.device = f"gpu {','.join(visible)}" if visible else "cpu" if launch is None else f"{processes} processes"
        self.threads = threads
        self.worker: subprocess.Popen[bytes] | None = None
        self.job: Job | None = None
        self._logged = 0  # bytes that earlier attempts left in the log

    @property
    def alone(self) -> bool:
        """Whether each trial has processes of its own."""
        return self.processes > 1 or self.launch is not None

    def start(self, job: Job) -> None:
        from lightning_modules.training.progress import FAILED, PROGRESS

        self.job = job
        job.folder.mkdir(parents=True, exist_ok=True)
        for name in (FAILED, PROGRESS):
            (job.folder / name).unlink(missing_ok=True)
        conf.write(job.config, job.folder / "run.yaml")
        log = job.folder / "log.txt"
        self._logged = log.stat().st_size if log.exists() else 0
        if self.alone:
            self.worker = self._spawn(job, [*self._before(), str(job.folder / "run.yaml")])
            return
        request = json.dumps({"run": str(job.folder / "run.yaml"), "tracking": asdict(job.tracking)}) + "\n"
        for _ in range(2):  # a worker that was killed between two trials is noticed only now
            if self.worker is None or self.worker.poll() is not None:
                self.worker = self._spawn(job, [], pipes=True)
                os.set_blocking(self.worker.stdout.fileno(), False)  # type: ignore[union-attr]
            try:
                self.worker.stdin.write(request.encode())  # type: ignore[union-attr]
                self.worker.stdin.flush()  # type: ignore[union-attr]
                return
            except BrokenPipeError:
                self.worker.wait()

    def _before(self) -> list[str]:
        if self.launch is None:
            return ["torchrun", str(self.processes)]
        return ["exec", *shlex.split(os.path.expandvars(self.launch)), *self.program]

    def _spawn(self, job: Job, words: list[str], pipes: bool = False) -> subprocess.Popen[bytes]:
        from lightning_modules.training.worker import PARENT, TRACKING

        kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        environment = kept | {PARENT: str(os.getpid()), TRACKING: json.dumps(asdict(job.tracking))}
        if self.visible:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.visible)
        if self.threads and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        pipe = subprocess.PIPE if pipes else None
        with (job.folder / "log.txt").open("ab") as log:
            # In a session of its own: a person's Ctrl-C is for this process, which decides what it means for the trials.
            return subprocess.Popen(
                [sys.executable, *self.program, *words], stdin=pipe or subprocess.DEVNULL, stdout=pipe or log, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def poll(self) -> Outcome | None:
        if self.worker is None or self.job is None:
            return None
        if not self.alone:
            answer = self.worker.stdout.readline() if self.worker.stdout else b""
            if answer:
                return self._ended(json.loads(answer)["reason"] or "")
        status = self.worker.poll()
        if status is None:
            return None
        self._close_pipes()
        self.worker = None
        return self._ended(_words_for(status))

    def _ended(self, fallback: str) -> Outcome:
        from lightning_modules.training.progress import FAILED
        from sweeps.engine.plan import read_result

        folder = self.job.folder  # type: ignore[union-attr]
        self.job = None
        result = read_result(folder)
        if result is not None:
            return Outcome(result)
        # A process that failed may hold memory, or a device in a state, that would spoil the next trial.
        self.stop(0.0)
        if self.processes > 1 and (killed := KILLED.findall(self._said(folder / "log.txt"))):
            return Outcome(None, f"one of its {self.processes} processes was killed by {killed[-1]}")
        failed = folder / FAILED
        reason = json.loads(failed.read_text(encoding="utf-8"))["reason"] if failed.exists() else ""
        return Outcome(None, reason or fallback or "it ended without a result")

    def progress(self) -> tuple[str, float]:
        from lightning_modules.training.progress import PROGRESS

        try:
            content = json.loads((self.job.folder / PROGRESS).read_text(encoding="utf-8"))  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            return "", 0.0
        return content["text"], content["share"]

    def _said(self, log: Path) -> str:
        """What this attempt wrote to the log."""
        with log.open("rb") as file:
            file.seek(self._logged)
            return file.read().decode("utf-8", "replace")

    def tell_to_stop(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()

    def stop(self, grace: float = GRACE) -> None:
        self.tell_to_stop()
        if self.worker is not None and self.worker.poll() is None:
            try:
                self.worker.wait(grace)
            except subprocess.TimeoutExpired:
                self.worker.send_signal(signal.SIGKILL)
                self.worker.wait()
        self._close_pipes()
        self.worker = None

    def close(self) -> None:
        self.stop()

    def _close_pipes(self) -> None:
        for pipe in (self.worker.stdin, self.worker.stdout) if self.worker is not None else ():
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # the worker was gone before it read all


def slots_for(config: schema.Sweep, trainer: Trainer | None = None, program: tuple[str, ...] = PROGRAM) -> list[Slot]:
    """The slots that `workers`, `devices`, `launcher` and `trainer.devices` ask for on this machine. Raises LaunchError.

    `trainer` takes the place of `lightning_modules.training.run.run` in this process, `program` of the worker in others.
    """
    each = config.trainer.devices
    if config.workers != "auto" and not (config.workers.isdigit() and int(config.workers)):
        raise LaunchError(f"workers={config.workers}: expected auto or a number of at least 1")
    if config.launch is not None:
        # Where its processes run is the launcher's affair.
        at_once = 1 if config.workers == "auto" else int(config.workers)
        return [Program((), each, launch=config.launch, program=program) for _ in range(at_once)]
    gpus = devices_of(config)
    most = len(gpus) // each if gpus else 1
    count = most if config.workers == "auto" else int(config.workers)
    if gpus and not 0 < count <= most:
        said = f"workers={config.workers} with trainer.devices={each} take {max(count, 1) * each} GPUs"
        raise LaunchError(f"{said}, but there are {len(gpus)} ({', '.join(gpus)}): lower one of them, or name others with devices=0,1")
    apart = bool(gpus) or count > 1 or each > 1
    if config.launcher == "inline" and (count > 1 or each > 1):
        wish = f"trainer.devices={each}" if each > 1 else f"workers={count}"
        raise LaunchError(f"launcher=inline with {wish}: this process runs one trial at a time on one device; use launcher=process")
    if config.launcher == "inline" or not (apart or config.launcher == "process"):
        if gpus and gpus[0] != devices_of(dataclasses.replace(config, devices="auto"))[0]:
            raise LaunchError(f"launcher=inline with devices={config.devices}: this process uses the first GPU; use launcher=process")
        return [Inline(trainer or _trainer(), f"gpu {gpus[0]}" if gpus else "")]
    threads = 0 if gpus else max((os.cpu_count() or 1) // (count * each), 1)
    slices = [tuple(gpus[i * each : (i + 1) * each]) for i in range(count)]
    return [Program(visible, each, threads, program=program) for visible in slices]


def devices_of(config: schema.Sweep, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this command may use, as CUDA names them; none means the CPU. Raises LaunchError for one that is not there."""
    if config.trainer.accelerator == "cpu":
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        there = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    else:
        from torch import cuda

        there = [str(number) for number in range(cuda.device_count())]
    if config.devices == "auto":
        chosen = there
    else:
        chosen = [name.strip() for name in config.devices.split(",")]
        if len(set(chosen)) < len(chosen):
            raise LaunchError(f"devices={config.devices}: expected each GPU once")
        if wrong := [name for name in chosen if name not in there]:
            raise LaunchError(f"devices={config.devices}: no GPU {wrong[0]} here; there are {', '.join(there) or 'none'}")
    if config.trainer.accelerator == "gpu" and not chosen and not _other_accelerator():
        raise LaunchError("trainer.accelerator=gpu but this machine has none that torch can use: set trainer.accelerator=auto")
    return chosen


def _other_accelerator() -> bool:
    from torch.backends import mps

    return mps.is_available()


def _trainer() -> Trainer:
    from lightning_modules.training.run import run

    return run


def _words_for(status: int) -> str:
    """Why a process ended, from its exit status."""
    if status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    return f"its process was killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")


def _log(folder: Path, error: BaseException) -> None:
    import traceback

    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write("".join(traceback.format_exception(error)))
