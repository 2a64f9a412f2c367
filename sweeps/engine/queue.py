"""The queue of a sweep: an Optuna study whose trials are (cell, seed), in a journal file or in a
PostgreSQL database.

Trials are enqueued and claimed, never sampled. A claim is atomic between processes: SQLite as
storage would hand one trial to two of them. A process that runs trials holds a lock as long as it
lives, so that a trial whose process was killed is recognised at once, also from another machine or
container.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sweeps.engine.errors import StorageError
from sweeps.engine.journal import Journal
from sweeps.engine.locks import Presence, open_locks
from sweeps.engine.trials import JOURNAL, Key, key_of

__all__ = ["TrialQueue"]

P = ParamSpec("P")
R = TypeVar("R")


def _translate_errors(
    method: Callable[Concatenate[TrialQueue, P], R],
) -> Callable[Concatenate[TrialQueue, P], R]:
    """Errors of the storage become a StorageError. A server is asked twice: the connection may have
    broken in between."""

    @functools.wraps(method)
    def translated(self: TrialQueue, *args: P.args, **kwargs: P.kwargs) -> R:
        first: BaseException | None = None
        while True:
            try:
                return method(self, *args, **kwargs)
            except OSError as error:
                path = error.filename or self.folder / JOURNAL
                reason = error.strerror or error
                raise StorageError(f"{path} cannot be used: {reason}") from error
            except Exception as error:
                if self.server is None:
                    raise
                from sweeps.engine.postgres import database_error

                lost = database_error(error)
                if lost is None:
                    raise
                if first is not None:
                    raise self.server.error(first) from None
                first = lost

    return translated


class TrialQueue:
    """The trials of one sweep. Every method is safe to call while other threads, processes or
    machines use the same study, and raises StorageError if the file or the server cannot be used.

    ``presence`` knows which of their processes live.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        direction: str | Sequence[str],
        identity: Mapping[str, Any],
        storage: str | None = None,
    ) -> None:
        """Opens or creates the study: in ``folder``, or in the PostgreSQL database with the URL
        ``storage``.

        ``direction`` is "higher" or "lower", or one of these for every objective; ``identity`` is
        stored with a new study, ``facts`` has the one that counts.
        """
        self.folder = folder
        self.server = None
        if storage is not None:
            from sweeps.engine.postgres import Server

            self.server = Server(storage)
        self.presence = Presence(open_locks(folder, name, storage))
        self._half_claimed: int | None = None  # Number of a trial whose claim a lost connection cut
        directions = [direction] if isinstance(direction, str) else direction
        try:
            self._open(name, directions, identity)
        except BaseException:
            self.presence.close()
            raise

    @_translate_errors
    def _open(self, name: str, directions: Sequence[str], identity: Mapping[str, Any]) -> None:
        # It warns of every lost connection, over many lines
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if self.server is not None:
            from sweeps.engine.postgres import open_database

            self.storage = open_database(self.server)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.server is None:
            self.storage = optuna.storages.JournalStorage(
                Journal(self.folder / JOURNAL, FileLock(self.folder / ".journal.lock"))
            )
        with self.lock:
            self.study = optuna.create_study(
                storage=self.storage,
                # Never asked for a value of what is enqueued, but named, so that no version of
                # Optuna puts another in its place
                sampler=optuna.samplers.RandomSampler(seed=0),
                pruner=optuna.pruners.NopPruner(),
                study_name=name,
                directions=["maximize" if word == "higher" else "minimize" for word in directions],
                load_if_exists=True,
            )
            if "identity" not in self.study.user_attrs:
                self.study.set_user_attr("identity", dict(identity))
        self._study_id = self.storage.get_study_id_from_name(name)

    @property
    def lock(self) -> AbstractContextManager[None]:
        """Held by one driver at a time, on all machines: for steps that belong together."""
        return self.presence.locks.exclusive("queue")

    @property
    @_translate_errors
    def facts(self) -> dict[str, Any]:
        """What was stored with the study."""
        return self.study.user_attrs

    @_translate_errors
    def remember(self, key: str, value: Any) -> None:
        """Store one more fact."""
        self.study.set_user_attr(key, value)

    @_translate_errors
    def trials(self, *states: str) -> list[FrozenTrial]:
        """Trials in the given states (all if none are given), oldest first."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not states or trial.state.name in states]

    @_translate_errors
    def enqueue(self, cell: str, seed: int, params: Mapping[str, Any], **facts: Any) -> None:
        """Put one trial at the end of the queue, with more ``facts``."""
        self.study.enqueue_trial(dict(params), user_attrs={"cell": cell, "seed": seed, **facts})

    @_translate_errors
    def claim(
        self, keys: Collection[Key], levels: Mapping[str, Collection[Any]]
    ) -> FrozenTrial | None:
        """Take the first waiting trial of ``keys``, or None. ``levels`` maps each swept key to all
        its levels."""
        with self.lock:
            trials = self.trials()
            # First of all the one whose claim a lost connection stopped halfway
            waiting = [trial for trial in trials if trial.number == self._half_claimed]
            waiting += [t for t in trials if t.state.name == "WAITING" and key_of(t) in keys]
            for trial in waiting:
                trial_id = _trial_id(self, trial.number)
                try:
                    # Decided by the storage, in one step: on a server also without the lock, which
                    # may go with its connection
                    if trial.number != self._half_claimed:
                        running = TrialState.RUNNING
                        if not self.storage.set_trial_state_values(trial_id, running):
                            continue
                    self._half_claimed = trial.number
                    own = optuna.trial.Trial(self.study, trial_id)
                    own.set_user_attr("owner", self.presence.announce())
                    for key, value in trial.system_attrs["fixed_params"].items():
                        _record_parameter(own, key, value, levels.get(key, ()))
                except UpdateFinishedTrialError:
                    # Another driver, inside the same lock, took it for an orphan
                    self._half_claimed = None
                    continue
                claimed = self.study.get_trials(deepcopy=False)[trial.number]
                self._half_claimed = None
                return claimed
        return None

    @_translate_errors
    def note(self, number: int, **facts: Any) -> None:
        """Store facts with a trial; nothing if it has ended."""
        with suppress(UpdateFinishedTrialError):
            for key, value in facts.items():
                if value is not None:
                    self.storage.set_trial_user_attr(_trial_id(self, number), key, value)

    @_translate_errors
    def complete(
        self, number: int, value: float | Sequence[float], seconds: float | None = None
    ) -> bool:
        """End a running trial with the value of the headline metric, or of every objective.

        False if another driver, which took this one for dead, has ended it: its word counts.
        Raises ValueError for a value that is not a number.
        """
        return _end(self, number, "COMPLETE", value, "seconds", seconds)

    @_translate_errors
    def fail(self, number: int, reason: str, status: str | None = None) -> bool:
        """End a running trial without a value; ``status`` is FAILED if it was its own fault. False
        as in ``complete``."""
        self.note(number, status=status)
        return _end(self, number, "FAIL", None, "error", reason)

    def close(self) -> None:
        """From now on this process counts as ended."""
        self.presence.close()
        if self.server is not None:
            self.storage.engine.dispose()


def _trial_id(queue: TrialQueue, number: int) -> int:
    return queue.storage.get_trial_id_from_study_id_trial_number(queue._study_id, number)


def _end(
    queue: TrialQueue,
    number: int,
    state: str,
    value: float | Sequence[float] | None,
    note: str,
    text: Any,
) -> bool:
    """End a trial in ``state`` with ``text`` as its attribute ``note``. False if it has ended in
    another way."""
    trial_id = _trial_id(queue, number)
    try:
        if not queue.storage.get_trial(trial_id).state.is_finished():
            if text is not None:
                queue.storage.set_trial_user_attr(trial_id, note, text)
            queue.study.tell(number, value, TrialState[state])
            return True
    except (UpdateFinishedTrialError, ValueError):
        if not queue.storage.get_trial(trial_id).state.is_finished():
            raise
    trial = queue.storage.get_trial(trial_id)
    # True if it had ended so already, and only the answer was lost
    return trial.state.name == state and trial.user_attrs.get(note) == text


def _record_parameter(trial: Any, key: str, value: Any, levels: Collection[Any]) -> None:
    """Record an enqueued value as the trial's parameter, for Optuna's own tables and plots.

    Only numbers: their range may grow when levels are added, while Optuna wants the same choices in
    all trials of a study.
    """
    numbers = [value, *levels]
    if any(isinstance(level, bool) or not isinstance(level, int | float) for level in numbers):
        return
    suggest = trial.suggest_float if isinstance(value, float) else trial.suggest_int
    suggest(key, min(numbers), max(numbers))
