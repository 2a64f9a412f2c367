"""What the driver asks of a place where trials run, and which one a command asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from sweeps.engine.errors import LaunchError
from sweeps.engine.executors import slurm
from sweeps.engine.executors.local import LocalExecutor
from sweeps.engine.slots import PROGRAM, check_workers, make_slots

if TYPE_CHECKING:
    from conf import schema
    from sweeps.engine.plan import Job
    from sweeps.engine.slots import Outcome, Trainer

__all__ = ["Executor", "Report", "count_places", "make_executor"]

Report = Callable[["Job", str, float], None]


class Executor(Protocol):
    """Runs trials, each with its devices, and tells how they end. A trial leaves its result in its
    folder."""

    notes: list[str]  # Lines for the person who looks, not said yet
    # Told what a trial says of its progress where ``submit`` returns when it has ended
    report: Report

    @property
    def at_once(self) -> int:
        """How many trials there is room for."""

    def resume(self, job: Job) -> bool:
        """Whether a trial that another process submitted still runs, and is this one's now."""

    def place(self, job: Job) -> str:
        """Gives room to a trial, and says where: "gpu 0"; empty: in this process."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Begins trials that have room. What keeps one from beginning, ``poll`` says."""

    def poll(self, job: Job) -> Outcome | None:
        """How a trial ended, once; None while it runs."""

    def progress(self, job: Job) -> tuple[str, float]:
        """The latest line of a trial and the share of it that is done."""

    def stop(self, jobs: Sequence[Job]) -> None:
        """Ends trials that run; each may write a checkpoint first."""

    def close(self) -> None:
        """Leaves nothing behind: what still runs is ended."""


def count_places(config: schema.Sweep) -> tuple[int, bool]:
    """How many trials run at once, as far as that is known without asking a cluster, and whether
    each has devices of its own. Raises LaunchError."""
    if config.executor == "local":
        slots = make_slots(config)
        return len(slots), slots[0].device.startswith("gpu")
    check_workers(config)
    if config.executor == "slurm":
        return slurm.count_jobs(config), True
    return 1 if config.workers == "auto" else int(config.workers), True


def make_executor(
    config: schema.Sweep, train: Trainer | None = None, program: tuple[str, ...] | None = None
) -> Executor:
    """What ``executor=`` names. Raises LaunchError where it cannot be used here.

    ``train`` replaces ``lightning_modules.training.run.run`` in this process, ``program`` the
    worker in others.
    """
    program = program or PROGRAM
    if config.executor == "local":
        return LocalExecutor(make_slots(config, train, program))
    check_workers(config)
    if config.launch is not None:
        raise LaunchError(
            f"launch={config.launch} starts processes from this machine: leave it out with "
            f"executor={config.executor}, or give executor=local"
        )
    if config.executor == "slurm":
        return slurm.SlurmExecutor(config, program)
    from sweeps.engine.executors.ray import RayExecutor

    return RayExecutor(config, program)
