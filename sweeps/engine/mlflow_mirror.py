"""The MLflow side of a sweep: one experiment, a top-level run for every cell, nested runs for its
seeds. Two levels and no more, since MLflow's table and charts show a single row otherwise.

Cells carry the aggregates over seeds, computed by the same function as the report's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, Run

from lightning_modules.tracking.mlflow import SeedRun, Tracking, provenance
from lightning_modules.tracking.provenance import MEASURED_BY, measuring_tags
from lightning_modules.tracking.ran import ran_tags
from lightning_modules.tracking.store import client, is_server, public
from reports.results import place_words
from reports.statistics import mean_interval
from sweeps.engine.mlflow_view import VIEW_TAG, page_links, view_tag
from sweeps.engine.remeasure import ComparableValues
from sweeps.engine.trials import read_losses
from sweeps.sweep import Cell, level_text

__all__ = ["MlflowMirror"]

LOCAL = "http://127.0.0.1:5000"  # Where `python -m sweeps ui` opens the pages
PAGE = 1000  # Runs or metrics per request
LOG_END = 3000  # Bytes of a failed trial's log that its run's description shows
WRITTEN = "aggregated"  # Tag of a cell's run: how often its means were written
Seeds = dict[str, dict[int, dict[str, float]]]  # Cell -> seed -> metric -> value


class Experiment:
    """An MLflow experiment: created if it is missing, restored if it was deleted."""

    def __init__(
        self, uri: str, name: str, artifacts: Path | None, tags: Mapping[str, str], note: str
    ) -> None:
        """``artifacts`` is the folder of a new experiment's files (None: where the server keeps
        them), ``note`` describes it until a report does."""
        self.client = client(uri)
        known = self.client.get_experiment_by_name(name)
        if known is None:
            location = artifacts.resolve().as_uri() if artifacts else None
            # With its tags at once: without them it would not be known as this sweep's
            tags = {**tags, "mlflow.note.content": note}
            self.id: str = self.client.create_experiment(name, location, tags)
            return
        self.id = known.experiment_id
        if known.lifecycle_stage == "deleted":
            self.client.restore_experiment(self.id)
        for key, value in tags.items():
            if known.tags.get(key) != value:
                self.client.set_experiment_tag(self.id, key, value)

    def runs(self, role: str, parent: str | None = None) -> list[Run]:
        """Runs of a role ("cell" or "seed"), oldest first."""
        where = f"tags.role = '{role}'"
        if parent:
            where += f" and tags.`mlflow.parentRunId` = '{parent}'"
        order = ["attributes.start_time ASC"]
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.id], where, max_results=PAGE, order_by=order, page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def attempts(self, tracking: Tracking) -> list[Run]:
        """All runs of the same cell and seed, oldest first."""
        runs = self.runs("seed", tracking.parent_run_id)
        return [run for run in runs if run.data.params.get("seed") == tracking.params["seed"]]

    def state(self) -> dict[str, Any]:
        """What a report depends on: every seed's run with its status, and the tags of the plan."""
        runs = self.runs("seed")
        tags = self.client.get_experiment(self.id).tags
        return {
            "runs": {
                run.info.run_id: [
                    run.info.status,
                    run.info.end_time,
                    run.data.tags.get(MEASURED_BY),
                ]
                for run in runs
            },
            "tags": {
                key: value
                for key, value in tags.items()
                if not key.startswith("mlflow.") and key != "command"
            },
        }

    def end_run(self, run: Run, error: str, status: str = "KILLED") -> None:
        """End a run that was seen in some state, unless it has changed since."""
        if self.client.get_run(run.info.run_id).info.status == run.info.status:
            self.client.set_tag(run.info.run_id, "error", error)
            self.client.set_terminated(run.info.run_id, status, run.info.end_time)

    def keep_last_finished(self, attempts: Iterable[Run]) -> None:
        """Of several finished runs of a cell and seed the last one counts, as everywhere; the
        others must not look as if they did."""
        finished = [run for run in attempts if run.info.status == "FINISHED"]
        for run in sorted(finished, key=lambda run: (run.info.start_time, run.info.run_id))[:-1]:
            self.end_run(run, "another run of the same cell and seed counts")


