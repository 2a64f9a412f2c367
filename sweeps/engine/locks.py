"""Who may plan and claim, and which driver lives: files on a shared folder, or locks of a PostgreSQL server.

Both are let go of by the kernel or the server when their holder dies, in whatever way, so no lock is ever left behind, and no clock or
process id is asked.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Protocol

from filelock import FileLock, Timeout

from sweeps.engine.storage import Server, StorageError

__all__ = ["FileLocks", "Locks", "PostgresLocks", "open_locks"]

PAUSES = (0.02, 0.2)  # seconds between tries for a lock, first and last
# what an administrator may have set to end sessions that seem idle, and how soon the server notices that a client's machine is gone
SESSION = {"idle_session_timeout": "0", "tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
# shared: a connection that broke may still count as alive for the server, and its successor must not wait for it
HOLD = "select pg_advisory_lock_shared(%s)"
HELD = """
    select exists (select from pg_locks where locktype = 'advisory' and granted and objsubid = 1
    and database = (select oid from pg_database where datname = current_database())
    and (classid::bigint << 32) | objid::bigint = %s)
"""


class Locks(Protocol):
    """The locks of one study."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """One thread of one process at a time is inside, among all drivers of the study; it may enter again."""

    def hold(self, token: str) -> None:
        """Say that the driver `token`, this process, lives."""

    def release(self, token: str) -> None:
        """Say that it is done."""

    def alive(self, token: str) -> bool:
        """Whether the driver `token` lives, this process or another."""

    def refresh(self) -> bool:
        """Whether others can see that this driver lives; takes its tokens again if they were lost. To be called now and then."""

    def close(self) -> None:
        """Let go of everything."""


class FileLocks:
    """Locks on files in `folder`. A child process never keeps them, forked or started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gates: dict[str, FileLock] = {}
        self._owners: dict[str, FileLock] = {}

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        with self._gates.setdefault(name, FileLock(self.folder / f".{name}.lock")):
            yield

    def hold(self, token: str) -> None:
        # not the thread's: whichever ends the driver lets go
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
        return True  # the kernel keeps a lock as long as this process lives

    def close(self) -> None:
        for token in list(self._owners):
            self.release(token)

    def _path(self, token: str) -> Path:
        return self.folder / f".owner-{token}"


class PostgresLocks:
    """Advisory locks of the server, held by one connection that is used for nothing else; `study` keeps those of studies apart.

    The server itself must be named: behind a pooler in transaction mode a connection keeps no lock.
    """

    def __init__(self, server: Server, study: str) -> None:
        """Connects on first use. Then every method but `refresh`, `release` and `close` raises StorageError where no server answers."""
        self.server, self.study = server, study
        self._threads = RLock()
        self._connection: Any = None
        self._inside: Counter[str] = Counter()
        self._tokens: set[str] = set()
        _OPEN.add(self)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """A lock that was lost with its connection is not missed: a claim is guarded by its row, and plans can be made twice."""
        with self._threads:
            if not self._inside[name]:
                pause, last = PAUSES
                # not left to the server: a signal would wait as long
                while not self._ask("select pg_try_advisory_lock(%s)", self._key("exclusive", name)):
                    time.sleep(pause)
                    pause = min(1.5 * pause, last)
            self._inside[name] += 1
            try:
                yield
            finally:
                self._inside[name] -= 1
                if not self._inside[name]:
                    self._unlock("pg_advisory_unlock", self._key("exclusive", name))

    def hold(self, token: str) -> None:
        with self._threads:
            self._ask(HOLD, self._key("owner", token))
            self._tokens.add(token)

    def release(self, token: str) -> None:
        with self._threads:
            self._tokens.remove(token)
            self._unlock("pg_advisory_unlock_shared", self._key("owner", token))

    def alive(self, token: str) -> bool:
        return bool(self._ask(HELD, self._key("owner", token)))

    def refresh(self) -> bool:
        try:
            self._ask("select 1", patient=False)
        except StorageError:
            return False
        return True

    def close(self) -> None:
        with self._threads:
            self._tokens.clear()
            self._drop()

    def _ask(self, query: str, *values: Any, patient: bool = True) -> Any:
        """The single value of the answer, over a new connection where the old one broke."""
        import psycopg2

        with self._threads:
            for again in (True, False):
                try:
                    if self._connection is None:
                        self._connect(patient)
                    with self._connection.cursor() as cursor:
                        cursor.execute(query, values)
                        return cursor.fetchone()[0]
                except psycopg2.Error as error:
                    self._drop()
                    if not again:
                        raise self.server.error(error) from None

    def _connect(self, patient: bool) -> None:
        self._connection = self.server.connect(patient)
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            for name, value in SESSION.items():
                # older servers do not know all of them
                cursor.execute("select set_config(name, %s, false) from pg_settings where name = %s", (value, name))
            for token in self._tokens:
                cursor.execute(HOLD, [self._key("owner", token)])

    def _unlock(self, function: str, key: int) -> None:
        import psycopg2

        try:
            if self._connection is not None:
                with self._connection.cursor() as cursor:
                    cursor.execute(f"select {function}(%s)", [key])
        except psycopg2.Error:
            self._drop()  # and with it all its locks

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _key(self, kind: str, name: str) -> int:
        """The number of a lock, an int8."""
        digest = hashlib.sha256("\0".join((self.study, kind, name)).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def _leave(self) -> None:
        """In a forked child: its copy of the socket would keep the session, and so the locks, after this process died."""
        if self._connection is not None and not self._connection.closed:
            os.close(self._connection.fileno())
        self._connection = None
        self._tokens.clear()


_OPEN: weakref.WeakSet[PostgresLocks] = weakref.WeakSet()


def _leave_all() -> None:
    for locks in _OPEN:
        locks._leave()


if hasattr(os, "register_at_fork"):  # Windows has neither
    os.register_at_fork(after_in_child=_leave_all)


def open_locks(folder: Path, study: str, storage: str | None = None) -> Locks:
    """The locks of a study: in `folder`, or at the server that `storage` names. Raises StorageError for any other `storage`."""
    return FileLocks(folder) if storage is None else PostgresLocks(Server(storage), study)
