from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reports.user_study.__main__ import main


def test_a_page_from_the_command_line(uri: str, tmp_path: Path, capsys: Any) -> None:
    page, board = tmp_path / "ask" / "study.html", tmp_path / "board.txt"
    board.write_text("Approved, number 12.\n\nYou are 18.", encoding="utf-8")
    words = ["pair", "left=0.6", "right=untouched backbone", f"tracking_uri={uri}", f"to={page}"]
    words += ["items=40", "question=Which is nicer, <b>a</b> or b?", f"consent={board}"]
    assert main(words) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first == "24 of 24 pairs and 1 attention check"
    assert "items=40" in second and "evaluation.keep_images" in second
    key = page.with_suffix(".key.json")
    assert rest[0].startswith(f"{page} (") and rest[1:] == [str(key)]
    html = page.read_text(encoding="utf-8")
    assert "Which is nicer, \\u003cb>a\\u003c/b> or b?" in html and "Approved, number 12." in html
    assert json.loads(key.read_text(encoding="utf-8"))["cells"][0]["words"] == "0.6"


def test_an_analysis_from_the_command_line(
    respond: Any, key: Any, tmp_path: Path, capsys: Any
) -> None:
    respond(6, 0)
    cells = [{"words": words} for words in key.cells]
    items = {name: vars(item) for name, item in key.items.items()}
    content = vars(key) | {"format": "image study key 1", "cells": cells, "items": items}
    (tmp_path / "my.key.json").write_text(json.dumps(content))
    assert main(["--analyse", str(tmp_path), f"key={tmp_path / 'my.key.json'}"]) == 0
    assert "24 / 0 / 0" in capsys.readouterr().out
    assert (tmp_path / "results" / "user_study.pdf").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one sweep, got none; see python -m reports.user_study --help"),
        (["a", "b"], "expected one sweep, got a b"),
        (["a", "left=x", "rihgt=y"], "unknown setting 'rihgt'; there are: left=, right=, "),
        (["a", "items=0"], "items=0: expected a whole number from 1 on"),
        (["a", "seed=010"], "seed=010: expected a whole number from 0 on"),
        (["a", "seed=x"], "seed=x: expected a whole number from 0 on"),
        (["a", "to=study.pdf"], "to=study.pdf: expected a name that ends in .html"),
        (["a", "consent=nowhere.txt"], "consent=nowhere.txt: expected a text file in UTF-8"),
        (["a", "consent=~/nowhere.txt"], "consent=~/nowhere.txt: expected a text file"),
        (["a", "to=~nobody-here/study.html"], "to=~nobody-here/study.html: there is no user"),
        (["a", "output=nowhere"], "no MLflow database at"),
        (["--analyse"], "expected one folder of answers, got none"),
        (
            ["--analyse", "a", "items=3"],
            "unknown setting 'items'; there are: key=, unfinished=, to=",
        ),
        (["--analyse", "a", "unfinished=drop"], "unfinished=drop: expected leave or count"),
        (["--analyse", "a", "key=nowhere.json"], "no key at nowhere.json: give key=FILE"),
        (["--analyse", "a", "key=~/nowhere.json"], "no key at /home/ann/nowhere.json"),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_unknown_cell_is_answered_with_those_that_exist(uri: str, capsys: Any) -> None:
    assert main(["pair", "left=0.6", f"tracking_uri={uri}"]) == 2
    error = capsys.readouterr().err
    assert "right=: no such cell in 'pair'; there are: untouched backbone; 0.5; 0.6" in error
