"""The MLflow store: one client for every use, which retries while the store is busy or away and
gives up with an error of one line.

A locked SQLite database is retried for ``PATIENCE`` seconds; MLflow itself stops after 20. A server
that does not answer is retried by MLflow's own HTTP layer, with growing pauses: 246 seconds in all
where connections are refused, at most 13 minutes where they hang.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import urlopen

from conf.files import DiskFull, named_when_full

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["StoreUnavailable", "client", "is_server", "public", "trouble"]

PATIENCE = 300.0  # Seconds that a locked database is waited for
FILES = ("log_artifact", "log_image")  # Calls that write beside the database
PROBE = 5.0  # Seconds for a server to say that it is there
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # Two lines at the end of every run
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Pauses of 0, 2, 4 … 64, 120 seconds: MLflow's own are as long in all, but coarser
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "8",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # Seconds for one answer; MLflow's 120 would make it 20 minutes until a server that takes
    # connections but is dead is given up
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}


class StoreUnavailable(RuntimeError):
    """The MLflow store cannot be used now; the same call may work later."""


@cache
def client(uri: str, patience: float = PATIENCE) -> MlflowClient:
    """A quiet client without telemetry, whose methods raise StoreUnavailable where the store stays
    locked for ``patience`` seconds or unreachable.

    The first one on a new SQLite file creates the tables: let one process do that. The variables of
    ``SETTINGS`` are set where they are unset.
    """
    return cast(
        "MlflowClient",
        RetryingClient(uri, _retry(uri, patience, partial(_connect, uri)), patience),
    )


@cache
def _connect(uri: str) -> MlflowClient:
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    for name in ("mlflow.tracking.fluent", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs a traceback for every error that it raises
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if is_server(uri):
        logging.getLogger("urllib3.connectionpool").addFilter(_ShortRetries())
    return MlflowClient(tracking_uri=uri)


class RetryingClient:
    """An MlflowClient whose methods wait for a locked database and raise StoreUnavailable instead
    of MLflow's long errors."""

    def __init__(self, uri: str, inner: Any, patience: float) -> None:
        self._uri, self._inner, self._patience = uri, inner, patience

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return partial(_retry, self._uri, self._patience, value) if callable(value) else value


def _retry(uri: str, patience: float, call: Callable[..., Any], *words: Any, **named: Any) -> Any:
    """The result of ``call``. Raises StoreUnavailable where the store cannot be used; any other
    error passes."""
    began, database = time.monotonic(), public(uri).removeprefix("sqlite:///")
    while True:
        try:
            with named_when_full(database):
                return call(*words, **named)
        except DiskFull as full:
            if full.path == database and getattr(call, "__name__", "").startswith(FILES):
                raise DiskFull(_find_files(call, words[0])) from full
            raise
        except Exception as error:
            locked = "database is locked" in str(error)
            reason = "it is locked by another program" if locked else _unreachable(error)
            if reason is None and "disk I/O error" in str(error):
                reason = "it cannot be read or written (disk I/O error)"
            if reason is None:
                raise
            if not locked or time.monotonic() - began >= patience:
                what = "server" if is_server(uri) else "database"
                raise StoreUnavailable(
                    f"the MLflow {what} {public(uri)} cannot be used: {reason}"
                ) from error
        # Others wait, too, and not all should come back together
        time.sleep(random.uniform(0.1, 1.0))


def _find_files(call: Any, run_id: str) -> str:
    """Where the files of a run are."""
    uri: str = call.__self__.get_run(run_id).info.artifact_uri
    return unquote(uri.removeprefix("file://"))


class _ShortRetries(logging.Filter):
    """One short line a minute instead of urllib3's long one for every try."""

    def __init__(self) -> None:
        super().__init__()
        self.spoke = -60.0

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.startswith("Retrying") or "mlflow" not in message:
            return True
        if time.monotonic() - self.spoke < 60:
            return False
        self.spoke = time.monotonic()
        record.msg, record.args = "the MLflow server does not answer; waiting for it", ()
        return True


def trouble(uri: str) -> str | None:
    """Why a server cannot be reached, within seconds; None where it can, and for a database."""
    if not is_server(uri):
        return None
    try:
        urlopen(f"{public(uri).rstrip('/')}/health", timeout=PROBE).close()
    except HTTPError:
        return None  # It answers; what it thinks of this page does not matter
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None


def public(uri: str) -> str:
    """A URI without user and password."""
    scheme, separator, rest = uri.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def is_server(uri: str) -> bool:
    """True for an HTTP server, False for a database."""
    return uri.startswith(("http://", "https://"))


def _unreachable(error: BaseException) -> str | None:
    """Why the server could not be reached, None where the error is another."""
    from requests.exceptions import ConnectionError, RetryError, Timeout

    for link in _chain(error):
        if isinstance(link, ConnectionError | RetryError | Timeout):
            inner = link.args[0] if link.args else link
            text = str(getattr(inner, "reason", inner))
            return re.sub(r"^\[Errno -?\d+\] ", "", text.rpartition(": ")[2])
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from or during."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
