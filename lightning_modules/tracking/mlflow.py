"""One seed's run in MLflow.

Everything goes through a client that waits until it is stored: the asynchronous logger loses rows
on SQLite. What a training logs while the store is away is kept and sent later, so that hours of
work do not hang on a server. The runs' parents, the cells, belong to `sweeps`.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lightning_modules.tracking.provenance import changes, device, environment, hardware, provenance
from lightning_modules.tracking.provenance import tags as provenance_tags
from lightning_modules.tracking.store import StoreUnavailable, client, trouble
from lightning_modules.tracking.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from PIL.Image import Image

__all__ = ["SeedRun", "StoreUnavailable", "Tracking", "client", "describe_error", "provenance"]

ARTIFACTS = (
    "run.yaml",
    "result.json",
    "data.json",
    "scores.parquet",
    "prompts.parquet",
    "samples",
    "gates.json",
    "gates.png",
    "maps.json",
    "maps.png",
    "log.txt",
)
METRICS_PER_CALL = 1000  # MLflow takes no more in one request
TAG_LENGTH = 5000  # MLflow takes 8000 characters
LOG_BYTES = 2_000_000  # of a log.txt; of a longer one, half of it from each end
KEPT_VALUES, KEPT_IMAGES = 200_000, 32  # while the store is away: some tens of megabytes
PAUSE = 60.0  # seconds that a training goes on undisturbed after the store could not be used

logger = logging.getLogger(__name__)


@dataclass
class Tracking:
    """Where a seed's run goes: `params` are the swept values and the seed, `tags` say which cell,
    trial and attempt it is."""

    uri: str
    experiment_id: str
    parent_run_id: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class SeedRun:
    """A nested MLflow run. As a context manager it ends FINISHED, KILLED (interrupted) or FAILED
    with the tag `error`, and measures CPU, memory and GPU meanwhile.

    Metrics and images that the store does not take are kept, the oldest given up beyond a limit,
    and sent with a later call. Creating and finishing a run raise StoreUnavailable, nothing between
    them does.
    """

    def __init__(
        self, tracking: Tracking, run_id: str | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Creates the run, or takes up the one with `run_id` that another process left open.

        `facts` is the `provenance` of a result that this process only brings in; without them the
        run is this process's own work.
        """
        # a run id in the environment would make MLflow's own helpers write into the wrong run
        os.environ.pop("MLFLOW_RUN_ID", None)
        self.uri = tracking.uri
        self.client = client(tracking.uri)
        self._lock = threading.RLock()
        self._metrics: deque[Metric] = deque()
        self._images: deque[tuple[str, Image, int]] = deque()
        self._folders: list[tuple[Path, Sequence[str]]] = []
        self._lost = 0  # values and images given up
        self._next_try = 0.0  # monotonic; not 0 while the store is away
        self._system = SystemMetrics(self._log_system)
        self._own = run_id is None and facts is None
        self.run_id = (
            run_id
            if run_id is not None
            else self._create(tracking, provenance() if facts is None else facts)
        )

    def _create(self, tracking: Tracking, facts: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        tags = {
            "mlflow.runName": f"seed {tracking.params.get('seed', '?')}",
            **tracking.tags,  # first, since MLflow shows tags in this order
            **{
                key: value
                for key, value in provenance_tags(facts).items()
                if key not in tracking.tags
            },
            "role": "seed",
            "mlflow.parentRunId": tracking.parent_run_id,
        }
        run_id: str = self.client.create_run(tracking.experiment_id, tags=tags).info.run_id
        self.client.log_batch(
            run_id, params=[Param(key, str(value)) for key, value in tracking.params.items()]
        )
        if self._own:
            self.client.log_text(run_id, environment(), "environment.txt")
            if difference := changes():
                self.client.log_text(run_id, difference, "changes.diff")
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Store all values under one step."""
        with self._lock:
            self._metrics.extend(_entries(metrics, step))
            while len(self._metrics) > KEPT_VALUES:
                self._metrics.popleft()
                self._lost += 1
            self._try_to_send()

    def log_image(self, key: str, image: Image, step: int) -> None:
        """Store a picture of one step; MLflow's page of the run shows those of one key with a
        slider."""
        with self._lock:
            self._images.append((key, image, step))
            while len(self._images) > KEPT_IMAGES:
                self._images.popleft()
                self._lost += 1
            self._try_to_send()

    def log_artifacts(self, folder: Path, names: Sequence[str] = ARTIFACTS) -> None:
        """Store what a trial's folder holds for readers: settings, results, samples, gate maps and
        log; never weights.

        Of a log longer than `LOG_BYTES`, the beginning and the end. `finish` tries again where that
        failed.
        """
        with self._lock:
            self._folders.append((folder, names))
            self._try_to_send()

    def finish(self, status: str = "FINISHED", error: str | None = None, log: str = "") -> None:
        """End the run: FINISHED, FAILED or KILLED, with the reason as the tag `error`, and as the
        run's description with the end of `log`.

        Raises StoreUnavailable where something could not be stored; called again, it goes on from
        there.
        """
        from mlflow.entities import RunTag

        self._system.stop()
        tags: dict[str, str] = {}
        if self._own:
            # only now is it known what was used
            tags |= {"device": device(), "hardware": hardware()}
        if error:
            tags |= {
                "error": error[-TAG_LENGTH:],
                "mlflow.note.content": _described(status, error, log),
            }
        with self._lock:
            try:
                self._send(self.client)
            except Exception as unsent:
                # what is wrong with a value or a file made the run fail, and must not keep it from
                # being marked so
                if status == "FINISHED" or isinstance(unsent, StoreUnavailable):
                    raise
            if self._lost:
                tags["lost_values"] = str(self._lost)
            if tags:
                self.client.log_batch(
                    self.run_id, tags=[RunTag(key, value) for key, value in tags.items()]
                )
            self.client.set_terminated(self.run_id, status)

    def __enter__(self) -> SeedRun:
        self._system.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
            return
        self._system.stop()
        try:
            # Who stops a run should not wait for a server, nor lose the first error to a second
            if reason := trouble(self.uri):
                raise StoreUnavailable(reason)
            self.finish(
                "FAILED" if isinstance(error, Exception) else "KILLED", describe_error(error)
            )
        except Exception as second:
            logger.warning("the run stays open in MLflow: %s", second)

    def _try_to_send(self) -> None:
        """Send what waits, unless the store was away a moment ago."""
        if time.monotonic() < self._next_try:
            return
        try:
            if self._next_try and (reason := trouble(self.uri)):
                raise StoreUnavailable(reason)
            self._send(client(self.uri, patience=0.0))
            self._next_try = 0.0
        except StoreUnavailable as away:
            if not self._next_try:
                logger.warning("%s; what this run logs is kept and sent later", away)
            self._next_try = time.monotonic() + PAUSE

    def _send(self, to: MlflowClient) -> None:
        """Send everything that waits. Each metric keeps its time, by which MLflow knows one that it
        has already."""
        while self._metrics:
            batch = list(islice(self._metrics, METRICS_PER_CALL))
            to.log_batch(self.run_id, metrics=batch)
            for _ in batch:
                self._metrics.popleft()
        while self._images:
            key, image, step = self._images[0]
            to.log_image(self.run_id, image, key=key, step=step, synchronous=True)
            self._images.popleft()
        while self._folders:
            self._send_folder(to, *self._folders[0])
            self._folders.pop(0)

    def _send_folder(self, to: MlflowClient, folder: Path, names: Sequence[str]) -> None:
        for path in (folder / name for name in names):
            if path.is_dir():
                to.log_artifacts(self.run_id, str(path), artifact_path=path.name)
            elif path.is_file() and path.suffix == ".txt" and path.stat().st_size > LOG_BYTES:
                with tempfile.TemporaryDirectory() as draft:
                    short = Path(draft, path.name)
                    short.write_bytes(_shortened(path))
                    to.log_artifact(self.run_id, str(short))
            elif path.is_file():
                to.log_artifact(self.run_id, str(path))

    def _log_system(self, values: Mapping[str, float], step: int) -> None:
        """From a thread of its own; what cannot be stored now is not worth keeping."""
        if not self._next_try and not trouble(self.uri):
            client(self.uri, patience=0.0).log_batch(self.run_id, metrics=_entries(values, step))


def describe_error(error: BaseException) -> str:
    """`ValueError: message` on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _entries(metrics: Mapping[str, float], step: int) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    # MLflow takes few characters; splits are named after files.
    return [
        Metric(re.sub(r"[^\w./ -]", "_", key), float(value), now, step)
        for key, value in metrics.items()
    ]


def _described(status: str, error: str, log: str) -> str:
    """What the run's page says first: the reason, and the end of the log."""
    said = f"**{'Stopped' if status == 'KILLED' else 'Failed'}:** {error[-TAG_LENGTH // 4 :]}"
    room = TAG_LENGTH - len(said)
    return f"{said}\n\n```\n{log[-room:].strip()}\n```" if log.strip() else said


def _shortened(path: Path) -> bytes:
    """The beginning and the end of a file, `LOG_BYTES` in all."""
    half, size = LOG_BYTES // 2, path.stat().st_size
    with path.open("rb") as file:
        head = file.read(half)
        file.seek(size - half)
        return head + f"\n\n[… {size - 2 * half} bytes left out …]\n\n".encode() + file.read()
