"""Who may plan and claim, and which driver lives: locks on files of a shared folder.

The kernel releases them when their holder dies, in any way, so that no lock is ever left behind,
and no clock or process id is asked. ``postgres`` has the same for a server.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["FileLocks", "Locks", "Presence", "open_locks"]


class Locks(Protocol):
    """The locks of one study."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """One thread of one process at a time is inside, among all drivers of the study; it may
        enter again."""

    def hold(self, token: str) -> None:
        """Say that the driver ``token``, this process, lives."""

    def release(self, token: str) -> None:
        """Say that it has ended."""

    def alive(self, token: str) -> bool:
        """Whether the driver ``token`` lives, this process or another."""

    def refresh(self) -> bool:
        """Whether others can see that this driver lives; takes lost tokens again."""

    def close(self) -> None:
        """Release everything."""


class FileLocks:
    """Locks on files in ``folder``. A child process never keeps them, forked or started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gates: dict[str, FileLock] = {}
        self._owners: dict[str, FileLock] = {}

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        with self._gates.setdefault(name, FileLock(self.folder / f".{name}.lock")):
            yield

    def hold(self, token: str) -> None:
        # Not the thread's: the one that ends the driver releases it
        lock = FileLock(self._path(token), timeout=0, thread_local=False)
        lock.acquire()
        self._owners[token] = lock

    def release(self, token: str) -> None:
        self._owners.pop(token).release()
        self._path(token).unlink(missing_ok=True)

    def alive(self, token: str) -> bool:
        path = self._path(token)
        if token in self._owners:
            return True
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return True
        return False

    def refresh(self) -> bool:
        return True  # The kernel keeps a lock as long as this process lives

    def close(self) -> None:
        for token in list(self._owners):
            self.release(token)

    def _path(self, token: str) -> Path:
        return self.folder / f".owner-{token}"


class Presence:
    """Says that this process lives, from its first claim on, and asks whether others do."""

    def __init__(self, locks: Locks) -> None:
        self.locks = locks
        self.token = ""

    def announce(self) -> str:
        """The token of this process, which others can see from now on."""
        if not self.token:
            token = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
            self.locks.hold(token)
            self.token = token
        return self.token

    def orphans(self, running: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """The running trials whose process is gone. Call it under the lock of the queue: a claim
        in progress has no owner yet."""
        return [trial for trial in running if not self._has_owner(trial)]

    def elsewhere(self, running: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """The running trials of other processes that live."""
        return [
            trial
            for trial in running
            if trial.user_attrs.get("owner") != self.token and self._has_owner(trial)
        ]

    def close(self) -> None:
        """From now on this process counts as ended."""
        self.locks.close()
        self.token = ""

    def _has_owner(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get("owner")
        return bool(owner) and self.locks.alive(owner)


def open_locks(folder: Path, study: str, storage: str | None = None) -> Locks:
    """The locks of a study: in ``folder``, or at the server ``storage``. Raises StorageError."""
    if storage is None:
        return FileLocks(folder)
    from sweeps.engine.postgres import PostgresLocks, Server

    return PostgresLocks(Server(storage), study)
