"""Stores a sweep: a folder, MLflow's database, experiment and cell runs, and a study with a queued
trial for each cell and seed. Doing it again is harmless: what is there stays, what is missing is
added."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from conf import load as conf
from conf.custom_backbone import describe_widening
from conf.devices import runs_on_cpu
from conf.files import DiskFull
from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.tracking.store import StoreUnavailable, client, public
from sweeps.engine.bookkeeping import reconcile
from sweeps.engine.drawn import show_command
from sweeps.engine.errors import PlanError
from sweeps.engine.locks import DriverLock
from sweeps.engine.metrics import describe_evaluation
from sweeps.engine.mlflow_mirror import MlflowMirror
from sweeps.engine.path_plan import make_path_plan
from sweeps.engine.places import tracking_uri
from sweeps.engine.plan import Job, Plan
from sweeps.engine.queue import TrialQueue
from sweeps.engine.request import Request
from sweeps.engine.scales import is_logarithmic
from sweeps.engine.search import make_search_plan
from sweeps.engine.stopping import check_primary, fixed_primary
from sweeps.engine.studies import PLACES, is_of, other_contents, possible_names, result_settings
from sweeps.engine.trials import read_identity
from sweeps.engine.until import add_looks, look_tags, make_until_plan
from sweeps.sweep import Cell, level_text

OLDER = "out-of-date database schema"  # What MLflow says of tables of another version

__all__ = ["create_study", "forget_passwords"]


def create_study(request: Request, resume: Callable[[Job], bool] = lambda job: False) -> Plan:
    """Store the plan: folder, MLflow database, experiment and cell runs, study and queue. What is
    there stays. ``resume`` takes over a trial that an earlier process left running, if it still
    does. Raises PlanError or StorageError, and SweepBusy where another process runs it."""
    sweep, config = request.sweep, request.config
    output, uri = Path(config.output), tracking_uri(config)
    backbone, cpu = config.backbone, runs_on_cpu(config.trainer.accelerator)
    widened = describe_widening(backbone.path, backbone.dtype, cpu)
    notes: list[str] = []
    with _planning_lock(output):
        if config.tracking_uri is None:
            _create_database(output / "mlflow.db")
            if _is_of_another_version(path := output / "mlflow.db"):
                notes.append(_upgrade_database(uri, path))
        _touch_store(uri)
        for key in request.keys:
            request.contents(key)  # As they are now: what changes later is noticed
        name, identity = _choose_name(request, uri, notes)
        notes += [widened] if widened else []
        lock = DriverLock(output / name)
        try:
            # The study comes first: stopped in between, the next start knows the folder, and by it
            # the experiment
            queue = TrialQueue(output / name, name, sweep.direction, identity)
            _note_command(request, queue)
            primary = _fix_primary(request, queue)
            history = add_looks(request, queue.facts, queue.trials(), primary)
            mirror = _make_mirror(request, uri, queue, look_tags(request, history, primary))
        except BaseException:
            lock.release()
            raise
    plan = Plan(request, name, output / name, queue, mirror, notes, lock)
    try:
        if config.mode == "search":
            plan = make_search_plan(plan, identity)
        elif config.mode == "path":
            plan = make_path_plan(plan)
        elif config.until is not None:
            plan = make_until_plan(plan, history)
        reconcile(plan, resume)
        # Its address may hold a password
        shown = dataclasses.replace(config, tracking_uri=None)
        conf.write(shown, plan.folder / "sweep.yaml")
    except BaseException:
        plan.close()
        raise
    return plan


def _make_mirror(
    request: Request, uri: str, queue: TrialQueue, looks: Mapping[str, str]
) -> MlflowMirror:
    """The experiment of a study with a run for each cell."""
    sweep, own = request.sweep, uri.startswith("sqlite:")
    mirror = MlflowMirror(
        uri,
        queue.name,
        Path(request.config.output) / "artifacts" / queue.name if own else None,
        {**_experiment_tags(request), **looks, "plan": queue.facts["identity"]["plan"]},
        f"**{sweep.question}**\n\nFrom: {sweep.origin}\n\nNo answer yet.",
        lambda cell: _method_name(request, cell),
    )
    mirror.add_cells(request.cells)
    return mirror


@contextmanager
def _planning_lock(output: Path) -> Iterator[None]:
    """One process at a time makes MLflow's tables and experiments below one output."""
    lock = FileLock(output / ".lock")
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise PlanError(f"output={output} cannot be written to: {reason}") from None
    try:
        yield
    finally:
        lock.release()


def _create_database(path: Path) -> None:
    """MLflow's tables take seconds to make; the file appears only when all are there."""
    if not path.exists():
        draft = path.with_name(".mlflow.db.new")
        draft.unlink(missing_ok=True)
        _touch_store(f"sqlite:///{draft.resolve()}")
        draft.replace(path)


def _touch_store(uri: str) -> None:
    """First touch of a tracking store. Raises PlanError if MLflow refuses it."""
    try:
        client(uri).search_experiments(max_results=1)
    except (DiskFull, StoreUnavailable):
        raise
    except Exception as error:  # Of MLflow, or of whatever keeps its data
        reason = describe_error(error)
        if OLDER in reason:
            reason = (
                f"it is of another version; keep a copy, then say mlflow db upgrade {public(uri)}"
            )
        raise PlanError(f"MLflow cannot use tracking_uri={public(uri)}: {reason}") from error


