"""What `storage=` may name, and how a PostgreSQL server is reached."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Server", "StorageError"]

SCHEMES = ("postgresql", "postgresql+psycopg2")
CONNECT = {
    "connect_timeout": 5,  # seconds
    # a machine that vanished is noticed within a minute, by either side
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
PATIENCE = 30.0  # seconds for a server that answered before, for example while it restarts
PAUSE = 0.5  # seconds between tries


class StorageError(ValueError):
    """A queue that cannot be used, said in one line."""


class Server:
    """A PostgreSQL database. As text it has neither user nor password."""

    def __init__(self, url: str) -> None:
        """Reads the URL and asks nobody. Raises StorageError for anything but PostgreSQL, or without psycopg2."""
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES or "://" not in url:
            shown = f"{scheme}://…" if "://" in url else "…"
            raise StorageError(
                f"storage={shown} cannot be used: leave storage out (a journal in the output folder) or give "
                "postgresql://user:password@host/database; SQLite, for one, hands one queued trial to two workers"
            )
        try:
            import psycopg2  # noqa: F401
        except ImportError:
            raise StorageError(f'storage={scheme}://… needs psycopg2; to install it: pip install -e ".[postgres]"') from None
        from sqlalchemy import make_url

        try:
            parsed = make_url(url).set(drivername=SCHEMES[1])
            words = parsed.get_dialect()().create_connect_args(parsed)[1]
        except Exception:  # whatever it says may hold the password
            raise StorageError(f"storage={scheme}://… cannot be read; it has the form {SCHEMES[0]}://user:password@host/database") from None
        self.words: dict[str, Any] = {**CONNECT, **words}
        port = f":{words['port']}" if "port" in words else ""
        self.text = f"{SCHEMES[0]}://{words.get('host', '')}{port}/{words.get('dbname', '')}"
        self._answered = False

    def __str__(self) -> str:
        return self.text

    def connect(self, patient: bool = True) -> Any:
        """A new psycopg2 connection. A server that answered before is waited for if `patient`. Raises StorageError."""
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
        """The rows of one question, over a connection of its own that can write nothing. Raises StorageError."""
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
        """What the server or the client library said, on one line."""
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        return StorageError(f"PostgreSQL, storage={self}: {said}")
