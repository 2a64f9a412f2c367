"""All sweeps of a database in one PDF: contents, one table of all answers, then every sweep's report. Sweeps that have nothing to show yet
are named and stop nothing.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reports import cases, export, tables
from reports.answer import answer, brief
from reports.blocks import heading_block, table_block, text_block
from reports.collect import collect, sweeps
from reports.document import pictures, printable, put, typeset
from reports.sections import document
from reports.statistics import Interval
from reports.study import Metric, NothingFinished, ReportError, Study, public
from reports.tables import DASH, Table, decimals, number, of_metric, signed, span, titled

__all__ = ["Line", "line_of", "summary_csv", "summary_table", "write_all"]

FORMS = ("pdf", "csv", "md", "tex")


@dataclass(frozen=True)
class Line:
    """One sweep in the summary. `effect` is the widened interval of the cell `at`, whose mean is farthest from the baseline's; `base` and
    `effect` are None where there is none, and without a single finished trial `metric` is None and `answer` says why."""

    sweep: str
    question: str
    answer: str
    finished: int
    planned: int
    seeds: int = 0
    metric: Metric | None = None
    digits: int = 3
    base: Interval | None = None
    base_words: str = ""
    effect: Interval | None = None
    at: str = ""

    @property
    def whole(self) -> bool:
        return self.finished == self.planned > 0


def line_of(study: Study, found: Sequence[tables.Entry]) -> Line:
    entries = of_metric(found, study.headline)
    judged = [e for e in entries if e.wide and e.wide.n > 1] or [e for e in entries if e.wide]
    largest = max(judged, key=lambda e: abs(e.wide.mean) if e.wide else 0.0, default=None)
    base = study.base_of(largest.cell) if largest else study.baseline
    assert base is not None
    return Line(
        sweep=study.sweep,
        question=study.tags.get("question", ""),
        answer=brief(study, found),
        finished=study.planned - study.lacking,
        planned=study.planned,
        seeds=len(study.seeds),
        metric=study.headline,
        digits=decimals(found, study.headline),
        base=next(e.summary for e in entries if e.cell is base),
        base_words=base.label,
        effect=largest.wide if largest else None,
        at=largest.cell.label if largest else "",
    )


def summary_table(lines: Sequence[Line]) -> Table:
    rows = []
    for line in lines:
        base, effect = DASH, DASH
        if line.metric and line.base:
            base = f"{number(line.base.mean, line.digits)}\n{titled(line.metric)}\nat {line.base_words}"
        if line.effect:
            effect = f"{signed(line.effect.mean, line.digits)}\n{span(line.effect, line.digits, sign=True)}\nat {line.at}"
        trials = f"{line.finished} of {line.planned}" if line.planned else DASH
        rows.append([line.sweep, line.question, base, effect, line.answer, str(line.seeds or DASH), trials])
    return Table(
        "Every sweep: its headline metric at the baseline, the largest difference from it with its interval, and the answer.",
        ["Sweep", "Question", "Baseline", "Largest difference", "Answer", "Seeds", "Finished"],
        rows,
        "In italics: not finished. " if not all(line.whole for line in lines) else "",
        {i: "reference" for i, line in enumerate(lines) if not line.whole},
    )


def summary_csv(lines: Sequence[Line]) -> str:
    """One line a sweep, full precision, empty where undefined."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["sweep", "question", "metric", "label", "unit", "better", "baseline", "baseline_mean", "largest_at", "difference"]
    head += ["difference_low_widened", "difference_high_widened", "level", "paired_n", "answer", "seeds", "finished", "planned"]
    writer.writerow(head)
    for line in lines:
        metric, effect = line.metric, line.effect
        writer.writerow(
            [
                line.sweep,
                line.question,
                *((metric.key, metric.label, metric.unit, metric.better) if metric else [""] * 4),
                line.base_words,
                export.exact(line.base.mean if line.base else None),
                line.at,
                *map(export.exact, (effect.mean, effect.low, effect.high, effect.level) if effect else [None] * 4),
                effect.n if effect else "",
                line.answer,
                line.seeds,
                line.finished,
                line.planned,
            ]
        )
    return out.getvalue()


