"""An MLflow store in dictionaries: what the engine asks of `MlflowClient`, a hundred times
quicker."""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.tracking import store

CONDITION = re.compile(r"tags\.`?([\w.]+)`? = '([^']*)'")
CLOCK = itertools.count(int(time.time() * 1000))  # Strictly rising, so that runs have an order


class Page(list):
    token = None


class MemoryMlflow:
    """One store. Experiments and runs look like MLflow's own."""

    def __init__(self) -> None:
        self.experiments: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}
        self.files: dict[str, set[str]] = {}
        self.histories: dict[tuple[str, str], list[Any]] = {}

    # Experiments

    def search_experiments(self, **_: Any) -> Page:
        return Page(self.experiments.values())

    def create_experiment(self, name: str, location: str | None, tags: dict[str, str]) -> str:
        key = str(len(self.experiments) + 1)
        self.experiments[key] = SimpleNamespace(
            experiment_id=key,
            name=name,
            tags=dict(tags),
            lifecycle_stage="active",
            artifact_location=location,
            creation_time=next(CLOCK),
        )
        return key

    def get_experiment(self, key: str) -> Any:
        return self.experiments[key]

    def get_experiment_by_name(self, name: str) -> Any:
        return next((e for e in self.experiments.values() if e.name == name), None)

    def delete_experiment(self, key: str) -> None:
        self.experiments[key].lifecycle_stage = "deleted"

    def restore_experiment(self, key: str) -> None:
        self.experiments[key].lifecycle_stage = "active"

    def set_experiment_tag(self, key: str, tag: str, value: str) -> None:
        self.experiments[key].tags[tag] = value

    # Runs

    def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
        run_id = uuid.uuid4().hex
        info = SimpleNamespace(
            run_id=run_id,
            run_name=tags.get("mlflow.runName", ""),
            experiment_id=experiment_id,
            status="RUNNING",
            lifecycle_stage="active",
            start_time=next(CLOCK),
            end_time=None,
        )
        data = SimpleNamespace(tags=dict(tags), params={}, metrics={})
        self.runs[run_id] = SimpleNamespace(info=info, data=data)
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> Any:
        run = self.runs[run_id]
        data = {name: dict(part) for name, part in vars(run.data).items()}
        return SimpleNamespace(info=SimpleNamespace(**vars(run.info)), data=SimpleNamespace(**data))

    def search_runs(self, experiment_ids: list[str], where: str = "", **_: Any) -> Page:
        conditions = CONDITION.findall(where)
        return Page(
            self.get_run(run_id)
            for run_id, run in self.runs.items()
            if run.info.experiment_id in experiment_ids
            and run.info.lifecycle_stage == "active"
            and all(run.data.tags.get(tag) == value for tag, value in conditions)
        )

    def delete_run(self, run_id: str) -> None:
        self.runs[run_id].info.lifecycle_stage = "deleted"

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        data = self.runs[run_id].data
        for metric in metrics:
            data.metrics[metric.key] = metric.value
            self.histories.setdefault((run_id, metric.key), []).append(metric)
        for param in params:
            assert data.params.setdefault(param.key, param.value) == param.value, param
        data.tags.update({tag.key: tag.value for tag in tags})

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id].data.tags[key] = value

    def delete_tag(self, run_id: str, key: str) -> None:
        del self.runs[run_id].data.tags[key]

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None:
        info = self.runs[run_id].info
        info.status, info.end_time = status, end_time or next(CLOCK)

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return self.histories.get((run_id, key), [])

    # Files, by name only

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self.files.setdefault(run_id, set()).add(name)

    def log_artifact(self, run_id: str, path: str) -> None:
        self.files.setdefault(run_id, set()).add(Path(path).name)

    def log_artifacts(self, run_id: str, path: str, artifact_path: str) -> None:
        self.files.setdefault(run_id, set()).add(artifact_path)

    def list_artifacts(self, run_id: str) -> list[Any]:
        return [SimpleNamespace(path=name) for name in sorted(self.files.get(run_id, ()))]


@contextmanager
def in_memory() -> Iterator[None]:
    """For the body's time every SQLite store is in memory, and no run asks git."""
    stores: dict[str, MemoryMlflow] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_connect", lambda uri: stores.setdefault(uri, MemoryMlflow()))
        for module in ("lightning_modules.tracking.mlflow", "sweeps.engine.mlflow_mirror"):
            patch.setattr(f"{module}.provenance", lambda: {"commit": "f00", "python": "3"})
        patch.setattr("lightning_modules.tracking.mlflow.changes", lambda: None)
        patch.setattr("lightning_modules.tracking.mlflow.environment", lambda: "")
        store.client.cache_clear()
        yield
        store.client.cache_clear()
