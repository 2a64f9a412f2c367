from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import document, fonts
from reports.study import ReportError

GRID = list(
    itertools.product((0.0, 2.0, 4.0), ("released", "renormalised"), ("none", "bos", "specials"))
)
FILES = {"report.pdf", "report.json", "report.csv", "report.md", "report.tex"}


def pages(folder: Path, tmp_path: Path) -> list[np.ndarray]:
    """The pages in grey, [H, W] in 0 (ink) … 1 (paper), 60 dots per inch."""
    import typst
    from PIL import Image

    shutil.copytree(folder, tmp_path / "root")
    shutil.copyfile(document.TEMPLATE, tmp_path / "root" / "template.typ")
    root = str(tmp_path / "root")
    places = {"root": root, "font_paths": [str(fonts.folder())], "ignore_system_fonts": True}
    made = typst.compile(f"{root}/template.typ", format="png", ppi=60, **places)
    return [
        np.asarray(Image.open(io.BytesIO(page)).convert("L")) / 255
        for page in (made if isinstance(made, list) else [made])
    ]


def text_of(pdf: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("needs pdftotext (poppler)")
    return subprocess.run(
        ["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("name", "most"), [("threshold", 7), ("broken", 7), ("eight", 7), ("grid", 13)]
)
def test_every_page_has_ink_and_empty_margins(
    name: str, most: int, report: Callable[[str], Path], tmp_path: Path
) -> None:
    shown = pages(report(name), tmp_path)
    assert 2 <= len(shown) <= most
    for page in shown:
        assert 0.01 < (page < 0.9).mean() < 0.6
        margin = int(1.8 / 2.54 * 60)  # margins are 2 cm: what runs over the text block lands here
        assert (
            (page[:, :margin] > 0.99).all()
            and (page[:, -margin:] > 0.99).all()
            and (page[:margin] > 0.99).all()
        )


def test_a_sweep_of_many_combinations_loses_nothing(report: Callable[[str], Path]) -> None:
    text = text_of(report("grid") / "report.pdf")
    for bias, surrogate, protect in GRID:
        name = f"{bias} / {surrogate} / {protect}"
        assert text.count(name) >= 5, (
            name
        )  # figure, legend, first table, images, and one line a run
    first, second, *_ = text.split("\f")
    assert "Figure 1." in first and "Table 1." in second
    intervals = re.findall(r"\[[+−]?[0-9.]+,[^\]]*\]?", text.partition("\f")[2])
    assert len(intervals) > 200 and not [
        interval for interval in intervals if "\n" in interval
    ]  # none broken in two lines
    run_ids = [line.split()[-2] for line in text.splitlines() if re.search(r" [0-9a-f]{32} ", line)]
    assert len(set(run_ids)) == 3 * 19


def test_a_long_table_parts_between_pages(report: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "long"
    shutil.copytree(report("eight"), folder)
    shown = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    runs = next(
        block
        for block in shown["blocks"]
        if block["kind"] == "table" and "Run id" in block["columns"]
    )
    runs["rows"] = [["0.0 / released / none", str(i), f"{i:032x}", "0.01"] for i in range(300)]
    (folder / "report.json").write_text(json.dumps(shown), encoding="utf-8")
    foot = int(
        0.8 / 2.54 * 60
    )  # page numbers stand above it; a table that does not part runs over it
    before, after = pages(report("eight"), tmp_path / "a"), pages(folder, tmp_path / "b")
    assert len(after) >= len(before) + 3 and all((page[-foot:] > 0.99).all() for page in after)


def test_same_content_same_bytes(uri: str, report: Callable[[str], Path], tmp_path: Path) -> None:
    document.write(uri, "threshold", tmp_path)
    first = {
        path.relative_to(report("threshold")): path.read_bytes()
        for path in report("threshold").rglob("*")
        if path.is_file()
    }
    again = {
        path.relative_to(tmp_path): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert (
        first.keys() == again.keys()
        and {path for path in first if first[path] != again[path]} == set()
    )
    assert {str(path) for path in first if path.parent == Path()} == FILES
    figures = {path.name for path in first if path.parent == Path("figures")}
    drawn = ("cases", "curves", "images", "precision_recall", "response")
    assert figures == {"gates.png", *(f"{name}.{ext}" for name in drawn for ext in ("svg", "png"))}


def test_page_one_has_question_answer_and_table(report: Callable[[str], Path]) -> None:
    text = text_of(report("threshold") / "report.pdf").split("\f")[0]
    flat = " ".join(text.split())
    shown = json.loads((report("threshold") / "report.json").read_text(encoding="utf-8"))
    for part in (
        shown["question"],
        shown["answer"],
        "0.5 (baseline)",
        "untouched backbone",
        "Figure 1.",
        "Table 1.",
        "with probability 80 %",
    ):
        assert part in flat, part


def test_the_details_say_what_a_reviewer_asks(report: Callable[[str], Path]) -> None:
    flat = " ".join(text_of(report("threshold") / "report.pdf").split())
    for part in (
        "cannot give a p below 0.25", "widened to hold for all 4 comparisons at once", "Noise floor", "24.57",
        "not comparable with those of any paper", "python -m sweeps.threshold", "0123456789abcdef", "without uncommitted changes",
        "torch 2.13.0", "2 CPU cores", "method.gate.bias = 2.0", "trained parameters 123456", "64 prompts per split",
        "Nothing: every cell has all 3 seeds", "captions", "environment.txt of each run", "noncentral t",
    ):  # fmt: skip
        assert part in flat, part


def test_every_run_id_is_listed(uri: str, report: Callable[[str], Path]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs(
        [client.get_experiment_by_name("threshold").experiment_id], "tags.role = 'seed'"
    )
    text = text_of(report("threshold") / "report.pdf")
    assert len(runs) == 18 and all(run.info.run_id in text for run in runs)


def test_special_signs_are_printed_and_missing_seeds_named(
    report: Callable[[str], Path], special: str
) -> None:
    flat = "".join(text_of(report("broken") / "report.pdf").split())
    printed = "".join(special.replace("漢", "[U+6F22]").split())
    assert flat.count(printed) >= 4  # question, origin, published number, error
    named = (
        "threshold=0.4, seed 0: failed: OutOfMemoryError",
        "threshold=0.4, seed 1: still running",
    )
    for part in (
        "Unfinished: 3 of 12 trials are missing",
        "Made by 2 versions of the code (c0ffee00, 0b501e7e)",
        *named,
    ):
        assert "".join(part.split()) in flat, part
    assert "0.4 lacks seed 0, 1; 0.6 lacks seed 2" in (report("broken") / "report.md").read_text(
        encoding="utf-8"
    )


def test_a_warning_of_typst_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "template.typ"
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setattr(document, "TEMPLATE", template)
    warns, fails = '#set text(font: "No Such Font")\nHello', "#panic()"
    for text, message in (
        (warns, "typst warned.*no such font"),
        (fails, "typst could not set the report"),
    ):
        template.write_text(text, encoding="utf-8")
        with pytest.raises(ReportError, match=message):
            document.typeset(root)


def test_a_failed_report_leaves_the_last_one(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.pdf").write_text("the last one")

    def broken(root: Path) -> bytes:
        raise ReportError("no fonts")

    monkeypatch.setattr(document, "typeset", broken)
    with pytest.raises(ReportError):
        document.write(uri, "same", tmp_path)
    assert (tmp_path / "report.pdf").read_text() == "the last one" and [
        p.name for p in tmp_path.iterdir()
    ] == ["report.pdf"]


def test_attach_uses_one_run(uri: str, report: Callable[[str], Path]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    first = document.attach(uri, "threshold", report("threshold"))
    assert document.attach(uri, "threshold", report("threshold")) == first
    experiment = client.get_experiment_by_name("threshold")
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'report'")
    assert [run.info.run_id for run in runs] == [first] and runs[0].info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(first)} == FILES | {"figures"}
    assert "No level of gate threshold differs" in experiment.tags["mlflow.note.content"]


def test_attach_wants_a_whole_report(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"lacks report.pdf, .*: write the report first"):
        document.attach(uri, "clear", tmp_path)


def test_reports_know_nothing_of_the_project() -> None:
    """Any sweep can be reported, also one of another machine or time: MLflow is all that is read."""
    import ast

    for path in Path(document.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[Any] = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {str(n).partition(".")[0] for n in names} & {
                "conf",
                "datamodules",
                "losses",
                "lightning_modules",
                "sweeps",
            }, path
