"""Keeps the study and MLflow at what the trials' folders say: while trials end, and after earlier
processes were killed in the middle of it. Everything here can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conf.describe import show_count
from conf.files import read_json
from conf.prompts import Extent
from lightning_modules.tracking.undefined import describe_undefined, is_defined
from lightning_modules.training.contents import changed_contents
from lightning_modules.training.remeasure import PENDING, discard, read_pending
from lightning_modules.training.versions import made_by
from sweeps.engine.errors import ResultError
from sweeps.engine.plan import EXTENDED, Job, Plan, kinds_of
from sweeps.engine.prompts import queue_extensions
from sweeps.engine.remeasure import (
    describe_made_otherwise,
    describe_measured_otherwise,
    end_replacing,
    find_measured_otherwise,
    replace_result,
)
from sweeps.engine.trials import DRAWN_ONLY, RESULT, Key, key_of, read_result_facts

__all__ = [
    "end_drawn",
    "finish_trial",
    "metric_of",
    "read_outcome",
    "read_result",
    "reconcile",
    "return_trial",
    "update_cell",
]


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished trial left in its folder; None if it did not finish, or if that was cut off,
    which is dropped with a line."""
    result = read_json(folder / RESULT, then="its trial runs again")
    if isinstance(result, dict) and isinstance(result.get("metrics"), dict):
        return result
    return None


def read_outcome(job: Job) -> dict[str, Any] | None:
    """What a trial has left in its folder so far; None if it has not finished. One that gets more
    prompts has not by the result that it had before, but by that which takes its place."""
    if job.extends is None:
        return read_result(job.folder)
    for result in (read_pending(job.folder), read_result(job.folder)):
        if result is not None and (Extent.read(result).prompts or 0) > job.extends:
            return result
    return None


def metric_of(result: Mapping[str, Any], name: str) -> float:
    """The metric ``name`` of a result. Raises ResultError if it is missing or not a number."""
    key = f"eval/{name}"
    if why := result.get("undefined", {}).get(key):
        raise ResultError(f"{key} is undefined ({why})")
    if key not in result["metrics"]:
        known = ", ".join(sorted(result["metrics"])) or "none"
        raise ResultError(f"the result has no {key}; it has {known}")
    value = float(result["metrics"][key])
    if not is_defined(value):
        raise ResultError(f"{key} is not a number ({describe_undefined(value)})")
    return value


def finish_trial(plan: Plan, job: Job, result: Mapping[str, Any]) -> tuple[float, float]:
    """Count a trial: its headline metric and seconds. Raises ResultError for a result without the
    metric."""
    try:
        value = metric_of(result, plan.request.sweep.headline)
        if changed := _changed(plan, job.key, result):
            raise ResultError(
                f"{changed[0]} holds something else than when this sweep began: its trials are not "
                "comparable; start the command again"
            )
    except ResultError:
        # Kept for a person who looks for the cause, but never taken for a result
        pending = job.folder / PENDING
        own = pending if job.extends is not None and pending.is_dir() else job.folder
        if (own / RESULT).exists():
            (own / RESULT).replace(job.folder / "result.failed.json")
        if own == pending:
            discard(job.folder)
        raise
    _store(plan, job, result)
    facts = _facts_of(plan, job.key, result, job.extends)
    seconds = facts.pop("seconds")
    facts["code"] = made_by(job.config)["code"]
    plan.queue.note(job.number, kind=job.kind, **facts)
    plan.queue.complete(job.number, value, seconds)
    # The first number of other code than before: what stood in other cells counts no more
    parted = plan.mirror.comparable.learn_result(result)
    for cell in plan.request.cells if parted else [job.cell]:
        update_cell(plan, cell.text)
    return value, seconds


def _facts_of(
    plan: Plan, key: Key, result: Mapping[str, Any], extends: int | None = None
) -> dict[str, Any]:
    """What the study keeps of a result: of the prompts those asked for, where it does not say."""
    facts, asked = read_result_facts(result, extends), plan.asked(key)
    return facts if "prompts" in facts else facts | Extent(asked, asked is None).facts


def _store(plan: Plan, job: Job, result: Mapping[str, Any]) -> None:
    """Bring a trial's result into MLflow, as its run, or in the place of what it was before."""
    if job.extends is None:
        plan.mirror.settle(job.tracking, result, job.folder)
    else:
        replace_result(plan, job, result)


def _changed(plan: Plan, key: Key, result: Mapping[str, Any]) -> list[str]:
    """The files that held something else when a result was made than when the plan began."""
    return changed_contents(result.get("contents", {}), plan.request.contents(key))


def return_trial(plan: Plan, job: Job, status: str, reason: str, final: bool = False) -> None:
    """Mark a trial that did not finish, in the study and in MLflow (FAILED or KILLED); ``final``:
    another try would not change it."""
    plan.queue.note(job.number, final=final or None)
    plan.queue.fail(job.number, reason, status)
    if job.extends is None:  # Else it has a run, whose numbers stand
        plan.mirror.fail(job.tracking, status, reason, job.folder)


