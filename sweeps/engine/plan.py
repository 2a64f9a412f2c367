"""Cells × seeds as a queue that can be worked on and asked what is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf import schema
from conf.prompts import with_prompts
from conf.seeds import list_given
from lightning_modules.training.versions import made_by
from sweeps.engine.prompts import is_wanted, lacking_trials
from sweeps.engine.request import Request
from sweeps.engine.trials import Key, key_of
from sweeps.sweep import Cell

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from lightning_modules.tracking.mlflow import Tracking
    from sweeps.engine.locks import DriverLock
    from sweeps.engine.mlflow_mirror import MlflowMirror
    from sweeps.engine.queue import TrialQueue
    from sweeps.engine.trials import StoredTrial

__all__ = ["EXTENDED", "Job", "Plan", "kinds_of", "seconds_of"]

EXTENDED = "extended"  # The kind of a finished trial that gets more prompts


@dataclass(frozen=True)
class Job:
    """One claimed trial, ready to run. ``kind`` tells what it costs: see ``kinds_of``."""

    number: int
    cell: Cell
    seed: int
    attempt: int
    folder: Path
    config: schema.Run
    tracking: Tracking
    kind: str = "trained"
    # Of a finished trial that gets more: how many prompts it has
    extends: int | None = None

    @property
    def key(self) -> Key:
        return self.cell.text, self.seed

    @property
    def name(self) -> str:
        return f"{self.cell.text}, seed {self.seed}"


@dataclass
class Plan:
    """A sweep that is stored and can be run. ``notes`` are lines for the person who started it."""

    request: Request
    name: str
    folder: Path
    queue: TrialQueue
    mirror: MlflowMirror
    notes: list[str]
    lock: DriverLock  # Held until it is closed
    # How many prompts trials are asked for where that is not what the settings say
    targets: dict[Key, int] = field(default_factory=dict)
    listener: Callable[[str], None] | None = None  # Takes lines while trials run
    # Whether a trial that would only wait for an adapter is not given out before it is there
    holds: bool = False
    resumed: list[Job] = field(default_factory=list)  # Begun by an earlier process, and running

    @property
    def planned(self) -> list[Key]:
        """The trials of this plan, in the order in which they are queued."""
        return self.request.keys

    def describe_size(self) -> str:
        """How large it is, in words."""
        return self.request.describe_size()

    def unknown_trials(self) -> int:
        """How many trials may come that are not planned yet."""
        return 0

    def summary_lines(self) -> list[str]:
        """Lines to print before the table of cells."""
        return []

    def prepare(self) -> None:
        """Called before the study is brought up to date at the start of a process."""

    def begin(self) -> None:
        """Called once the queue is up to date, before the first trial is claimed."""

    def say(self, text: str) -> None:
        """A line for the person who looks."""
        (self.listener or self.notes.append)(text)

    def close(self) -> None:
        """This process does not work on it any more."""
        self.lock.release()

    def done(self) -> set[Key]:
        """The finished trials of this plan; one that is queued again, since its result was lost,
        or that is to get more prompts, has not finished."""
        lacking = lacking_trials(self)
        open_trials = self.queue.trials("WAITING", "RUNNING")
        again = {key_of(trial) for trial in open_trials if is_wanted(trial, lacking)}
        complete = {key_of(trial) for trial in self.queue.trials("COMPLETE")}
        return (complete & set(self.planned)) - again - lacking.keys()

    def asked(self, key: Key) -> int | None:
        """How many prompts of each split a trial is asked for; None: all that there are."""
        return self.targets.get(key, self.request.prompts(key))

    def claim(self, training: Collection[str] = ()) -> Job | None:
        """The next trial, now this process's own; None if nothing waits. A trial that would only
        wait for an adapter of ``training`` comes after the others, or later (``holds``)."""
        lacking, waiting = lacking_trials(self), self.queue.trials("WAITING")
        planned = set(self.planned)
        planned -= {key_of(trial) for trial in waiting if not is_wanted(trial, lacking)}
        free = planned
        if training:
            free = {key for key in planned if self.request.adapter(key) not in training}
        trial = self.queue.claim(free, self._levels)
        if trial is None and free != planned and not self.holds:
            trial = self.queue.claim(planned, self._levels)
        if trial is None:
            return None
        key = key_of(trial)
        attempt = self.attempts(key, trial.number)
        return self.job(trial.number, key, attempt, trial.user_attrs.get("extends"))

    def attempts(self, key: Key, number: int) -> int:
        """Which attempt at a cell and seed the trial ``number`` is, from 1 on."""
        return 1 + sum(key_of(t) == key for t in self.queue.trials() if t.number < number)

    def enqueue(self, key: Key, **facts: Any) -> None:
        """Put one more trial of a cell and seed at the end of the queue."""
        self.queue.enqueue(*key, self.request.cell(key[0]).values, **facts)

    def add_finished(self, key: Key, value: float, facts: Mapping[str, Any]) -> None:
        """A trial whose folder has its result, and the study nothing of it."""
        kind = kinds_of(self.request, [key], self.done())[key]
        values = self.request.cell(key[0]).values
        self.queue.add_finished(key, values, self._levels, value, kind=kind, **facts)

    @property
    def _levels(self) -> dict[str, Sequence[Any]]:
        return {factor.key: factor.levels for factor in self.request.sweep.factors}

    def trial_folder(self, key: Key) -> Path:
        """Where a trial leaves its files."""
        return self.folder / "trials" / self.request.cell(key[0]).folder(key[1])

    def job(self, number: int, key: Key, attempt: int, extends: int | None = None) -> Job:
        """The trial ``number`` of the queue."""
        cell, seed = self.request.cell(key[0]), key[1]
        config = with_prompts(self.request.run(key), self.asked(key))
        code = made_by(config)["code"]
        return Job(
            number=number,
            cell=cell,
            seed=seed,
            attempt=attempt,
            folder=self.trial_folder(key),
            config=config,
            tracking=self.mirror.tracking(
                cell, seed, number, attempt, list_given(conf.with_eval_overrides(config)), code=code
            ),
            kind=EXTENDED if extends else kinds_of(self.request, [key], self.done())[key],
            extends=extends,
        )

    def on_progress(self, job: Job, text: str) -> None:
        """A running trial has reported its progress."""

    def on_pruned(self, job: Job) -> None:
        """A trial was ended early because its settings are no match."""


def kinds_of(
    request: Request, keys: Iterable[Key], done: Iterable[Key] = (), lacking: Collection[Key] = ()
) -> dict[Key, str]:
    """What trials that come one after another cost: "untrained" (nothing is trained), "shared" (an
    adapter of ``done``, or of one before, is evaluated), "trained", or "extended" (one of
    ``lacking``, which has finished and gets more prompts)."""
    there = {request.adapter(key) for key in [*done, *lacking]}
    kinds = {}
    for key in keys:
        adapter = request.adapter(key)
        kinds[key] = "untrained" if not adapter else "shared" if adapter in there else "trained"
        if key in lacking:
            kinds[key] = EXTENDED
        there.add(adapter)
    return kinds


def seconds_of(trials: Iterable[FrozenTrial | StoredTrial]) -> list[tuple[str, float]]:
    """Kind and seconds of the trials that have finished."""
    finished: list[Mapping] = [t.user_attrs for t in trials if t.state.name == "COMPLETE"]
    return [(f.get("kind", "trained"), f["seconds"]) for f in finished if "seconds" in f]
