"""Trials as SLURM jobs, through submitit: one job a trial, or an array of those that are submitted
together.

A job that is preempted, or comes to its time limit, is told so by SIGUSR1: its training writes a
checkpoint, SLURM queues the job again, and the training goes on from there. Jobs outlive the
driver: the next start takes over those that still wait or run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import schema
from conf.files import read_json, to_json, write_atomically
from lightning_modules.tracking.mlflow import describe_error
from sweeps.engine.errors import LaunchError
from sweeps.engine.executors.node import (
    ROOT,
    NodeTrial,
    prepare_folder,
    read_end,
    read_progress,
    split_devices,
)
from sweeps.engine.slots import Outcome

if TYPE_CHECKING:
    from sweeps.engine.executors.base import Report
    from sweeps.engine.plan import Job
    from sweeps.engine.trials import Key

__all__ = ["SlurmExecutor", "SlurmTrial", "count_jobs", "job_parameters", "write_script"]

SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"  # Environment variable of submitit
WHICH = "slurm.json"  # In a trial's folder: the number of its job
AT_ONCE = 32  # Jobs that are queued or run, where workers=auto
REQUEUES = 1000  # As often as its time limit ends a job it is queued again
# States of a job that ended by no fault of its trial
LOST = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED")


class SlurmTrial:
    """What a job runs: submitit calls it, and asks for a checkpoint before the job must end."""

    def __init__(self, trial: NodeTrial, warning: int) -> None:
        self.trial, self.warning = trial, warning

    def __call__(self) -> int | None:
        from submitit import JobEnvironment

        where = JobEnvironment()
        self.trial.start(where.hostnames[0], where.job_id)
        return self.trial.wait()

    def checkpoint(self) -> Any:
        """Called in the handler of the signal. Returns what the job runs when it begins again."""
        from submitit.helpers import DelayedSubmission

        self.trial.preempt(self.warning / 2)
        self.trial.process = None
        return DelayedSubmission(self)


class SlurmExecutor:
    """See `base.Executor`."""

    def __init__(
        self, config: schema.Sweep, program: tuple[str, ...], cluster: str = "slurm"
    ) -> None:
        """Raises LaunchError without submitit, or without SLURM's programs; ``cluster`` "local":
        submitit's own processes stand for jobs."""
        submitit = _import_submitit()
        self._processes = split_devices(config.trainer.devices, config.slurm.nodes, "slurm.nodes")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise LaunchError(
                "executor=slurm: there is no program sbatch on this machine; start the command on "
                "a node of a SLURM cluster that submits jobs, or leave executor= out"
            )
        self.settings, self.program = config.slurm, program
        self.at_once = count_jobs(config)
        self.notes: list[str] = []
        self.report: Report = lambda job, text, share: None
        self._folder = slurm_folder(config)
        kind = submitit.SlurmExecutor if cluster == "slurm" else submitit.LocalExecutor
        self._slurm = kind(self._folder / "%j", max_num_timeout=REQUEUES)
        local = {"timeout_min": config.slurm.minutes}
        self._slurm.update_parameters(**(job_parameters(config) if cluster == "slurm" else local))
        self._jobs: dict[Key, Any] = {}
        self._unable: dict[Key, str] = {}  # Why a trial was not submitted

    def resume(self, job: Job) -> bool:
        known = read_json(job.folder / WHICH)
        if not isinstance(known, dict):
            return False
        kind = self._slurm.job_class
        self._jobs[job.key] = slurm = kind(self._folder / "%j", known["job"], [0])
        if slurm.done(force_check=True):
            del self._jobs[job.key]
            return False
        return True

    def place(self, job: Job) -> str:
        return "slurm"

    def submit(self, jobs: Sequence[Job]) -> None:
        if not self.settings.array and len(jobs) > 1:
            for job in jobs:
                self.submit([job])
            return
        begun: dict[Key, Any] = {}
        try:
            with self._slurm.batch() if len(jobs) > 1 else nullcontext():
                for job in jobs:
                    prepare_folder(job)
                    trial = NodeTrial.of(job, self._processes, self.settings.nodes, self.program)
                    submitted = self._slurm.submit(SlurmTrial(trial, self.settings.warning))
                    begun[job.key] = submitted
            for job in jobs:
                number = begun[job.key].job_id
                write_atomically(job.folder / WHICH, to_json({"job": number}))
        except Exception as error:  # Of sbatch, in words of its own
            self._unable |= dict.fromkeys((job.key for job in jobs), describe_error(error))
            return
        self._jobs |= begun

    def poll(self, job: Job) -> Outcome | None:
        if job.key in self._unable:
            return Outcome(None, self._unable.pop(job.key))
        slurm = self._jobs[job.key]
        if not slurm.done():
            return None
        state = slurm.state.split(" ")[0]
        del self._jobs[job.key]
        (job.folder / WHICH).unlink(missing_ok=True)
        why = f"its SLURM job {slurm.job_id} ended as {state}"
        return read_end(job, why, lost=state in LOST)

    def progress(self, job: Job) -> tuple[str, float]:
        return read_progress(job)

    def stop(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if (slurm := self._jobs.pop(job.key, None)) is not None:
                slurm.cancel(check=False)
                (job.folder / WHICH).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing: what was submitted has ended, or is SLURM's."""


def _import_submitit() -> Any:
    os.environ[SIGNAL] = "USR1"  # For its processes
    try:
        import submitit
        from submitit.core.job_environment import JobEnvironment
    except ImportError:
        raise LaunchError(
            'executor=slurm needs submitit; to install it: pip install -e ".[slurm]"'
        ) from None
    JobEnvironment.USR_SIG = "USR1"
    return submitit


def slurm_folder(config: schema.Sweep) -> Path:
    """Where submitit keeps its scripts and logs."""
    return Path(config.output).resolve() / "slurm"


def count_jobs(config: schema.Sweep) -> int:
    """How many jobs are queued or run at once."""
    return AT_ONCE if config.workers == "auto" else int(config.workers)


def job_parameters(config: schema.Sweep) -> dict[str, Any]:
    """What a job asks for, in submitit's words for sbatch."""
    slurm = config.slurm
    each = split_devices(config.trainer.devices, slurm.nodes, "slurm.nodes")
    parameters: dict[str, Any] = {
        "job_name": "sweep",
        "time": slurm.minutes,
        "nodes": slurm.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": each * slurm.cpus,
        "partition": slurm.partition,
        "mem": slurm.memory,  # GB
        "gpus_per_node": each if config.trainer.accelerator != "cpu" else None,
        "signal_delay_s": slurm.warning,
        # Tells submitit's part of the job, too, which signal to wait for
        "setup": [
            f"export {SIGNAL}=USR1",
            f"export PYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH",
            *slurm.setup,
        ],
        "additional_parameters": {"requeue": True, **slurm.options},
    }
    return {key: value for key, value in parameters.items() if value is not None}


def write_script(config: schema.Sweep, name: str, trials: int) -> Path:
    """Writes the sbatch file of the trials of a sweep, which is what the sweep itself submits, for
    a person to look at. Raises LaunchError without submitit."""
    _import_submitit()
    from submitit.slurm import slurm

    folder, words = slurm_folder(config), job_parameters(config)
    if config.slurm.array and trials > 1:
        words["map_count"] = min(trials, count_jobs(config))
    if "mem" in words:
        words["mem"] = f"{words['mem']}GB"
    python = shlex.quote(sys.executable)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder / '%j'))}"
    path = folder / f"{name}.sbatch"
    write_atomically(path, slurm._make_sbatch_string(command, folder / "%j", **words))
    return path
