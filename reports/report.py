"""The report of a sweep: ``write_report`` makes the PDF, its tables and figures from MLflow alone.

``attach_report`` logs them into the sweep's one run with the tag role=report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import export, tables, typeset
from reports.answer.conclusion import Conclusion, conclude
from reports.answer.files import ANSWER, answer_json, read_answer, read_verdicts, verdict_tags
from reports.collect import collect, connect
from reports.content import build_content
from reports.factor_tables import factor_tables
from reports.figures import draw_figures
from reports.figures.cases import explain_no_cases, find_cases
from reports.files import drafting, named_when_full, publish
from reports.results import ReportError, SweepResults, hide_password
from reports.tables import CellMetric, Table
from reports.variances import variance_tables

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

__all__ = ["assemble", "attach_report", "read_answer", "read_verdicts", "write_report"]

VERDICT = "verdict"  # Tag of a cell's run
FILES = ("report.pdf", "report.json", "report.csv", "report.md", "report.tex", ANSWER)


def write_report(tracking_uri: str, sweep: str, folder: Path) -> Path:
    """Write FILES and figures/ into ``folder``; return the PDF's path.

    Raises ReportError (one line) where the sweep does not exist or nothing of it has finished;
    FullDisk, with the last report as it was, where there is no room for this one.
    """
    results = collect(tracking_uri, sweep)
    with results.folder, drafting(folder) as draft:
        entries, conclusion, content = assemble(results, draft / "figures")
        (draft / "report.pdf").write_bytes(typeset.typeset(draft, content))
        typeset.write_text(draft / "report.csv", export.to_csv(results, entries))
        typeset.write_text(draft / ANSWER, answer_json(results, entries))
        export.write_texts(
            draft / "report",
            title=results.sweep,
            above=export.escape_markdown(results.tags.get("question", "")),
            answer=conclusion.text,
            below=conclusion.rule,
            tables=_all_tables(results, entries),
            label=results.sweep,
        )
        # Only a report that is whole replaces the last one
        publish(draft, ["figures", *FILES])
    return folder / "report.pdf"


def assemble(
    results: SweepResults, figures: Path
) -> tuple[list[CellMetric], Conclusion, dict[str, Any]]:
    """The numbers, the answer and the content of a report; draws its figures into ``figures``."""
    entries = tables.compare_cells(results)
    conclusion = conclude(results, entries)
    cases = find_cases(results)
    pictures = draw_figures(results, entries, cases, figures)
    no_cases = explain_no_cases(results, cases)
    return entries, conclusion, build_content(results, entries, conclusion, pictures, no_cases)


def _all_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    return [
        tables.headline_table(results, entries),
        *factor_tables(results, entries),
        *tables.mean_tables(results, entries),
        *tables.difference_tables(results, entries),
        *tables.alike_tables(results, entries),
        *tables.effect_tables(results, entries),
        *variance_tables(results, tables.verdicts_of(entries, results.headline)),
    ]


def attach_report(tracking_uri: str, sweep: str, folder: Path, began: float | None = None) -> str:
    """Log what ``write_report`` left in ``folder`` into the sweep's run for reports; return its id.

    Question and answer become the experiment's description. The run lasts as long as the report
    took that ``began`` to be made then (seconds since 1970; now if not given). Raises ReportError
    where the sweep does not exist or the report is not whole, FullDisk where there is no room.
    """
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        raise ReportError(f"no sweep '{sweep}' at {hide_password(tracking_uri)}")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise ReportError(f"{folder} lacks {', '.join(missing)}: write the report first")
    with named_when_full(Path(hide_password(tracking_uri).removeprefix("sqlite:///"))):
        return _attach(client, experiment, folder, began)


def _attach(client: MlflowClient, experiment: Experiment, folder: Path, began: float | None) -> str:
    place, tags = experiment.experiment_id, {"role": "report"}
    began_ms = round(1000 * (time.time() if began is None else began))
    runs = client.search_runs([place], filter_string="tags.role = 'report'", max_results=1)
    run = runs[0] if runs else client.create_run(place, began_ms, tags, "report")
    run_id = run.info.run_id
    for name in FILES:
        client.log_artifact(run_id, str(folder / name))
    client.log_artifacts(run_id, str(folder / "figures"), "figures")
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    note = f"{content['question']}\n\n{content['answer']}"
    client.set_experiment_tag(place, "mlflow.note.content", note)
    _tag_cells(client, place, verdict_tags(read_verdicts(folder)))
    # A run keeps its first start: of a later report only the length is known
    end = run.info.start_time + round(1000 * time.time()) - began_ms
    client.set_terminated(run_id, "FINISHED", end)
    return run_id


def _tag_cells(client: MlflowClient, place: str, words: Mapping[str, str]) -> None:
    """What is said of each cell onto its run, so that MLflow's table shows it."""
    for run in client.search_runs([place], filter_string="tags.role = 'cell'", max_results=1000):
        text = words.get(run.data.tags.get("cell", ""), "")
        if run.data.tags.get(VERDICT, "") != text:
            client.set_tag(run.info.run_id, VERDICT, text)
