"""Where trials run: slots, each a slice of this machine's devices that holds one trial at a time.

A slot runs its trial in this process, in a worker that takes one trial after another (imports and
start-up are paid once), or in processes of its own under torchrun. What happens in another process
ends there: the slot says why, and the next trial gets a new process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from conf import load as conf
from conf import schema
from conf.describe import show_count
from conf.devices import has_driver
from conf.files import DiskFull, named_when_full, read_json
from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.training.preemption import PREEMPTED, SIGNALS, Preempted
from lightning_modules.training.progress import DRAWN, FAILED, PROGRESS
from sweeps.engine import worker
from sweeps.engine.bookkeeping import read_outcome
from sweeps.engine.errors import LaunchError
from sweeps.engine.worker import Trainer

if TYPE_CHECKING:
    from sweeps.engine.plan import Job

__all__ = [
    "InlineSlot",
    "Outcome",
    "ProcessSlot",
    "Slot",
    "Trainer",
    "check_workers",
    "describe_exit",
    "make_slots",
    "visible_gpus",
]

PROGRAM = ("-m", "sweeps.engine.worker")
ROOM = 64 * 1024  # Bytes; with less a trial cannot say why it ended
# Seconds that a trial has for the step that it is in when it is asked to stop; SLURM gives 30
GRACE = 25.0
# torchrun's words for a rank that was killed
KILLED = re.compile(r"Signal \d+ \((\w+)\) received by PID")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``result`` is None if it failed or was ``preempted``, and ``reason`` says
    why."""

    result: dict[str, Any] | None
    reason: str = ""
    preempted: bool = False  # It goes on elsewhere, and has not failed


class Slot(Protocol):
    """One trial at a time on ``device``, which is "cpu" or names of GPUs."""

    device: str

    def start(self, job: Job) -> None:
        """Begin a trial."""

    def poll(self) -> Outcome | None:
        """How the trial ended; None while it runs."""

    def progress(self) -> tuple[str, float]:
        """The latest line of the trial and the share of it that is done."""

    def ask_to_stop(self) -> None:
        """Ask the running trial to end, and return at once."""

    def stop(self) -> None:
        """End the running trial, and leave no process behind."""


class InlineSlot:
    """Runs a trial in this process: ``start`` returns when it has ended. What it raises is kept for
    ``poll``, but a signal comes out."""

    def __init__(self, train: Trainer, device: str = "") -> None:
        self.train, self.device = train, device
        self.on_progress: worker.Report = lambda text, share: None
        self._outcome: Outcome | None = None
        self._last = ("", 0.0)

    def start(self, job: Job) -> None:
        written = worker.ProgressFile(job.folder)

        def report(text: str, share: float) -> None:
            self._last = (text, share)
            written(text, share)
            self.on_progress(text, share)

        job.folder.mkdir(parents=True, exist_ok=True)
        try:
            with named_when_full(job.folder):
                result = self.train(job.config, job.folder, job.tracking, report)
            self._outcome = Outcome(result)
        except (Exception, SystemExit) as error:
            # How some libraries answer a signal
            if isinstance(error, Preempted) or isinstance(error.__context__, KeyboardInterrupt):
                raise
            with (
                suppress(OSError),  # A disk may be full
                (job.folder / "log.txt").open("a", encoding="utf-8") as log,
            ):
                log.write("".join(traceback.format_exception(error)))
            self._outcome = Outcome(None, describe_error(error))

    def poll(self) -> Outcome | None:
        return self._outcome

    def progress(self) -> tuple[str, float]:
        return self._last

    def ask_to_stop(self) -> None:
        """Nothing: what stops this process stops the trial."""

    def stop(self) -> None:
        """Nothing, for the same reason."""