def end_drawn(plan: Plan, job: Job, drawn: Mapping[str, Any]) -> str:
    """Ends a trial whose images were drawn and that measured nothing: not finished in the study nor
    in MLflow, so that the next start without ``evaluation.draw_only`` measures it. One that had
    finished with fewer prompts stays what it was. Returns what it came to, in words."""
    reason = f"{show_count(drawn['images'], 'image')} drawn, not measured"
    asked = plan.asked(job.key)
    plan.queue.note(job.number, **Extent(asked, asked is None).facts)
    plan.queue.fail(job.number, reason, DRAWN_ONLY)
    if job.extends is None:
        plan.mirror.fail(job.tracking, "KILLED", reason, job.folder)
    return reason


def update_cell(plan: Plan, text: str) -> None:
    """Means over seeds onto the cell's run, and its state."""
    trials = [trial for trial in plan.queue.trials() if key_of(trial)[0] == text]
    open_or_done = {key_of(trial) for trial in trials if trial.state.name != "FAIL"}
    failed = {key_of(trial) for trial in trials if trial.user_attrs.get("status") == "FAILED"}
    lost = (failed - open_or_done) & set(plan.planned)
    seeds = plan.request.seeds[: plan.request.seeds_of(text)]
    plan.mirror.aggregate(text, seeds, failed=bool(lost))


def reconcile(plan: Plan, resume: Callable[[Job], bool]) -> None:
    """Bring study and MLflow to what the folders say, after anything that happened to earlier
    processes, then queue what is missing. Trials that still run, which ``resume`` takes over, are
    the plan's ``resumed``."""
    plan.prepare()
    _settle_orphans(plan, resume)
    waiting = {key_of(trial) for trial in plan.queue.trials("WAITING", "RUNNING")}
    stored = {(cell, seed) for cell, seeds in plan.mirror.seeds().items() for seed in seeds}
    complete = {key_of(trial): trial.number for trial in plan.queue.trials("COMPLETE")}
    for key in plan.planned:
        there = (plan.trial_folder(key) / RESULT).is_file()
        if key in waiting or (key in complete and key in stored and there):
            continue
        number = complete.get(key, len(plan.queue.trials()))
        result = _settle_result(plan, number, key) if there else None
        if result is None:
            plan.enqueue(key)
        elif key not in complete:
            value = metric_of(result, plan.request.sweep.headline)
            plan.add_finished(key, value, _facts_of(plan, key, result))
    queue_extensions(plan)
    plan.mirror.close_stale([job.number for job in plan.resumed])
    for key in complete.keys() & set(plan.planned):
        end_replacing(plan, key, complete[key])
    plan.mirror.seeds()  # Which code measured last
    for cell in plan.request.cells:
        update_cell(plan, cell.text)
    _note_other_code(plan)


def _note_other_code(plan: Plan) -> None:
    """Say which finished trials other code made, or measured."""
    planned, done = set(plan.planned), plan.queue.trials("COMPLETE")
    codes = {key_of(t): t.user_attrs.get("code") for t in done if key_of(t) in planned}
    measured = find_measured_otherwise(plan)
    lines = [
        describe_made_otherwise(plan.request, codes),
        describe_measured_otherwise(len(plan.done()), measured),
    ]
    plan.notes += [line for line in lines if line]


def _settle_orphans(plan: Plan, resume: Callable[[Job], bool]) -> None:
    """Trials that ran when the last driver ended: a result that was written counts, what still runs
    goes on, everything else is failed."""
    known = {cell.text for cell in plan.request.cells}
    for trial in plan.queue.trials("RUNNING"):
        key, extends = key_of(trial), trial.user_attrs.get("extends")
        if key in plan.planned:
            job = plan.job(trial.number, key, plan.attempts(key, trial.number), extends)
            if read_outcome(job) is None and resume(job):
                plan.resumed.append(job)
                continue
        result = _settle_result(plan, trial.number, key, extends) if key[0] in known else None
        if result is None:
            reason = "the process ended before the trial did"
            plan.queue.fail(trial.number, reason)
            if key[0] in known and extends is None:
                job = plan.job(trial.number, key, 1)
                plan.mirror.fail(job.tracking, "KILLED", reason, job.folder)
            continue
        kind = EXTENDED if extends else kinds_of(plan.request, [key])[key]
        facts = _facts_of(plan, key, result, extends)
        seconds = facts.pop("seconds")
        plan.queue.note(trial.number, kind=kind, **facts)
        plan.queue.complete(trial.number, metric_of(result, plan.request.sweep.headline), seconds)
        plan.notes.append(
            f"{key[0]}, seed {key[1]} had finished when its process was stopped: counted"
        )


def _settle_result(
    plan: Plan, number: int, key: Key, extends: int | None = None
) -> dict[str, Any] | None:
    """The usable result in a trial's folder, now in MLflow too; None if there is none."""
    job = plan.job(number, key, 1, extends)
    result = read_outcome(job)
    if result is None or _changed(plan, key, result):
        return None
    try:
        metric_of(result, plan.request.sweep.headline)
    except ResultError:
        return None
    _store(plan, job, result)
    return result
