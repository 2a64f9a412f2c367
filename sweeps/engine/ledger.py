"""The MLflow side of a sweep: one experiment, a top-level run for every cell, nested runs for its seeds. Two levels and no more, since
MLflow's table and charts show a single row otherwise.

Cells carry the aggregates over seeds, computed by the same function as the report's.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_modules.tracking.mlflow import SeedRun, Tracking, provenance
from lightning_modules.tracking.store import client, is_server, public, trouble
from sweeps.engine.pages import VIEW_TAG, pages, view
from sweeps.sweep import Cell, level_text

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Ledger", "ServerError", "check_server", "public"]

LOCAL = "http://127.0.0.1:5000"  # where `python -m sweeps ui` opens the pages
PAGE = 1000  # runs or metrics per request
LOG_END = 3000  # bytes of a failed trial's log that its run's description shows
Seeds = dict[str, dict[int, dict[str, float]]]  # cell -> seed -> metric -> value


class ServerError(ValueError):
    """An MLflow server that cannot be used, said in one line."""


class Ledger:
    """The experiment `name` at `uri`. All methods can be repeated; what is there already is found again."""

    def __init__(
        self,
        uri: str,
        name: str,
        artifacts: Path | None,
        tags: Mapping[str, str],
        note: str,
        method_of: Callable[[Cell], str] | None = None,
    ) -> None:
        """Creates the experiment where it is missing, with its artifacts below `artifacts` (None: where the server keeps them).

        `note` describes a new experiment until a report does; `method_of` gives the name of a cell's method.
        """
        self.uri, self.name = uri, name
        self.client = client(uri)
        self.headline = tags.get("headline")
        self.method_of = method_of
        if shown := view(tags):
            tags = {**tags, VIEW_TAG: shown}
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
        """A top-level run for every cell; those of earlier plans are marked as not planned."""
        from mlflow.entities import Param

        known = {run.data.tags["cell"]: run for run in reversed(self._search("cell"))}
        cells = list(cells)
        for text in known.keys() - {cell.text for cell in cells}:
            if known[text].data.tags.get("planned") != "false":
                self.client.set_tag(known[text].info.run_id, "planned", "false")
        for cell in cells:
            flags = {"baseline": cell.baseline, "reference": cell.reference, "planned": True}
            tags = {key: str(value).lower() for key, value in flags.items()}
            run = known.get(cell.text)
            if run is None:
                names = {"mlflow.runName": cell.text, "role": "cell", "cell": cell.text}
                run = self.client.create_run(self.experiment_id, tags={**names, **tags})
                self.client.update_run(run.info.run_id, status="SCHEDULED")
            # also of a run that is there: its process may have ended between the two
            params = [Param(key, text) for key, text in self._params(cell).items() if key not in run.data.params]
            if params:
                self.client.log_batch(run.info.run_id, params=params)
            for key in tags:
                if run.data.tags.get(key) != tags[key]:
                    self.client.set_tag(run.info.run_id, key, tags[key])
            self.runs[cell.text] = run.info.run_id

    def _params(self, cell: Cell) -> dict[str, str]:
        """The levels of a cell, and its method: a comparison that has it of the untouched backbone alone calls the others' unknown."""
        levels = {key: level_text(value) for key, value in cell.values.items()}
        return levels if self.method_of is None else {"method.name": self.method_of(cell), **levels}

    def mark(self, tag: str, cells: Collection[str]) -> None:
        """Set the tag `tag` on the runs of all cells: true on those of `cells`, false on the others."""
        for text, run_id in self.runs.items():
            self.client.set_tag(run_id, tag, str(text in cells).lower())

    def tracking(self, cell: Cell, seed: int, trial: int, attempt: int, **tags: str) -> Tracking:
        """What the trial needs to make its own nested run; `tags` are more of them, such as `code` or `device`."""
        names = {"mlflow.runName": f"{cell.text}, seed {seed}", "cell": cell.text, "trial": str(trial), "attempt": str(attempt)}
        return Tracking(
            uri=self.uri,
            experiment_id=self.experiment_id,
            parent_run_id=self.runs[cell.text],
            params={"seed": str(seed), **self._params(cell)},
            tags={**tags, **names},
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
        """Make sure that a finished trial has its finished run, and one only: the process may have ended between result and run, and two
        may settle at once."""
        runs = self._attempts(tracking)
        if not any(run.info.status == "FINISHED" for run in runs):
            own = [run for run in runs if run.info.status == "RUNNING" and _trial(run) == tracking.tags["trial"]]
            seed_run = SeedRun(tracking, own[-1].info.run_id if own else None, facts=result.get("versions", {}))
            known = own[-1].data.metrics if own else {}
            seed_run.log_metrics({key: value for key, value in result["metrics"].items() if known.get(key) != value})
            seed_run.log_artifacts(folder)
            seed_run.finish()
            runs = self._attempts(tracking)
        self._keep_one(runs)
        for run in runs:
            # a server that was asked twice, since its answer was lost, has made two
            if run.info.status == "RUNNING" and _trial(run) == tracking.tags["trial"]:
                self._close(run, "another run of the same trial finished")

    def fail(self, tracking: Tracking, status: str, error: str, folder: Path) -> None:
        """Mark the run of a trial FAILED or KILLED with the reason and its log; one is made where the trial did not get as far."""
        own = [run for run in self._attempts(tracking) if _trial(run) == tracking.tags["trial"]]
        seed_run = SeedRun(tracking, own[-1].info.run_id if own else None, facts=provenance())
        seed_run.log_artifacts(folder, ("run.yaml", "log.txt"))
        seed_run.finish(status, error, _end(folder / "log.txt"))
        for run in own[:-1]:
            if run.info.status == "RUNNING":
                self._close(run, error, status)

    def close_stale(self, running: Iterable[int] | Callable[[], Iterable[int]]) -> None:
        """End the seed runs that a killed process left open; `running` are the numbers of trials that are being worked on.

        Give a function that looks them up: called after MLflow was asked, it cannot miss a trial that another driver has just begun.
        """
        runs = self._search("seed")
        alive = {str(number) for number in (running() if callable(running) else running)}
        for run in runs:
            if run.info.status == "RUNNING" and _trial(run) not in alive:
                self._close(run, "the process ended before the trial did")
        trials: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            trials.setdefault((run.data.tags.get("mlflow.parentRunId", ""), run.data.params.get("seed", "")), []).append(run)
        for attempts in trials.values():
            self._keep_one(attempts)

    def aggregate(self, cell: str, seeds: Sequence[int], failed: bool = False) -> None:
        """Write `agg/<metric>_{mean,sd,ci95,n}` over `seeds` onto the cell's run, and its state: FINISHED once all seeds are there.

        `ci95` is half the width of the t-interval; it and `sd` need two seeds. Undefined values (NaN) are left out, and n says so.
        """
        found: dict[int, dict[str, float]] | None = None
        while True:
            before, found = found, {seed: values for seed, values in self.seeds(cell).get(cell, {}).items() if seed in seeds}
            if before is not None and before.keys() == found.keys():
                return
            # again where seeds finished meanwhile: a driver that read fewer could otherwise have the last word
            self._aggregate(cell, found, len(seeds), failed)

    def _aggregate(self, cell: str, finished: Mapping[int, Mapping[str, float]], wanted: int, failed: bool) -> None:
        from mlflow.entities import Metric

        from reports.statistics import mean_interval

        run = self.client.get_run(self.runs[cell])
        values: dict[str, float] = {}
        # MLflow's page that compares runs opens on the metric that was stored first
        for key in sorted({key for metrics in finished.values() for key in metrics}, key=lambda key: (key != self.headline, key)):
            defined = [metrics[key] for _, metrics in sorted(finished.items()) if math.isfinite(metrics.get(key, math.nan))]
            if defined:
                interval = mean_interval(defined)
                values[f"agg/{key}_mean"] = interval.mean
            if len(defined) > 1:
                values |= {f"agg/{key}_sd": interval.sd, f"agg/{key}_ci95": interval.half}
            values[f"agg/{key}_n"] = len(defined)
        now = int(time.time() * 1000)
        changed = [Metric(key, value, now, 0) for key, value in values.items() if run.data.metrics.get(key) != value]
        for start in range(0, len(changed), PAGE):
            self.client.log_batch(run.info.run_id, metrics=changed[start:start + PAGE])
        status = "FINISHED" if len(finished) == wanted else "FAILED" if failed else "SCHEDULED"
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
        if is_server(self.uri):
            return pages(public(self.uri), self.experiment_id, list(self.runs.values()))
        return [("MLflow", f"python -m sweeps ui{_typed(self.uri)}"), *pages(LOCAL, self.experiment_id, list(self.runs.values()))]

    def _attempts(self, tracking: Tracking) -> list[Run]:
        """All runs of the same cell and seed, oldest first."""
        runs = self._search("seed", tracking.parent_run_id)
        return [run for run in runs if run.data.params.get("seed") == tracking.params["seed"]]

    def _keep_one(self, attempts: Iterable[Run]) -> None:
        """Of several finished runs of a cell and seed the last one counts, as everywhere; the others must not look as if they did."""
        finished = [run for run in attempts if run.info.status == "FINISHED"]
        for run in sorted(finished, key=lambda run: (run.info.start_time, run.info.run_id))[:-1]:
            self._close(run, "another run of the same cell and seed counts")

    def _close(self, run: Run, error: str, status: str = "KILLED") -> None:
        """End a run that was found in some state, unless it has changed since."""
        if self.client.get_run(run.info.run_id).info.status == run.info.status:
            self.client.set_tag(run.info.run_id, "error", error)
            self.client.set_terminated(run.info.run_id, status, run.info.end_time)

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
    if reason := trouble(uri):
        raise ServerError(f"no MLflow server answers at tracking_uri={public(uri)}: {reason}")


def _trial(run: Run) -> str | None:
    return run.data.tags.get("trial")


def _end(log: Path) -> str:
    """The last `LOG_END` bytes of a log, "" where there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END))
        return file.read().decode("utf-8", errors="replace")


def _typed(uri: str) -> str:
    """What `python -m sweeps ui` is to be told to find a database."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.name != "mlflow.db":
        return f" tracking_uri={shlex.quote(public(uri))}"
    folder, here = path.parent.resolve(), Path.cwd()
    if folder == here / "runs":
        return ""
    return f" output={shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))}"
