"""The client waits for a store that is busy, and names one that is away in one line."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from requests.exceptions import ConnectionError, ReadTimeout, RetryError

from lightning_modules.tracking import store as module
from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.tracking.store import StoreUnavailable, client, public, trouble

DATABASE, SERVER = "sqlite:///runs/mlflow.db", "http://user:secret@server:5000"


class Failing:
    """A method that fails some times before it answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, word: str) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return word


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


def locked() -> Exception:
    return RuntimeError("(sqlite3.OperationalError) database is locked\n[SQL: UPDATE runs SET …]")


def unreachable(cause: Exception) -> Exception:
    """As MLflow raises it: during the handling of the cause, not from it."""
    try:
        try:
            raise cause
        except Exception:
            raise RuntimeError(  # noqa: B904
                "API request to http://server:5000/api/2.0/mlflow/runs/log-batch failed "
                "with exception …"
            )
    except RuntimeError as error:
        return error


def test_a_locked_database_is_waited_for() -> None:
    assert module._retry(DATABASE, 300.0, Failing(locked(), locked(), locked()), "done") == "done"
    with pytest.raises(
        StoreUnavailable,
        match=(
            "^the MLflow database sqlite:///runs/mlflow.db cannot be used: it is locked by "
            "another program$"
        ),
    ):
        module._retry(DATABASE, 0.0, Failing(locked(), locked()), "done")


def test_a_real_lock_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "some.db", isolation_level=None)
    other.execute("CREATE TABLE runs (name)")
    other.execute("BEGIN EXCLUSIVE")
    mine = sqlite3.connect(tmp_path / "some.db", timeout=0.01, isolation_level=None)
    tries: list[int] = []

    def write() -> str:
        tries.append(1)
        if len(tries) == 3:
            other.execute("COMMIT")
        mine.execute("INSERT INTO runs VALUES ('a')")
        return "stored"

    assert module._retry(DATABASE, 300.0, write) == "stored" and len(tries) == 3


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            ConnectionError(
                "HTTPConnectionPool(host='server'): Max retries exceeded: "
                "[Errno 111] Connection refused"
            ),
            "Connection refused",
        ),
        (RetryError("too many 503 error responses"), "too many 503 error responses"),
        (ReadTimeout("Read timed out. (read timeout=60)"), "Read timed out. (read timeout=60)"),
    ],
)
def test_a_server_that_is_away_is_one_line_without_its_password(
    cause: Exception, reason: str
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        module._retry(SERVER, 300.0, Failing(unreachable(cause)), "done")
    assert describe_error(caught.value) == (
        f"StoreUnavailable: the MLflow server http://server:5000 cannot be used: {reason}"
    )


def test_other_errors_are_as_they_were() -> None:
    with pytest.raises(KeyError):
        module._retry(DATABASE, 300.0, Failing(KeyError("x")), "done")


def test_a_client_is_mlflows_with_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert client(uri) is client(uri) and client(uri).tracking_uri == uri
    original: Any = client(uri)._inner.create_experiment
    failing = Failing(locked())
    monkeypatch.setattr(
        client(uri)._inner, "create_experiment", lambda name: original(failing(name))
    )
    assert client(uri).get_experiment(client(uri).create_experiment("some")).name == "some"


def test_defaults_for_a_server_end_within_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in module.SETTINGS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    module._connect.cache_clear()
    module._connect("http://127.0.0.1:9")  # nothing is asked yet
    from mlflow.environment_variables import (
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_HTTP_REQUEST_TIMEOUT,
    )
    from urllib3.util import Retry

    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 7  # a person's own setting holds
    retries = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    pause = Retry(
        total=retries, backoff_factor=float(module.SETTINGS["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"])
    )
    pauses = []
    for _ in range(retries):
        pause = pause.increment("GET", "/", error=OSError("refused"))
        pauses.append(pause.get_backoff_time())
    assert 120 < sum(pauses) < 300 and max(pauses) <= 120


def test_waiting_for_a_server_is_said_once() -> None:
    said = module._ShortRetries()

    def record(message: str) -> logging.LogRecord:
        return logging.LogRecord(
            "urllib3.connectionpool", logging.WARNING, "", 0, message, (), None
        )

    first = record(
        "Retrying (Retry(total=7)) after connection broken by 'NewConnectionError()': "
        "/api/2.0/mlflow/runs/get"
    )
    assert said.filter(first) and first.getMessage() == (
        "the MLflow server does not answer; waiting for it"
    )
    assert not said.filter(
        record("Retrying (Retry(total=6)) after connection broken by '…': /api/2.0/mlflow/runs/get")
    )
    assert said.filter(
        record("Retrying (Retry(total=6)) after connection broken by '…': /some/other/service")
    )


def test_trouble_is_found_out_at_once() -> None:
    assert trouble(DATABASE) is None
    assert "refused" in (trouble("http://127.0.0.1:9") or "")
    assert public(SERVER) == "http://server:5000" and public(DATABASE) == DATABASE
