"""A queue in PostgreSQL, for machines without a shared folder: the server, its locks, and Optuna's
tables. Advisory locks end with their connection, so that a driver that dies is noticed at once."""

from __future__ import annotations

import hashlib
import json
import os
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from sweeps.engine.errors import StorageError

__all__ = ["PostgresLocks", "Server", "database_error", "open_database", "study_identities"]

SCHEMES = ("postgresql", "postgresql+psycopg2")
CONNECT = {
    "connect_timeout": 5,  # Seconds
    # A machine that vanished is noticed within a minute, by either side
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # Milliseconds
}
PATIENCE = 30.0  # Seconds for a server that answered before, for example while it restarts
PAUSE = 0.5  # Seconds between tries to connect
LOCK_PAUSES = (0.02, 0.2)  # Seconds between tries for a lock, first and last
# What an administrator may have set to end sessions that seem idle, and how soon the server notices
# that a client's machine is gone
SESSION = {
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
# Shared: a connection that broke may still count as alive for the server, and its successor must
# not wait for it
HOLD = "select pg_advisory_lock_shared(%s)"
HELD = """
    select exists (select from pg_locks where locktype = 'advisory' and granted and objsubid = 1
    and database = (select oid from pg_database where datname = current_database())
    and (classid::bigint << 32) | objid::bigint = %s)
"""
IDENTITIES = """
    select study_name, value_json from study_user_attributes join studies using (study_id)
    where key = 'identity' and study_name = coalesce(%s, study_name)
"""


class Server:
    """A PostgreSQL database. As text it has neither user nor password."""

    def __init__(self, url: str) -> None:
        """Reads the URL and asks nobody. Raises StorageError for anything but PostgreSQL, or
        without psycopg2."""
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES or "://" not in url:
            shown = f"{scheme}://…" if "://" in url else "…"
            raise StorageError(
                f"storage={shown} cannot be used: leave storage out (a journal in the output "
                "folder) or give postgresql://user:password@host/database; SQLite, for one, hands "
                "one queued trial to two workers"
            )
        try:
            import psycopg2  # noqa: F401
        except ImportError:
            raise StorageError(
                f'storage={scheme}://… needs psycopg2; to install it: pip install -e ".[postgres]"'
            ) from None
        from sqlalchemy import make_url

        try:
            parsed = make_url(url).set(drivername=SCHEMES[1])
            words = parsed.get_dialect()().create_connect_args(parsed)[1]
        except Exception:  # Its message may hold the password
            raise StorageError(
                f"storage={scheme}://… cannot be read; it has the form "
                f"{SCHEMES[0]}://user:password@host/database"
            ) from None
        self.words: dict[str, Any] = {**CONNECT, **words}
        port = f":{words['port']}" if "port" in words else ""
        self.text = f"{SCHEMES[0]}://{words.get('host', '')}{port}/{words.get('dbname', '')}"
        self._answered = False

    def __str__(self) -> str:
        return self.text

    def connect(self, patient: bool = True) -> Any:
        """A new psycopg2 connection. A server that answered before is waited for if ``patient``.
        Raises StorageError."""
        import psycopg2

        until = time.monotonic() + (PATIENCE if patient and self._answered else 0)
        while True:
            try:
                connection = psycopg2.connect(**self.words)
            except psycopg2.Error as error:
                if time.monotonic() >= until:
                    raise self.error(error) from None
                time.sleep(PAUSE)
            else:
                self._answered = True
                return connection

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one query, over a connection of its own that can write nothing. Raises
        StorageError."""
        import psycopg2

        connection = self.connect()
        try:
            connection.set_session(readonly=True, autocommit=True)
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall()
        except psycopg2.Error as error:
            raise self.error(error) from None
        finally:
            connection.close()

    def error(self, error: BaseException) -> StorageError:
        """The error of the server or the client library, on one line."""
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        return StorageError(f"PostgreSQL, storage={self}: {text}")


class PostgresLocks:
    """Advisory locks of the server, held by one connection that is used for nothing else; ``study``
    keeps those of studies apart.

    The server itself must be named: behind a pooler in transaction mode a connection keeps no lock.
    """

    def __init__(self, server: Server, study: str) -> None:
        """Connects on first use. Then every method but ``refresh``, ``release`` and ``close``
        raises StorageError if no server answers."""
        self.server, self.study = server, study
        self._threads = RLock()
        self._connection: Any = None
        self._inside: Counter[str] = Counter()
        self._tokens: set[str] = set()
        _OPEN.add(self)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """A lock that was lost with its connection is not missed: a claim is guarded by its row,
        and plans can be made twice."""
        with self._threads:
            if not self._inside[name]:
                pause, last = LOCK_PAUSES
                # Not left to the server: a signal would have to wait as long
                while not self._ask(
                    "select pg_try_advisory_lock(%s)", self._key("exclusive", name)
                ):
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
            self._drop_connection()

    def _ask(self, query: str, *values: Any, patient: bool = True) -> Any:
        """The single value of the answer, over a new connection if the old one broke."""
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
                    self._drop_connection()
                    if not again:
                        raise self.server.error(error) from None

    def _connect(self, patient: bool) -> None:
        self._connection = self.server.connect(patient)
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            for name, value in SESSION.items():
                # Older servers do not know all of them
                cursor.execute(
                    "select set_config(name, %s, false) from pg_settings where name = %s",
                    (value, name),
                )
            for token in self._tokens:
                cursor.execute(HOLD, [self._key("owner", token)])

    def _unlock(self, function: str, key: int) -> None:
        import psycopg2

        try:
            if self._connection is not None:
                with self._connection.cursor() as cursor:
                    cursor.execute(f"select {function}(%s)", [key])
        except psycopg2.Error:
            self._drop_connection()  # And with it all its locks

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _key(self, kind: str, name: str) -> int:
        """The number of a lock, an int8."""
        digest = hashlib.sha256("\0".join((self.study, kind, name)).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


_OPEN: weakref.WeakSet[PostgresLocks] = weakref.WeakSet()


def _forget_in_child() -> None:
    """In a forked child: its copy of a socket would keep the session, and so the locks, after its
    parent died."""
    for locks in _OPEN:
        if locks._connection is not None and not locks._connection.closed:
            os.close(locks._connection.fileno())
        locks._connection = None
        locks._tokens.clear()


if hasattr(os, "register_at_fork"):  # Windows has neither
    os.register_at_fork(after_in_child=_forget_in_child)


def open_database(server: Server) -> Any:
    """Optuna's storage in a database; its tables are made by one process at a time."""
    from optuna.storages import RDBStorage

    # Few connections: servers allow a hundred, and drivers may be many
    engine = {"creator": server.connect, "pool_pre_ping": True, "pool_size": 1, "max_overflow": 9}
    locks = PostgresLocks(server, "")
    try:
        with locks.exclusive("tables"):
            return RDBStorage("postgresql+psycopg2://", engine)
    except RuntimeError as error:  # Tables of another version of Optuna
        raise server.error(error) from None
    finally:
        locks.close()


def study_identities(server: Server, name: str | None = None) -> dict[str, dict[str, Any]]:
    """The identities of the studies in a database, or of one; none if Optuna's tables are missing.
    Raises StorageError."""
    if server.ask("select to_regclass('study_user_attributes')") == [(None,)]:
        return {}
    return {study: json.loads(text) for study, text in server.ask(IDENTITIES, name)}


def database_error(error: BaseException) -> BaseException | None:
    """The error of the server, if an exception comes from there."""
    for link in (error, error.__cause__):
        if link is None:
            continue
        if type(link).__module__.partition(".")[0] in ("sqlalchemy", "psycopg2"):
            return getattr(link, "orig", None) or link
    return None