class MlflowMirror:
    """The experiment of a sweep, kept up to date. All methods can be repeated."""

    def __init__(
        self,
        uri: str,
        name: str,
        artifacts: Path | None,
        tags: Mapping[str, str],
        note: str,
        method_of: Callable[[Cell], str] | None = None,
    ) -> None:
        """See ``Experiment``; ``method_of`` gives the name of a cell's method."""
        self.uri, self.name = uri, name
        self.headline = tags.get("headline")
        self.method_of = method_of
        if view := view_tag(tags):
            tags = {**tags, VIEW_TAG: view}
        self.experiment = Experiment(uri, name, artifacts, tags, note)
        self.client = self.experiment.client
        self.runs: dict[str, str] = {}  # Cell -> run id
        self.comparable = ComparableValues()

    def add_cells(self, cells: Iterable[Cell]) -> None:
        """A top-level run for every cell; those of earlier plans are marked as not planned."""
        known = {run.data.tags["cell"]: run for run in reversed(self.experiment.runs("cell"))}
        cells = list(cells)
        for text in known.keys() - {cell.text for cell in cells}:
            if known[text].data.tags.get("planned") != "false":
                self.client.set_tag(known[text].info.run_id, "planned", "false")
        for cell in cells:
            # The names of the roles are older than those in the code
            flags = {"baseline": cell.control, "reference": cell.untouched, "planned": True}
            tags = {key: str(value).lower() for key, value in flags.items()}
            run = known.get(cell.text)
            if run is None:
                names = {"mlflow.runName": cell.text, "role": "cell", "cell": cell.text}
                run = self.client.create_run(self.experiment.id, tags={**names, **tags})
                self.client.update_run(run.info.run_id, status="SCHEDULED")
            # Also of a run that is there: its process may have ended between the two
            params = [
                Param(key, text)
                for key, text in self._params(cell).items()
                if key not in run.data.params
            ]
            if params:
                self.client.log_batch(run.info.run_id, params=params)
            for key in tags:
                if run.data.tags.get(key) != tags[key]:
                    self.client.set_tag(run.info.run_id, key, tags[key])
            self.runs[cell.text] = run.info.run_id

    def _params(self, cell: Cell) -> dict[str, str]:
        """The levels of a cell, and its method, by which readers tell the cells apart."""
        levels = {key: level_text(value) for key, value in cell.values.items()}
        return levels if self.method_of is None else {"method.name": self.method_of(cell), **levels}

    def tell(self, tag: str, text: str) -> None:
        """Set a tag of the experiment, for its report."""
        self.client.set_experiment_tag(self.experiment.id, tag, text)

    def mark(self, tag: str, cells: Collection[str]) -> None:
        """Set the tag ``tag`` on the runs of all cells: true on those of ``cells``, else false."""
        for text, run_id in self.runs.items():
            self.client.set_tag(run_id, tag, str(text in cells).lower())

    def tracking(
        self,
        cell: Cell,
        seed: int,
        trial: int,
        attempt: int,
        seeds: Mapping[str, int] | None = None,
        **tags: str,
    ) -> Tracking:
        """What the trial needs to make its own nested run, with more ``tags``; ``seeds`` are those
        that do not follow ``seed``."""
        names = {
            "mlflow.runName": f"{cell.text}, seed {seed}",
            "cell": cell.text,
            "trial": str(trial),
            "attempt": str(attempt),
        }
        return Tracking(
            uri=self.uri,
            experiment_id=self.experiment.id,
            parent_run_id=self.runs[cell.text],
            params={
                "seed": str(seed),
                **{key: str(value) for key, value in (seeds or {}).items()},
                **self._params(cell),
            },
            tags={**tags, **names},
        )

    def seeds(self, cell: str | None = None) -> Seeds:
        """Metrics of the finished runs (``eval/`` taken off), of all cells or of one; the latest
        run counts, and of each metric what `ComparableValues` takes. Undefined ones are absent."""
        seeds: Seeds = {}
        names = {run_id: text for text, run_id in self.runs.items()}
        runs = self.experiment.runs("seed", self.runs[cell] if cell else None)
        if cell is None:
            self.comparable.learn_runs(runs)
        for run in runs:
            name = names.get(run.data.tags.get("mlflow.parentRunId", ""))
            if name is not None and run.info.status == "FINISHED":
                seed = int(run.data.params["seed"])
                seeds.setdefault(name, {})[seed] = self.comparable.pick(run)
        return seeds

    def settle(self, tracking: Tracking, result: Mapping[str, Any], folder: Path) -> None:
        """Make sure that a finished trial has its finished run, and one only: the process may have
        ended between result and run, and two may settle at once."""
        runs = self.experiment.attempts(tracking)
        own = [run for run in runs if run.info.status == "RUNNING" and _is_of(run, tracking)]
        if not any(run.info.status == "FINISHED" for run in runs):
            run_id = own[-1].info.run_id if own else None
            known = own[-1].data.metrics if own else {}
            seed_run = SeedRun(tracking, run_id, facts=result.get("versions", {}))
            if run_id is None:
                seed_run.log_series("train/loss", read_losses(folder))
            seed_run.log_metrics(
                {key: value for key, value in result["metrics"].items() if known.get(key) != value}
            )
            seed_run.mark_undefined(result.get("undefined", {}))
            seed_run.note(ran_tags(result.get("ran", {})))
            seed_run.log_artifacts(folder)
            seed_run.note(measuring_tags(result))
            seed_run.finish()
            runs = self.experiment.attempts(tracking)
        self.experiment.keep_last_finished(runs)
        for run in runs:
            # A server that was asked twice, since its answer was lost, has made two
            if run.info.status == "RUNNING" and _is_of(run, tracking):
                self.experiment.end_run(run, "another run of the same trial finished")

    def fail(self, tracking: Tracking, status: str, error: str, folder: Path) -> None:
        """Mark the run of a trial FAILED or KILLED with the reason and its log; one is made if the
        trial did not get as far."""
        own = [run for run in self.experiment.attempts(tracking) if _is_of(run, tracking)]
        seed_run = SeedRun(tracking, own[-1].info.run_id if own else None, facts=provenance())
        seed_run.log_artifacts(folder, ("run.yaml", "log.txt"))
        seed_run.finish(status, error, _last_bytes(folder / "log.txt"))
        for run in own[:-1]:
            if run.info.status == "RUNNING":
                self.experiment.end_run(run, error, status)

    def close_stale(self, running: Collection[int] = ()) -> None:
        """End the seed runs that a killed process left open; ``running``: the numbers of the trials
        that still run."""
        runs = self.experiment.runs("seed")
        alive = {str(number) for number in running}
        attempts: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            tags, params = run.data.tags, run.data.params
            if run.info.status == "RUNNING" and tags.get("trial") not in alive:
                self.experiment.end_run(run, "the process ended before the trial did")
            key = tags.get("mlflow.parentRunId", ""), params.get("seed", "")
            attempts.setdefault(key, []).append(run)
        for same in attempts.values():
            self.experiment.keep_last_finished(same)

    def aggregate(self, cell: str, seeds: Sequence[int], failed: bool = False) -> None:
        """Write ``agg/<metric>_{mean,sd,ci95,n}`` over ``seeds`` onto the cell's run, and its
        state: FINISHED once all seeds are there.

        ``ci95`` is half the width of the t-interval; it and ``sd`` need two seeds. Undefined values
        (NaN, infinite) are left out, and n says so.
        """
        values = self.seeds(cell).get(cell, {})
        finished = {seed: metrics for seed, metrics in values.items() if seed in seeds}
        status = "SCHEDULED"
        if len(finished) == len(seeds):
            status = "FINISHED"
        elif failed:
            status = "FAILED"
        self._write_aggregates(self.runs[cell], finished, status)

    def _write_aggregates(
        self, run_id: str, finished: Mapping[int, Mapping[str, float]], status: str
    ) -> None:
        run = self.client.get_run(run_id)
        values: dict[str, float] = {}
        keys = {key for metrics in finished.values() for key in metrics}
        # MLflow's page that compares runs opens on the metric that was stored first
        for key in sorted(keys, key=lambda key: (key != self.headline, key)):
            defined = [metrics[key] for _, metrics in sorted(finished.items()) if key in metrics]
            interval = mean_interval(defined)
            values[f"agg/{key}_mean"] = interval.mean
            if len(defined) > 1:
                values |= {f"agg/{key}_sd": interval.sd, f"agg/{key}_ci95": interval.half}
            values[f"agg/{key}_n"] = len(defined)
        # MLflow keeps the means of values that count no more: their number says so
        for name in run.data.metrics:
            if name.startswith("agg/") and name.endswith("_n") and name not in values:
                values[name] = 0
        # The last step counts in MLflow, and of two values of one step the later one: a clock that
        # is slow must not make new values lose
        step, now = int(run.data.tags.get(WRITTEN, 0)) + 1, int(time.time() * 1000)
        changed = [
            Metric(key, value, now, step)
            for key, value in values.items()
            if run.data.metrics.get(key) != value
        ]
        if changed:
            self.client.set_tag(run_id, WRITTEN, str(step))
        for start in range(0, len(changed), PAGE):
            self.client.log_batch(run_id, metrics=changed[start : start + PAGE])
        if run.info.status == status:
            return
        if status == "SCHEDULED":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status)

    def links(self) -> list[tuple[str, str]]:
        """How to look at the sweep in MLflow: a command, and the pages."""
        runs = list(self.runs.values())
        if is_server(self.uri):
            return page_links(public(self.uri), self.experiment.id, runs)
        command = ("MLflow", f"python -m sweeps ui{place_words(self.uri)}")
        return [command, *page_links(LOCAL, self.experiment.id, runs)]


def _is_of(run: Run, tracking: Tracking) -> bool:
    """Whether a run is one of this very trial, and not of an earlier attempt."""
    return run.data.tags.get("trial") == tracking.tags["trial"]


def _last_bytes(log: Path) -> str:
    """The last ``LOG_END`` bytes of a log, "" if there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END))
        return file.read().decode("utf-8", errors="replace")
