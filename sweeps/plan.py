"""Cells × seeds, decided once and stored: an MLflow experiment with a run per cell, an Optuna study with a queued trial per cell and seed.

Planning again is harmless: what is there is found, only what is missing is added. Results are never mixed over settings. A digest of
everything that a result depends on (not of seeds, levels, retries, output) is stored with the study; the same settings continue it, other
settings start a study of their own next to it, `<name>-<digest>`, which is said in one line. The code is not part of the digest: after a
change of a method, another `output` gives new results (adapters and images are shared below one output).
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from conf import load as conf
from conf import schema
from lightning_modules.tracking import Tracking, client, describe_error
from lightning_modules.train import check
from sweeps.ledger import Ledger, ServerError, check_server, public
from sweeps.measurable import described, measurable
from sweeps.study import Key, Study, identity_of, key_of
from sweeps.sweep import Cell, Sweep, level_text

__all__ = ["Job", "Plan", "PlanError", "ResultError", "make", "read_result", "resolve"]

# settings that change when, where or how often trials run, but no trial's numbers
NOT_IN_DIGEST = ("seed", "seeds", "retries", "output", "tracking_uri", "levels", "data.workers", "trainer.log_every",
                 "trainer.checkpoint_every")


class PlanError(ValueError):
    """A sweep that cannot be planned, said in one line."""


class ResultError(ValueError):
    """A result that does not say what the sweep asks."""


@dataclass(frozen=True)
class Job:
    """One claimed trial, ready to run."""

    number: int
    cell: Cell
    seed: int
    attempt: int
    folder: Path
    config: schema.Run
    tracking: Tracking


@dataclass
class Plan:
    """A sweep that is stored and can be run."""

    sweep: Sweep
    config: schema.Sweep
    name: str
    folder: Path
    cells: list[Cell]
    study: Study
    ledger: Ledger
    notes: list[str]

    @property
    def seeds(self) -> list[int]:
        return list(range(self.config.seeds))

    @property
    def wanted(self) -> list[Key]:
        """Every (cell, seed), seed by seed, so that an interrupted sweep has whole seeds rather than whole cells."""
        return [(cell.text, seed) for seed in self.seeds for cell in self.cells]

    def claim(self) -> Job | None:
        """The next trial, now this process's own; None where nothing waits."""
        levels = {factor.key: factor.levels for factor in self.sweep.factors}
        trial = self.study.claim(set(self.wanted), levels)
        if trial is None:
            return None
        earlier = [other for other in self.study.trials() if key_of(other) == key_of(trial) and other.number < trial.number]
        return self._job(trial.number, key_of(trial), len(earlier) + 1)

    def enqueue(self, key: Key) -> None:
        """Put one more trial of a cell and seed at the end of the queue."""
        self.study.enqueue(*key, self._cell(key[0]).values)

    def done(self) -> set[Key]:
        """What of this plan has finished; a trial that is queued again, since its result was lost, has not."""
        again = {key_of(trial) for trial in self.study.trials("WAITING", "RUNNING")}
        return ({key_of(trial) for trial in self.study.trials("COMPLETE")} & set(self.wanted)) - again

    def value(self, result: Mapping[str, Any]) -> float:
        """The headline metric of a result. Raises ResultError where it is missing or not a number."""
        key = f"eval/{self.sweep.headline}"
        if key not in result["metrics"]:
            raise ResultError(f"the result has no {key}; it has {', '.join(sorted(result['metrics']))}")
        value = float(result["metrics"][key])
        if math.isnan(value):
            raise ResultError(f"{key} is not a number (NaN)")
        return value

    def reconcile(self) -> None:
        """Bring queue, folders and MLflow to one state after whatever happened to earlier processes, then queue what is missing."""
        with self.study.lock:
            self._adopt_orphans()
            waiting = {key_of(trial) for trial in self.study.trials("WAITING", "RUNNING")}
            stored = {(cell, seed) for cell, seeds in self.ledger.seeds().items() for seed in seeds}
            complete = {key_of(trial): trial.number for trial in self.study.trials("COMPLETE")}
            for key in self.wanted:
                if key in waiting or (key in complete and key in stored):
                    continue
                if key in complete and self._settle(complete[key], key) is not None:
                    continue  # MLflow had lost a run that the folder still has
                self.enqueue(key)
            self.ledger.close_stale(t.number for t in self.study.trials("RUNNING"))
        for cell in self.cells:
            self.ledger.aggregate(cell.text, self.seeds)

    def _adopt_orphans(self) -> None:
        """Trials whose process is gone: a result that was written counts, everything else goes back into the queue."""
        texts = {cell.text for cell in self.cells}
        for trial in self.study.orphans():
            key = key_of(trial)
            result = self._settle(trial.number, key) if key[0] in texts else None
            if result is None:
                self.study.fail(trial.number, "the process ended before the trial did")
            else:
                self.study.complete(trial.number, self.value(result), sum(result.get("seconds", {}).values()))
                self.notes.append(f"{key[0]}, seed {key[1]} had finished when its process was stopped: counted")

    def _settle(self, number: int, key: Key) -> dict[str, Any] | None:
        """The usable result in a trial's folder, now in MLflow too; None where there is none."""
        job = self._job(number, key, 1)
        result = read_result(job.folder)
        if result is None:
            return None
        try:
            self.value(result)
        except ResultError:
            return None
        self.ledger.settle(job.tracking, result, job.folder)
        return result

    def _job(self, number: int, key: Key, attempt: int) -> Job:
        text, seed = key
        cell = self._cell(text)
        return Job(
            number=number,
            cell=cell,
            seed=seed,
            attempt=attempt,
            folder=self.folder / "trials" / cell.folder(seed),
            config=trial_config(self.config, cell, seed),
            tracking=self.ledger.tracking(cell, seed, number, attempt),
        )

    def _cell(self, text: str) -> Cell:
        return next(cell for cell in self.cells if cell.text == text)


