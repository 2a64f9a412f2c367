"""A sweep outside of MLflow: what a report reads there as plain facts, and an address by which a
report is made from them. ``bundle://FOLDER`` is a folder with ``EXPERIMENT`` and the files of the
runs; it gives what the store gave, run ids and times included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from reports.files import ReportError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["EXPERIMENT", "SCHEME", "BundleClient", "read_experiment"]

EXPERIMENT, SCHEME = "experiment.json", "bundle://"
ROLES = ("cell", "seed")  # Of the runs that a report reads
PAGE = 1000


def read_experiment(client: MlflowClient, sweep: str) -> dict[str, Any]:
    """What a store holds of a sweep. Raises ReportError where there is none."""
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        raise ReportError(f"no sweep '{sweep}' in this store")
    runs = []
    for role in ROLES:
        token = None
        while True:
            page = client.search_runs(
                [experiment.experiment_id],
                f"tags.role = '{role}'",
                max_results=PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += [_read_run(client, run) for run in page]
            if not (token := page.token):
                break
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "tags": dict(experiment.tags),
        "runs": runs,
    }


def _read_run(client: MlflowClient, run: Any) -> dict[str, Any]:
    training = [key for key in run.data.metrics if key.startswith("train/")]
    return {
        "run_id": run.info.run_id,
        "run_name": run.info.run_name,
        "status": run.info.status,
        "start_time": run.info.start_time,
        "end_time": run.info.end_time,
        "tags": dict(run.data.tags),
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "histories": {
            key: [
                [one.step, one.timestamp, one.value]
                for one in client.get_metric_history(run.info.run_id, key)
            ]
            for key in training
        },
    }


class _Page(list[Any]):
    token = None  # Everything is on it


class BundleClient:
    """Answers what a report asks an MlflowClient, from a folder. Nothing can be written."""

    def __init__(self, folder: Path) -> None:
        """Raises ReportError where the folder has no ``EXPERIMENT`` that can be read."""
        self.folder = folder
        try:
            self.content = json.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))
            self.runs = [self._restore(entry) for entry in self.content["runs"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReportError(f"{folder / EXPERIMENT} cannot be read: {error}") from None

    def search_experiments(self) -> _Page:
        """The one."""
        return _Page([self._experiment()])

    def get_experiment_by_name(self, name: str) -> Any:
        """It, or None."""
        return self._experiment() if name == self.content["name"] else None

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        order_by: Sequence[str] = (),
        max_results: int = PAGE,
    ) -> _Page:
        """The runs of the role that the filter names, oldest first."""
        role = filter_string.rpartition("= ")[2].strip("'")
        return _Page(run for run in self.runs if run.data.tags.get("role") == role)

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        """Each value that a training logged."""
        entry = next(entry for entry in self.content["runs"] if entry["run_id"] == run_id)
        values = entry["histories"].get(key, [])
        return [SimpleNamespace(step=s, timestamp=t, value=value) for s, t, value in values]

    def _experiment(self) -> Any:
        return SimpleNamespace(
            experiment_id=self.content["experiment_id"],
            name=self.content["name"],
            tags=self.content["tags"],
            lifecycle_stage="active",
        )

    def _restore(self, entry: dict[str, Any]) -> Any:
        names = ("run_id", "run_name", "status", "start_time", "end_time")
        info = SimpleNamespace(**{name: entry[name] for name in names})
        info.artifact_uri = (self.folder / entry.get("files", "none")).resolve().as_uri()
        data = SimpleNamespace(**{name: entry[name] for name in ("tags", "params", "metrics")})
        return SimpleNamespace(info=info, data=data)
