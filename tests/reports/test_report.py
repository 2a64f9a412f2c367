from __future__ import annotations

import ast
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import report as report_module
from reports import typeset
from reports.report import attach_report, read_answer, read_verdicts, write_report
from reports.results import ReportError

FILES = {f"report.{form}" for form in ("pdf", "json", "csv", "md", "tex")} | {"answer.json"}
MEMORY = "memory:"


def draw_pages(folder: Path, tmp_path: Path) -> list[np.ndarray]:
    """The pages in grey, [H, W] in 0 (ink) … 1 (paper), 60 dots per inch."""
    import typst
    from PIL import Image

    root = tmp_path / "root"
    shutil.copytree(folder, root)
    shutil.copyfile(typeset.TEMPLATE, root / "template.typ")
    fonts = {"font_paths": [str(typeset.font_folder())], "ignore_system_fonts": True}
    template = str(root / "template.typ")
    made = typst.compile(template, root=str(root), format="png", ppi=60, **fonts)
    pages = made if isinstance(made, list) else [made]
    return [np.asarray(Image.open(io.BytesIO(page)).convert("L")) / 255 for page in pages]


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("eight", 7),
        pytest.param("threshold", 7, marks=pytest.mark.slow),
        pytest.param("broken", 7, marks=pytest.mark.slow),
        pytest.param("grid", 16, marks=pytest.mark.slow),
    ],
)
def test_every_page_has_ink_and_empty_margins(
    name: str, most: int, report: Any, tmp_path: Path
) -> None:
    pages = draw_pages(report(name), tmp_path)
    assert 2 <= len(pages) <= most
    margin = int(1.8 / 2.54 * 60)  # Margins are 2 cm: what runs over the text lands here
    for page in pages:
        assert 0.01 < (page < 0.9).mean() < 0.6
        for edge in (page[:, :margin], page[:, -margin:], page[:margin]):
            assert (edge > 0.99).all()


