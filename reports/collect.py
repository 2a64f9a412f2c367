"""MLflow -> ``SweepResults``: all that a report is made of, read through MlflowClient alone.

Only attempts that FINISHED count; of several for one cell and seed the last one started is taken.
What is planned but not finished is named with its error, never filled in.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import prose
from reports.correcting import ERRORS
from reports.evidence import SCHEME, BundleClient
from reports.image_tables import keep_common_prompts
from reports.measuring import REPLACING, Measuring, read_values, select_latest
from reports.mistyped import nearest
from reports.per_image import read_columns
from reports.results import (
    LEFT_OUT,
    SEPARATOR,
    CellResults,
    DamagedArtifact,
    NothingFinished,
    ReportedMetric,
    ReportError,
    Samples,
    SweepResults,
    SweptFactor,
    Trial,
    fetch,
    hide_password,
    read_artifact,
    split_undefined,
    sweep_command,
)
from reports.stores import find_trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["collect", "connect", "describe_differences", "list_sweeps", "read_history"]

JUDGED = "success"  # The metric that the images' column of this name is the sum of
DELTA_OF_SHARES = 0.05  # The difference that matters where a plan names none
PAGE = 1000  # Runs per request
PATIENCE = 10.0  # Seconds that a server has to answer


def connect(uri: str) -> MlflowClient:
    """A client for a tracking URI, or for a folder (`reports.evidence`).

    Raises ReportError for an SQLite file that does not exist, since MLflow would create it, empty,
    and for an address that cannot be used (`find_trouble`): MLflow would keep asking for minutes.
    """
    # A bar per file of a few kilobytes drowns the terminal
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if uri.startswith(SCHEME):
        return BundleClient(Path(uri.removeprefix(SCHEME)))  # type: ignore[return-value]
    scheme, _, path = uri.partition(":///")
    if scheme == "sqlite" and not Path(path).is_file():
        cure = "run a sweep first, or say where it is with output=FOLDER or tracking_uri=URI"
        raise ReportError(f"no MLflow database at {path}: {cure}")
    if trouble := find_trouble(uri, patience=PATIENCE):
        raise ReportError(trouble)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _all_pages(search: Callable[..., Any], **query: Any) -> Iterator[Any]:
    page = search(**query)
    yield from page
    while page.token:
        page = search(**query, page_token=page.token)
        yield from page


def list_sweeps(uri: str) -> dict[str, str]:
    """Name -> question of every sweep that a tracking server holds."""
    experiments = _all_pages(connect(uri).search_experiments)
    return dict(
        sorted((e.name, e.tags.get("question", "")) for e in experiments if "sweep" in e.tags)
    )


def collect(tracking_uri: str, sweep: str) -> SweepResults:
    """Read one sweep.

    Raises ReportError (one line) where it does not exist, was not planned by this project, or has
    nothing finished.
    """
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None or experiment.lifecycle_stage != "active":
        known = list_sweeps(tracking_uri)
        where, near = hide_password(tracking_uri), nearest(sweep, known)
        listed = ", ".join(known) or "none"
        raise ReportError(f"no sweep '{sweep}' at {where}; there are: {listed}{near}")
    tags = dict(experiment.tags)
    if absent := [name for name in ("factors", "metrics", "headline", "seeds") if name not in tags]:
        lacks = f"experiment '{sweep}' lacks the tag(s) {', '.join(absent)}"
        raise ReportError(f"{lacks}: it was not planned by a sweep of this project")

    def runs(role: str) -> list[Run]:
        """All runs of a role, oldest first."""
        query = {
            "filter_string": f"tags.role = '{role}'",
            "order_by": ["attributes.start_time ASC"],
        }
        ids = [experiment.experiment_id]
        return list(_all_pages(client.search_runs, experiment_ids=ids, max_results=PAGE, **query))

    metrics = [
        ReportedMetric(
            m["key"],
            m["label"],
            m.get("better", "none"),
            m.get("unit", ""),
            m.get("weight", ""),
            # Plans of earlier versions name none
            m.get("delta", DELTA_OF_SHARES if m.get("unit") == "share" else None),
        )
        for m in json.loads(tags["metrics"])
    ]
    headline = next((m for m in metrics if m.key == tags["headline"]), None)
    if headline is None:
        keys = ", ".join(m.key for m in metrics)
        raise ReportError(f"headline '{tags['headline']}' of '{sweep}' is none of: {keys}")
    config = json.loads(tags.get("config", "{}"))
    cell_runs = runs("cell")
    searched = tags.get("mode") == "search"
    results = SweepResults(
        sweep=sweep,
        uri=tracking_uri,
        experiment_id=experiment.experiment_id,
        tags=tags,
        factors=[
            _read_factor(entry, config.get("when"), cell_runs if searched else None)
            for entry in json.loads(tags["factors"])
        ],
        metrics=metrics,
        headline=headline,
        seeds=[int(seed) for seed in json.loads(tags["seeds"])],
        config=config,
        published=json.loads(tags.get("published", "[]")),
        cells=[],
        left_out=[],
        folder=tempfile.TemporaryDirectory(prefix="report-"),
        without=json.loads(tags.get("without", "[]")),
        within=tags.get("within", ""),
    )
    _add_trials(results, _add_cells(results, cell_runs), runs("seed"))
    if not any(cell.trials for cell in results.cells):
        command = sweep_command(sweep, tags, tracking_uri)
        reasons = [why for cell in results.cells for why in cell.unfinished.values()]
        if damaged := [why for why in reasons if why.startswith(LEFT_OUT)]:
            raise ReportError(f"nothing of '{sweep}' can be shown: {damaged[0]}")
        planned = f"{prose.count(len(results.cells), 'cell')} planned"
        drawn = {
            (run.data.tags["cell"], run.data.params["seed"])
            for run in runs("seed")
            if "drawn" in run.data.tags
        }
        if drawn:
            planned += f"; the images of {prose.count(len(drawn), 'trial')} are drawn, not measured"
        nothing = f"nothing of '{sweep}' has finished yet ({planned})"
        raise NothingFinished(f"{nothing}; run it first: {command}", results.count_trials()[1])
    leave_out_other_code(results)
    keep_common_prompts(results)
    refuse_mixed_metrics(results)
    return results


def _read_factor(
    entry: dict[str, Any], sweep_when: str | None, searched: list[Run] | None
) -> SweptFactor:
    """A factor of the plan; of a search, its levels are what the ``searched`` runs tried."""
    key, levels, numeric = entry["key"], entry["levels"], bool(entry.get("numeric"))
    if searched is not None and numeric:
        params = [run.data.params for run in searched]
        levels = sorted({json.loads(tried[key]) for tried in params if key in tried})
    when = "evaluate" if "evaluate" in (sweep_when, entry.get("when")) else "train"
    label, unit = entry.get("label", key), entry.get("unit", "")
    log = numeric and bool(entry.get("log"))  # Plans of earlier versions do not say
    return SweptFactor(key, label, tuple(levels), unit, numeric, when, log)


def _add_cells(results: SweepResults, runs: list[Run]) -> dict[str, CellResults]:
    """Fill ``results.cells``; return cell run id -> cell, of two runs of a cell the same one."""
    by_name: dict[str, CellResults] = {}
    owners: dict[str, CellResults] = {}
    for run in runs:
        tags, params = run.data.tags, run.data.params
        name = tags.get("cell", run.info.run_name)
        values = {f.key: params[f.key] for f in results.factors if f.key in params}
        untouched = tags.get("reference") == "true"
        label = "untouched backbone" if untouched else SEPARATOR.join(values.values()) or name
        control = tags.get("baseline") == "true"
        cell = CellResults(name, label, values, run.info.run_id, control, untouched)
        owners[run.info.run_id] = by_name.setdefault(name, cell)
    dropped = {run.data.tags.get("cell") for run in runs if run.data.tags.get("planned") == "false"}
    planned: list[tuple[tuple[int, ...], str]] = []
    for name, cell in by_name.items():
        position = (-1,) if cell.untouched else _position_in_plan(results, cell)
        if position is None or name in dropped:
            results.left_out.append(name)
        else:
            planned.append((position, name))
    results.left_out.sort()
    results.cells = [by_name[name] for _, name in sorted(planned)]

    marked = ", ".join(cell.name for cell in results.controls) or "none"
    if len(results.controls) != 1 and not results.within:
        needs = f"sweep '{results.sweep}' must have exactly one cell run with the tag baseline=true"
        raise ReportError(f"{needs}, it has: {marked}")
    for cell in results.levels if results.within else []:
        if not cell.control and results.control_of(cell) is None:
            needs = f"sweep '{results.sweep}' must have a cell run with the tag baseline=true"
            each = f"for each {results.within}, it has: {marked}; none for {cell.name}"
            raise ReportError(f"{needs} {each}")
    return owners


def _position_in_plan(results: SweepResults, cell: CellResults) -> tuple[int, ...] | None:
    """The position of the cell's level in each factor, None for what is not planned."""
    for combination in results.without:
        if all(cell.values.get(key) == level for key, level in combination.items()):
            return None
    values = [(factor.texts, cell.values.get(factor.key)) for factor in results.factors]
    if any(value not in texts for texts, value in values):
        return None
    return tuple(texts.index(value) for texts, value in values if value is not None)


