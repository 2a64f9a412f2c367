"""Tables as files: CSV with full precision, Markdown and booktabs LaTeX as the PDF shows them.

Text is escaped, so that it prints literally.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
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
# How a text begins that a spreadsheet evaluates, in any width of its signs
FORMULA = ("=", "+", "-", "\u2212", "@")
# Letters and signs that look like nothing, besides blanks, controls and what has no width
INVISIBLE = "\u115f\u1160\u3164\uffa0\u2800"
# Signs other than the comma that divide cells, or lines; the writer's quotes mean nothing then
SEPARATORS = re.compile(r"(?<=[;\t|\n])")
NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
# How a paragraph of Markdown begins that is none: lists (1. but not 1.5), rules, headings,
# definitions, code
BLOCK = re.compile(r"(\d{1,9}(?=[.)](?:\s|$)))?([-+=.)\[:])")
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
    """One line a row, full precision, empty where undefined. Names and texts that a spreadsheet
    would take for a formula have an apostrophe before them, which is all that has to be taken off
    to have them back; numbers are as they are. So have the parts of a text behind each sign at
    which a spreadsheet may be told to divide cells: "a;'=1+1"."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = list(rows[0])
    writer.writerow(map(_guard, columns))
    writer.writerows([_guard(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()


def _guard(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if not isinstance(value, str):
        return value
    # The writer leaves a carriage return bare, and readers end the line there
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    parts = SEPARATORS.split(text)
    return "".join(f"'{part}" if _looks_like_formula(part) else part for part in parts)


def _looks_like_formula(text: str) -> bool:
    """Whether the first sign that is seen begins a formula: programs trim blanks, and some read the
    wide signs of East Asian keyboards as the plain ones. Apostrophes before it are no matter, so
    that those which guard can be told from others."""
    if NUMBER.fullmatch(text):
        return False
    for sign in unicodedata.normalize("NFKC", text):
        # Neither letter, number, punctuation nor symbol: blanks, controls, marks on nothing
        if sign != "'" and sign not in INVISIBLE and unicodedata.category(sign)[0] in "LNPS":
            return sign in FORMULA
    return False


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
                **pick(
                    entry.corrected,
                    corrected="share",
                    corrected_low95="low",
                    corrected_high95="high",
                ),
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
    """Text as Markdown that prints it literally, as a paragraph or in a table; single brackets
    stay, since they do nothing."""
    lines = text.strip().splitlines()
    return "<br>".join(map(_escape_line, lines))


def _escape_line(line: str) -> str:
    escaped = "".join("\\" + c if c in "\\`*_{}<>#|$~&" else c for c in line)
    escaped = escaped.replace("](", "]\\(")
    return BLOCK.sub(r"\1\\\2", escaped, count=1) if BLOCK.match(escaped) else escaped


def escape_latex(text: str) -> str:
    """Text as LaTeX that prints it literally, in one line."""
    text = " ".join(text.splitlines())
    # Two hyphens would be a dash
    parts = re.split(r"(?<=-)(?=-)", text)
    return "{}".join("".join(LATEX.get(c, " " if c < " " else c) for c in part) for part in parts)


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
    head = [
        "% " + " ".join(f"{title}: {answer}".splitlines()),
        "% needs \\usepackage{booktabs}",
        "",
    ]
    latex = [to_latex(table, f"{label}-{i + 1}") for i, table in enumerate(tables)]
    for ending, text in (("md", markdown), ("tex", "\n".join(head + latex))):
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_text(text, encoding="utf-8", newline="\n")
