"""MLflow -> `Study`: everything a report is made of, read through MlflowClient and from nothing else of the project.

Only attempts that FINISHED count; of several for one cell and seed the last one started is taken. What is planned but not finished is
named with its error, never filled in.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from reports.study import (
    PARTED,
    Cell,
    Factor,
    Metric,
    NothingFinished,
    ReportError,
    Samples,
    Study,
    Trial,
    fetch,
    public,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["client", "collect", "differing", "sweeps"]

PAGE = 1000  # runs per request
PROBE = 10.0  # seconds that a server has to answer


def client(uri: str) -> MlflowClient:
    """A client for a tracking URI. An SQLite file that does not exist is an error here: MLflow would create it, empty."""
    scheme, _, path = uri.partition(":///")
    if scheme == "sqlite" and not Path(path).is_file():
        raise ReportError(f"no MLflow database at {path}: run a sweep first, or say where it is with output=FOLDER or tracking_uri=URI")
    if uri.startswith(("http://", "https://")):
        _answers(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar per file of a few kilobytes drowns the terminal
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _answers(uri: str) -> None:
    """Raises ReportError where no server answers: MLflow itself would go on asking for minutes."""
    try:
        urlopen(f"{public(uri).rstrip('/')}/health", timeout=PROBE).close()
    except HTTPError:
        pass  # it answers; what it thinks of this page does not matter
    except OSError as error:
        raise ReportError(f"no MLflow server answers at {public(uri)}: {getattr(error, 'reason', error)}") from None


def sweeps(uri: str) -> dict[str, str]:
    """Name -> question of every sweep that a tracking server holds."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client(uri).search_experiments(page_token=token)
        found |= {e.name: e.tags.get("question", "") for e in page if "sweep" in e.tags}
        token = page.token
        if not token:
            return dict(sorted(found.items()))


def collect(tracking_uri: str, sweep: str) -> Study:
    """Read one sweep. Raises ReportError (one line) where it does not exist, was not planned here, or has nothing finished."""
    tracking = client(tracking_uri)
    experiment = tracking.get_experiment_by_name(sweep)
    if experiment is None or experiment.lifecycle_stage != "active":
        known = ", ".join(sweeps(tracking_uri)) or "none"
        raise ReportError(f"no sweep '{sweep}' at {public(tracking_uri)}; there are: {known}")
    tags = dict(experiment.tags)
    needed = ("factors", "metrics", "headline", "seeds")
    if absent := [name for name in needed if name not in tags]:
        raise ReportError(f"experiment '{sweep}' lacks the tag(s) {', '.join(absent)}: it was not planned by a sweep of this project")

    metrics = [Metric(m["key"], m["label"], m.get("better", "none"), m.get("unit", "")) for m in json.loads(tags["metrics"])]
    headline = next((m for m in metrics if m.key == tags["headline"]), None)
    if headline is None:
        raise ReportError(f"headline '{tags['headline']}' of '{sweep}' is none of its metrics: {', '.join(m.key for m in metrics)}")
    folder = tempfile.TemporaryDirectory(prefix="report-")
    study = Study(
        sweep=sweep,
        uri=tracking_uri,
        experiment_id=experiment.experiment_id,
        tags=tags,
        factors=[_factor(f, json.loads(tags.get("config", "{}")).get("when")) for f in json.loads(tags["factors"])],
        metrics=metrics,
        headline=headline,
        seeds=[int(seed) for seed in json.loads(tags["seeds"])],
        config=json.loads(tags.get("config", "{}")),
        published=json.loads(tags.get("published", "[]")),
        cells=[],
        left_out=[],
        folder=folder,
        without=json.loads(tags.get("without", "[]")),
        within=tags.get("within", ""),
    )
    runs = _runs(tracking, experiment.experiment_id, "cell")
    if tags.get("mode") == "search":
        study.factors = [_searched(factor, runs) for factor in study.factors]
    owners = _add_cells(study, runs)
    _add_trials(study, owners, _runs(tracking, experiment.experiment_id, "seed"))
    if not any(cell.trials for cell in study.cells):
        command = tags.get("command", f"python -m sweeps.{sweep}")
        said = f"nothing of '{sweep}' has finished yet ({len(study.cells)} cells planned); run it first: {command}"
        raise NothingFinished(said, study.planned)
    _refuse(study)
    return study