def write_all(tracking_uri: str, folder: Path) -> Path:
    """Write all.pdf, all.csv, all.md and all.tex into `folder`; return the PDF's path.

    The reports of single sweeps are left as they are. Raises ReportError (one line) where no sweep has a finished trial.
    """
    questions = sweeps(tracking_uri)
    with tempfile.TemporaryDirectory(prefix="report-") as temporary:
        draft = Path(temporary)
        lines, parts = [], []
        for name, question in questions.items():
            try:
                line, part = _part(tracking_uri, name, draft / "figures" / name)
                parts.append(part)
            except NothingFinished as nothing:
                line = Line(name, question, "nothing finished yet", 0, nothing.planned)
            except ReportError as error:
                line = Line(name, question, f"no report: {error}", 0, 0)
            lines.append(line)
        if not parts:
            said = f"none of {len(lines)} sweeps has finished a trial" if lines else "no sweep"
            raise ReportError(f"{said} at {public(tracking_uri)}; run one first: python -m sweeps")
        table = summary_table(lines)
        put(draft / "report.json", json.dumps(printable(_content(lines, table, parts)), ensure_ascii=False))
        (draft / "all.pdf").write_bytes(typeset(draft))
        put(draft / "all.csv", summary_csv(lines))
        put(draft / "all.md", f"# All sweeps\n\n{export.to_markdown(table)}\n{export.markdown(_reading(lines))}\n")
        put(draft / "all.tex", f"% needs \\usepackage{{booktabs}}\n\n{export.to_latex(table, 'all')}")
        folder.mkdir(parents=True, exist_ok=True)
        for form in FORMS:
            shutil.copyfile(draft / f"all.{form}", folder / f"all.{form}")
    return folder / "all.pdf"


def _part(tracking_uri: str, name: str, drawn: Path) -> tuple[Line, dict[str, Any]]:
    """A sweep's line, and its report as `sections.document` gives it, with figures in `drawn`."""
    study = collect(tracking_uri, name)
    with study.folder:
        found = tables.entries(study)
        contrast = cases.find(study)
        made = pictures(study, found, contrast, drawn)
        shown = {key: replace(picture, file=f"{name}/{picture.file}") for key, picture in made.items()}
        part = document(study, found, answer(study, found), shown, cases.none(study, contrast))
        line = line_of(study, found)
    part["entry"] = name if line.whole else f"{name} (unfinished: {line.finished} of {line.planned} trials)"
    return line, part


def _reading(lines: Sequence[Line]) -> str:
    """How to read the summary."""
    return (
        "The largest difference is that of the cell whose mean is farthest from the baseline's, seed by seed, with a 95 % interval that is "
        "widened to hold for all cells of its sweep at once; a cell is called better or worse only where that interval excludes zero. "
        "The largest of several tends to be too large. Sweeps are not adjusted for each other: of twenty in which nothing matters one "
        f"would claim something by chance alone, and here {'is' if len(lines) == 1 else 'are'} {len(lines)}."
    )


def _content(lines: Sequence[Line], table: Table, parts: list[dict[str, Any]]) -> dict[str, Any]:
    finished, planned = sum(line.finished for line in lines), sum(line.planned for line in lines)
    behind = [f"{line.sweep} ({line.finished} of {line.planned} trials)" for line in lines if line.metric and not line.whole]
    nothing = [f"{line.sweep}: {line.answer}" for line in lines if not line.metric]
    warnings = [f"Not finished: {', '.join(behind)}; their answers may change."] if behind else []
    warnings += [f"Without a report: {'; '.join(nothing)}."] if nothing else []
    widths = ["auto", "fill", 2.2, 2.7, 3.1, "auto", 1.4]
    return {
        "title": "All sweeps",
        "kicker": f"Ablation reports · {len(lines)} sweep{'s' if len(lines) > 1 else ''} · {finished} of {planned} trials finished",
        "footer": "All sweeps",
        "question": "Every sweep of one database: what was asked, what came out, and what it was made with",
        "origin": "",
        "warning": " ".join(warnings),
        "answer": "",
        "small": "",
        "front": [heading_block("Contents"), {"kind": "contents"}],
        "alone": True,
        "blocks": [
            heading_block("Summary") | {"level": 1},
            table_block(table, widths, size=8, left=(0, 1, 4)) | {"tall": True},
            text_block(_reading(lines)),
        ],
        "parts": parts,
    }
