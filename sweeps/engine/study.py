"""The queue of a sweep: an Optuna study whose trials are (cell, seed), in a journal file or a PostgreSQL database.

Trials are enqueued and claimed, never sampled. A claim is atomic between processes: SQLite as storage would hand one trial to two of
them. A process that runs trials holds a lock for as long as it lives, so that a trial whose process was killed is recognised at once, also
from another machine or container and whatever process ids were given again.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from filelock import FileLock

from sweeps.engine.locks import PostgresLocks, open_locks
from sweeps.engine.storage import Server, StorageError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["Key", "Study", "StorageError", "identity_of", "key_of", "studies"]

JOURNAL = "study.journal"
Key = tuple[str, int]  # cell, seed
P = ParamSpec("P")
R = TypeVar("R")


def _reported(method: Callable[Concatenate[Study, P], R]) -> Callable[Concatenate[Study, P], R]:
    """What the storage throws becomes a StorageError. A server is asked twice: the connection may have broken in between."""

    @functools.wraps(method)
    def reported(self: Study, *args: P.args, **kwargs: P.kwargs) -> R:
        first: BaseException | None = None
        while True:
            try:
                return method(self, *args, **kwargs)
            except OSError as error:
                raise StorageError(f"{error.filename or self.folder / JOURNAL} cannot be used: {error.strerror or error}") from error
            except Exception as error:
                said = _from_database(error)
                if said is None or self.server is None:
                    raise
                if first is not None:
                    raise self.server.error(first) from None
                first = said

    return reported


class Study:
    """The trials of one sweep. Every method is safe to call while other threads, processes or machines use the same study.

    Every method raises StorageError where the file or the server cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        direction: str | Sequence[str],
        identity: Mapping[str, Any],
        storage: str | None = None,
    ) -> None:
        """Opens or creates the study: in `folder`, or in the PostgreSQL database with the URL `storage`.

        `direction` is `higher` or `lower`, or one of these for every objective; `identity` is stored with a new study, `facts` has the
        one that counts.
        """
        self.folder = folder
        self.server = None if storage is None else Server(storage)
        self.locks = open_locks(folder, name, storage)
        self._token = ""
        self._begun: int | None = None
        directions = [direction] if isinstance(direction, str) else direction
        try:
            self._open(name, ["maximize" if word == "higher" else "minimize" for word in directions], identity)
        except BaseException:
            self.locks.close()
            raise

    @_reported
    def _open(self, name: str, directions: list[str], identity: Mapping[str, Any]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of every lost connection, over many lines
        database = None if self.server is None else _database(self.server)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage = database or _journal(self.folder, write=True)
        with self.lock:
            self.study = optuna.create_study(
                storage=self.storage,
                # never asked for a value of what is enqueued, but named, so that no version of Optuna puts another in its place
                sampler=optuna.samplers.RandomSampler(seed=0),
                pruner=optuna.pruners.NopPruner(),
                study_name=name,
                directions=directions,
                load_if_exists=True,
            )
            if "identity" not in self.study.user_attrs:
                self.study.set_user_attr("identity", dict(identity))
        self._study_id = self.storage.get_study_id_from_name(name)

    @classmethod
    def read(cls, folder: Path, name: str, storage: str | None = None) -> list[FrozenTrial]:
        """The trials of the study `name`, oldest first; none where there is no such study. Nothing is created. Raises StorageError."""
        if identity_of(folder, name, storage) is None:
            return []
        stored = _database(Server(storage)) if storage else _journal(folder, write=False)
        return stored.get_all_trials(stored.get_study_id_from_name(name))

    @property
    def lock(self) -> AbstractContextManager[None]:
        """Held by one driver at a time, on all machines: for steps that belong together."""
        return self.locks.exclusive("queue")

    @property
    @_reported
    def facts(self) -> dict[str, Any]:
        """What was stored with the study."""
        return self.study.user_attrs

    @_reported
    def remember(self, key: str, value: Any) -> None:
        """Store one more fact."""
        self.study.set_user_attr(key, value)

    @_reported
    def trials(self, *states: str) -> list[FrozenTrial]:
        """Trials in the given states (all if none are given), oldest first."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if not states or trial.state.name in states]

    @_reported
    def enqueue(self, cell: str, seed: int, params: Mapping[str, Any]) -> None:
        """Put one trial at the end of the queue."""
        self.study.enqueue_trial(dict(params), user_attrs={"cell": cell, "seed": seed})

    @_reported
    def claim(self, wanted: Collection[Key], factors: Mapping[str, Collection[Any]]) -> FrozenTrial | None:
        """Take the first waiting trial that is wanted, or None. `factors` maps each swept key to all its levels."""
        import optuna

        with self.lock:
            for trial in self._waiting(wanted):
                trial_id = self._id(trial.number)
                try:
                    # decided by the storage, in one step: on a server also without the lock, which may go with its connection
                    if trial.number != self._begun and not self.storage.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING):
                        continue
                    self._begun = trial.number
                    mine = optuna.trial.Trial(self.study, trial_id)
                    mine.set_user_attr("owner", self._hold())
                    for key, value in trial.system_attrs["fixed_params"].items():
                        _suggest(mine, key, value, factors.get(key, ()))
                except optuna.exceptions.UpdateFinishedTrialError:
                    self._begun = None  # another driver, inside the same lock, took it for an orphan
                    continue
                claimed = self.study.get_trials(deepcopy=False)[trial.number]
                self._begun = None
                return claimed
        return None

    @_reported
    def note(self, number: int, **facts: Any) -> None:
        """Store facts with a trial; nothing where it has ended."""
        import optuna

        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            for key, value in facts.items():
                if value is not None:
                    self.storage.set_trial_user_attr(self._id(number), key, value)

    @_reported
    def complete(self, number: int, value: float | Sequence[float], seconds: float | None = None) -> bool:
        """End a running trial with the value of the headline metric, or of every objective.

        False where another driver has ended it, who took this one for dead: its word stands. Raises ValueError for what is not a number.
        """
        import optuna

        return self._end(number, optuna.trial.TrialState.COMPLETE, value, "seconds", seconds)

    @_reported
    def fail(self, number: int, reason: str, status: str | None = None) -> bool:
        """End a running trial without a value; `status` is FAILED where it was its own fault. False as in `complete`."""
        import optuna

        self.note(number, status=status)
        return self._end(number, optuna.trial.TrialState.FAIL, None, "error", reason)

    @_reported
    def alive_owner(self, trial: FrozenTrial) -> bool:
        """Whether the process that took a trial lives, this one or another."""
        owner = trial.user_attrs.get("owner")
        return bool(owner) and self.locks.alive(owner)

    def orphans(self) -> list[FrozenTrial]:
        """Running trials whose process is gone. Call it under `lock`: a claim in progress has no owner yet."""
        return [trial for trial in self.trials("RUNNING") if not self.alive_owner(trial)]

    def elsewhere(self) -> list[FrozenTrial]:
        """Running trials of other processes that live."""
        others = [trial for trial in self.trials("RUNNING") if trial.user_attrs.get("owner") != self._token]
        return [trial for trial in others if self.alive_owner(trial)]

    def refresh(self) -> bool:
        """To be called now and then by who runs trials: others can see that this process lives. False while the server does not answer."""
        return self.locks.refresh()

    def close(self) -> None:
        """Let go of what says that this process lives."""
        self.locks.close()
        self._token = ""
        if self.server is not None:
            self.storage.engine.dispose()

    def _waiting(self, wanted: Collection[Key]) -> list[FrozenTrial]:
        """The trials to claim; first of all the one whose claim a lost connection stopped halfway."""
        trials = self.trials()
        begun = [trial for trial in trials if trial.number == self._begun]
        return begun + [trial for trial in trials if trial.state.name == "WAITING" and key_of(trial) in wanted]

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _end(self, number: int, state: Any, value: float | Sequence[float] | None, note: str, text: Any) -> bool:
        import optuna

        trial_id = self._id(number)
        try:
            if not self.storage.get_trial(trial_id).state.is_finished():
                if text is not None:
                    self.storage.set_trial_user_attr(trial_id, note, text)
                self.study.tell(number, value, state)
                return True
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            if not self.storage.get_trial(trial_id).state.is_finished():
                raise
        trial = self.storage.get_trial(trial_id)
        return trial.state == state and trial.user_attrs.get(note) == text  # told already, and only the answer was lost

    def _hold(self) -> str:
        if not self._token:
            token = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
            self.locks.hold(token)
            self._token = token
        return self._token


def key_of(trial: FrozenTrial) -> Key:
    """Cell and seed of a trial."""
    return trial.user_attrs["cell"], trial.user_attrs["seed"]


def identity_of(folder: Path, name: str, storage: str | None = None) -> dict[str, Any] | None:
    """The identity that the study `name` was made with, in `folder` or in the database `storage`; None where there is no such study.

    Nothing is created. Raises StorageError.
    """
    if storage is not None:
        return _identities(Server(storage), name).get(name)
    if not (folder / JOURNAL).is_file():
        return None
    journal = _journal(folder, write=False)
    try:
        return journal.get_study_user_attrs(journal.get_study_id_from_name(name)).get("identity")
    except KeyError:
        return None


def studies(output: Path, storage: str | None = None) -> list[str]:
    """The names of all studies below `output` or in the database `storage`, sorted. Nothing is created. Raises StorageError."""
    if storage is not None:
        return sorted(_identities(Server(storage)))
    return sorted(path.parent.name for path in output.glob(f"*/{JOURNAL}"))


def _identities(server: Server, name: str | None = None) -> dict[str, dict[str, Any]]:
    """The identities of the studies in a database, or of one; none where Optuna's tables are missing."""
    if server.ask("select to_regclass('study_user_attributes')") == [(None,)]:
        return {}
    table = "study_user_attributes join studies using (study_id)"
    rows = server.ask(f"select study_name, value_json from {table} where key = 'identity' and study_name = coalesce(%s, study_name)", name)
    return {name: json.loads(text) for name, text in rows}


def _journal(folder: Path, write: bool) -> Any:
    from optuna.storages import JournalStorage

    from sweeps.engine.journal import Journal

    return JournalStorage(Journal(folder / JOURNAL, FileLock(folder / ".journal.lock") if write else None))


def _database(server: Server) -> Any:
    """Optuna's tables, made by one process at a time."""
    from optuna.storages import RDBStorage

    # few connections: servers allow a hundred, and drivers may be many
    engine = {"creator": lambda: server.connect(), "pool_pre_ping": True, "pool_size": 1, "max_overflow": 9}
    locks = PostgresLocks(server, "")
    try:
        with locks.exclusive("tables"):
            return RDBStorage("postgresql+psycopg2://", engine)
    except RuntimeError as error:  # tables of another version of Optuna
        raise server.error(error) from None
    finally:
        locks.close()


def _from_database(error: BaseException) -> BaseException | None:
    """What the server said, where an exception comes from there."""
    for link in (error, error.__cause__):
        if link is not None and type(link).__module__.partition(".")[0] in ("sqlalchemy", "psycopg2"):
            return getattr(link, "orig", None) or link
    return None


def _suggest(trial: Any, key: str, value: Any, levels: Collection[Any]) -> None:
    """Record an enqueued value as the trial's parameter, for Optuna's own tables and plots.

    Only numbers: their range may grow when levels are added, while Optuna wants the same choices in all trials of a study.
    """
    if any(isinstance(level, bool) or not isinstance(level, int | float) for level in [value, *levels]):
        return
    low, high = min([value, *levels]), max([value, *levels])
    if isinstance(value, float):
        trial.suggest_float(key, low, high)
    else:
        trial.suggest_int(key, low, high)
