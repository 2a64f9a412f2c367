from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.__main__ import main


def test_a_report_from_the_command_line(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["clear", f"output={tmp_path}", f"tracking_uri={uri}"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "clear" / "report.pdf")
    assert (tmp_path / "clear" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_without_a_name_the_sweeps_are_listed(uri: str, capsys: pytest.CaptureFixture) -> None:
    assert main([f"tracking_uri={uri}"]) == 0
    assert "clear                Does it matter?" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["threshold", "output=nowhere"], "no MLflow database at"),
        (["threshold", "outptu=x"], "unknown setting 'outptu'; there are: output=, tracking_uri="),
        (["threshold", "clear"], "one sweep at a time, or: all, compare A B; got: threshold clear"),
        (
            ["compare", "threshold"],
            "compare takes two sweeps, SWEEP or FOLDER:SWEEP, got 1: threshold",
        ),
        (["compare", "threshold", "nowhere:"], "'nowhere:' names no sweep"),
        (["compare", "nowhere:a", "nowhere:b"], "no MLflow database at"),
        (["all", "output=nowhere"], "no MLflow database at"),
        (
            ["all", "tracking_uri=http://me:secret@127.0.0.1:9"],
            "no MLflow server answers at http://127.0.0.1:9: ",
        ),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "secret" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "clear", "clear"], "clear would be compared with itself: name two sweeps"),
        (["compare", "clear", "unstarted"], "nothing of 'unstarted' has finished yet"),
        (
            ["unstarted"],
            "nothing of 'unstarted' has finished yet (4 cells planned); run it first: python -m sweeps.unstarted",
        ),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    words: list[str], message: str, uri: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([*words, f"tracking_uri={uri}"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_two_places_are_compared(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture, text_of: Callable[[Path], str]
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shutil.copyfile(uri.removeprefix("sqlite:///"), here / "mlflow.db")
    assert main(["compare", f"{uri}:eight", f"{here}:eight", f"output={tmp_path / 'out'}"]) == 0
    pdf = Path(capsys.readouterr().out.strip())
    assert pdf == tmp_path / "out" / "reports" / "mlflow0-eight-vs-here-eight.pdf"
    assert "here:eight gives the same numbers as mlflow0:eight in every common cell" in " ".join(
        text_of(pdf).split()
    )


def test_a_server_serves_all_forms(
    server: str, tmp_path: Path, text_of: Callable[[Path], str]
) -> None:
    setting = [f"output={tmp_path}", f"tracking_uri={server}"]
    for words in (
        ["left_off"],
        ["all"],
        ["compare", "pair", "left_off"],
        ["compare", "pair", f"{server}:left_off"],
    ):
        assert main([*words, *setting]) == 0
    single = " ".join(text_of(tmp_path / "left_off" / "report.pdf").split())
    assert (
        "Unfinished: 2 of 6 trials are missing" in single
        and "threshold=0.6, seed 1: failed: OutOfMemoryError" in single
    )
    assert "left_off (unfinished: 4 of 6 trials)" in text_of(tmp_path / "reports" / "all.pdf")
    compared = " ".join(text_of(tmp_path / "reports" / "pair-vs-left_off.pdf").split())
    assert (
        "Unfinished: left_off (2 of 6 trials are missing)" in compared
        and "0123456789abcdef" in compared
    )


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'mlflow', 'matplotlib', 'numpy', 'scipy', 'typst'}"
    code = f"import sys; from reports.__main__ import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert all(
        f"python -m reports {form}" in done.stdout
        for form in ("threshold", "all", "compare threshold")
    )
