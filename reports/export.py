"""Tables as files: CSV with full precision, Markdown and booktabs LaTeX as the PDF shows them.

Text is escaped, so that it prints literally.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reports.answer.words import verdict_word
from reports.results import SweepResults
from reports.tables import CellMetric, Table

__all__ = [
    "escape_latex",
    "escape_markdown",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_csv",
    "write_texts",
]

EFFECT = {"effect_size": "g", "effect_size_low95": "low", "effect_size_high95": "high"}
# How a text begins that a spreadsheet evaluates
FORMULA = ("=", "+", "-", "@", "\t", "\r")
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "…": r"\dots{}",
    "\n": " ",
    "[": "{[}",  # A row that starts with a bracket would be read as the length after \\
}


def pick(source: Any, **columns: str) -> dict[str, Any]:
    """Column -> attribute of ``source``; None where there is no source."""
    return {column: source and getattr(source, name) for column, name in columns.items()}


def write_csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line a row, full precision, empty where undefined. Text that a spreadsheet would take for
    a formula has an apostrophe before it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _guard(value) for column, value in row.items()})
    return out.getvalue()


def _guard(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if not isinstance(value, str):
        return value
    # The writer leaves a carriage return bare, and readers end the line there
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if value.startswith(FORMULA) else text


def to_csv(results: SweepResults, entries: Iterable[CellMetric]) -> str:
    """One line per cell and metric."""
    rows = []
    for entry in entries:
        cell, metric, versus, wide = entry.cell, entry.metric, entry.versus, entry.wide
        used = cell.per_seed(metric.key)
        shift = versus and versus.interval
        rows.append(
            {
                "sweep": results.sweep,
                "cell": cell.name,
                "role": cell.mark or "level",
                **{f.key: cell.values.get(f.key, "") for f in results.factors},
                **pick(metric, metric="key", label="label", unit="unit", better="better"),
                "n": len(used),
                **pick(entry.summary, mean="mean", sd="sd", low95="low", high95="high"),
                **pick(shift, difference="mean", difference_low95="low", difference_high95="high"),
                **pick(wide, difference_low_widened="low", difference_high_widened="high"),
                "verdict": entry.verdict and verdict_word(entry.verdict),
                **pick(entry.verdict and metric, delta="delta"),
                **pick(entry.verdict, bound="bound", rule="rule"),
                **pick(
                    entry.improvement,
                    p_better="share",
                    p_better_low95="low",
                    p_better_high95="high",
                ),
                "paired_n": len(versus.seeds) if versus else 0,
                **pick(versus, p_sign_flip="p"),
                "p_holm": entry.holm,
                **pick(entry.effect, **EFFECT),
                "seeds": " ".join(map(str, used)),
                "missing_seeds": " ".join(str(s) for s in results.seeds if s not in used),
            }
        )
    return write_csv(rows)


def to_markdown(table: Table) -> str:
    marks = {"control": "**", "untouched": "*"}
    lines = [[escape_markdown(name) for name in table.columns]]
    lines.append([":--", *["--:"] * (len(table.columns) - 1)])
    for i, row in enumerate(table.rows):
        mark = marks.get(table.marks.get(i, ""), "")
        lines.append([f"{mark}{cell}{mark}" if cell else "" for cell in map(escape_markdown, row)])
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    parts = (escape_markdown(table.title), text, escape_markdown(table.note))
    return "\n\n".join(part for part in parts if part) + "\n"


def escape_markdown(text: str) -> str:
    """Text as Markdown that prints it literally; single brackets stay, since they do nothing."""
    escaped = "".join("\\" + c if c in "\\`*_{}<>#|$~" else c for c in text)
    return escaped.replace("](", "]\\(").replace("\n", "<br>")


def escape_latex(text: str) -> str:
    """Text as LaTeX that prints it literally."""
    return "".join(LATEX.get(c, c) for c in text)


def to_latex(table: Table, label: str) -> str:
    """A booktabs table environment; needs \\usepackage{booktabs}."""
    styles = {"control": r"\textbf", "untouched": r"\textit"}
    lines = []
    for i, row in enumerate(table.rows):
        style = styles.get(table.marks.get(i, ""), "")
        cells = [f"{style}{{{cell}}}" if style else cell for cell in map(escape_latex, row)]
        lines.append("    " + " & ".join(cells) + r" \\")
    note = f" {escape_latex(table.note)}" if table.note else ""
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering\small",
            f"  \\caption{{{escape_latex(table.title)}{note}}}",
            f"  \\label{{tab:{label}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"    \toprule",
            "    " + " & ".join(map(escape_latex, table.columns)) + r" \\",
            r"    \midrule",
            *lines,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def write_texts(
    stem: Path,
    title: str,
    above: str,
    answer: str,
    below: Sequence[str],
    tables: Sequence[Table],
    label: str,
) -> None:
    """Write the answer with its tables as Markdown and LaTeX, whose labels begin with ``label``."""
    texts = [above, f"**Answer.** {escape_markdown(answer)}", *map(escape_markdown, below)]
    parts = [f"# {escape_markdown(title)}", *texts, *(to_markdown(t).rstrip() for t in tables)]
    markdown = "\n\n".join(part for part in parts if part) + "\n"
    head = [f"% {title}: {answer}".replace("\n", " "), "% needs \\usepackage{booktabs}", ""]
    latex = [to_latex(table, f"{label}-{i + 1}") for i, table in enumerate(tables)]
    for ending, text in (("md", markdown), ("tex", "\n".join(head + latex))):
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_text(text, encoding="utf-8", newline="\n")