@pytest.mark.slow
def test_a_long_table_breaks_between_pages(report: Any, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    shutil.copytree(report("eight"), folder)
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    tables = [block for block in content["blocks"] if block["kind"] == "table"]
    runs = next(table for table in tables if "Run id" in table["columns"])
    runs["rows"] = [["0.0 / released / none", str(i), f"{i:032x}", "0.01"] for i in range(300)]
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    foot = int(0.8 / 2.54 * 60)  # Page numbers stand above it; a whole table runs over it
    before, after = draw_pages(report("eight"), tmp_path / "a"), draw_pages(folder, tmp_path / "b")
    assert len(after) >= len(before) + 4
    assert all((page[-foot:] > 0.99).all() for page in after)


@pytest.mark.slow
def test_the_same_content_gives_the_same_bytes(report: Any, tmp_path: Path) -> None:
    first, again = report("threshold"), write_report(MEMORY, "threshold", tmp_path).parent
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert [f for f in files if (first / f).read_bytes() != (again / f).read_bytes()] == []


@pytest.mark.slow
def test_the_pdf_prints_what_report_json_says(report: Any, text_of: Any) -> None:
    text = text_of(report("grid") / "report.pdf")
    flat = " ".join(text.split()).replace("\xad ", "")  # Words are hyphenated at line ends
    content = json.loads((report("grid") / "report.json").read_text(encoding="utf-8"))
    for part in (content["question"], content["answer"], "Figure 1.", "Table 1."):
        assert part in flat, part
    rows = next(b["rows"] for b in content["blocks"] if b.get("columns", [""])[-1] == "Minutes")
    assert len(rows) == 3 * 19 and all(row[2] in text for row in rows)


def test_all_files_and_figures_are_written(quick_report: Any) -> None:
    folder = quick_report("threshold")
    assert {path.name for path in folder.iterdir()} == FILES | {"figures"}
    drawn = ("cases", "curves", "forest", "images", "precision_recall", "response")
    names = {f"{name}.{form}" for name in drawn for form in ("svg", "png")}
    assert {path.name for path in (folder / "figures").iterdir()} == names | {"gates.png"}
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    latex = (folder / "report.tex").read_text(encoding="utf-8")
    answer = json.loads((folder / "report.json").read_text(encoding="utf-8"))["answer"]
    assert f"% threshold: {answer}" in latex and latex.count(r"\begin{table}") == 5
    assert "**Answer.** Compared with 0.5 in success: no difference that matters" in markdown
    assert "untouched backbone" in markdown and "**0.5 (control)**" in markdown


def test_a_failing_template_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, root = tmp_path / "template.typ", tmp_path / "root"
    root.mkdir()
    monkeypatch.setattr(typeset, "TEMPLATE", template)
    warns, fails = '#set text(font: "No Such Font")\nHello', "#panic()"
    for text, message in ((warns, "typst warned.*no such font"), (fails, "could not set")):
        template.write_text(text, encoding="utf-8")
        with pytest.raises(ReportError, match=message):
            typeset.typeset(root, {})


@pytest.mark.usefixtures("coarse", "memory")
def test_a_failed_report_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.pdf").write_text("the last one")

    def fail(root: Path, content: Any) -> bytes:
        raise ReportError("no fonts")

    monkeypatch.setattr(typeset, "typeset", fail)
    with pytest.raises(ReportError):
        write_report(MEMORY, "same", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.pdf"]
    assert (tmp_path / "report.pdf").read_text() == "the last one"


def test_a_report_is_attached_to_one_run(uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with pytest.raises(ReportError, match=r"lacks report.pdf, .*: write the report first"):
        attach_report(uri, "pair", tmp_path)
    with pytest.raises(ReportError, match="no sweep 'other'"):
        attach_report(uri, "other", tmp_path)
    for name in FILES:
        (tmp_path / name).write_text('{"question": "Is it?", "answer": "It is."}')
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "response.svg").write_text("<svg/>")
    client = MlflowClient(tracking_uri=uri)
    first = attach_report(uri, "pair", tmp_path)
    assert attach_report(uri, "pair", tmp_path, time.time() - 7) == first, "made days later, too"
    experiment = client.get_experiment_by_name("pair")
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'report'")
    assert [(run.info.run_id, run.info.status) for run in runs] == [(first, "FINISHED")]
    lasted = (runs[0].info.end_time - runs[0].info.start_time) / 1000
    assert 7 <= lasted < 60, "as long as the last report took to make"
    assert {item.path for item in client.list_artifacts(first)} == FILES | {"figures"}
    assert experiment.tags["mlflow.note.content"] == "Is it?\n\nIt is."


def test_reports_know_nothing_of_the_project() -> None:
    """Any sweep can be reported, also one of another machine: MLflow is all that is read."""
    others = {"conf", "datamodules", "losses", "lightning_modules", "sweeps"}
    for path in Path(report_module.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", []) if alias.name]
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not {name.partition(".")[0] for name in names} & others, path


@pytest.mark.usefixtures("coarse")
def test_every_file_and_mlflow_say_the_same_words(uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = write_report(uri, "pair", tmp_path).parent
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    assert answer["answer"] == read_answer(folder) and answer == read_verdicts(folder)
    assert answer["conclusive"] == "1 of 1" and answer["conclusive_of"] == {"success": [1, 1]}
    level, control = answer["comparisons"]
    assert (level["cell"], level["control"]) == ("threshold=0.6", "threshold=0.5")
    assert (level["verdict"], level["rule"], level["seeds"]) == ("differs", "per-seed t", [0, 1])
    assert level["bound"] == max(abs(level["low"]), abs(level["high"])) and level["settle"] is None
    assert control["against"] == "untouched backbone" and control["cell"] == "threshold=0.5"
    assert level["delta"] == 0.05, "of a share, where an older plan names none"
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    latex = (folder / "report.tex").read_text(encoding="utf-8")
    table = (folder / "report.csv").read_text(encoding="utf-8")
    assert level["word"] == "differs: better"
    assert all(level["word"] in text for text in (markdown, latex, table))
    assert answer["answer"] in latex and f"**Answer.** {answer['answer']}" in markdown
    attach_report(uri, "pair", folder)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("pair")
    assert experiment.tags["mlflow.note.content"].endswith(answer["answer"])
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'cell'")
    said = {run.data.tags["cell"]: run.data.tags.get("verdict") for run in runs}
    assert said["threshold=0.6"] == level["words"] and level["words"].startswith("better: +0.1")
    assert said["threshold=0.5"] == f"control; against the untouched backbone: {control['words']}"