class ProcessSlot:
    """Runs trials in other processes, on the GPUs ``visible`` (none: the CPU) and with ``threads``
    threads (0: as many as there are)."""

    def __init__(
        self,
        visible: tuple[str, ...],
        processes: int = 1,
        threads: int = 0,
        launch: str | None = None,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self.visible, self.processes, self.threads = visible, processes, threads
        self.launch, self.program = launch, program
        if visible:
            self.device = f"gpu {','.join(visible)}"
        else:
            self.device = "cpu" if launch is None else f"{processes} processes"
        self.worker: subprocess.Popen[bytes] | None = None
        self.job: Job | None = None
        self._logged = 0  # Bytes that earlier attempts left in the log

    @property
    def reuses_worker(self) -> bool:
        """Whether one process takes trial after trial."""
        return self.processes == 1 and self.launch is None

    def start(self, job: Job) -> None:
        self.job = job
        job.folder.mkdir(parents=True, exist_ok=True)
        for name in (FAILED, PREEMPTED, PROGRESS, DRAWN):
            (job.folder / name).unlink(missing_ok=True)
        path, log = job.folder / "run.yaml", job.folder / "log.txt"
        conf.write(job.config, path)
        self._logged = log.stat().st_size if log.exists() else 0
        if not self.reuses_worker:
            if self.launch is None:
                words = ["torchrun", str(self.processes)]
            else:
                words = ["exec", *_launch_words(self.launch), *self.program]
            self._spawn(job, [*words, str(path)])
            return
        tracking = dataclasses.asdict(job.tracking)
        request = json.dumps({"run": str(path), "tracking": tracking}) + "\n"
        for _ in range(2):  # A worker that was killed between two trials is noticed only now
            if self.worker is None or self.worker.poll() is not None:
                self._spawn(job, [], pipes=True)
            try:
                self.worker.stdin.write(request.encode())  # type: ignore[union-attr]
                self.worker.stdin.flush()  # type: ignore[union-attr]
                return
            except BrokenPipeError:
                self.worker.wait()  # type: ignore[union-attr]

    def _spawn(self, job: Job, words: list[str], pipes: bool = False) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        environment[worker.PARENT] = str(os.getpid())
        environment[worker.TRACKING] = json.dumps(dataclasses.asdict(job.tracking))
        if self.visible:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.visible)
        if self.threads:
            environment.setdefault("OMP_NUM_THREADS", str(self.threads))
        with (job.folder / "log.txt").open("ab") as log:
            # In a session of its own: a person's Ctrl-C is for this process, which decides what it
            # means for the trials
            self.worker = subprocess.Popen(
                [sys.executable, *self.program, *words],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        if self.worker.stdout is not None:
            os.set_blocking(self.worker.stdout.fileno(), False)

    def poll(self) -> Outcome | None:
        if self.worker is None or self.job is None:
            return None
        if self.worker.stdout is not None:
            answer = self.worker.stdout.readline()
            if answer:
                return self._outcome_of(self.job, json.loads(answer)["reason"] or "")
        status = self.worker.poll()
        if status is None:
            return None
        self._release_worker()
        # Before its trial could say so itself
        preempted = -status in SIGNALS
        return self._outcome_of(self.job, describe_exit(status), preempted)

    def _outcome_of(self, job: Job, fallback: str, preempted: bool = False) -> Outcome:
        self.job = None
        result = read_outcome(job) or read_json(job.folder / DRAWN)
        if result is not None:
            return Outcome(result)
        # A process that failed may hold memory, or a device in a state, that would spoil the next
        self.stop(0.0)
        if self.processes > 1:
            with (job.folder / "log.txt").open("rb") as log:
                log.seek(self._logged)
                killed = KILLED.findall(log.read().decode("utf-8", "replace"))
            if killed:
                reason = f"one of its {self.processes} processes was killed by {killed[-1]}"
                return Outcome(None, reason)
        failed, reason = job.folder / FAILED, ""
        if failed.exists():
            reason = (read_json(failed) or {}).get("reason", "")
        elif said := read_json(job.folder / PREEMPTED):
            return Outcome(None, said["reason"], preempted=True)
        elif shutil.disk_usage(job.folder).free < ROOM:
            # It could not write down why
            reason = describe_error(DiskFull(job.folder))
        preempted = preempted and not reason
        return Outcome(None, reason or fallback or "it ended without a result", preempted)

    def progress(self) -> tuple[str, float]:
        if self.job is None:
            return "", 0.0
        try:
            path = self.job.folder / PROGRESS
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "", 0.0
        return content["text"], content["share"]

    def ask_to_stop(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()

    def stop(self, grace: float = GRACE) -> None:
        self.ask_to_stop()
        if self.worker is not None and self.worker.poll() is None:
            try:
                self.worker.wait(grace)
            except subprocess.TimeoutExpired:
                self.worker.kill()
                self.worker.wait()
        self._release_worker()

    def _release_worker(self) -> None:
        for pipe in (self.worker.stdin, self.worker.stdout) if self.worker is not None else ():
            if pipe is not None:
                with suppress(BrokenPipeError):  # The worker was gone before it read all
                    pipe.close()
        self.worker = None


def describe_launcher(launch: str | None) -> str:
    """A line where ``launch`` names a program that this machine does not have; else empty: what it
    is started on may."""
    program = next(iter(_launch_words(launch)), "") if launch is not None else ""
    if launch is None or (program and shutil.which(program)):
        return ""
    return f"launch={launch}: there is no program {program!r} on this machine to start trials with"


def _launch_words(launch: str) -> list[str]:
    """Raises LaunchError for quotes that are not closed."""
    try:
        return shlex.split(os.path.expandvars(launch))
    except ValueError as error:
        raise LaunchError(f"launch={launch}: cannot be read as a command: {error}") from error


def make_slots(
    config: schema.Sweep, train: Trainer | None = None, program: tuple[str, ...] = PROGRAM
) -> list[Slot]:
    """The slots that ``workers``, ``devices``, ``launcher`` and ``trainer.devices`` ask for on this
    machine. Raises LaunchError.

    ``train`` replaces ``lightning_modules.training.run.run`` in this process, ``program`` the
    worker in others.
    """
    each, automatic = config.trainer.devices, config.workers == "auto"
    check_workers(config)
    if config.launch is not None:
        _launch_words(config.launch)
        # Where its processes run is for the launcher to say
        at_once = 1 if automatic else int(config.workers)
        return [
            ProcessSlot((), each, launch=config.launch, program=program) for _ in range(at_once)
        ]
    gpus = visible_gpus(config)
    most = len(gpus) // each if gpus else 1
    count = most if automatic else int(config.workers)
    if gpus and not 0 < count <= most:
        needed = show_count(max(count, 1) * each, "GPU")
        raise LaunchError(
            f"workers={config.workers} with trainer.devices={each} take {needed}, but there are "
            f"{len(gpus)} ({', '.join(gpus)}): lower one of them, "
            "or name others with devices=0,1"
        )
    if config.launcher == "inline" and (count > 1 or each > 1):
        wish = f"trainer.devices={each}" if each > 1 else f"workers={count}"
        raise LaunchError(
            f"launcher=inline with {wish}: this process runs one trial at a time on one device; "
            "use launcher=process"
        )
    if config.launcher == "auto":
        inline = not gpus and count == each == 1
    else:
        inline = config.launcher == "inline"
    if inline:
        if gpus and gpus[0] != visible_gpus(dataclasses.replace(config, devices="auto"))[0]:
            raise LaunchError(
                f"launcher=inline with devices={config.devices}: this process uses the first GPU; "
                "use launcher=process"
            )
        if train is None:
            from lightning_modules.training import run as training

            train = training.run
        return [InlineSlot(train, f"gpu {gpus[0]}" if gpus else "")]
    threads = 0 if gpus else max((os.cpu_count() or 1) // (count * each), 1)
    slices = [tuple(gpus[i * each : (i + 1) * each]) for i in range(count)]
    return [ProcessSlot(visible, each, threads, program=program) for visible in slices]


def check_workers(config: schema.Sweep) -> None:
    """Raises LaunchError for a ``workers`` that is no number."""
    if config.workers != "auto" and not (
        re.fullmatch("[1-9][0-9]{0,5}", config.workers)
        and int(config.workers) <= schema.MOST_WORKERS
    ):
        raise LaunchError(
            f"workers={config.workers}: expected auto or a number of at least 1 and of at most "
            f"{schema.MOST_WORKERS:,}"
        )


def visible_gpus(config: schema.Sweep, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this command may use, as CUDA names them; none means the CPU. Raises
    LaunchError for one that is not there."""
    if config.trainer.accelerator == "cpu":
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        there = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    else:
        there = [str(number) for number in range(_count_gpus())]
    if config.devices == "auto":
        selected = there
    else:
        selected = [name.strip() for name in config.devices.split(",")]
        if len(set(selected)) < len(selected):
            raise LaunchError(f"devices={config.devices}: expected each GPU once")
        for name in selected:
            if name not in there:
                if not name[:1].isdigit() and not name.upper().startswith(("GPU-", "MIG-")):
                    raise LaunchError(
                        f"devices={config.devices}: expected auto, or numbers of GPUs such as 0,1; "
                        "for the CPU: trainer.accelerator=cpu"
                    )
                known = ", ".join(there) or "none"
                raise LaunchError(
                    f"devices={config.devices}: no GPU {name} here; there are {known}"
                )
    if config.trainer.accelerator == "gpu" and not selected:
        from torch.backends import mps

        if not mps.is_available():
            raise LaunchError(
                "trainer.accelerator=gpu but this machine has none that torch can use: "
                "set trainer.accelerator=auto"
            )
    return selected


def _count_gpus() -> int:
    """As torch counts them, which takes seconds to load: not without a driver of CUDA or ROCm."""
    if not has_driver():
        return 0
    from torch import cuda

    return cuda.device_count()


def describe_exit(status: int) -> str:
    """Why a process ended, from its exit status."""
    if status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    return f"its process was killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