def resolve(sweep: Sweep, config: schema.Sweep, argv: Sequence[str] = ()) -> tuple[Sweep, list[Cell]]:
    """The sweep with the levels that were asked for, and its cells; every cell is checked against the schema. Raises PlanError.

    Needs none of the heavy libraries: whatever is wrong with a command is said before they load.
    """
    for key in sweep.keys:
        if any(word.partition("=")[0] == key for word in argv):
            raise PlanError(f"{key} is what this sweep varies; choose its levels with levels=[…]")
    if sweep.needs and config.backbone.path == "embedded":
        raise PlanError(f"{sweep.name} needs {sweep.needs}, which the embedded world has not: choose a backbone of your own, backbone=sdxl")
    if not config.evaluation.prompts:
        raise PlanError("evaluation.prompts=0 measures nothing, and a sweep compares what is measured; give a number of prompts")
    if config.seed:
        raise PlanError(f"seed={config.seed} has no meaning for a sweep; seeds=N runs the seeds 0 … N-1")
    try:
        sweep = measurable(sweep, config.evaluation, config.headline)
        if config.levels is not None:
            sweep = sweep.with_levels(config.levels)
        factors = [dataclasses.replace(f, levels=[_canonical(config, f.key, level) for level in f.levels]) for f in sweep.factors]
        sweep = dataclasses.replace(sweep, factors=factors)
    except conf.ConfigError:
        raise
    except ValueError as error:
        raise PlanError(str(error)) from None
    cells = sweep.cells(config.when)
    for cell in cells:
        run = trial_config(config, cell, 0)
        try:
            check(run)
        except ValueError as error:
            raise PlanError(str(error)) from None
        if run.method.name == "baseline" and not cell.reference:
            raise PlanError(f"method.name=baseline: {', '.join(sweep.keys)} would change nothing in it; choose another method")
    return sweep, cells


