"""Cells × seeds as a queue that can be worked on, put right after whatever happened, and asked what is done.

Planning again is harmless: what is there is found, only what is missing is added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf import schema
from lightning_modules.tracking.mlflow import Tracking
from lightning_modules.training.keys import code_version, training_facts
from sweeps.engine.resolve import seeds_of, trial_config
from sweeps.engine.study import Key, Study, key_of
from sweeps.sweep import Cell, Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeps.engine.ledger import Ledger

__all__ = ["Job", "Plan", "ResultError", "read_result"]


class ResultError(ValueError):
    """A result that does not say what the sweep asks."""


@dataclass(frozen=True)
class Job:
    """One claimed trial, ready to run. `kind` tells what it costs: see `Plan.kind`."""

    number: int
    cell: Cell
    seed: int
    attempt: int
    folder: Path
    config: schema.Run
    tracking: Tracking
    kind: str = "trained"

    @property
    def key(self) -> Key:
        return self.cell.text, self.seed

    @property
    def name(self) -> str:
        return f"{self.cell.text}, seed {self.seed}"


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
    words: list[str] = field(default_factory=list)  # of the command
    _groups: dict[Key, str] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        return seeds_of(self.config)

    @property
    def wanted(self) -> list[Key]:
        """Every (cell, seed), seed by seed, so that an interrupted sweep has whole seeds rather than whole cells."""
        return [(cell.text, seed) for seed in self.seeds for cell in self.cells]

    def size(self) -> str:
        """How large it is, in words."""
        return f"{len(self.cells)} cells × {len(self.seeds)} seeds = {len(self.wanted)} trials"

    def more(self) -> int:
        """How many trials may come that nobody knows yet."""
        return 0

    def results(self) -> list[str]:
        """Lines to print beside the table of cells."""
        return []

    def close(self) -> None:
        """Let go of what says that this process works on it."""
        self.study.close()

    # --- what is done ---------------------------------------------------------------------------------------------------------

    def done(self) -> set[Key]:
        """What of this plan has finished; a trial that is queued again, since its result was lost, has not."""
        again = {key_of(trial) for trial in self.study.trials("WAITING", "RUNNING")}
        return (
            {key_of(trial) for trial in self.study.trials("COMPLETE")} & set(self.wanted)
        ) - again

    def elsewhere(self) -> set[Key]:
        """What is being run by other processes that live."""
        return {key_of(trial) for trial in self.study.elsewhere()}

    def group(self, key: Key) -> str:
        """Trials of one group share a trained adapter; empty where nothing is trained."""
        if key not in self._groups:
            self._groups[key] = group_of(trial_config(self.config, self.cell(key[0]), key[1]))
        return self._groups[key]

    def kind(self, key: Key, trained: Collection[str]) -> str:
        """What a trial costs: "reference" (drawn by the untouched backbone), "shared" (evaluates an adapter of the groups in `trained`),
        or "trained"."""
        return next(iter(kinds_of({key: self.group(key)}, trained).values()))

    def kinds(self, keys: Collection[Key]) -> dict[Key, str]:
        """What each of the trials `keys` that are to come costs, in their order."""
        return kinds_of(
            {key: self.group(key) for key in keys}, {self.group(key) for key in self.done()}
        )

    def seconds(self) -> list[tuple[str, float]]:
        """Kind and duration of finished trials."""
        return seconds_of(self.study.trials())

    def value(self, result: Mapping[str, Any]) -> float:
        """The headline metric of a result. Raises ResultError where it is missing or not a number."""
        return metric_of(result, self.sweep.headline)

    # --- one trial ------------------------------------------------------------------------------------------------------------

    def claim(self, training: Collection[str] = ()) -> Job | None:
        """The next trial, now this process's own; None where nothing waits. One that would only wait for the adapter of a group in
        `training` comes after the others."""
        levels = {factor.key: factor.levels for factor in self.sweep.factors}
        wanted = set(self.wanted)
        free = {key for key in wanted if self.group(key) not in training} if training else wanted
        trial = self.study.claim(free, levels) or (
            self.study.claim(wanted, levels) if free != wanted else None
        )
        if trial is None:
            return None
        earlier = [
            other
            for other in self.study.trials()
            if key_of(other) == key_of(trial) and other.number < trial.number
        ]
        return self._job(trial.number, key_of(trial), len(earlier) + 1)

    def enqueue(self, key: Key) -> None:
        """Put one more trial of a cell and seed at the end of the queue."""
        self.study.enqueue(*key, self.cell(key[0]).values)

    def stored(self, job: Job) -> dict[str, Any] | None:
        """The result that an earlier attempt left in the trial's folder."""
        return read_result(job.folder)

    def told(self, job: Job, text: str) -> None:
        """A trial that runs has said something."""

    def finish(self, job: Job, result: Mapping[str, Any]) -> tuple[float, float]:
        """Count a trial: its headline metric and seconds. Raises ResultError for a result that does not have the metric."""
        try:
            value = self.value(result)
        except ResultError:
            # kept for whoever looks for the cause, but never taken for a result
            if (job.folder / "result.json").exists():
                (job.folder / "result.json").replace(job.folder / "result.failed.json")
            raise
        seconds = sum(result.get("seconds", {}).values())
        self.ledger.settle(job.tracking, result, job.folder)
        self.study.note(
            job.number, kind=job.kind, code=code_version(), phases=result.get("seconds")
        )
        self.study.complete(
            job.number, value, seconds
        )  # where another driver took this one for dead, it finds the result as well
        self._aggregate(job.cell)
        return value, seconds

    def give_back(self, job: Job, status: str, reason: str) -> bool:
        """Mark a trial that did not finish, in the queue and in MLflow (FAILED or KILLED). False where another driver, which took this one
        for dead, has queued it again."""
        mine = self.study.fail(job.number, reason, status)
        if mine:  # else it has its reason already
            self.ledger.fail(job.tracking, status, reason, job.folder)
        return mine

    def give_up(self, job: Job) -> None:
        """No further attempt is made at this trial."""
        self._aggregate(job.cell)

    def _aggregate(self, cell: Cell) -> None:
        """Means over seeds onto the cell's run, and its state, whichever driver gave up what."""
        own = [trial for trial in self.study.trials() if key_of(trial)[0] == cell.text]
        going = {key_of(trial) for trial in own if trial.state.name != "FAIL"}
        lost = {
            key_of(trial) for trial in own if trial.user_attrs.get("status") == "FAILED"
        } - going
        self.ledger.aggregate(cell.text, self.seeds, failed=bool(lost & set(self.wanted)))

    def pruned(self, job: Job) -> None:
        """The trial was ended early because its settings are no match."""
        self.give_back(job, "KILLED", "pruned")

    # --- after whatever happened ----------------------------------------------------------------------------------------------

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
            self.ledger.close_stale(self._numbers)
        for cell in self.cells:
            self._aggregate(cell)
        self._tell_other_code()

    def adopt(self) -> bool:
        """Take over trials whose process is gone; True where that put something back into the queue."""
        with self.study.lock:
            wanted = set(self.wanted)
            orphans = [trial for trial in self.study.orphans() if key_of(trial) in wanted]
            if not orphans:
                return False
            self._adopt_orphans()
            lost = {key_of(trial) for trial in orphans} - {
                key_of(trial) for trial in self.study.trials("COMPLETE")
            }
            for key in sorted(lost):
                self.enqueue(key)
            self.ledger.close_stale(self._numbers)
        return bool(lost)

    def _numbers(self) -> list[int]:
        return [trial.number for trial in self.study.trials("RUNNING")]

    def _adopt_orphans(self) -> None:
        """Trials whose process is gone: a result that was written counts, everything else goes back into the queue."""
        texts = {cell.text for cell in self.cells}
        for trial in self.study.orphans():
            key = key_of(trial)
            result = self._settle(trial.number, key) if key[0] in texts else None
            if result is None:
                reason = "the process ended before the trial did"
                self.study.fail(trial.number, reason)
                if key[0] in texts:
                    job = self._job(trial.number, key, 1)
                    self.ledger.fail(job.tracking, "KILLED", reason, job.folder)
            else:
                facts = {
                    "code": result.get("versions", {}).get("code"),
                    "phases": result.get("seconds"),
                }
                self.study.note(trial.number, kind=self.kind(key, ()), **facts)
                self.study.complete(
                    trial.number, self.value(result), sum(result.get("seconds", {}).values())
                )
                self.notes.append(
                    f"{key[0]}, seed {key[1]} had finished when its process was stopped: counted"
                )

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

    def _tell_other_code(self) -> None:
        wanted = set(self.wanted)
        known = [
            trial.user_attrs.get("code")
            for trial in self.study.trials("COMPLETE")
            if key_of(trial) in wanted
        ]
        other = sum(code not in (None, code_version()) for code in known)
        if other:
            said = f"{other} of {len(known)} finished trials were made by other code than this"
            self.notes.append(f"{said}: to make all of them anew, add --fresh")

    def _job(self, number: int, key: Key, attempt: int) -> Job:
        cell, seed = self.cell(key[0]), key[1]
        return Job(
            number=number,
            cell=cell,
            seed=seed,
            attempt=attempt,
            folder=self.folder / "trials" / cell.folder(seed),
            config=trial_config(self.config, cell, seed),
            tracking=self.ledger.tracking(cell, seed, number, attempt, code=code_version()),
            kind=self.kind(key, {self.group(other) for other in self.done()}),
        )

    def cell(self, text: str) -> Cell:
        """The cell of that name."""
        return next(cell for cell in self.cells if cell.text == text)


