"""Addresses of MLflow that cannot be used are told apart before MLflow asks for a minute."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from reports.stores import find_trouble


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("htp://x", ["htp", "did you mean http?", "sqlite:///FILE"]),
        ("foo:bar", ["foo", "sqlite:///FILE"]),
        ("postgres://u:secret@x/y", ["postgres", "did you mean postgresql?"]),
        ("postgresql+foo://x/y", ["foo", "postgresql://USER"]),
        ("postgresql://u:secret@x:port/y", ["postgresql://USER"]),
        ("runs/mlflow.db", ["did you mean sqlite:///runs/mlflow.db?"]),
        ("file:///data/runs", ["did you mean sqlite:////data/runs/mlflow.db?"]),
        ("sqlite://", ["sqlite:///FILE"]),
        ("sqlite:///:memory:", ["sqlite:///FILE"]),
        ("sqlite:x.db", ["sqlite:///FILE"]),
        ("http://127.0.0.1:x", ["no MLflow server answers", "port"]),
        ("http://", ["no MLflow server answers", "host"]),
    ],
)
def test_an_address_that_nothing_can_use(uri: str, words: list[str]) -> None:
    trouble = find_trouble(uri, "tracking_uri=")
    assert "tracking_uri=" in trouble and "\n" not in trouble and "secret" not in trouble
    assert all(word in trouble for word in words), trouble


def test_addresses_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\0 and more")
    for name in ("new.db", "old.db"):
        assert find_trouble(f"sqlite:///{tmp_path / name}") == ""
    assert find_trouble("databricks") == find_trouble("databricks://profile") == ""
    assert not (tmp_path / "new.db").exists()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("Not what MLflow writes")
    assert "no SQLite database" in find_trouble(f"sqlite:///{tmp_path / 'notes.db'}")
    assert "is a folder" in find_trouble(f"sqlite:///{tmp_path}")


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    trouble = find_trouble("postgresql+psycopg2://u:secret@x/y")
    assert "needs the driver psycopg2" in trouble and "pip install psycopg2-binary" in trouble
    assert "secret" not in trouble


def test_a_database_server_that_is_not_there() -> None:
    pytest.importorskip("psycopg2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"postgresql+psycopg2://u:secret@127.0.0.1:{port}/results"
    trouble = find_trouble(uri, patience=1)
    assert "no database answers" in trouble and "refused" in trouble and "secret" not in trouble


def test_a_database_server_that_never_answers() -> None:
    pytest.importorskip("psycopg2")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4)
        uri = f"postgresql+psycopg2://u@127.0.0.1:{silent.getsockname()[1]}/results"
        assert "timeout" in find_trouble(uri, patience=1)