def _add_trials(results: SweepResults, owners: dict[str, CellResults], runs: list[Run]) -> None:
    planned = {cell.name for cell in results.cells}
    last: dict[tuple[str, int], Run] = {}
    for run in runs:  # Oldest first, so that the last one stays
        cell = owners.get(run.data.tags.get("mlflow.parentRunId", ""))
        if cell is None or cell.name not in planned:
            continue
        seed = int(run.data.params["seed"])
        if seed not in results.seeds_of(cell.name):
            continue
        if run.info.status == "FINISHED" and REPLACING in run.data.tags:
            cell.unfinished[seed] = "being measured again, or stopped in that: add --remeasure"
            last.pop((cell.name, seed), None)
        elif run.info.status == "FINISHED":
            last[cell.name, seed] = run
        else:
            cell.unfinished[seed] = _explain_unfinished(run)
    for cell in results.cells:
        for seed in results.seeds_of(cell.name):
            if (cell.name, seed) in last:
                run = last[cell.name, seed]
                folder = Path(results.folder.name)
                try:
                    cell.trials[seed] = _read_trial(seed, run, results.uri, folder)
                except DamagedArtifact as error:
                    cell.unfinished[seed] = f"{LEFT_OUT}: {error}"
                else:
                    cell.unfinished.pop(seed, None)
            else:
                cell.unfinished.setdefault(seed, "not started")


