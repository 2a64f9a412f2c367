"""Where a sweep is stored: a folder, MLflow's database, experiment and cell runs, a study with a queued trial for each cell and seed.

Results are never mixed over settings. A digest of everything that a result depends on (not of seeds, levels, retries, output) is stored
with the study; the same settings continue it, other settings start a study of their own next to it, `<name>-<digest>`, which is said in
one line. Code is not part of the digest of a study, but of those of adapters and images, and a trial says what code made it.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from conf import load as conf
from conf import schema
from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.tracking.store import client, public
from sweeps.engine.ledger import Ledger, ServerError, check_server
from sweeps.engine.locks import open_locks
from sweeps.engine.measurable import described
from sweeps.engine.plan import Plan
from sweeps.engine.resolve import PlanError, seeds_of, trial_config
from sweeps.engine.search import STARTUP, SearchPlan
from sweeps.engine.study import Study, identity_of
from sweeps.sweep import Cell, Sweep, level_text

__all__ = ["find", "kept_apart", "make", "uri_of"]

# settings that change when, where or how often trials run, but no trial's numbers
NOT_IN_DIGEST = (
    "seed", "seeds", "retries", "output", "tracking_uri", "levels", "data.workers", "trainer.log_every", "trainer.checkpoint_every",
    "mode", "cells", "candidates", "sampler", "sampler_seed", "prune", "workers", "devices", "launcher", "launch", "storage",
)  # fmt: skip
# settings that came later, with the value at which results are those of before
LATER = {"trainer.gradient_checkpointing": False, "backbone.channels_last": False, "backbone.compile": False}


def make(sweep: Sweep, config: schema.Sweep, cells: list[Cell], argv: Sequence[str] = ()) -> Plan:
    """Store the plan: folder, MLflow database, experiment and cell runs, study and queue. Raises PlanError or StorageError."""
    output, uri = Path(config.output), uri_of(config)
    notes: list[str] = []
    with _planning(config):
        if config.tracking_uri is None:
            _create_database(output / "mlflow.db")
        _open(uri)
        name, identity = _place(sweep, config, uri, notes)
        # the study comes first: stopped in between, the next start knows the folder, and by it the experiment
        study = Study(output / name, name, sweep.direction, identity, config.storage)
        tags = {**_tags(sweep, config, argv), "plan": study.facts["identity"]["plan"]}
        artifacts = output / "artifacts" / name if uri.startswith("sqlite:") else None
        note = f"**{sweep.question}**\n\nFrom: {sweep.origin}\n\nNo answer yet."
        ledger = Ledger(uri, name, artifacts, tags, note, lambda cell: _method(config, cell))
        ledger.add_cells(cells)
    parts = (sweep, config, name, output / name, cells, study, ledger, notes, list(argv))
    plan = SearchPlan(*parts, search=_search(sweep, config, name, identity)) if config.mode == "search" else Plan(*parts)
    plan.reconcile()
    # addresses may hold passwords
    conf.write(dataclasses.replace(config, storage=None, tracking_uri=None), plan.folder / "sweep.yaml")
    return plan


def _method(config: schema.Sweep, cell: Cell) -> str:
    """The name of a cell's method. Settings are put together, which takes a while, only where the cell changes it."""
    changed = {"method", "method.name"} & cell.training.keys()
    return trial_config(config, cell, config.seed).method.name if changed else config.method.name


@contextmanager
def _planning(config: schema.Sweep) -> Iterator[None]:
    """One process at a time makes MLflow's tables and experiments, below one output and, where the queue is on a server, everywhere."""
    output = Path(config.output)
    lock = FileLock(output / ".lock")
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise PlanError(f"output={config.output} cannot be written to: {error.strerror or error}") from None
    locks = open_locks(output, "", config.storage)
    try:
        with locks.exclusive("plan") if config.storage else nullcontext():
            yield
    finally:
        locks.close()
        lock.release()


def uri_of(config: schema.Sweep) -> str:
    """Where MLflow keeps the results. Raises PlanError for a server that does not answer."""
    uri = config.tracking_uri or f"sqlite:///{(Path(config.output) / 'mlflow.db').resolve()}"
    try:
        check_server(uri)
    except ServerError as error:
        raise PlanError(str(error)) from None
    return uri


def find(sweep: Sweep, config: schema.Sweep) -> tuple[str, bool]:
    """The name of the study of these settings below the output, and whether it is there already. Writes nothing."""
    digest = conf.digest(kept_apart(sweep, config))
    for name in _names(sweep, config):
        identity = identity_of(Path(config.output) / name, name, config.storage)
        if identity is None or identity["digest"] == digest:
            return name, identity is not None
    return sweep.name, False


