"""The analysis of a study as files, and as what a terminal shows."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reports import export
from reports.document import printable, typeset
from reports.tables import Table
from reports.user_study.analysis import Analysis, Of, analyse
from reports.user_study.answers import Gathered
from reports.user_study.measures import Mean, Share
from reports.user_study.wording import (
    conclusion,
    facts,
    item_table,
    preference_table,
    rating_table,
    rule,
    warning,
)

__all__ = ["write"]

FILES = ("user_study.csv", "user_study.md", "user_study.json", "user_study.pdf", "items.csv", "answers.csv")


def write(gathered: Gathered, folder: Path) -> str:
    """Write FILES into `folder`; return what a terminal shows."""
    found = analyse(gathered)
    folder.mkdir(parents=True, exist_ok=True)
    tables = [preference_table(found), rating_table(found)]
    texts = {
        "user_study.csv": _csv(_measures(found)),
        "user_study.md": _markdown(found, tables),
        "user_study.json": json.dumps(_finite(_everything(found)), indent=1, ensure_ascii=False) + "\n",
        "items.csv": _csv(_items(found)),
        "answers.csv": _csv(_answers(found)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    with tempfile.TemporaryDirectory(prefix="study-") as temporary:
        (Path(temporary) / "report.json").write_text(json.dumps(printable(_page(found, tables))), encoding="utf-8")
        (folder / "user_study.pdf").write_bytes(typeset(Path(temporary)))
    said = [f"warning: {warning(found)}"] if warning(found) else []
    said += [conclusion(found), *(f"{table.title}\n{_aligned(table)}" for table in tables), rule(found)]
    said += ["\n".join(f"{name}: {text}" for name, text in facts(found)), "\n".join(str(folder / name) for name in FILES)]
    return "\n\n".join(said)


def _aligned(table: Table) -> str:
    """A table as text for a terminal."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
                     for line in lines)  # fmt: skip


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None or value != value else value for name, value in row.items()} for row in rows)
    return out.getvalue()


def _measures(found: Analysis) -> list[dict[str, Any]]:
    """One line a measure, in full precision; intervals named as in the tables."""
    cells = found.gathered.key.cells
    rows: list[dict[str, Any]] = []

    def add(of: Of, measure: str, cell: str, value: float, n: int, found: Share | Mean | None = None, p: float | None = None) -> None:
        share = found if isinstance(found, Share) else None
        rows.append({
            "question": of.question, "measure": measure, "cell": cell, "value": value, "n": n,
            "clustered_low95": found.low if found else None, "clustered_high95": found.high if found else None,
            "percentile_low95": share.percentile[0] if share else None, "percentile_high95": share.percentile[1] if share else None,
            "wilson_low95": share.wilson[0] if share else None, "wilson_high95": share.wilson[1] if share else None,
            "effective_n": share.effective if share else None, "p_binomial": p,
            "p_people": of.people_p if measure == "preference" else None, "p_items": of.items_p if measure == "preference" else None,
        })  # fmt: skip

    for of in found.questions:
        if of.preference is not None and of.left_side is not None:
            add(of, "preference", cells[0], of.preference.share, of.preference.n, of.preference, of.binomial_p)
            add(of, "left_side", "", of.left_side.share, of.left_side.n, of.left_side, of.side_p)
        add(of, "preference_halved", cells[0], of.halved.share, of.halved.n, of.halved)
        add(of, "no_difference", "", of.undecided / of.answers, of.answers)
        for cell, rating in zip(cells, of.ratings, strict=True):
            add(of, "rating", cell, rating.mean, rating.n, rating)
        add(of, "rating_difference", f"{cells[0]} - {cells[1]}", of.difference.mean, of.difference.n, of.difference)
        add(of, "alpha_choice", "", of.alpha_choice, of.answers)
        add(of, "alpha_rating", "", of.alpha_rating, 2 * of.answers)
        add(of, "median_seconds", "", of.seconds, of.answers)
    return rows


def _items(found: Analysis) -> list[dict[str, Any]]:
    return [
        {
            "item": row.item, "question": row.question, "split": row.split, "seed": row.seed, "prompt": row.prompt,
            "for_left_cell": row.chosen[0], "for_right_cell": row.chosen[1], "no_difference": row.undecided,
            "rating_left_cell": row.ratings[0], "rating_right_cell": row.ratings[1], "median_seconds": row.seconds,
        }
        for row in found.rows
    ]  # fmt: skip


def _answers(found: Analysis) -> list[dict[str, Any]]:
    """Every answer by cell, for a model of one's own."""
    key = found.gathered.key
    return [
        {
            "participant": one.participant, "item": one.item, "question": one.question, "place": one.place,
            "prompt": key.items[one.item].prompt, "choice": "no difference" if one.choice is None else key.cells[one.choice],
            "side": one.side, "rating_left_cell": one.ratings[0], "rating_right_cell": one.ratings[1], "seconds": one.seconds,
        }
        for one in found.gathered.answers
    ]  # fmt: skip


def _everything(found: Analysis) -> dict[str, Any]:
    gathered, key = found.gathered, found.gathered.key
    return {
        "study": key.study, "sweep": key.sweep, "cells": key.cells, "wording": key.questions, "counts": key.counts,
        "conclusion": conclusion(found), "warning": warning(found), "rule": rule(found),
        "participants": gathered.participants, "left_out": gathered.left_out, "notes": gathered.notes, "minutes": found.minutes,
        "questions": [asdict(of) for of in found.questions],
        "attention": asdict(found.attention), "without_inattentive": [asdict(of) for of in found.attentive],
        "items": [asdict(row) for row in found.rows],
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def _markdown(found: Analysis, tables: Sequence[Table]) -> str:
    parts = [f"# User study: {export.markdown(found.gathered.key.sweep)}", f"**Answer.** {export.markdown(conclusion(found))}"]
    parts += [f"**Warning.** {export.markdown(warning(found))}"] if warning(found) else []
    parts += [export.to_markdown(table).rstrip() for table in tables]
    parts += [export.markdown(rule(found)), "\n".join(f"- {name}: {export.markdown(text)}" for name, text in facts(found))]
    return "\n\n".join([*parts, export.to_markdown(item_table(found)).rstrip()]) + "\n"


def _page(found: Analysis, tables: Sequence[Table]) -> dict[str, Any]:
    """The content of the PDF's one page, for the template of all reports."""
    key = found.gathered.key

    def placed(table: Table, widths: list[Any]) -> dict[str, Any]:
        told = {"title": table.title, "note": table.note, "columns": table.columns, "rows": table.rows, "marks": {}}
        return {"kind": "table", **told, "widths": widths, "size": 8.6, "left": [0]}

    return {
        "title": f"{key.cells[0]} or {key.cells[1]}?",
        "kicker": f"User study · {key.sweep} · {len(found.gathered.participants)} participants × {key.counts['pairs']} pairs",
        "footer": f"{key.sweep}, study {key.study}",
        "question": " ".join(key.questions[of.question] for of in found.questions),
        "origin": "",
        "warning": warning(found)[:1].upper() + warning(found)[1:],
        "answer": conclusion(found),
        "small": rule(found),
        "front": [placed(tables[0], ["fill", *["auto"] * 7]), placed(tables[1], ["auto", *["fill"] * 3, *["auto"] * 2])],
        "alone": False,
        "blocks": [{"kind": "pairs", "pairs": [[name, text] for name, text in facts(found)]}],
    }