def _factor(entry: dict[str, Any], when: str | None) -> Factor:
    """A factor of the plan; `when` is what the sweep was told for all of them."""
    label, unit = entry.get("label", entry["key"]), entry.get("unit", "")
    late = "evaluate" in (when, entry.get("when"))
    return Factor(entry["key"], label, tuple(entry["levels"]), unit, bool(entry.get("numeric")), "evaluate" if late else "train")


def _searched(factor: Factor, runs: list[Run]) -> Factor:
    """A factor of numbers with the levels that a search tried."""
    if not factor.numeric:
        return factor
    tried = {json.loads(run.data.params[factor.key]) for run in runs if factor.key in run.data.params}
    return replace(factor, levels=tuple(sorted(tried)))


def _runs(tracking: MlflowClient, experiment_id: str, role: str) -> list[Run]:
    """All runs of a role, oldest first."""
    found: list[Run] = []
    token = None
    while True:
        page = tracking.search_runs(
            [experiment_id],
            filter_string=f"tags.role = '{role}'",
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            return found


def _place(cell: Cell, factors: list[Factor], without: list[dict[str, str]]) -> tuple[int, ...] | None:
    """Where a cell stands in the plan: the position of its level in each factor, None for what is not planned."""
    if any(all(cell.values.get(key) == level for key, level in combination.items()) for combination in without):
        return None
    places = []
    for factor in factors:
        value = cell.values.get(factor.key)
        place = factor.texts.index(value) if value in factor.texts else None
        if place is None:
            return None
        places.append(place)
    return tuple(places)


def _add_cells(study: Study, runs: list[Run]) -> dict[str, Cell]:
    """Fill `study.cells`; return cell run id -> cell, where two runs of the same cell lead to the same object."""
    by_name: dict[str, Cell] = {}
    owners: dict[str, Cell] = {}
    keys = [factor.key for factor in study.factors]
    for run in runs:
        tags = run.data.tags
        name = tags.get("cell", run.info.run_name)
        values = {key: run.data.params[key] for key in keys if key in run.data.params}
        reference = tags.get("reference") == "true"
        label = "untouched backbone" if reference else PARTED.join(values.values()) or name
        cell = by_name.setdefault(name, Cell(name, label, values, run.info.run_id, tags.get("baseline") == "true", reference))
        owners[run.info.run_id] = cell
    dropped = {run.data.tags.get("cell") for run in runs if run.data.tags.get("planned") == "false"}
    places = {name: (-1,) if cell.reference else _place(cell, study.factors, study.without) for name, cell in by_name.items()}
    places = {name: None if name in dropped else place for name, place in places.items()}
    study.left_out = sorted(name for name, place in places.items() if place is None)
    planned = [(place, name) for name, place in places.items() if place is not None]
    study.cells = [by_name[name] for _, name in sorted(planned)]
    marked = ", ".join(cell.name for cell in study.baselines) or "none"
    if len(study.baselines) != 1 and not study.within:
        raise ReportError(f"sweep '{study.sweep}' must have exactly one cell run with the tag baseline=true, it has: {marked}")
    if lonely := [cell.name for cell in study.levels if study.within and not cell.baseline and study.base_of(cell) is None]:
        said = f"sweep '{study.sweep}' must have a cell run with the tag baseline=true for each {study.within}, it has: {marked}"
        raise ReportError(f"{said}; none for {lonely[0]}")
    return owners


def _add_trials(study: Study, owners: dict[str, Cell], runs: list[Run]) -> None:
    planned = set(study.seeds)
    kept = {cell.name for cell in study.cells}
    last: dict[tuple[str, int], Run] = {}
    for run in runs:  # oldest first, so that the last one stays
        cell = owners.get(run.data.tags.get("mlflow.parentRunId", ""))
        if cell is None or cell.name not in kept:
            continue
        seed = int(run.data.params["seed"])
        if seed not in planned:
            continue
        if run.info.status == "FINISHED":
            last[cell.name, seed] = run
        else:
            cell.unfinished[seed] = _reason(run)
    for cell in study.cells:
        for seed in study.seeds:
            if (cell.name, seed) in last:
                cell.trials[seed] = _trial(seed, last[cell.name, seed], study.uri, Path(study.folder.name))
                cell.unfinished.pop(seed, None)
            else:
                cell.unfinished.setdefault(seed, "not started")


def _refuse(study: Study) -> None:
    """Takes out metrics that the trials measured in different ways: FIDs of different N, say, are different quantities.

    Raises ReportError where that is the headline, since nothing is left to answer with.
    """
    for metric in study.metrics:
        ways: dict[str, dict[str, Any]] = {}
        for _, trial in study.trials():
            if metric.key in trial.metrics:
                way = trial.facts.get(metric.key, {})
                ways.setdefault(json.dumps(way, sort_keys=True), way)
        if len(ways) < 2:
            continue
        why = f"measured in different ways ({differing(ways.values())}), which cannot stand in one column"
        if metric is study.headline:
            raise ReportError(f"{metric.label} of '{study.sweep}' was {why}: run it with one way of measuring, in an output of its own")
        study.refused[metric.label] = why
    study.metrics = [metric for metric in study.metrics if metric.label not in study.refused]


def differing(ways: Collection[Mapping[str, Any]]) -> str:
    """What is not the same in all `ways` of measuring, with its values."""
    told = []
    for name in dict.fromkeys(name for way in ways for name in way):
        values = list(dict.fromkeys(json.dumps(way.get(name)) for way in ways))
        told += [f"{name} {' and '.join(values)}"] if len(values) > 1 else []
    return "; ".join(told)


def _reason(run: Run) -> str:
    if run.info.status == "FAILED":
        lines = run.data.tags.get("error", "").strip().splitlines()
        return f"failed: {lines[-1].strip() if lines else 'no error recorded'}"  # of a traceback the last line is the message
    return {"RUNNING": "still running, or stopped hard", "KILLED": "stopped", "SCHEDULED": "not started"}[run.info.status]


def _trial(seed: int, run: Run, uri: str, folder: Path) -> Trial:
    found, table = (fetch(run.info.artifact_uri, uri, name, folder / run.info.run_id) for name in ("result.json", "scores.parquet"))
    result = {} if found is None else json.loads(found.read_text(encoding="utf-8"))
    return Trial(
        seed=seed,
        run_id=run.info.run_id,
        artifacts=run.info.artifact_uri,
        minutes=((run.info.end_time or run.info.start_time) - run.info.start_time) / 60_000,
        metrics={key.removeprefix("eval/"): value for key, value in run.data.metrics.items() if key.startswith("eval/")},
        seconds=result.get("seconds", {}),
        counts=result.get("counts", {}),
        versions=result.get("versions", {}),
        facts=result.get("facts", {}),
        started=run.info.start_time,
        training=frozenset(key.removeprefix("train/") for key in run.data.metrics if key.startswith("train/")),
        samples=None if table is None else _samples(table, run.info.run_id),
    )


def _samples(path: Path, run_id: str) -> Samples:
    import pandas as pd

    table = pd.read_parquet(path)
    if absent := [name for name in ("split", "id", "prompt", "sample", "mask") if name not in table]:
        raise ReportError(f"scores.parquet of run {run_id} has no column {absent[0]!r}: it was not written by this project")
    return Samples(
        ids=(table["split"] + "/" + table["id"] + "#" + table.groupby(["split", "id"]).cumcount().astype(str)).tolist(),
        prompts=table["prompt"].tolist(),
        splits=table["split"].tolist(),
        images=[None if pd.isna(name) else name for name in table["sample"]],
        success=[None if pd.isna(value) else bool(value) for value in table.get("success", [None] * len(table))],
        masks=[None if pd.isna(name) else name for name in table["mask"]],
        noise=[None if pd.isna(value) else int(value) for value in table.get("noise", [None] * len(table))],
    )