def kinds_of(groups: Mapping[Key, str], trained: Collection[str]) -> dict[Key, str]:
    """What trials that come one after another cost, by their groups, where the adapters of the groups `trained` are there already."""
    there, found = set(trained), {}
    for key, group in groups.items():
        found[key] = "reference" if not group else "shared" if group in there else "trained"
        there.add(group)
    return found


def seconds_of(trials: Collection[FrozenTrial]) -> list[tuple[str, float]]:
    """Kind and duration of those that have finished."""
    finished = [
        trial
        for trial in trials
        if trial.state.name == "COMPLETE" and "seconds" in trial.user_attrs
    ]
    return [
        (trial.user_attrs.get("kind", "trained"), trial.user_attrs["seconds"]) for trial in finished
    ]


def group_of(config: schema.Run) -> str:
    """Digest of what training depends on, as far as settings say it; empty for the untouched backbone."""
    if config.method.name == "untouched":
        return ""
    return conf.digest(training_facts(config))


def metric_of(result: Mapping[str, Any], name: str) -> float:
    """The metric `name` of a result. Raises ResultError where it is missing or not a number."""
    key = f"eval/{name}"
    if key not in result["metrics"]:
        raise ResultError(f"the result has no {key}; it has {', '.join(sorted(result['metrics']))}")
    value = float(result["metrics"][key])
    if math.isnan(value):
        raise ResultError(f"{key} is not a number (NaN)")
    return value


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