def _explain_unfinished(run: Run) -> str:
    if run.info.status == "FAILED":
        lines = run.data.tags.get("error", "").strip().splitlines()
        # Of a traceback the last line is the message
        return f"failed: {lines[-1].strip() if lines else 'no error recorded'}"
    words = {"RUNNING": "still running, or stopped hard", "KILLED": "stopped"}
    return (words | {"SCHEDULED": "not started"})[run.info.status]


def _read_trial(seed: int, run: Run, uri: str, folder: Path) -> Trial:
    own = folder / run.info.run_id
    file = fetch(run.info.artifact_uri, uri, "result.json", own)
    table = fetch(run.info.artifact_uri, uri, "scores.parquet", own)
    names = run.info.run_id, run.info.artifact_uri
    result = {} if file is None else read_artifact(file, "result.json", *names, read_object)
    logged, start = run.data.metrics, run.info.start_time
    metrics, undefined = split_undefined(read_values(logged, run.data.tags))
    reasons = result.get("undefined", {}).items()
    undefined |= {key.removeprefix("eval/"): why for key, why in reasons}
    return Trial(
        seed=seed,
        run_id=run.info.run_id,
        artifacts=run.info.artifact_uri,
        minutes=((run.info.end_time or start) - start) / 60_000,
        metrics=metrics,
        undefined=undefined,
        ran=result.get("ran", {}),
        seconds=result.get("seconds", {}),
        counts=result.get("counts", {}),
        versions=result.get("versions", {}),
        facts=result.get("facts", {}),
        started=start,
        training=frozenset(k.removeprefix("train/") for k in logged if k.startswith("train/")),
        samples=None
        if table is None
        else read_artifact(
            table, "scores.parquet", *names, lambda path: read_samples(path, run.info.run_id)
        ),
        code_parts=result.get("code_parts", {}),
        measuring=Measuring.read(result.get("measured"), start),
        measured_with=(result.get("measured") or {}).get("versions", {}),
        contents=result.get("contents", {}),
        prompts=_read_prompts(result),
    )


def _read_prompts(result: dict[str, Any]) -> int | None:
    """How many prompts of each split a result is over; one of an earlier version has it of what
    was drawn."""
    drawn = result.get("ran", {}).get("sampling", {}).get("prompts", {})
    return result.get("prompts") or max(drawn.values(), default=None)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file of names and values. Raises ValueError for another."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no names and values")
    return content


