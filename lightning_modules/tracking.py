"""One seed's run in MLflow, and what a result was made with.

Everything goes through `MlflowClient` and waits until it is stored: the asynchronous logger loses rows on SQLite. The runs' parents, the
cells, belong to `sweeps`.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL.Image import Image

__all__ = ["SeedRun", "Tracking", "client", "describe_error", "provenance", "start_seed_run"]

ARTIFACTS = (
    "run.yaml", "result.json", "data.json", "scores.parquet", "prompts.parquet", "samples", "gates.json", "gates.png", "maps.json",
    "maps.png", "log.txt",
)  # fmt: skip
PACKAGES = ("torch", "diffusers", "transformers", "lightning", "torchmetrics", "mlflow", "optuna", "numpy")
METRICS_PER_CALL = 1000  # MLflow takes no more in one request
TAG_LENGTH = 5000  # MLflow takes 8000 characters


@dataclass
class Tracking:
    """Where a seed's run goes: `params` are the swept values and the seed, `tags` say which cell, trial and attempt it is."""

    uri: str
    experiment_id: str
    parent_run_id: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class SeedRun:
    """A nested MLflow run. As a context manager it ends FINISHED, KILLED (interrupted) or FAILED with the tag `error`."""

    def __init__(self, tracking: Tracking, run_id: str | None = None) -> None:
        """Creates the run, or takes up the one with `run_id` that another process left open."""
        # a run id in the environment would make MLflow's own helpers write into the wrong run
        os.environ.pop("MLFLOW_RUN_ID", None)
        self.client = client(tracking.uri)
        if run_id is not None:
            self.run_id = run_id
            return
        tags = {
            "mlflow.runName": f"seed {tracking.params.get('seed', '?')}",
            **_tags(provenance()),
            **tracking.tags,
            "role": "seed",
            "mlflow.parentRunId": tracking.parent_run_id,
        }
        from mlflow.entities import Param

        self.run_id = self.client.create_run(tracking.experiment_id, tags=tags).info.run_id
        self.client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in tracking.params.items()])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Store all values under one step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow takes few characters; splits are named after files.
        entries = [Metric(re.sub(r"[^\w./ -]", "_", key), float(value), now, step) for key, value in metrics.items()]
        for start in range(0, len(entries), METRICS_PER_CALL):
            self.client.log_batch(self.run_id, metrics=entries[start:start + METRICS_PER_CALL])

    def log_image(self, key: str, image: Image, step: int) -> None:
        """Store a picture of one step; MLflow's page of the run shows those of one key with a slider."""
        self.client.log_image(self.run_id, image, key=key, step=step, synchronous=True)

    def log_artifacts(self, folder: Path) -> None:
        """Store what a trial's folder holds for readers: settings, results, samples, gate maps and log; never weights."""
        for path in (folder / name for name in ARTIFACTS):
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), artifact_path=path.name)
            elif path.is_file():
                self.client.log_artifact(self.run_id, str(path))

    def finish(self, status: str = "FINISHED", error: str | None = None) -> None:
        """End the run: FINISHED, FAILED or KILLED, with the reason as the tag `error`."""
        if error:
            self.client.set_tag(self.run_id, "error", error[-TAG_LENGTH:])
        self.client.set_terminated(self.run_id, status)

    def __enter__(self) -> SeedRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.finish()
        else:
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED", describe_error(error))


def start_seed_run(tracking: Tracking) -> SeedRun:
    """Create the nested run; it is RUNNING until `finish`."""
    return SeedRun(tracking)


@cache
def client(uri: str) -> MlflowClient:
    """A quiet client without telemetry. The first one on a new SQLite file creates the tables: let one process do that."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "mlflow.tracking.fluent", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def describe_error(error: BaseException) -> str:
    """`ValueError: message` on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def provenance() -> dict[str, Any]:
    """Versions of python and packages, the names of CPU and GPU (`hardware`), and in a repository the `commit` and whether tracked files
    differ from it (`dirty`).

    Holds nothing that tells whose machine it was: no host name, no path.
    """
    facts: dict[str, Any] = {}
    commit = _git("rev-parse", "HEAD") if _git("ls-files", Path(__file__).name) else None
    if commit:
        facts |= {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    facts |= {"hardware": ", ".join(filter(None, [_cpu(), _gpu()])), "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            facts[name] = metadata.version(name)
    return facts


def _tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as MLflow tags; MLflow's page of a run shows the commit under its own name for it."""
    plain = ("commit", "dirty", "hardware")
    tags = {key if key in plain else f"version.{key}": str(value) for key, value in facts.items()}
    return tags | ({"mlflow.source.git.commit": facts["commit"]} if "commit" in facts else {})


def _git(*words: str) -> str | None:
    """What git says about the project's repository, None without git or repository."""
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu() -> str | None:
    """The GPU's name. A process that never loaded torch has used none, and need not load it to say so."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