def _is_of_another_version(path: Path) -> bool:
    """Whether a database has the tables of another MLflow, which would change them without a word
    where it can."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute("select version_num from alembic_version").fetchone()
    except (sqlite3.Error, TypeError):  # Empty, or no database: MLflow has words for that
        return False
    from mlflow.store.db import utils

    return found != utils._get_latest_schema_revision()


def _upgrade_database(uri: str, path: Path) -> str:
    """Brings the tables of an older MLflow to this one's, and keeps a copy. Raises PlanError."""
    from mlflow.store.db import utils

    copy = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    shutil.copy2(path, copy)
    try:
        utils._upgrade_db(utils.create_sqlalchemy_engine(uri))
    except Exception as error:
        copy.replace(path)
        raise PlanError(
            f"{path} is of another version of MLflow, which this one cannot upgrade "
            f"({describe_error(error)}): use that version, or take the file away and say "
            "python -m sweeps sync"
        ) from error
    return f"{path} was of an older MLflow: it is upgraded, and {copy} is as it was"


def _choose_name(request: Request, uri: str, notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and identity of the study of these settings and contents, or the first free name and a
    new identity."""
    sweep, config = request.sweep, request.config
    output, settings = Path(config.output), result_settings(sweep, config)
    digest = conf.digest(settings)
    names = possible_names(sweep, config, digest)
    for count, name in enumerate(names):
        folder = output / name
        identity = read_identity(folder, name)
        experiment = client(uri).get_experiment_by_name(name)
        if identity is None:
            fits = experiment is None and not (folder / "trials").exists()
            identity = {"digest": digest, "config": settings, "plan": uuid.uuid4().hex}
        else:
            same = is_of(identity, digest)
            own = experiment is None or experiment.tags.get("plan") == identity["plan"]
            other = other_contents(request, folder, name) if same and own else ""
            fits = same and own and not other
            if other:
                notes.append(f"{other}: kept apart in {{}}")
            if count == 0 and not same:
                changes = _describe_changes(identity["config"], settings)
                notes.append(
                    f"settings differ from those of {folder} ({changes}): "
                    f"kept apart in {output / names[1]}"
                )
        if fits:
            if count and not notes:
                first = output / names[0]
                why = (
                    f"{first} holds trials without their queue"
                    if client(uri).get_experiment_by_name(names[0]) is None
                    else f"MLflow has an experiment {names[0]} whose queue is not in {first}"
                )
                notes.append(f"{why}: kept apart as {name}")
            notes[:] = [note.replace("{}", str(folder)) for note in notes]
            return name, identity
    raise PlanError(
        f"{output} holds a hundred sweeps called {names[1]}-…; choose another output=FOLDER"
    )


def _describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    shown = [f"{key} {old.get(key, 'unset')} → {new.get(key, 'unset')}" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _method_name(request: Request, cell: Cell) -> str:
    """The name of a cell's method. Settings are put together only if the cell changes it."""
    if {"method", "method.name"} & cell.training.keys():
        return request.run((cell.text, request.config.seed)).method.name
    return request.config.method.name


def forget_passwords(words: Sequence[str]) -> list[str]:
    """Without those words that hold a password."""
    return [word for word in words if "://" not in word or public(word) == word]


def _note_command(request: Request, queue: TrialQueue) -> None:
    """The sweep's name and the words of its command, from which `sync` plans it again; without an
    address that holds a password."""
    words = [request.sweep.name, *forget_passwords(request.words)]
    if queue.facts.get("words") != words:
        queue.remember("words", words)


def _fix_primary(request: Request, queue: TrialQueue) -> str:
    """The primary contrast of the study, stored now if it is new. Raises PlanError."""
    fixed, finished = fixed_primary(queue.facts), len(queue.trials("COMPLETE"))
    primary = check_primary(request.config, fixed, finished)
    if primary != fixed:
        queue.remember("primary", primary)
    return primary


def _experiment_tags(request: Request) -> dict[str, str]:
    """What a report needs to know of the plan."""
    sweep, config = request.sweep, request.config
    settings = {key: value for key, value in conf.to_dict(config).items() if key not in PLACES}
    without = [{key: level_text(level) for key, level in w.items()} for w in sweep.without]
    varied = {key for cell in request.cells for key in (*cell.training, *cell.evaluation)}
    return {
        "sweep": sweep.name,
        "question": sweep.question,
        "origin": sweep.origin,
        "factor_keys": _json(sweep.keys),
        "factors": _json([f.describe() | {"log": is_logarithmic(f)} for f in sweep.factors]),
        "without": _json(without),
        "within": sweep.within,
        "metrics": _json([dataclasses.asdict(metric) for metric in sweep.metrics]),
        "headline": sweep.headline,
        "seeds": _json(request.seeds),
        "mode": config.mode,
        "config": _json(settings),
        "command": show_command(request, leave_out=PLACES),
        "published": _json([dict(entry) for entry in sweep.published]),
        "evaluation": describe_evaluation(config.evaluation, varied),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