def read_samples(path: Path, run_id: str) -> Samples:
    """The table of a trial's images. Raises ReportError where a column is missing."""
    import pandas as pd

    table = pd.read_parquet(path)
    needed = ("split", "id", "prompt", "sample", "mask")
    if absent := [name for name in needed if name not in table]:
        lacks = f"scores.parquet of run {run_id} has no column {absent[0]!r}"
        raise ReportError(f"{lacks}: it was not written by this project")

    def optional(name: str, kind: Callable[[Any], Any]) -> list[Any]:
        values = table.get(name, [None] * len(table))
        return [None if pd.isna(value) else kind(value) for value in values]

    number = table.groupby(["split", "id"]).cumcount().astype(str)
    return Samples(
        ids=(table["split"] + "/" + table["id"] + "#" + number).tolist(),
        prompts=table["prompt"].tolist(),
        splits=table["split"].tolist(),
        images=optional("sample", str),
        success=optional("success", bool),
        masks=optional("mask", str),
        noise=optional("noise", int),
        objects=optional("objects", int),
        skills=optional("skill", str),
        atoms=optional("atoms", int),
        columns=read_columns(table),
    )


def read_history(results: SweepResults, trial: Trial, metric: str) -> dict[int, float]:
    """Step -> finite value of what a trial's training logged. One request."""
    client = connect(results.uri)
    entries = client.get_metric_history(trial.run_id, f"train/{metric}")
    # Of a step that was done twice, the last counts
    latest = sorted(entries, key=lambda entry: (entry.step, entry.timestamp))
    by_step = {entry.step: entry.value for entry in latest}
    return split_undefined(by_step)[0]


def leave_out_other_code(results: SweepResults) -> None:
    """Take out the values of each metric that other code measured than the one that measured it
    last: they do not compare."""
    latest = select_latest((trial.measuring, trial.metrics) for _, trial in results.trials())
    labels = {metric.key: metric.label for metric in results.metrics}
    for cell, trial in results.trials():
        for key in list(trial.metrics):
            if trial.measuring.of_value(key)[0] == latest[key]:
                continue
            del trial.metrics[key]
            trial.other_code.add(key)
            if key in labels:
                results.other_code.setdefault(labels[key], []).append((cell.name, trial.seed))
            if key == JUDGED and trial.samples is not None:
                nobody: list[bool | None] = [None] * len(trial.samples.ids)
                trial.samples = dataclasses.replace(trial.samples, success=nobody)
            if trial.samples is not None:
                trial.samples.columns.pop(key, None)


def ways_of_measuring(metric: str, *sweeps: SweepResults) -> list[dict[str, Any]]:
    """The different facts that trials recorded about how they measured ``metric``, with the code
    that did. What is known of its errors grows with the images that were labelled, and changes
    no number."""
    ways: dict[str, dict[str, Any]] = {}
    for results in sweeps:
        for _, trial in results.trials():
            if metric in trial.metrics:
                code = trial.measuring.of_value(metric)[0]
                way = trial.facts.get(metric, {}) | {"code": code}
                way.pop(ERRORS, None)
                ways.setdefault(json.dumps(way, sort_keys=True), way)
    return list(ways.values())


def refuse_mixed_metrics(results: SweepResults) -> None:
    """Take out metrics that the trials measured in different ways, such as FIDs of different N.

    Raises ReportError where that is the headline, since nothing is left to answer with.
    """
    for metric in results.metrics:
        ways = ways_of_measuring(metric.key, results)
        if len(ways) < 2:
            continue
        how = f"measured in different ways ({describe_differences(ways)})"
        why = f"{how}, which cannot stand in one column"
        if metric is results.headline:
            cure = "run it with one way of measuring, in an output of its own"
            raise ReportError(f"{metric.label} of '{results.sweep}' was {why}: {cure}")
        results.refused[metric.label] = why
    results.metrics = [m for m in results.metrics if m.label not in results.refused]


def describe_differences(ways: Collection[Mapping[str, Any]]) -> str:
    """What is not the same in all ``ways`` of measuring, with its values."""
    parts = []
    for name in dict.fromkeys(name for way in ways for name in way):
        values = list(dict.fromkeys(json.dumps(way.get(name)) for way in ways))
        if len(values) > 1:
            parts.append(f"{name} {' and '.join(values)}")
    return "; ".join(parts)
