"""The queue of a sweep: an Optuna study on a journal file, whose trials are (cell, seed).

Trials are enqueued and claimed, never sampled. A claim is atomic between processes: SQLite as storage would hand one trial to two of
them. A process that runs trials holds a lock file for as long as it lives, so that a trial whose process was killed is recognised at
once, also from another machine or container and whatever process ids were given again.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["Key", "Study", "identity_of", "key_of"]

JOURNAL = "study.journal"
Key = tuple[str, int]  # cell, seed


class Study:
    """The trials of one sweep. Every method is safe to call while other processes use the same folder."""

    def __init__(self, folder: Path, name: str, direction: str, identity: Mapping[str, Any]) -> None:
        """Opens or creates the study in `folder`; `identity` is stored with a new one."""
        import optuna

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lock = FileLock(folder / ".lock")  # the kernel frees it when its holder dies, unlike Optuna's own lock
        self.storage = _storage(folder, self.lock)
        with self.lock:
            self.study = optuna.create_study(
                storage=self.storage,
                # never asked for a value, but named, so that no version of Optuna puts another in its place
                sampler=optuna.samplers.RandomSampler(seed=0),
                pruner=optuna.pruners.NopPruner(),
                study_name=name,
                direction="maximize" if direction == "higher" else "minimize",
                load_if_exists=True,
            )
            if "identity" not in self.study.user_attrs:
                self.study.set_user_attr("identity", dict(identity))
        self._owner: FileLock | None = None
        self._token = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What was stored with the study."""
        return self.study.user_attrs

    def remember(self, key: str, value: Any) -> None:
        """Store one more fact."""
        self.study.set_user_attr(key, value)

    def trials(self, *states: str) -> list[FrozenTrial]:
        """Trials in the given states (all if none are given), oldest first."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if not states or trial.state.name in states]

    def enqueue(self, cell: str, seed: int, params: Mapping[str, Any]) -> None:
        """Put one trial at the end of the queue."""
        self.study.enqueue_trial(dict(params), user_attrs={"cell": cell, "seed": seed})

    def claim(self, wanted: Collection[Key], factors: Mapping[str, Collection[Any]]) -> FrozenTrial | None:
        """Take the first waiting trial that is wanted, or None. `factors` maps each swept key to all its levels."""
        import optuna

        with self.lock:
            for waiting in self.trials("WAITING"):
                if key_of(waiting) not in wanted:
                    continue
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, waiting.number)
                if not self.storage.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING):
                    continue
                trial = optuna.trial.Trial(self.study, trial_id)
                trial.set_user_attr("owner", self._hold())
                for key, value in waiting.system_attrs["fixed_params"].items():
                    _suggest(trial, key, value, factors.get(key, ()))
                return self.study.get_trials(deepcopy=False)[waiting.number]
        return None

    def complete(self, number: int, value: float, seconds: float | None = None) -> None:
        """End a running trial with the value of the headline metric."""
        self._note(number, seconds=seconds)
        self.study.tell(number, value)

    def fail(self, number: int, reason: str) -> None:
        """End a running trial without a value."""
        import optuna

        self._note(number, error=reason)
        self.study.tell(number, state=optuna.trial.TrialState.FAIL)

    def orphans(self) -> list[FrozenTrial]:
        """Running trials whose process is gone. Call it under `lock`: a claim in progress has no owner yet."""
        return [trial for trial in self.trials("RUNNING") if not self._alive(trial.user_attrs.get("owner"))]

    def close(self) -> None:
        """Let go of the lock that says that this process lives."""
        if self._owner is not None:
            self._owner.release()
            Path(self._owner.lock_file).unlink(missing_ok=True)
            self._owner = None

    @property
    def _study_id(self) -> int:
        return self.storage.get_study_id_from_name(self.study.study_name)

    def _note(self, number: int, **attrs: Any) -> None:
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        for key, value in attrs.items():
            if value is not None:
                self.storage.set_trial_user_attr(trial_id, key, value)

    def _hold(self) -> str:
        if self._owner is None:
            self._token = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
            self._owner = FileLock(self._owner_file(self._token))
            self._owner.acquire(timeout=0)
        return self._token

    def _owner_file(self, token: str) -> Path:
        return self.folder / f".owner-{token}"

    def _alive(self, token: str | None) -> bool:
        path = self._owner_file(token or "")
        if not token or not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return True
        return False


def key_of(trial: FrozenTrial) -> Key:
    """Cell and seed of a trial."""
    return trial.user_attrs["cell"], trial.user_attrs["seed"]


def identity_of(folder: Path, name: str) -> dict[str, Any] | None:
    """The identity that the study `name` in `folder` was made with; None where there is no such study."""
    if not (folder / JOURNAL).is_file():
        return None
    storage = _storage(folder, FileLock(folder / ".lock"))
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(name)).get("identity")
    except KeyError:
        return None


def _storage(folder: Path, lock: FileLock) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock_obj=lock))  # type: ignore[arg-type]


def _suggest(trial: Any, key: str, value: Any, levels: Collection[Any]) -> None:
    """Record an enqueued value as the trial's parameter, for Optuna's own tables and plots.

    Only numbers: their range may grow when levels are added, while Optuna wants the same choices in all trials of a study.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = min([value, *levels]), max([value, *levels])
    if isinstance(value, float):
        trial.suggest_float(key, low, high)
    else:
        trial.suggest_int(key, low, high)
