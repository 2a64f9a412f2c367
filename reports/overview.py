"""All sweeps of a database in one PDF: contents, one table of all answers, then each report.

Sweeps that have nothing to show yet are named and stop nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import export, prose, typeset
from reports.answer.conclusion import conclude_briefly
from reports.answer.words import count_conclusive
from reports.collect import collect, list_sweeps
from reports.files import FullDisk, drafting, publish
from reports.report import assemble
from reports.results import (
    NothingFinished,
    ReportedMetric,
    ReportError,
    SweepResults,
    hide_password,
)
from reports.statistics import CorrectedShare, Interval
from reports.tables import CellMetric, Table, count_decimals, of_metric, verdicts_of

__all__ = ["SweepSummary", "summarize_sweep", "summary_csv", "summary_table", "write_overview"]


@dataclass(frozen=True)
class SweepSummary:
    """One sweep in the table of all answers.

    ``effect`` is the widened interval of the cell ``at``, whose mean is farthest from the
    control's; ``control`` and ``effect`` are None where there is none. Without a single finished
    trial ``metric`` is None and ``answer`` says why.
    """

    sweep: str
    question: str
    answer: str
    finished: int
    planned: int
    seeds: int = 0
    metric: ReportedMetric | None = None
    digits: int = 3
    control: Interval | None = None
    control_label: str = ""
    effect: Interval | None = None
    at: str = ""
    code: str = ""  # What measured the metric
    conclusive: str = ""  # How many of its levels, "2 of 4"
    corrected: CorrectedShare | None = None  # The control's, for the detector's errors

    @property
    def complete(self) -> bool:
        return self.finished == self.planned > 0


def summarize_sweep(results: SweepResults, entries: Sequence[CellMetric]) -> SweepSummary:
    headline = of_metric(entries, results.headline)
    judged = [e for e in headline if e.wide and e.wide.n > 1] or [e for e in headline if e.wide]
    largest = max(judged, key=lambda e: abs(e.wide.mean) if e.wide else 0.0, default=None)
    control = results.control_of(largest.cell) if largest else results.control
    assert control is not None
    finished, planned = results.count_trials()
    return SweepSummary(
        sweep=results.sweep,
        question=results.tags.get("question", ""),
        answer=conclude_briefly(results, entries),
        finished=finished,
        planned=planned,
        seeds=len(results.seeds),
        metric=results.headline,
        digits=count_decimals(entries, results.headline),
        control=next(e.summary for e in headline if e.cell is control),
        control_label=control.label,
        corrected=next(e.corrected for e in headline if e.cell is control),
        effect=largest.wide if largest else None,
        at=largest.cell.label if largest else "",
        code=_measuring_code(results),
        conclusive=count_conclusive(verdicts_of(entries, results.headline).levels),
    )


def _measuring_code(results: SweepResults) -> str:
    """The code that measured the headline metric; one for all trials, see `collect`."""
    key = results.headline.key
    codes = (t.measuring.of_value(key)[0] for _, t in results.trials() if key in t.metrics)
    return next(codes, "")


def summary_table(summaries: Sequence[SweepSummary]) -> Table:
    rows, marks = [], {}
    for i, line in enumerate(summaries):
        control, effect = prose.DASH, prose.DASH
        if line.metric and line.control:
            mean = prose.show(line.control.mean, line.digits)
            control = f"{mean}\n{line.metric.title}\nat {line.control_label}"
            if line.corrected:
                control += f"\ncorrected {prose.show(line.corrected.share, line.digits)}"
        if line.effect:
            interval = prose.show_interval(line.effect, line.digits)
            effect = f"{prose.show_signed(line.effect.mean, line.digits)}\n{interval}\nat {line.at}"
        trials = f"{line.finished} of {line.planned}" if line.planned else prose.DASH
        seeds = str(line.seeds or prose.DASH)
        answer = line.answer
        if line.conclusive and line.effect:
            answer += f"\nConclusive: {line.conclusive}"
        rows.append([line.sweep, line.question, control, effect, answer, seeds, trials])
        if not line.complete:
            marks[i] = "untouched"  # Set in italics
    title = (
        "Every sweep: its headline metric at the control, the largest difference from it with its "
        "interval, and the answer."
    )
    columns = ["Sweep", "Question", "Control", "Largest difference", "Answer", "Seeds", "Finished"]
    return Table(title, columns, rows, "In italics: not finished. " if marks else "", marks)


def summary_csv(summaries: Sequence[SweepSummary]) -> str:
    """One line a sweep."""
    rows = []
    for line in summaries:
        columns = {"metric": "key", "label": "label", "unit": "unit", "better": "better"}
        widened = {"difference_low_widened": "low", "difference_high_widened": "high"}
        rows.append(
            {
                **export.pick(line, sweep="sweep", question="question"),
                **export.pick(line.metric, **columns),
                **export.pick(line, control="control_label"),
                **export.pick(line.control, control_mean="mean"),
                **export.pick(line.corrected, control_corrected="share"),
                **export.pick(line, largest_at="at"),
                **export.pick(line.effect, difference="mean", **widened),
                **export.pick(line.effect, level="level", paired_n="n"),
                **export.pick(line, answer="answer", conclusive="conclusive", seeds="seeds"),
                **export.pick(line, finished="finished", planned="planned"),
            }
        )
    return export.write_csv(rows)


def write_overview(tracking_uri: str, folder: Path) -> Path:
    """Write all.pdf, all.csv, all.md and all.tex into ``folder``; return the PDF's path.

    The reports of single sweeps are left as they are. Raises ReportError (one line) where no sweep
    has a finished trial.
    """
    with drafting(folder) as draft:
        lines: list[SweepSummary] = []
        parts: list[dict[str, Any]] = []
        for name, question in list_sweeps(tracking_uri).items():
            try:
                line, part = _read_sweep(tracking_uri, name, draft / "figures" / name)
                parts.append(part)
            except NothingFinished as nothing:
                line = SweepSummary(name, question, "nothing finished yet", 0, nothing.planned)
            except FullDisk:
                raise
            except ReportError as error:
                line = SweepSummary(name, question, f"no report: {error}", 0, 0)
            lines.append(line)
        if not parts:
            sweeps = prose.count(len(lines), "sweep")
            none = f"none of {sweeps} has finished a trial" if lines else "no sweep"
            where = hide_password(tracking_uri)
            raise ReportError(f"{none} at {where}; run one first: python -m sweeps")
        table, reading = summary_table(lines), _explain_reading(lines)
        markdown = f"{export.to_markdown(table)}\n{export.escape_markdown(reading)}"
        content = _build_content(lines, table, parts)
        (draft / "all.pdf").write_bytes(typeset.typeset(draft, content))
        typeset.write_text(draft / "all.csv", summary_csv(lines))
        typeset.write_text(draft / "all.md", f"# All sweeps\n\n{markdown}\n")
        latex = export.to_latex(table, "all")
        typeset.write_text(draft / "all.tex", f"% needs \\usepackage{{booktabs}}\n\n{latex}")
        publish(draft, [path.name for path in draft.glob("all.*")])
    return folder / "all.pdf"


def _read_sweep(tracking_uri: str, name: str, figures: Path) -> tuple[SweepSummary, dict[str, Any]]:
    """A sweep's summary and the content of its report, with pictures in ``figures``/../``name``."""
    results = collect(tracking_uri, name)
    with results.folder:
        entries, _, content = assemble(results, figures)
    for block in (*content["front"], *content["blocks"]):
        if block["kind"] == "picture":
            block["file"] = f"{name}/{block['file']}"
    line = summarize_sweep(results, entries)
    unfinished = f"{name} (unfinished: {line.finished} of {prose.count(line.planned, 'trial')})"
    return line, content | {"entry": name if line.complete else unfinished}


