"""The MLflow side of a sweep: one experiment, a top-level run for every cell, nested runs for its seeds. Two levels and no more, since
MLflow's table and charts show a single row otherwise.

Cells carry the aggregates over seeds, computed by the same function as the report's.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from lightning_modules.tracking import SeedRun, Tracking, client
from sweeps.sweep import Cell, level_text

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Ledger", "ServerError", "check_server", "public"]

PAGE = 1000  # runs or metrics per request
WAIT = 5.0  # seconds for a server to answer
Seeds = dict[str, dict[int, dict[str, float]]]  # cell -> seed -> metric -> value


class ServerError(ValueError):
    """An MLflow server that cannot be used, said in one line."""


class Ledger:
    """The experiment `name` at `uri`. All methods can be repeated; what is there already is found again."""

    def __init__(self, uri: str, name: str, artifacts: Path | None, tags: Mapping[str, str], note: str) -> None:
        """Creates the experiment where it is missing, with its artifacts below `artifacts` (None: where the server keeps them).

        `note` describes a new experiment until a report does.
        """
        self.uri, self.name = uri, name
        self.client = client(uri)
        found = self.client.get_experiment_by_name(name)
        if found is None:
            location = artifacts.resolve().as_uri() if artifacts else None
            # with its tags at once: an experiment without them would not be known as this sweep's
            self.experiment_id: str = self.client.create_experiment(name, location, {**tags, "mlflow.note.content": note})
        else:
            self.experiment_id = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment_id)
            for key, value in tags.items():
                if found.tags.get(key) != value:
                    self.client.set_experiment_tag(self.experiment_id, key, value)
        self.runs: dict[str, str] = {}  # cell -> run id

    def add_cells(self, cells: Iterable[Cell]) -> None:
        """A top-level run for every cell."""
        known = {run.data.tags["cell"]: run for run in reversed(self._search("cell"))}
        for cell in cells:
            tags = {"baseline": str(cell.baseline).lower(), "reference": str(cell.reference).lower()}
            run = known.get(cell.text)
            if run is None:
                names = {"mlflow.runName": cell.text, "role": "cell", "cell": cell.text}
                run = self.client.create_run(self.experiment_id, tags={**names, **tags})
                for key, value in cell.values.items():
                    self.client.log_param(run.info.run_id, key, level_text(value))
                self.client.update_run(run.info.run_id, status="SCHEDULED")
            for key in tags.keys() & run.data.tags.keys():
                if run.data.tags[key] != tags[key]:
                    self.client.set_tag(run.info.run_id, key, tags[key])
            self.runs[cell.text] = run.info.run_id

    def mark(self, tag: str, cells: Collection[str]) -> None:
        """Set the tag `tag` on the runs of all cells: true on those of `cells`, false on the others."""
        for text, run_id in self.runs.items():
            self.client.set_tag(run_id, tag, str(text in cells).lower())

    def tracking(self, cell: Cell, seed: int, trial: int, attempt: int) -> Tracking:
        """What the trial needs to make its own nested run."""
        return Tracking(
            uri=self.uri,
            experiment_id=self.experiment_id,
            parent_run_id=self.runs[cell.text],
            params={"seed": str(seed), **{key: level_text(value) for key, value in cell.values.items()}},
            tags={"mlflow.runName": f"{cell.text}, seed {seed}", "cell": cell.text, "trial": str(trial), "attempt": str(attempt)},
        )

    def seeds(self, cell: str | None = None) -> Seeds:
        """Metrics of the finished runs (`eval/` taken off), of all cells or of one; the latest run counts."""
        found: Seeds = {}
        names = {run_id: text for text, run_id in self.runs.items()}
        for run in self._search("seed", self.runs[cell] if cell else None):
            name = names.get(run.data.tags.get("mlflow.parentRunId", ""))
            if name is not None and run.info.status == "FINISHED":
                metrics = {key.removeprefix("eval/"): value for key, value in run.data.metrics.items() if key.startswith("eval/")}
                found.setdefault(name, {})[int(run.data.params["seed"])] = metrics
        return found

    def settle(self, tracking: Tracking, result: Mapping[str, Any], folder: Path) -> None:
        """Make sure that a finished trial has its finished run: the process may have ended between result and run."""
        runs = self._attempts(tracking)
        if any(run.info.status == "FINISHED" for run in runs):
            return
        left_open = [run.info.run_id for run in runs if run.info.status == "RUNNING"]
        seed_run = SeedRun(tracking, left_open[-1] if left_open else None)
        seed_run.log_metrics(result["metrics"])
        seed_run.log_artifacts(folder)
        seed_run.finish()

    def fail(self, tracking: Tracking, status: str, error: str, folder: Path) -> None:
        """Mark the run of a trial FAILED or KILLED with the reason; one is made where the trial did not get as far."""
        own = [run.info.run_id for run in self._attempts(tracking) if run.data.tags.get("trial") == tracking.tags["trial"]]
        seed_run = SeedRun(tracking, own[-1] if own else None)
        if (folder / "log.txt").is_file():
            self.client.log_artifact(seed_run.run_id, str(folder / "log.txt"))
        seed_run.finish(status, error)

    def close_stale(self, running: Iterable[int]) -> None:
        """End the seed runs that a killed process left open; `running` are the numbers of trials that are being worked on."""
        alive = {str(number) for number in running}
        for run in self._search("seed"):
            if run.info.status == "RUNNING" and run.data.tags.get("trial") not in alive:
                self.client.set_tag(run.info.run_id, "error", "the process ended before the trial did")
                self.client.set_terminated(run.info.run_id, "KILLED")

    def aggregate(self, cell: str, seeds: Sequence[int], failed: bool = False) -> None:
        """Write `agg/<metric>_{mean,sd,ci95,n}` over `seeds` onto the cell's run, and its state: FINISHED once all seeds are there.

        `ci95` is half the width of the t-interval; it and `sd` need two seeds. Undefined values (NaN) are left out, and n says so.
        """
        from mlflow.entities import Metric

        from reports.statistics import mean_interval

        finished = {seed: metrics for seed, metrics in self.seeds(cell).get(cell, {}).items() if seed in seeds}
        run = self.client.get_run(self.runs[cell])
        values: dict[str, float] = {}
        for key in sorted({key for metrics in finished.values() for key in metrics}):
            defined = [metrics[key] for _, metrics in sorted(finished.items()) if math.isfinite(metrics.get(key, math.nan))]
            values[f"agg/{key}_n"] = len(defined)
            if defined:
                interval = mean_interval(defined)
                values[f"agg/{key}_mean"] = interval.mean
            if len(defined) > 1:
                values |= {f"agg/{key}_sd": interval.sd, f"agg/{key}_ci95": interval.half}
        now = int(time.time() * 1000)
        changed = [Metric(key, value, now, 0) for key, value in values.items() if run.data.metrics.get(key) != value]
        for start in range(0, len(changed), PAGE):
            self.client.log_batch(run.info.run_id, metrics=changed[start:start + PAGE])
        status = "FINISHED" if len(finished) == len(seeds) else "FAILED" if failed else "SCHEDULED"
        if run.info.status != status:
            if status == "SCHEDULED":
                self.client.update_run(run.info.run_id, status=status)
            else:
                self.client.set_terminated(run.info.run_id, status)

    def state(self) -> dict[str, Any]:
        """What a report depends on: every run with its status, and what the planner wrote."""
        tags = dict(self.client.get_experiment(self.experiment_id).tags)
        runs = {run.info.run_id: [run.info.status, run.info.end_time] for run in self._search("seed")}
        return {"runs": runs, "tags": {key: value for key, value in tags.items() if not key.startswith("mlflow.") and key != "command"}}

    def links(self) -> list[tuple[str, str]]:
        """How to look at the sweep in MLflow: what to type, and the pages."""
        if self.uri.startswith(("http://", "https://")):
            server, ways = self.uri.rstrip("/"), []
        else:
            server = "http://127.0.0.1:5000"
            ways = [("MLflow", f"mlflow ui --backend-store-uri {_short(self.uri)}")]
        runs = quote(json.dumps(list(self.runs.values()), separators=(",", ":")))
        experiments = quote(json.dumps([self.experiment_id]))
        return [
            *ways,
            ("charts", f"{server}/#/experiments/{self.experiment_id}/runs?compareRunsMode=CHART"),
            ("compare", f"{server}/#/compare-runs?runs={runs}&experiments={experiments}"),
        ]

    def _attempts(self, tracking: Tracking) -> list[Run]:
        """All runs of the same cell and seed, oldest first."""
        runs = self._search("seed", tracking.parent_run_id)
        return [run for run in runs if run.data.params.get("seed") == tracking.params["seed"]]

    def _search(self, role: str, parent: str | None = None) -> list[Run]:
        """Runs of a role, oldest first."""
        where = f"tags.role = '{role}'" + (f" and tags.`mlflow.parentRunId` = '{parent}'" if parent else "")
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], where, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found


def check_server(uri: str) -> None:
    """Raises ServerError where no server answers; MLflow itself would go on asking for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urlopen(f"{public(uri).rstrip('/')}/health", timeout=WAIT).close()
    except HTTPError:
        return  # it answers; what it thinks of this page does not matter
    except OSError as error:
        raise ServerError(f"no MLflow server answers at tracking_uri={public(uri)}: {getattr(error, 'reason', error)}") from None


def public(uri: str) -> str:
    """A URI without user and password."""
    scheme, separator, rest = uri.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _short(uri: str) -> str:
    """An SQLite URI below the working directory as it can be typed there."""
    path = uri.removeprefix("sqlite:///")
    here = os.getcwd() + os.sep
    return f"sqlite:///{path.removeprefix(here)}" if uri.startswith("sqlite:///") else uri
