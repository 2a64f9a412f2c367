from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.mlflow_server import Server
from helpers.stored_sweeps import StoredSweep, noisy, store

from reports.__main__ import main


@pytest.mark.usefixtures("coarse")
def test_a_report_from_the_command_line(uri: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["pair", f"output={tmp_path}", f"tracking_uri={uri}"]) == 0
    pdf = Path(capsys.readouterr().out.strip())
    assert pdf == tmp_path / "pair" / "report.pdf" and pdf.read_bytes().startswith(b"%PDF")


def test_without_a_name_the_sweeps_are_listed(uri: str, capsys: Any) -> None:
    assert main([f"tracking_uri={uri}"]) == 0
    assert "pair                 Does it matter?" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["threshold", "output=nowhere"], "no MLflow database at"),
        (["threshold", "outptu=x"], "there are: output=, tracking_uri=; did you mean output?"),
        (["threshold", "clear"], "one sweep at a time"),
        (["compare", "threshold"], "compare takes two sweeps, SWEEP or FOLDER:SWEEP, got 1"),
        (["compare", "threshold", "nowhere:"], "'nowhere:' names no sweep"),
        (["compare", "nowhere:a", "nowhere:b"], "no MLflow database at"),
        (["all", "output=nowhere"], "no MLflow database at"),
        (["all", "output=~/runs"], "no MLflow database at /home/ann/runs"),
        (["all", "tracking_uri=sqlite:///~/a.db"], "no MLflow database at /home/ann/a.db"),
        (["compare", "~/old:a", "~/old:b"], "no MLflow database at /home/ann/old"),
        (["all", "output=~nobody-here/runs"], "output=~nobody-here/runs: there is no user"),
        (["all", "output= "], "output= : expected the name of a file or folder"),
        (
            ["all", "tracking_uri=http://me:secret@127.0.0.1:9"],
            "no MLflow server answers at http://1",
        ),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    assert main(words) == 2
    assert not list(tmp_path.iterdir())  # Nothing is left of it
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "secret" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "pair", "pair"], "pair would be compared with itself"),
        (["compare", "pair", "unstarted"], "nothing of 'unstarted' has finished yet"),
        (["unstarted"], "run it first: python -m sweeps.unstarted"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    words: list[str], message: str, uri: str, capsys: Any
) -> None:
    assert main([*words, f"tracking_uri={uri}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.usefixtures("coarse")
def test_two_places_are_compared(uri: str, tmp_path: Path, capsys: Any, words_of: Any) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shutil.copyfile(uri.removeprefix("sqlite:///"), here / "mlflow.db")
    words = ["compare", f"{uri}:pair", f"{here}:pair", f"output={tmp_path / 'out'}"]
    assert main(words) == 0
    pdf = Path(capsys.readouterr().out.strip())
    assert pdf.parent == tmp_path / "out" / "reports" and pdf.read_bytes().startswith(b"%PDF")
    assert pdf.name.endswith("-pair-vs-here-pair.pdf")
    assert "gives the same numbers as" in words_of(pdf.with_suffix(".json"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a server with two small sweeps; ``left_off`` is not finished."""
    from mlflow import MlflowClient

    server = Server(tmp_path / "server")
    server.folder.mkdir()
    server.start()
    try:
        server.wait()
        client = MlflowClient(tracking_uri=server.url)
        lost = {(0.6, 1): "OutOfMemoryError"}
        for sweep in (
            StoredSweep("pair", noisy(0.004, {0.6: 0.1}), levels=(0.5, 0.6), seeds=2),
            StoredSweep("left_off", noisy(0.004), levels=(0.5, 0.6), seeds=2, failed=lost),
        ):
            store(client, sweep, server.folder)
        yield server.url
    finally:
        server.kill()


@pytest.mark.slow
def test_a_server_serves_all_forms(server: str, tmp_path: Path, words_of: Any) -> None:
    settings = [f"output={tmp_path}", f"tracking_uri={server}"]
    compared = [["compare", "pair", name] for name in ("left_off", f"{server}:left_off")]
    for words in (["left_off"], ["all"], *compared):
        assert main([*words, *settings]) == 0
    single = words_of(tmp_path / "left_off" / "report.json")
    assert "Unfinished: 1 of 6 trials missing" in single
    assert "threshold=0.6, seed 1: failed: OutOfMemoryError" in single
    assert (tmp_path / "reports" / "all.pdf").is_file()
    both = words_of(tmp_path / "reports" / "pair-vs-left_off.json")
    assert "Unfinished: left_off (1 of 6 trials missing)" in both


@pytest.mark.parametrize("module", ["reports", "reports.user_study"])
def test_help_loads_nothing_heavy(module: str) -> None:
    heavy = {"mlflow", "matplotlib", "numpy", "scipy", "typst", "PIL"}
    run = f"from {module}.__main__ import main; main(['--help'])"
    code = f"import sys; {run}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and f"python -m {module} threshold" in done.stdout