def _explain_reading(lines: Sequence[SweepSummary]) -> str:
    return (
        "The largest difference is that of the cell whose mean is farthest from the control's, "
        "with the interval that its report goes by, which holds for all cells of its sweep at once "
        "(at 95 %, or at more where looks that may stop by claims share the 5 %). A cell differs "
        "(is better or worse) where that interval excludes zero and reaches beyond the difference "
        "that matters, there is no difference that matters where it lies "
        "inside of that, and all else is open; conclusive are the first two. The "
        "largest of several tends to be too large. Sweeps are not adjusted for each other: of "
        "twenty in which nothing matters one would claim something by chance alone, and here "
        f"{'is' if len(lines) == 1 else 'are'} {len(lines)}."
    )


def warn_of_codes(lines: Sequence[SweepSummary]) -> list[str]:
    """Which sweeps' headline metrics do not compare, since different code measured them."""
    codes: dict[str, dict[str, list[str]]] = {}
    for line in lines:
        if line.metric and line.code:
            by_code = codes.setdefault(line.metric.label, {})
            by_code.setdefault(line.code, []).append(line.sweep)
    return [
        f"{label} was measured by different code, so that it does not compare between sweeps: "
        f"{'; '.join(f'{code} in {prose.join(names)}' for code, names in by_code.items())}. "
        "--remeasure on a sweep scores its kept images again."
        for label, by_code in codes.items()
        if len(by_code) > 1
    ]


def _build_content(
    lines: Sequence[SweepSummary], table: Table, parts: list[dict[str, Any]]
) -> dict[str, Any]:
    finished, planned = sum(line.finished for line in lines), sum(line.planned for line in lines)
    warnings = []
    if partial := [line for line in lines if line.metric and not line.complete]:
        names = [
            f"{line.sweep} ({line.finished} of {prose.count(line.planned, 'trial')})"
            for line in partial
        ]
        warnings.append(f"Not finished: {', '.join(names)}; their answers may change.")
    warnings += warn_of_codes(lines)
    if nothing := [f"{line.sweep}: {line.answer}" for line in lines if not line.metric]:
        warnings.append(f"Without a report: {'; '.join(nothing)}.")
    widths = ["auto", "fill", 2.2, 2.7, 3.1, "auto", 1.4]
    return typeset.page(
        "All sweeps",
        kicker=f"Ablation reports · {prose.count(len(lines), 'sweep')} · "
        f"{finished} of {prose.count(planned, 'trial')} finished",
        question="Every sweep of one database: what was asked, what came out, and how it was made",
        warning=" ".join(warnings),
        front=[typeset.heading("Contents"), {"kind": "contents"}],
        blocks=[
            typeset.heading("Summary") | {"level": 1},
            typeset.table(table, widths, 8, left=(0, 1, 4), tall=True),
            typeset.paragraph(_explain_reading(lines)),
        ],
        parts=parts,
    )
