"""Trials as Ray tasks: each asks for its GPUs and cores, and runs on any node that has them free.

A trial whose node is lost is given out again. Without a shared folder its own comes back through
Ray's object store when it has ended; data and backbone are then found on each node by the same
settings, and a result that was made of other content is refused, as everywhere.
"""

from __future__ import annotations

import io
import logging
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import schema
from conf.describe import show_count
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
from sweeps.engine.slots import Outcome, describe_exit

if TYPE_CHECKING:
    from sweeps.engine.executors.base import Report
    from sweeps.engine.plan import Job
    from sweeps.engine.trials import Key

__all__ = ["RayExecutor"]


class RayExecutor:
    """See `base.Executor`."""

    def __init__(self, config: schema.Sweep, program: tuple[str, ...]) -> None:
        """Joins the cluster ``ray.address``, or starts one of this machine. Raises LaunchError
        without Ray, where no cluster answers, and for more than any node of it has."""
        try:
            import ray
        except ImportError:
            raise LaunchError(
                'executor=ray needs Ray; to install it: pip install -e ".[ray]"'
            ) from None
        self._ray, self.settings, self.program = ray, config.ray, program
        self.notes: list[str] = []
        self.report: Report = lambda job, text, share: None
        self._processes = split_devices(config.trainer.devices, config.ray.nodes, "ray.nodes")
        self._connect()
        self._needs = {"CPU": float(config.ray.cpus)}
        if config.trainer.accelerator != "cpu" and ray.cluster_resources().get("GPU"):
            self._needs["GPU"] = float(self._processes)
        self.at_once = self._count_room() if config.workers == "auto" else int(config.workers)
        self._tasks: dict[Key, list[Any]] = {}  # Its tasks, one on each of its nodes
        self._groups: dict[Key, Any] = {}

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        # What a task imports is this code, wherever its node finds it
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {"env_vars": {"PYTHONPATH": paths}}
        try:
            self._ray.init(
                self.settings.address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if self.settings.address is None else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise LaunchError(
                f"ray.address={self.settings.address}: no cluster answers ({error}); start one "
                "with ray start --head, or leave ray.address out"
            ) from None

    def _count_room(self) -> int:
        """How many trials the cluster can run at once. Raises LaunchError if it cannot run one."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        parts = sum(
            int(min(node.get(kind, 0.0) // count for kind, count in self._needs.items()))
            for node in nodes
        )
        if not (room := parts // self.settings.nodes):
            needed = " and ".join(f"{n:g} {kind}" for kind, n in self._needs.items())
            has = "; ".join(f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU" for n in nodes)
            raise LaunchError(
                f"a trial needs {needed} on {show_count(self.settings.nodes, 'node')}, but those "
                f"of the Ray cluster have {has}: lower trainer.devices or ray.cpus, or give "
                "workers= if more will come"
            )
        return room

    def resume(self, job: Job) -> bool:
        return False  # Tasks end with the process that submitted them

    def place(self, job: Job) -> str:
        return "ray"

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            prepare_folder(job)
            nodes = self.settings.nodes
            trial = NodeTrial.of(job, self._processes, nodes, self.program)
            words: dict[str, Any] = {
                "num_cpus": self._needs["CPU"],
                "num_gpus": self._needs.get("GPU", 0.0),
                "max_retries": 0,  # The driver gives it out again, and says so
            }
            task = self._ray.remote(_run_trial)
            if nodes == 1:
                self._tasks[job.key] = [
                    task.options(**words).remote(trial, job.config, self.settings.shared)
                ]
            else:
                self._submit_spanning(job, trial, task, words)

    def _submit_spanning(self, job: Job, trial: NodeTrial, task: Any, words: dict) -> None:
        """A task on each of several nodes, whose ranks meet at the first."""
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        nodes, name = self.settings.nodes, f"{job.folder.name}-{job.number}"
        group = placement_group([self._needs] * nodes, strategy="STRICT_SPREAD")
        self._groups[job.key] = group

        def at(number: int) -> Any:
            return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)

        find = self._ray.remote(_find_address)
        head = find.options(num_cpus=0, scheduling_strategy=at(0)).remote()
        self._tasks[job.key] = [
            task.options(**words, scheduling_strategy=at(number)).remote(
                trial, job.config, self.settings.shared, head, name
            )
            for number in range(nodes)
        ]

    def poll(self, job: Job) -> Outcome | None:
        tasks = self._tasks[job.key]
        ready, _ = self._ray.wait(tasks, num_returns=1, timeout=0)
        if not ready:
            return None
        status, why, lost = 0, "", False
        try:
            # Ranks end together; one that was lost ends the others
            status, content = self._ray.get(ready[0])
            _unpack(content, job.folder)
        except self._ray.exceptions.RayTaskError as error:
            why = describe_error(error.as_instanceof_cause())
        except self._ray.exceptions.RayError as error:
            why, lost = f"its Ray node or worker was lost ({type(error).__name__})", True
        self.stop([job])
        return read_end(job, why or describe_exit(status), lost)

    def progress(self, job: Job) -> tuple[str, float]:
        return read_progress(job)

    def stop(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            for task in self._tasks.pop(job.key, []):
                self._ray.cancel(task, force=True)
            if (group := self._groups.pop(job.key, None)) is not None:
                self._ray.util.remove_placement_group(group)

    def close(self) -> None:
        self._ray.shutdown()


def _find_address() -> str:
    from ray.util import get_node_ip_address

    return get_node_ip_address()


def _run_trial(
    trial: NodeTrial, config: schema.Run, shared: bool, head: str = "", name: str = ""
) -> tuple[int, bytes]:
    """On a node: the exit status of a trial, and its folder as a tar file where it is not
    ``shared``."""
    folder = Path(trial.run).parent
    if not shared:
        from conf import load as conf

        folder.mkdir(parents=True, exist_ok=True)
        conf.write(config, Path(trial.run))
    trial.start(head, name)
    try:
        status = trial.wait() or 0
    finally:  # A task that is cancelled
        trial.preempt(0)
    return status, b"" if shared else _pack(folder)


def _pack(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(folder, ".")
    return content.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    """The result comes last: with it a trial has finished."""
    if not content:
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        members.sort(key=lambda member: member.name == "./result.json")
        archive.extractall(folder, members, filter="data")
