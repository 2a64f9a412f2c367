"""The report: `write` makes `report.pdf` with its tables and figures from MLflow, `attach` logs them into the sweep's one role=report run.

The PDF is made by typst from `template.typ` and `report.json`, which holds strings only: whatever a prompt or an error message contains is
printed, never run. The same MLflow content gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from reports import cases, curves, export, figures, fonts, forest, heatmap, images, sections, tables
from reports.answer import Answer, answer
from reports.collect import client, collect
from reports.precision_recall import precision_recall
from reports.study import ReportError, Study, public

__all__ = ["attach", "pictures", "printable", "put", "typeset", "write"]

FILES = ("report.pdf", "report.json", "report.csv", "report.md", "report.tex")
TEMPLATE = Path(__file__).with_name("template.typ")


def write(tracking_uri: str, sweep: str, folder: Path) -> Path:
    """Write report.pdf, report.csv, report.md, report.tex, report.json and figures/ into `folder`; return the PDF's path.

    Raises ReportError (one line) where the sweep does not exist or nothing of it has finished.
    """
    study = collect(tracking_uri, sweep)
    found = tables.entries(study)
    said = answer(study, found)
    contrast = cases.find(study)
    folder.mkdir(parents=True, exist_ok=True)
    with study.folder, tempfile.TemporaryDirectory(prefix="report-") as temporary:
        draft = Path(temporary)
        shown = sections.document(
            study, found, said, pictures(study, found, contrast, draft / "figures"), cases.none(study, contrast)
        )
        put(draft / "report.json", json.dumps(printable(shown), indent=1, ensure_ascii=False))
        put(draft / "report.csv", export.to_csv(study, found))
        put(draft / "report.md", _markdown(study, found, said))
        put(draft / "report.tex", _latex(study, found, said))
        (draft / "report.pdf").write_bytes(typeset(draft))
        # only a report that is whole replaces the last one
        if (folder / "figures").exists():
            shutil.rmtree(folder / "figures")
        shutil.copytree(draft / "figures", folder / "figures")
        for name in FILES:
            shutil.copyfile(draft / name, folder / name)
    return folder / "report.pdf"


def pictures(study: Study, found: list[tables.Entry], contrast: cases.Cases | None, folder: Path) -> dict[str, figures.Picture]:
    """Draw the figures of a report into `folder`; `contrast` is what `cases.find` found."""
    drawn = {
        "response": (figures.response if len(study.factors) == 1 else forest.forest)(study, found, folder),
        "heatmap": heatmap.heatmap(study, found, folder),
        "precision_recall": precision_recall(study, folder),
        "images": images.image_grid(study, folder),
        "cases": cases.cases(study, contrast, folder),
        "gates": images.gate_maps(study, folder),
        "maps": images.attention_maps(study, folder),
        "curves": curves.curves(study, found, folder),
    }
    return {name: picture for name, picture in drawn.items() if picture}


def attach(tracking_uri: str, sweep: str, folder: Path) -> str:
    """Log what `write` left in `folder` into the sweep's role=report run, which the first call makes; return the run's id.

    Question and answer become the experiment's description.
    """
    tracking = client(tracking_uri)
    experiment = tracking.get_experiment_by_name(sweep)
    if experiment is None:
        raise ReportError(f"no sweep '{sweep}' at {public(tracking_uri)}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ReportError(f"{folder} lacks {', '.join(missing)}: write the report first")
    found = tracking.search_runs([experiment.experiment_id], filter_string="tags.role = 'report'", max_results=1)
    run_id = (
        found[0].info.run_id
        if found
        else tracking.create_run(experiment.experiment_id, run_name="report", tags={"role": "report"}).info.run_id
    )
    for name in FILES:
        tracking.log_artifact(run_id, str(folder / name))
    tracking.log_artifacts(run_id, str(folder / "figures"), "figures")
    shown = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    tracking.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", f"{shown['question']}\n\n{shown['answer']}")
    tracking.set_terminated(run_id, "FINISHED")
    return run_id


def put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def typeset(root: Path) -> bytes:
    import typst

    shutil.copyfile(TEMPLATE, root / "template.typ")
    try:
        pdf, warnings = typst.compile_with_warnings(
            str(root / "template.typ"), root=str(root), font_paths=[str(fonts.folder())], ignore_system_fonts=True, format="pdf"
        )
    except typst.TypstError as error:
        raise ReportError(f"typst could not set the report: {error.message} {' '.join(error.hints)}".strip()) from error
    if warnings:
        raise ReportError(f"typst warned, which the template must not let happen: {'; '.join(w.message for w in warnings)}")
    return bytes(pdf)


def printable(value: Any) -> Any:
    if isinstance(value, str):
        return fonts.printable(value)
    if isinstance(value, dict):
        return {key: printable(entry) for key, entry in value.items()}
    return [printable(entry) for entry in value] if isinstance(value, list) else value


def _all_tables(study: Study, found: list[tables.Entry]) -> list[tables.Table]:
    kinds = (tables.mean_tables, tables.difference_tables, tables.effect_tables)
    return [tables.headline_table(study, found), *(table for kind in kinds for table in kind(study, found))]


def _markdown(study: Study, found: list[tables.Entry], said: Answer) -> str:
    question = study.tags.get("question", "")
    parts = [
        f"# {export.markdown(study.sweep)}",
        export.markdown(question),
        f"**Answer.** {export.markdown(said.text)}",
        export.markdown(said.rule),
    ]
    return (
        "\n\n".join([part for part in parts if part] + [export.to_markdown(table).rstrip() for table in _all_tables(study, found)]) + "\n"
    )


def _latex(study: Study, found: list[tables.Entry], said: Answer) -> str:
    lines = [f"% {study.sweep}: {said.text}".replace("\n", " "), "% needs \\usepackage{booktabs}", ""]
    return "\n".join(lines + [export.to_latex(table, f"{study.sweep}-{i + 1}") for i, table in enumerate(_all_tables(study, found))])