def make(sweep: Sweep, config: schema.Sweep, cells: list[Cell], argv: Sequence[str] = ()) -> Plan:
    """Store the plan: folder, MLflow database, experiment and cell runs, study and queue. Raises PlanError."""
    output = Path(config.output)
    notes: list[str] = []
    uri = config.tracking_uri or f"sqlite:///{(output / 'mlflow.db').resolve()}"
    try:
        check_server(uri)
    except ServerError as error:
        raise PlanError(str(error)) from None
    lock = FileLock(output / ".lock")
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()  # MLflow's tables and experiments must be made by one process
    except OSError as error:
        raise PlanError(f"output={config.output} cannot be written to: {error.strerror or error}") from None
    try:
        if config.tracking_uri is None:
            _create_database(output / "mlflow.db")
        _open(uri)
        name, identity = _place(sweep, output, uri, _kept_apart(sweep, config), notes)
        # the study comes first: stopped in between, the next start knows the folder, and by it the experiment
        study = Study(output / name, name, sweep.direction, identity)
        tags = {**_tags(sweep, config, argv), "plan": identity["plan"]}
        artifacts = output / "artifacts" / name if uri.startswith("sqlite:") else None
        ledger = Ledger(uri, name, artifacts, tags, f"**{sweep.question}**\n\nFrom: {sweep.origin}\n\nNo answer yet.")
        ledger.add_cells(cells)
    finally:
        lock.release()
    plan = Plan(sweep, config, name, output / name, cells, study, ledger, notes)
    plan.reconcile()
    conf.write(config, plan.folder / "sweep.yaml")
    return plan


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


def trial_config(config: schema.Sweep, cell: Cell, seed: int) -> schema.Run:
    """The settings of one trial. Raises ConfigError for a level that the schema does not allow."""
    run = conf.as_run(config)
    if cell.evaluation:
        conf.replace(run, cell.evaluation, "levels")  # checked here, applied after training
    late = {} if cell.reference else {**run.evaluate_with, **cell.evaluation}
    return conf.replace(run, {**cell.training, "seed": seed, "evaluate_with": late}, "levels")


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished trial left in its folder; None where it did not finish."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return result if isinstance(result, dict) and isinstance(result.get("metrics"), dict) else None


def _canonical(config: schema.Sweep, key: str, level: Any) -> Any:
    """A level as the schema reads it (1 is 1.0 where a number is wanted); the name of a group's file stays a name."""
    value = conf.lookup(conf.replace(config, {key: level}, "levels"), key)
    return level if dataclasses.is_dataclass(value) else value


def _kept_apart(sweep: Sweep, config: schema.Sweep) -> dict[str, Any]:
    """The dotted settings that results depend on."""
    flat = dict(_flatten(conf.to_dict(config)))
    return {key: value for key, value in flat.items() if key not in NOT_IN_DIGEST and key not in sweep.keys}


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        items += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and key != "evaluate_with" else [(prefix + key, value)]
    return items


def _place(sweep: Sweep, output: Path, uri: str, kept: dict[str, Any], notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and identity of the study of these settings, or the first free name and a new identity."""
    digest = conf.digest(kept)
    base = f"{sweep.name}-{digest[:8]}"
    for count in range(100):
        name = [sweep.name, base][count] if count < 2 else f"{base}-{count}"
        folder = output / name
        identity = identity_of(folder, name)
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
                notes.append(f"MLflow has an experiment {sweep.name} that does not belong to {output}: kept apart as {name}")
            return name, identity
    raise PlanError(f"{output} holds a hundred sweeps called {base}-…; choose another output=FOLDER")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    shown = ", ".join(f"{key} {old.get(key, 'unset')} → {new.get(key, 'unset')}" for key in keys[:3])
    return shown + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _tags(sweep: Sweep, config: schema.Sweep, argv: Sequence[str]) -> dict[str, str]:
    """What a report needs to know of the plan."""
    private = ("output", "tracking_uri")  # say where things are on this machine and change no result
    command = [f"sweeps.{sweep.name}", *(word for word in argv if word.partition("=")[0] not in private)]
    return {
        "sweep": sweep.name,
        "question": sweep.question,
        "origin": sweep.origin,
        "factor_keys": json.dumps(sweep.keys),
        "factors": json.dumps([factor.describe() for factor in sweep.factors], ensure_ascii=False),
        "without": json.dumps([{key: level_text(level) for key, level in entry.items()} for entry in sweep.without], ensure_ascii=False),
        "baseline_cell": next(cell.text for cell in sweep.cells(config.when) if cell.baseline),
        "metrics": json.dumps([dataclasses.asdict(metric) for metric in sweep.metrics], ensure_ascii=False),
        "headline": sweep.headline,
        "seeds": json.dumps(list(range(config.seeds))),
        "config": json.dumps({key: value for key, value in conf.to_dict(config).items() if key not in private}, ensure_ascii=False),
        "command": f"python -m {shlex.join(command)}",
        "published": json.dumps([dict(entry) for entry in sweep.published], ensure_ascii=False),
        "evaluation": described(config.evaluation),
    }
