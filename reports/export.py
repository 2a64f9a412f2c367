"""The table object as files: CSV with full precision, Markdown and booktabs LaTeX with the characters of the PDF.

Text is escaped, so that it prints literally.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from reports.study import Study
from reports.tables import Entry, Table

__all__ = ["exact", "latex", "markdown", "to_csv", "to_latex", "to_markdown"]


def to_csv(study: Study, found: Sequence[Entry]) -> str:
    """One line per cell and metric, full precision, empty where undefined."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "sweep",
            "cell",
            "role",
            *(f.key for f in study.factors),
            "metric",
            "label",
            "unit",
            "better",
            "n",
            "mean",
            "sd",
            "low95",
            "high95",
            "difference",
            "difference_low95",
            "difference_high95",
            "difference_low_widened",
            "difference_high_widened",
            "paired_n",
            "p_sign_flip",
            "p_holm",
            "effect_size",
            "effect_size_low95",
            "effect_size_high95",
            "seeds",
            "missing_seeds",
        ]
    )
    for entry in found:
        cell, summary, versus, wide, effect = entry.cell, entry.summary, entry.versus, entry.wide, entry.effect
        used = cell.per_seed(entry.metric.key)
        numbers: list[float | None] = [
            *((summary.mean, summary.sd, summary.low, summary.high) if summary else (None,) * 4),
            *((versus.interval.mean, versus.interval.low, versus.interval.high) if versus else (None,) * 3),
            *((wide.low, wide.high) if wide else (None,) * 2),
        ]
        writer.writerow(
            [
                study.sweep,
                cell.name,
                "reference" if cell.reference else "baseline" if cell.baseline else "level",
                *(cell.values.get(f.key, "") for f in study.factors),
                entry.metric.key,
                entry.metric.label,
                entry.metric.unit,
                entry.metric.better,
                len(used),
                *map(exact, numbers),
                len(versus.seeds) if versus else 0,
                exact(versus.p if versus else None),
                exact(entry.holm),
                *map(exact, (effect.g, effect.low, effect.high) if effect else (None,) * 3),
                " ".join(map(str, used)),
                " ".join(str(s) for s in study.seeds if s not in used),
            ]
        )
    return out.getvalue()


def exact(value: float | None) -> str:
    """Full precision, empty where undefined."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def to_markdown(table: Table) -> str:
    styles = {"baseline": "**", "reference": "*"}
    around = [styles.get(table.marks.get(i, ""), "") for i in range(len(table.rows))]
    lines = [[f"{mark}{cell}{mark}" if cell else "" for cell in map(markdown, row)] for mark, row in zip(around, table.rows, strict=True)]
    head = [markdown(name) for name in table.columns]
    rule = [":--", *["--:"] * (len(head) - 1)]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
    return "\n\n".join(part for part in (markdown(table.title), text, markdown(table.note)) if part) + "\n"


def markdown(text: str) -> str:
    """Text as Markdown that prints it literally; brackets are left as they are, since alone they do nothing."""
    return "".join("\\" + c if c in "\\`*_{}<>#|$~" else c for c in text).replace("](", "]\\(").replace("\n", "<br>")


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "…": r"\dots{}", "\n": " ",
    "[": "{[}",  # a row that starts with a bracket would be read as the length after \\\\
}  # fmt: skip


def latex(text: str) -> str:
    """Text as LaTeX that prints it literally."""
    return "".join(LATEX.get(c, c) for c in text)


def to_latex(table: Table, label: str) -> str:
    """A booktabs table environment; needs \\usepackage{booktabs}."""
    styles = {"baseline": r"\textbf", "reference": r"\textit"}
    lines = []
    for i, row in enumerate(table.rows):
        style = styles.get(table.marks.get(i, ""), "")
        lines.append("    " + " & ".join(f"{style}{{{latex(cell)}}}" if style else latex(cell) for cell in row) + r" \\")
    note = f" {latex(table.note)}" if table.note else ""
    parts = [
        r"\begin{table}",
        r"  \centering\small",
        f"  \\caption{{{latex(table.title)}{note}}}",
        f"  \\label{{tab:{label}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(map(latex, table.columns)) + r" \\",
        r"    \midrule",
        *lines,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(parts) + "\n"