def _search(sweep: Sweep, config: schema.Sweep, name: str, identity: Mapping[str, Any]) -> Study:
    """The study of a search's candidates, beside its queue."""
    import optuna

    objectives = config.objectives or [sweep.headline]
    directions = [sweep.better(key) for key in objectives]
    study = Study(Path(config.output) / name, f"{name}.candidates", directions, identity, config.storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruners = {"seeds": optuna.pruners.WilcoxonPruner(n_startup_steps=1), "training": optuna.pruners.MedianPruner(STARTUP)}
    study.study.pruner = pruners.get(config.prune, optuna.pruners.NopPruner())
    return study


def _create_database(path: Path) -> None:
    """MLflow's tables take seconds to make; the file appears only when all are there."""
    if not path.exists():
        draft = path.with_name(".mlflow.db.new")
        draft.unlink(missing_ok=True)
        _open(f"sqlite:///{draft.resolve()}")
        draft.replace(path)


def _open(uri: str) -> None:
    """First touch of a tracking store. Raises PlanError where MLflow refuses it."""
    try:
        client(uri).search_experiments(max_results=1)
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow", "sqlalchemy")):
            raise
        raise PlanError(f"MLflow cannot use tracking_uri={public(uri)}: {describe_error(error)}") from error


def kept_apart(sweep: Sweep, config: schema.Sweep) -> dict[str, Any]:
    """The dotted settings that results depend on; of the batch on each device and the number of devices, their product."""
    flat = dict(_flatten(conf.to_dict(config)))
    flat["trainer.batch"] *= flat.pop("trainer.devices")
    flat |= {f"levels of {factor.key}": factor.settings for factor in sweep.factors if factor.settings}
    flat |= {"also": [list(map(dict, entry)) for entry in sweep.also]} if sweep.also else {}
    left_out = {*NOT_IN_DIGEST, *sweep.keys, *(key for key, before in LATER.items() if flat[key] == before)}
    return {key: value for key, value in flat.items() if key not in left_out}


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        items += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and key != "evaluate_with" else [(prefix + key, value)]
    return items


def _names(sweep: Sweep, config: schema.Sweep) -> list[str]:
    """What the study of these settings may be called, in order."""
    plain = f"{sweep.name}-search" if config.mode == "search" else sweep.name
    base = f"{plain}-{conf.digest(kept_apart(sweep, config))[:8]}"
    return [plain, base, *(f"{base}-{count}" for count in range(2, 100))]


def _place(sweep: Sweep, config: schema.Sweep, uri: str, notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and identity of the study of these settings, or the first free name and a new identity."""
    output, kept, names = Path(config.output), kept_apart(sweep, config), _names(sweep, config)
    digest, base = conf.digest(kept), names[1]
    for count, name in enumerate(names):
        folder = output / name
        identity = identity_of(folder, name, config.storage)
        experiment = client(uri).get_experiment_by_name(name)
        if identity is None:
            fits = experiment is None and not (folder / "trials").exists()
            identity = {"digest": digest, "config": kept, "plan": uuid.uuid4().hex}
        else:
            fits = identity["digest"] == digest and (experiment is None or experiment.tags.get("plan") == identity["plan"])
            if count == 0 and identity["digest"] != digest:
                changes = _changes(identity["config"], kept)
                notes.append(f"settings differ from those of {folder} ({changes}): kept apart in {output / base}")
        if fits:
            if count and not notes:
                notes.append(f"MLflow has an experiment {names[0]} that does not belong to {output}: kept apart as {name}")
            return name, identity
    raise PlanError(f"{output} holds a hundred sweeps called {base}-…; choose another output=FOLDER")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    shown = ", ".join(f"{key} {old.get(key, 'unset')} → {new.get(key, 'unset')}" for key in keys[:3])
    return shown + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _tags(sweep: Sweep, config: schema.Sweep, argv: Sequence[str]) -> dict[str, str]:
    """What a report needs to know of the plan."""
    # say where things are and run on this machine, and change no result
    private = ("output", "tracking_uri", "storage", "workers", "devices", "launcher", "launch")
    command = [f"sweeps.{sweep.name}", *(word for word in argv if word.partition("=")[0] not in private)]
    return {
        "sweep": sweep.name,
        "question": sweep.question,
        "origin": sweep.origin,
        "factor_keys": json.dumps(sweep.keys),
        "factors": json.dumps([factor.describe() for factor in sweep.factors], ensure_ascii=False),
        "without": json.dumps([{key: level_text(level) for key, level in entry.items()} for entry in sweep.without], ensure_ascii=False),
        "within": sweep.within,
        "metrics": json.dumps([dataclasses.asdict(metric) for metric in sweep.metrics], ensure_ascii=False),
        "headline": sweep.headline,
        "seeds": json.dumps(seeds_of(config)),
        "mode": config.mode,
        "config": json.dumps({key: value for key, value in conf.to_dict(config).items() if key not in private}, ensure_ascii=False),
        "command": f"python -m {shlex.join(command)}",
        "published": json.dumps([dict(entry) for entry in sweep.published], ensure_ascii=False),
        "evaluation": described(config.evaluation),
    }
