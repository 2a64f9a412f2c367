"""One command opens MLflow on what was run, says where, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from lightning_modules.tracking import store
from sweeps import __main__ as command
from sweeps.engine import ui
from sweeps.engine.mlflow_mirror import MlflowMirror
from sweeps.sweep import Cell

ROOT = Path(__file__).parents[3]


@pytest.fixture
def filled(output: Path) -> Path:
    """An output with one sweep of one cell."""
    tags = {
        "sweep": "threshold",
        "question": "Does it open?",
        "headline": "success",
        "metrics": "[]",
        "factor_keys": "[]",
    }
    MlflowMirror(
        f"sqlite:///{output / 'mlflow.db'}", "threshold", output / "artifacts", tags, ""
    ).add_cells([Cell("threshold=0.4", {})])
    return output


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.slow
def test_it_serves_the_pages_until_it_is_stopped(filled: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    port = ui._choose_port(None)
    words = [sys.executable, "-m", "sweeps", "ui", f"output={filled}", f"port={port}"]
    process = subprocess.Popen(
        words,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(6)]
        url = f"http://127.0.0.1:{port}"
        assert (
            said[0] == f"MLflow is open at {url} (stop it with Ctrl-C)\n"
            and said[2] == "threshold: Does it open?\n"
        )
        assert [line.split()[0] for line in said[3:]] == ["table:", "charts:", "compare:"] and all(
            url in line for line in said[3:]
        )
        with urlopen(f"{url}/health", timeout=30) as answer:
            assert answer.read() == b"OK"
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not psutil.wait_procs(family, timeout=30)[1] and ui._is_free(port)
        assert not list(
            here.iterdir()
        )  # MLflow makes folders of its own where it is not told better
    finally:
        process.kill()


def test_a_server_that_runs_already_is_only_linked_to(
    filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    database = store.client(f"sqlite:///{filled / 'mlflow.db'}")
    monkeypatch.setattr(ui, "client", lambda uri: database)
    monkeypatch.setattr(ui, "find_trouble", lambda uri, setting: "")
    assert ui.main(["tracking_uri=http://user:secret@server:5000"]) == 0
    out = capsys.readouterr().out
    assert "charts:  http://server:5000/#/experiments/" in out and "secret" not in out


def test_a_taken_port_is_said_or_passed_over(
    filled: Path, taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert ui.main([f"output={filled}", f"port={taken}"]) == 2
    assert f"error: port {taken} is taken; port=" in capsys.readouterr().err
    monkeypatch.setattr(ui, "PORT", taken)
    assert ui._choose_port(None) > taken


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["output=nowhere"], "run a sweep first, or say where it is with output=FOLDER"),
        (
            ["tracking_uri=http://127.0.0.1:9"],
            "no MLflow server answers at tracking_uri=http://127.0.0.1:9",
        ),
        (["threshold"], "unknown setting 'threshold'; there are: output=, port=, tracking_uri="),
        (["outputs=runs"], "unknown setting 'outputs'"),
        (["output={filled}", "port=many"], "port=many: expected a number from 1 to 65535"),
        (["output={filled}", "port=05000"], "port=05000: expected a number from 1 to 65535"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    words: list[str], expected: str, filled: Path, capsys: pytest.CaptureFixture
) -> None:
    assert ui.main([word.format(filled=filled) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and expected in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_database_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database " * 100)
    assert ui.main([f"output={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith(
            f"error: tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}: the file is no SQLite "
            "database; "
        )
        and said.count("\n") == 1
    )


def test_a_server_that_does_not_start_says_why(
    filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    broken = shutil.which("false")
    monkeypatch.setattr(ui.sys, "executable", broken)
    assert ui.main([f"output={filled}"]) == 2
    assert (
        "error: the MLflow server ended with status 1: it said nothing" in capsys.readouterr().err
    )


def test_help(capsys: pytest.CaptureFixture) -> None:
    assert command.main(["ui", "--help"]) == 0
    out = capsys.readouterr().out
    assert "python -m sweeps ui output=" in out and "port=5000" in out
