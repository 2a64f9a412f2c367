from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reports.user_study.__main__ import main


def test_a_page_from_the_command_line(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "ask" / "study.html"
    (tmp_path / "board.txt").write_text("Approved, number 12.\n\nYou are 18.", encoding="utf-8")
    words = [
        "threshold",
        "left=0.4",
        "right=untouched backbone",
        f"tracking_uri={uri}",
        f"to={page}",
    ]
    words += [
        "items=40",
        "question=Which is nicer, <b>a</b> or b?",
        f"consent={tmp_path / 'board.txt'}",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "36 of 36 pairs and 1 attention check\n40 pairs were asked for: only images kept as samples can be shown."
    )
    assert (
        "evaluation.keep_images" in said
        and f"\n{page} (" in said
        and said.endswith(f"\n{page.with_suffix('.key.json')}\n")
    )
    html = page.read_text(encoding="utf-8")
    assert "Which is nicer, \\u003cb>a\\u003c/b> or b?" in html and "Approved, number 12." in html
    assert (
        json.loads(page.with_suffix(".key.json").read_text(encoding="utf-8"))["cells"][0]["words"]
        == "0.4"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one sweep, got none; see python -m reports.user_study --help"),
        (["a", "b"], "expected one sweep, got a b"),
        (["a", "left=x", "rihgt=y"], "unknown setting 'rihgt'; there are: left=, right=, "),
        (["a", "items=0"], "items=0: expected a whole number from 1 on"),
        (["a", "seed=x"], "seed=x: expected a whole number from 0 on"),
        (["a", "to=study.pdf"], "to=study.pdf: expected a name that ends in .html"),
        (["a", "consent=nowhere.txt"], "consent=nowhere.txt: expected a text file in UTF-8"),
        (["a", "output=nowhere"], "no MLflow database at"),
        (["--analyse"], "expected one folder of answers, got none"),
        (
            ["--analyse", "a", "items=3"],
            "unknown setting 'items'; there are: key=, unfinished=, to=",
        ),
        (["--analyse", "a", "unfinished=drop"], "unfinished=drop: expected leave or count"),
        (["--analyse", "a", "key=nowhere.json"], "no key at nowhere.json: give key=FILE"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_an_unknown_cell_is_answered_with_those_that_exist(
    uri: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["threshold", "left=0.4", f"tracking_uri={uri}"]) == 2
    assert capsys.readouterr().err.endswith(
        "right=: no such cell in 'threshold'; there are: untouched backbone; 0.3; 0.4; 0.5; 0.6; 0.7\n"
    )


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'mlflow', 'matplotlib', 'numpy', 'scipy', 'typst', 'PIL'}"
    code = f"import sys; from reports.user_study.__main__ import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and "--analyse answers" in done.stdout
