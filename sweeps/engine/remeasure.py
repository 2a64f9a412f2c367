"""Numbers measured by different code, kept apart; and ``--remeasure``, which scores the images that
finished trials kept with the code of today. Nothing is drawn or trained.

MLflow's runs say which code measured them. While the numbers of a run are replaced it is tagged,
and counts for nothing; any later command on the sweep ends what was stopped in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.describe import show_count
from lightning_modules.tracking.mlflow import (
    METRICS_PER_CALL,
    describe_error,
    describe_undefined_values,
)
from lightning_modules.tracking.provenance import MEASURED_BY, measuring_tags
from lightning_modules.tracking.ran import ran_tags
from lightning_modules.tracking.undefined import is_defined
from lightning_modules.training.remeasure import FILES, PENDING, NotKept, adopt, discard, remeasure
from lightning_modules.training.versions import DIAGNOSTICS, made_by, measures_otherwise
from reports.measuring import (
    DROPPED,
    REPLACING,
    Measuring,
    read_values,
    select_latest,
    stored_name,
)
from sweeps.engine.display import show
from sweeps.engine.errors import PlanError
from sweeps.engine.studies import find_study
from sweeps.engine.trials import Key, key_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from rich.console import Console

    from sweeps.engine.plan import Job, Plan
    from sweeps.engine.request import Request
    from sweeps.engine.trials import StoredTrial

__all__ = [
    "ComparableValues",
    "check_remeasurable",
    "check_search",
    "describe_made_otherwise",
    "describe_measured_otherwise",
    "end_replacing",
    "find_measured_otherwise",
    "list_other_code",
    "remeasure_trials",
    "replace_result",
    "replace_values",
]

REPLACED = "replaced"  # Tag of a run: how often its values were


class ComparableValues:
    """The metrics of the seeds' runs of a sweep that may stand together: those of the code that
    measured each metric last."""

    def __init__(self) -> None:
        self.latest: dict[str, str] = {}  # Metric -> code

    def learn_runs(self, runs: Iterable[Run]) -> None:
        """From all runs of a sweep."""
        finished = [run for run in runs if run.info.status == "FINISHED"]
        self.latest = select_latest(
            (_read_measuring(run), read_values(run.data.metrics, run.data.tags)) for run in finished
        )

    def learn_result(self, result: Mapping[str, Any]) -> bool:
        """From a result that was measured now; whether values of others stop to count by it."""
        measuring = Measuring.read(result.get("measured"))
        keys = [stored_name(name.removeprefix("eval/")) for name in result["metrics"]]
        now = {key: measuring.of_value(key)[0] for key in keys}
        changed = any(self.latest.get(key, code) != code for key, code in now.items())
        self.latest |= now
        return changed

    def pick(self, run: Run) -> dict[str, float]:
        """The values of a run that count (``eval/`` taken off)."""
        measuring = _read_measuring(run)
        return {
            key: value
            for key, value in read_values(run.data.metrics, run.data.tags).items()
            if is_defined(value)
            and measuring.of_value(key)[0] == self.latest.get(key, measuring.of_value(key)[0])
        }


def _read_measuring(run: Run) -> Measuring:
    text = run.data.tags.get(MEASURED_BY)
    return Measuring.read(json.loads(text) if text else None, run.info.start_time)


def find_measured_otherwise(plan: Plan) -> dict[Key, set[str]]:
    """The finished trials that other code measured than this, and what of it is another; unknown
    code is another one."""
    done = {key_of(trial) for trial in plan.queue.trials("COMPLETE")} & set(plan.planned)
    names = {run_id: text for text, run_id in plan.mirror.runs.items()}
    parts: dict[Key, set[str]] = {}
    for run in plan.mirror.experiment.runs("seed"):
        if run.info.status != "FINISHED":
            continue
        cell = names.get(run.data.tags.get("mlflow.parentRunId", ""), "")
        key = cell, int(run.data.params["seed"])
        if key not in done:
            continue
        text = run.data.tags.get(MEASURED_BY)
        other = measures_otherwise(json.loads(text) if text else None, plan.request.run(key))
        # The last of several runs counts
        parts[key] = {"unknown"} if not text else other
    return {key: other for key, other in parts.items() if other}


def list_other_code(request: Request, folder: Path, trials: Iterable[StoredTrial]) -> list[str]:
    """What a start would say of finished trials of ``folder`` that other code made or measured, by
    what lies there; opens nothing of MLflow."""
    planned = set(request.keys)
    done = {key_of(t): t for t in trials if t.state.name == "COMPLETE" and key_of(t) in planned}
    codes = {key: trial.user_attrs.get("code") for key, trial in done.items()}
    parts: dict[Key, set[str]] = {}
    damaged: list[str] = []
    for key in done:
        path = folder / "trials" / request.cell(key[0]).folder(key[1]) / "result.json"
        if not path.is_file():  # Kept by another machine
            continue
        try:
            measured = json.loads(path.read_text(encoding="utf-8")).get("measured")
        except (ValueError, AttributeError) as error:
            damaged.append(f"{path} is damaged ({error}): to make all of them again, add --fresh")
            continue
        parts[key] = measures_otherwise(measured, request.run(key)) if measured else {"unknown"}
    other = {key: some for key, some in parts.items() if some}
    lines = [
        describe_made_otherwise(request, codes),
        describe_measured_otherwise(len(done), other),
        *damaged,
    ]
    return [line for line in lines if line]


def describe_made_otherwise(request: Request, codes: Mapping[Key, str | None]) -> str:
    """A line on the finished trials whose code is not this, "" if there are none."""
    other = [
        code is not None and code != made_by(request.run(key))["code"]
        for key, code in codes.items()
    ]
    if not any(other):
        return ""
    return (
        f"{_count_finished(sum(other), len(codes))} made by other code than this: "
        "to make all of them again, add --fresh"
    )


def _count_finished(some: int, of: int) -> str:
    """1 of 3 finished trials was, 2 of 3 finished trials were."""
    return f"{some} of {show_count(of, 'finished trial')} {'was' if some == 1 else 'were'}"


def describe_measured_otherwise(done: int, other: Mapping[Key, set[str]]) -> str:
    """A line for the person who starts the sweep, of whose trials ``done`` have finished; "" if
    there is nothing to say."""
    if not other:
        return ""
    names = sorted(set().union(*other.values()))
    if names == ["unknown"]:
        by = "code that they do not name"
    else:
        by = f"other code than this ({', '.join(names)})"
    cure = "to score their kept images again, add --remeasure"
    if names == [DIAGNOSTICS]:
        cure = "to make all of them again, add --fresh"
    return (
        f"{_count_finished(len(other), done)} measured by {by}, and "
        f"{'does' if len(other) == 1 else 'do'} not count beside new ones: {cure}"
    )


def check_remeasurable(request: Request) -> None:
    """Raises PlanError for a search, whose sampler cannot take back the numbers it was told, and
    where nothing is there to be measured."""
    if request.config.mode == "search":
        raise PlanError(
            "--remeasure with mode=search: its candidates were proposed by the earlier numbers; "
            "use --fresh"
        )
    if request.config.evaluation.draw_only:
        raise PlanError("--remeasure with evaluation.draw_only=true: nothing would be measured")
    notes: list[str] = []
    _, exists = find_study(request.sweep, request.config, request, notes)
    if not exists:
        why = "".join(f"{note}; " for note in notes)
        raise PlanError(
            f"--remeasure: {why}no trial with these settings has finished below "
            f"{request.config.output}: run it first, without --remeasure"
        )


def check_search(plan: Plan, waiting: bool) -> None:
    """Raises PlanError for a search that would go on from numbers of other code."""
    if plan.request.config.mode != "search" or not (waiting or plan.unknown_trials()):
        return
    if other := find_measured_otherwise(plan):
        said = describe_measured_otherwise(len(plan.done()), other).partition(":")[0]
        raise PlanError(
            f"{said}: a search cannot go on from numbers of two kinds; begin another with --fresh"
        )


# --- Replacing what a trial measured --------------------------------------------------------------


def remeasure_trials(plan: Plan, console: Console) -> dict[Key, str]:
    """Score the finished trials that other code measured, or all if there is none, and replace
    their numbers, one trial after another. Returns why some could not be."""
    # Those that get more prompts are measured again on those that they have
    trials = {key_of(trial): trial for trial in plan.queue.trials("COMPLETE")}
    running = {key_of(trial) for trial in plan.queue.trials("RUNNING")}
    done = trials.keys() & set(plan.planned) - running
    if not done:
        show(console, "no trial has finished, so that nothing is measured again")
    other = find_measured_otherwise(plan)
    stale = {key for key, parts in other.items() if parts != {DIAGNOSTICS}}
    keys = [key for key in plan.planned if key in (stale or done)]
    if len(keys) < len(done):
        show(console, f"{len(done) - len(keys)} of {len(done)} were measured by this code already")
    failures: dict[Key, str] = {}
    for count, key in enumerate(keys, 1):
        job = plan.job(trials[key].number, key, 1)
        began = time.monotonic()
        try:
            remeasure(job.config, job.folder)
        except NotKept as error:
            failures[key] = f"{error}; to make all of them again, add --fresh"
        except Exception as error:
            failures[key] = describe_error(error)
        else:
            end_replacing(plan, key, job.number)
            seconds = time.monotonic() - began
            show(console, f"measured again {count}/{len(keys)}: {job.name} ({seconds:.0f} s)")
    return failures


def end_replacing(plan: Plan, key: Key, number: int) -> None:
    """Bring a new result of a finished trial into its folder and MLflow; nothing if there is
    none. May be repeated."""
    if (plan.trial_folder(key) / PENDING).is_dir():
        replace_result(plan, plan.job(number, key, 1))


def replace_result(plan: Plan, job: Job, result: Mapping[str, Any] | None = None) -> None:
    """Bring a new result of a finished trial into its folder and MLflow: what is pending there,
    else ``result``, which lies in its place already. May be repeated."""
    result = adopt(job.folder) or result
    if result is None:
        return
    attempts = plan.mirror.experiment.attempts(job.tracking)
    if runs := [run for run in attempts if run.info.status == "FINISHED"]:
        run = max(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        replace_values(plan.mirror.client, run, result, job.folder)
    else:
        plan.mirror.settle(job.tracking, result, job.folder)
    discard(job.folder)


def replace_values(client: MlflowClient, run: Run, result: Mapping[str, Any], folder: Path) -> None:
    """Replace the measured values of a finished run, and the files that tell of them."""
    from mlflow.entities import Metric, RunTag  # Slow, and a preview does without

    run_id, now = run.info.run_id, int(time.time() * 1000)
    # Of later steps than before, so that no clock decides which values count
    step = int(run.data.tags.get(REPLACED, 0)) + 1
    client.set_tag(run_id, REPLACED, str(step))
    client.set_tag(run_id, REPLACING, "true")
    values = {
        stored_name(key): float(value)
        for key, value in result["metrics"].items()
        if is_defined(value)
    }
    changed = [
        Metric(key, value, now, step)
        for key, value in values.items()
        if run.data.metrics.get(key) != value
    ]
    old = [key for key in run.data.metrics if key.startswith("eval/") and key not in values]
    for start in range(0, len(changed), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=changed[start : start + METRICS_PER_CALL])
    for name in FILES:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    if (folder / "samples").is_dir():
        client.log_artifacts(run_id, str(folder / "samples"), "samples")
    tags = measuring_tags(result) | ran_tags(result.get("ran", {}))
    tags |= {DROPPED: ",".join(key.removeprefix("eval/") for key in old)}
    undefined = {key: [reason] for key, reason in result.get("undefined", {}).items()}
    if undefined or "undefined" in run.data.tags:
        tags["undefined"] = describe_undefined_values(undefined)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.delete_tag(run_id, REPLACING)
