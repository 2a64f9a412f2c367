"""The record of a sweep: an Optuna study in a journal file, whose trials are (cell, seed).

Trials are enqueued and claimed, never sampled. One process writes it, the driver, which holds the
sweep's lock (`locks.DriverLock`). Which trials have finished the folders say: what the journal
lacks is added from them, also where the whole file was lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeps.engine.errors import StorageError
from sweeps.engine.journal import Journal
from sweeps.engine.trials import JOURNAL, Key, key_of, read_facts, write_facts

__all__ = ["TrialQueue"]

P = ParamSpec("P")
R = TypeVar("R")
Levels = Mapping[str, Collection[Any]]  # Swept key -> all its levels


def _translate_errors(
    method: Callable[Concatenate[TrialQueue, P], R],
) -> Callable[Concatenate[TrialQueue, P], R]:
    """Errors of the file become a StorageError."""

    @functools.wraps(method)
    def translated(self: TrialQueue, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            path = error.filename or self.folder / JOURNAL
            raise StorageError(f"{path} cannot be used: {error.strerror or error}") from error

    return translated


class TrialQueue:
    """The trials of one sweep. Every method raises StorageError if the file cannot be used."""

    def __init__(
        self,
        folder: Path,
        name: str,
        direction: str | Sequence[str],
        identity: Mapping[str, Any],
    ) -> None:
        """Opens or creates the study in ``folder``.

        ``direction`` is "higher" or "lower", or one of these for every objective; ``identity`` is
        stored with a new study, ``facts`` has the one that counts.
        """
        self.folder, self.name = folder, name
        directions = [direction] if isinstance(direction, str) else direction
        self._open(directions, identity)

    @_translate_errors
    def _open(self, directions: Sequence[str], identity: Mapping[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage = optuna.storages.JournalStorage(Journal(self.folder / JOURNAL))
        self.study = optuna.create_study(
            storage=self.storage,
            # Never asked for a value of what is enqueued, but named, so that no version of
            # Optuna puts another in its place
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),
            study_name=self.name,
            directions=["maximize" if word == "higher" else "minimize" for word in directions],
            load_if_exists=True,
        )
        self._study_id = self.storage.get_study_id_from_name(self.name)
        self.facts = {"identity": dict(identity)} | read_facts(self.folder, self.name)
        stored = self.study.user_attrs
        for key, value in self.facts.items():
            if stored.get(key) != value:
                self.study.set_user_attr(key, value)
        write_facts(self.folder, self.name, self.facts)

    @_translate_errors
    def remember(self, key: str, value: Any) -> None:
        """Store one more fact, beside the journal first, since that may be lost."""
        self.facts[key] = value
        write_facts(self.folder, self.name, self.facts)
        self.study.set_user_attr(key, value)

    @_translate_errors
    def trials(self, *states: str) -> list[FrozenTrial]:
        """Trials in the given states (all if none are given), oldest first."""
        trials = self.study.get_trials(deepcopy=False)
        wanted = {TrialState[state] for state in states}
        return [trial for trial in trials if trial.state in wanted] if states else trials

    @_translate_errors
    def enqueue(self, cell: str, seed: int, params: Mapping[str, Any], **facts: Any) -> None:
        """Put one trial at the end of the queue, with more ``facts``."""
        self.study.enqueue_trial(dict(params), user_attrs={"cell": cell, "seed": seed, **facts})

    @_translate_errors
    def claim(self, keys: Collection[Key], levels: Levels) -> FrozenTrial | None:
        """Take the first waiting trial of ``keys``, or None."""
        for trial in self.trials("WAITING"):
            if key_of(trial) in keys:
                self.storage.set_trial_state_values(self._id(trial.number), TrialState.RUNNING)
                own = optuna.trial.Trial(self.study, self._id(trial.number))
                fixed = trial.system_attrs["fixed_params"]
                for key, distribution in _distributions(fixed, levels).items():
                    float_ = isinstance(distribution, FloatDistribution)
                    suggest = own.suggest_float if float_ else own.suggest_int
                    suggest(key, distribution.low, distribution.high)
                return self.study.get_trials(deepcopy=False)[trial.number]
        return None

    @_translate_errors
    def add_finished(
        self, key: Key, params: Mapping[str, Any], levels: Levels, value: float, **facts: Any
    ) -> None:
        """A trial that has finished without a place in the journal."""
        known = _distributions(params, levels)
        self.study.add_trial(
            optuna.trial.create_trial(
                value=value,
                params={name: params[name] for name in known},
                distributions=known,
                user_attrs={"cell": key[0], "seed": key[1]}
                | {name: fact for name, fact in facts.items() if fact is not None},
            )
        )

    @_translate_errors
    def note(self, number: int, **facts: Any) -> None:
        """Store facts with a trial that runs."""
        for key, value in facts.items():
            if value is not None:
                self.storage.set_trial_user_attr(self._id(number), key, value)

    @_translate_errors
    def complete(self, number: int, value: float, seconds: float | None = None) -> None:
        """End a running trial with the value of the headline metric. Raises ValueError for one that
        is not a number."""
        self.note(number, seconds=seconds)
        self.study.tell(number, value, TrialState.COMPLETE)

    @_translate_errors
    def fail(self, number: int, reason: str, status: str | None = None) -> None:
        """End a running trial without a value; ``status`` is FAILED if it was its own fault."""
        self.note(number, status=status, error=reason)
        self.study.tell(number, state=TrialState.FAIL)

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def _distributions(params: Mapping[str, Any], levels: Levels) -> dict[str, BaseDistribution]:
    """Of the values that are recorded as a trial's parameters, for Optuna's own tables and plots.

    Only numbers: their range may grow when levels are added, while Optuna wants the same choices in
    all trials of a study.
    """
    known: dict[str, BaseDistribution] = {}
    for key, value in params.items():
        numbers = [value, *levels.get(key, ())]
        if not any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            kind = FloatDistribution if isinstance(value, float) else IntDistribution
            known[key] = kind(min(numbers), max(numbers))
    return known
