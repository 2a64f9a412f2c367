"""A trial on the node of a SLURM job or a Ray task: the worker that it has on this machine, too."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from conf.files import read_json
from lightning_modules.training.preemption import PREEMPTED
from lightning_modules.training.progress import DRAWN, FAILED, PROGRESS
from sweeps.engine import worker
from sweeps.engine.bookkeeping import read_outcome
from sweeps.engine.errors import LaunchError
from sweeps.engine.slots import Outcome

if TYPE_CHECKING:
    from sweeps.engine.plan import Job

__all__ = ["ROOT", "NodeTrial", "prepare_folder", "read_end", "read_progress", "split_devices"]

PAUSE = 0.2  # Seconds between two looks at a process
PORT = 29_500
ROOT = Path(__file__).parents[3]  # Of this code, which nodes import


@dataclass
class NodeTrial:
    """The part of a trial that one of its ``nodes`` runs, with ``processes`` of its own: the trial
    of the file ``run``, whose MLflow run ``tracking`` describes (JSON)."""

    run: str
    tracking: str
    processes: int
    nodes: int
    program: tuple[str, ...]
    place: str = field(default_factory=os.getcwd)  # Where relative paths begin
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, job: Job, processes: int, nodes: int, program: tuple[str, ...]) -> NodeTrial:
        tracking = json.dumps(dataclasses.asdict(job.tracking))
        run = str((job.folder / "run.yaml").resolve())
        return cls(run, tracking, processes, nodes, program)

    def start(self, head: str = "", name: str = "") -> None:
        """Begins it; of several nodes ``head`` is the first one's address and ``name`` tells this
        trial from others."""
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        environment |= {worker.TRACKING: self.tracking, worker.PARENT: str(os.getpid())}
        words = [self.run]
        if self.processes * self.nodes > 1:
            words = ["torchrun", str(self.processes), self.run]
        if self.nodes > 1:
            # How torchrun takes its options from the environment
            environment |= {"PET_NNODES": str(self.nodes), "PET_RDZV_BACKEND": "c10d"}
            environment |= {"PET_RDZV_ENDPOINT": f"{head}:{PORT}", "PET_RDZV_ID": name}
        log = Path(self.run).with_name("log.txt")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self.place if Path(self.place).is_dir() else None,
                env=environment,
                start_new_session=True,
            )

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit status, None where it still runs after so many ``seconds``. Also for handlers of
        signals that come in the middle of it."""
        until = time.monotonic() + seconds if seconds is not None else None
        while self.process is not None and self.process.poll() is None:
            if until is not None and time.monotonic() > until:
                return None
            time.sleep(PAUSE)
        return self.process.returncode if self.process else None

    def preempt(self, seconds: float) -> None:
        """Asks it to end with a checkpoint, and ends it if it has not after so many ``seconds``."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if self.wait(seconds) is None:
                self.process.kill()
                self.wait()


def split_devices(devices: int, nodes: int, setting: str) -> int:
    """Processes on each node. Raises LaunchError where they do not come out even."""
    if devices % nodes:
        raise LaunchError(
            f"{setting}={nodes} with trainer.devices={devices}: expected as many devices on each "
            f"node; give a multiple of {nodes}"
        )
    return devices // nodes


def prepare_folder(job: Job) -> None:
    """Puts the settings of a trial into its folder, and takes what an earlier try said out."""
    job.folder.mkdir(parents=True, exist_ok=True)
    for name in (FAILED, PREEMPTED, PROGRESS, DRAWN):
        (job.folder / name).unlink(missing_ok=True)
    conf.write(job.config, job.folder / "run.yaml")


def read_progress(job: Job) -> tuple[str, float]:
    """What a trial says of its progress."""
    path = job.folder / PROGRESS
    known = (read_json(path) if path.is_file() else None) or {}
    return known.get("text", ""), known.get("share", 0.0)


def read_end(job: Job, why: str, lost: bool = False) -> Outcome:
    """How a trial ended, by its folder; else ``why``, and ``lost``: by no fault of its own."""
    result = read_outcome(job) or read_json(job.folder / DRAWN)
    if result is not None:
        return Outcome(result)
    for name in (FAILED, PREEMPTED):
        if said := read_json(job.folder / name):
            return Outcome(None, said["reason"], preempted=name == PREEMPTED)
    return Outcome(None, why, preempted=lost)
