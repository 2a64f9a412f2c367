"""One seed's run in MLflow.

Everything goes through a client that waits until it is stored: the asynchronous logger loses rows
on SQLite. What a training logs while the store is away is kept and sent later, so that hours of
work do not depend on a server. The runs' parents, the cells, belong to ``sweeps``.
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

from conf.describe import show_count
from lightning_modules.tracking.provenance import (
    arithmetic,
    changes,
    device,
    environment,
    hardware,
    provenance,
)
from lightning_modules.tracking.provenance import tags as provenance_tags
from lightning_modules.tracking.store import StoreUnavailable, client, trouble
from lightning_modules.tracking.system_metrics import SystemMetrics
from lightning_modules.tracking.undefined import is_defined, split_undefined

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
    "heatmaps.json",
    "heatmaps.png",
    "log.txt",
)
METRICS_PER_CALL = 1000  # MLflow takes no more in one request
TAG_LENGTH = 5000  # MLflow takes 8000 characters
LOG_BYTES = 2_000_000  # Of a log.txt; of a longer one, half of it from each end
KEPT_VALUES, KEPT_IMAGES = 200_000, 32  # While the store is away: some tens of megabytes
PAUSE = 60.0  # Seconds until the next try after the store could not be used

logger = logging.getLogger(__name__)


@dataclass
class Tracking:
    """Where a seed's run goes: ``params`` are the swept values and the seed, ``tags`` name its
    cell, trial and attempt."""

    uri: str
    experiment_id: str
    parent_run_id: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class SeedRun:
    """A nested MLflow run. As a context manager it ends FINISHED, KILLED (interrupted) or FAILED
    with the tag ``error``, and measures CPU, memory and GPU meanwhile.

    Metrics and images that the store does not take are kept, the oldest dropped beyond a limit, and
    sent with a later call. Only creating and finishing a run raise StoreUnavailable.
    """

    def __init__(
        self, tracking: Tracking, run_id: str | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Creates the run, or continues the one with ``run_id`` that another process left open.

        ``facts`` is the ``provenance`` of a result that was made elsewhere; without them the run is
        this process's own work.
        """
        # A run id in the environment would make MLflow's own helpers write into the wrong run.
        os.environ.pop("MLFLOW_RUN_ID", None)
        self.uri = tracking.uri
        self.client = client(tracking.uri)
        self._own = run_id is None and facts is None
        self.run_id = run_id or self._create(tracking, provenance() if facts is None else facts)
        self._outbox = _Outbox(self.uri, self.run_id)
        self._tags: dict[str, str] = {}
        self._undefined: dict[str, list[str]] = {}  # Metric -> what it was, and at which step
        self._ending: tuple[str, str | None] = ("FINISHED", None)
        self._system = SystemMetrics(self._log_system)

    def _create(self, tracking: Tracking, facts: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        known = provenance_tags(facts)
        tags = {
            "mlflow.runName": f"seed {tracking.params.get('seed', '?')}",
            **tracking.tags,  # First, since MLflow shows tags in this order
            **{key: value for key, value in known.items() if key not in tracking.tags},
            "role": "seed",
            "mlflow.parentRunId": tracking.parent_run_id,
        }
        run_id: str = self.client.create_run(tracking.experiment_id, tags=tags).info.run_id
        params = [Param(key, str(value)) for key, value in tracking.params.items()]
        self.client.log_batch(run_id, params=params)
        if self._own:
            self.client.log_text(run_id, environment(), "environment.txt")
            if difference := changes():
                self.client.log_text(run_id, difference, "changes.diff")
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Stores all values under one step, but for NaN and infinite ones, which the tag
        ``undefined`` names at the end."""
        defined, undefined = split_undefined(metrics)
        self._outbox.add(metrics=_entries(defined, step))
        for key, what in undefined.items():
            self._undefined.setdefault(key, []).append(f"{what} at step {step}" if step else what)

    def log_series(self, key: str, values: Sequence[tuple[int, float]]) -> None:
        """Stores the values of one metric, each with its step, together."""
        defined = [(step, value) for step, value in values if is_defined(value)]
        self._outbox.add(metrics=[_entries({key: value}, step)[0] for step, value in defined])

    def mark_undefined(self, reasons: Mapping[str, str]) -> None:
        """Names metrics without a number, and why, in the tag ``undefined``."""
        self._undefined |= {key: [reason] for key, reason in reasons.items()}

    def log_image(self, key: str, image: Image, step: int) -> None:
        """Stores a picture of one step; MLflow's page of the run shows those of one key with a
        slider."""
        self._outbox.add(images=[(key, image, step)])

    def note(self, tags: Mapping[str, str]) -> None:
        """Keeps tags that the run gets before it ends."""
        self._tags |= tags

    def log_artifacts(self, folder: Path, names: Sequence[str] = ARTIFACTS) -> None:
        """Stores what a trial's folder holds for readers: settings, results, samples, gate maps and
        log (its beginning and end, if it is longer than ``LOG_BYTES``); never weights."""
        self._outbox.add(folders=[(folder, names)])

    def end_as(self, status: str, reason: str) -> None:
        """How the context ends the run, as `finish` takes it, where nothing is raised."""
        self._ending = status, reason

    def finish(self, status: str = "FINISHED", error: str | None = None, log: str = "") -> None:
        """Ends the run: FINISHED, FAILED or KILLED, with the reason as the tag ``error``, and as
        the run's description together with the end of ``log``.

        Raises StoreUnavailable where something could not be stored; called again, it resumes there.
        """
        from mlflow.entities import RunTag

        self._system.stop()
        tags = dict(self._tags)
        if self._own:
            # Only now is it known what was used.
            tags |= {"device": device(), "hardware": hardware()} | provenance_tags(arithmetic())
        if error:
            note = _describe_failure(status, error, log)
            tags |= {"error": error[-TAG_LENGTH:], "mlflow.note.content": note}
        try:
            self._outbox.send(self.client)
        except Exception as unsent:
            # A value or a file that MLflow refuses made the run fail, and must not keep it from
            # being marked so.
            if status == "FINISHED" or isinstance(unsent, StoreUnavailable):
                raise
        if self._undefined:
            tags["undefined"] = describe_undefined_values(self._undefined)
        if self._outbox.lost:
            tags["lost_values"] = str(self._outbox.lost)
        if tags:
            entries = [RunTag(key, value) for key, value in tags.items()]
            self.client.log_batch(self.run_id, tags=entries)
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
            self.finish(*self._ending)
            return
        self._system.stop()
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        try:
            # Who stops a run should not wait for a server, nor lose the first error to a second.
            if reason := trouble(self.uri):
                raise StoreUnavailable(reason)
            self.finish(status, describe_error(error))
        except Exception as second:
            logger.warning("the run stays open in MLflow: %s", second)

    def _log_system(self, values: Mapping[str, float], step: int) -> None:
        """From another thread; what cannot be stored now is not worth keeping."""
        if self._outbox.reachable and not trouble(self.uri):
            entries = _entries({k: value for k, value in values.items() if is_defined(value)}, step)
            client(self.uri, patience=0.0).log_batch(self.run_id, metrics=entries)


class _Outbox:
    """What waits to be stored: metrics, images and files of one run. Each metric keeps its time, by
    which MLflow recognises one that it has already."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id = uri, run_id
        self.metrics: deque[Metric] = deque()
        self.images: deque[tuple[str, Image, int]] = deque()
        self.folders: list[tuple[Path, Sequence[str]]] = []
        self.lost = 0  # Values and images dropped
        self._next_try = 0.0  # Monotonic; 0 while the store is reachable
        self._lock = threading.RLock()

    @property
    def reachable(self) -> bool:
        return not self._next_try

    def add(
        self,
        metrics: Sequence[Metric] = (),
        images: Sequence[tuple[str, Image, int]] = (),
        folders: Sequence[tuple[Path, Sequence[str]]] = (),
    ) -> None:
        """Sends all that waits, unless the store was away a moment ago."""
        with self._lock:
            self.metrics.extend(metrics)
            self.images.extend(images)
            self.folders.extend(folders)
            for waiting, limit in ((self.metrics, KEPT_VALUES), (self.images, KEPT_IMAGES)):
                while len(waiting) > limit:
                    waiting.popleft()
                    self.lost += 1
            if time.monotonic() < self._next_try:
                return
            try:
                if self._next_try and (reason := trouble(self.uri)):
                    raise StoreUnavailable(reason)
                self.send(client(self.uri, patience=0.0))
                self._next_try = 0.0
            except StoreUnavailable as away:
                if not self._next_try:
                    logger.warning("%s; what this run logs is kept and sent later", away)
                self._next_try = time.monotonic() + PAUSE

    def send(self, to: MlflowClient) -> None:
        """Sends all that waits, and forgets what was stored."""
        with self._lock:
            while self.metrics:
                batch = list(islice(self.metrics, METRICS_PER_CALL))
                to.log_batch(self.run_id, metrics=batch)
                for _ in batch:
                    self.metrics.popleft()
            while self.images:
                key, image, step = self.images[0]
                to.log_image(self.run_id, image, key=key, step=step, synchronous=True)
                self.images.popleft()
            while self.folders:
                folder, names = self.folders[0]
                for path in (folder / name for name in names):
                    self._send_file(to, path)
                self.folders.pop(0)

    def _send_file(self, to: MlflowClient, path: Path) -> None:
        if path.is_dir():
            to.log_artifacts(self.run_id, str(path), artifact_path=path.name)
        elif path.is_file() and path.suffix == ".txt" and path.stat().st_size > LOG_BYTES:
            with tempfile.TemporaryDirectory() as folder:
                short = Path(folder, path.name)
                short.write_bytes(_shorten(path))
                to.log_artifact(self.run_id, str(short))
        elif path.is_file():
            to.log_artifact(self.run_id, str(path))


def describe_error(error: BaseException) -> str:
    """``ValueError: message`` on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _entries(metrics: Mapping[str, float], step: int) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    # MLflow allows few characters; splits are named after files.
    return [
        Metric(re.sub(r"[^\w./ -]", "_", key), float(value), now, step)
        for key, value in metrics.items()
    ]


def describe_undefined_values(found: Mapping[str, Sequence[str]]) -> str:
    """eval/fid: NaN: why; train/loss: NaN at step 20 and 3 more times."""
    parts = []
    for key, times in found.items():
        more = f" and {show_count(len(times) - 1, 'more time')}" if len(times) > 1 else ""
        parts.append(f"{key}: {times[0]}{more}")
    return "; ".join(parts)[:TAG_LENGTH]


def _describe_failure(status: str, error: str, log: str) -> str:
    """The top of the run's page: the reason, and the end of the log."""
    ending = "Stopped" if status == "KILLED" else "Failed"
    text = f"**{ending}:** {error[-TAG_LENGTH // 4 :]}"
    room = TAG_LENGTH - len(text)
    return f"{text}\n\n```\n{log[-room:].strip()}\n```" if log.strip() else text


def _shorten(path: Path) -> bytes:
    """The beginning and the end of a file, ``LOG_BYTES`` in all."""
    half, size = LOG_BYTES // 2, path.stat().st_size
    with path.open("rb") as file:
        head = file.read(half)
        file.seek(size - half)
        return head + f"\n\n[… {size - 2 * half} bytes left out …]\n\n".encode() + file.read()
