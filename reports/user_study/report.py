"""The analysis of a study as files, and as what a terminal shows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reports import prose, typeset
from reports.export import escape_markdown, pick, to_markdown, write_csv
from reports.files import drafting, publish
from reports.statistics import ClusteredMean, ClusteredShare
from reports.tables import Table
from reports.user_study.analysis import Analysis, analyse
from reports.user_study.answers import Responses
from reports.user_study.words import (
    conclude_study,
    item_table,
    list_facts,
    preference_table,
    rating_table,
    state_rule,
    warn,
)

__all__ = ["write_analysis"]

STEM = "user_study"


def write_analysis(responses: Responses, folder: Path) -> str:
    """Write user_study.*, items.csv and answers.csv; return what a terminal shows."""
    analysis = analyse(responses)
    tables = [preference_table(analysis), rating_table(analysis)]
    everything = json.dumps(_drop_nan(_list_everything(analysis)), indent=1, ensure_ascii=False)
    texts = {
        f"{STEM}.csv": write_csv(_list_measures(analysis)),
        f"{STEM}.md": _to_markdown(analysis, tables),
        f"{STEM}.json": everything + "\n",
        "items.csv": write_csv(_list_items(analysis)),
        "answers.csv": write_csv(_list_answers(analysis)),
    }
    with drafting(folder) as draft:
        for name, text in texts.items():
            typeset.write_text(draft / name, text)
        pdf = typeset.typeset(draft, _build_content(analysis, tables))
        (draft / f"{STEM}.pdf").write_bytes(pdf)
        publish(draft, [*texts, f"{STEM}.pdf"])
    parts = [f"warning: {warn(analysis)}"] if warn(analysis) else []
    parts.append(conclude_study(analysis))
    parts += [f"{table.title}\n{_align(table)}" for table in tables]
    parts.append(state_rule(analysis))
    parts.append("\n".join(f"{name}: {text}" for name, text in list_facts(analysis)))
    parts.append("\n".join(str(folder / name) for name in [*texts, f"{STEM}.pdf"]))
    return "\n\n".join(parts)


def _align(table: Table) -> str:
    """A table as text for a terminal."""
    lines = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        texts.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(texts)


def _list_measures(analysis: Analysis) -> list[dict[str, Any]]:
    """One line a measure; intervals named as in the tables."""
    left, right = analysis.responses.key.cells
    rows: list[dict[str, Any]] = []
    for result in analysis.questions:
        n = result.answers
        tests = pick(result, p_binomial="binomial_p", p_people="people_p", p_items="items_p")
        measures: list[tuple[str, str, Any, dict[str, Any]]] = []
        if result.preference is not None:
            measures.append(("preference", left, result.preference, tests))
            measures.append(("left_side", "", result.left_side, {"p_binomial": result.side_p}))
        measures += [
            ("preference_halved", left, result.halved, {}),
            ("no_difference", "", result.undecided / n, {"n": n}),
            ("rating", left, result.ratings[0], {}),
            ("rating", right, result.ratings[1], {}),
            ("rating_difference", f"{left} - {right}", result.difference, {}),
            ("alpha_choice", "", result.alpha_choice, {"n": n}),
            ("alpha_rating", "", result.alpha_rating, {"n": 2 * n}),
            ("median_seconds", "", result.seconds, {"n": n}),
        ]
        for measure, cell, estimate, more in measures:
            name = {"question": result.question, "measure": measure, "cell": cell}
            rows.append(name | _list_bounds(estimate) | dict.fromkeys(tests) | more)
    return rows


def _list_bounds(estimate: ClusteredShare | ClusteredMean | float) -> dict[str, Any]:
    """A value with its intervals, as far as it has them."""
    share = estimate if isinstance(estimate, ClusteredShare) else None
    mean = estimate if isinstance(estimate, ClusteredMean) else None
    bounds = {
        f"{name}_{side}95": getattr(share, name)[i] if share else None
        for name in ("percentile", "wilson")
        for i, side in enumerate(("low", "high"))
    }
    return {
        "value": share.share if share else mean.mean if mean else estimate,
        **pick(share or mean, n="n", clustered_low95="low", clustered_high95="high"),
        **bounds,
        **pick(share, effective_n="effective"),
    }


def _list_items(analysis: Analysis) -> list[dict[str, Any]]:
    about = {name: name for name in ("item", "question", "split", "seed", "prompt")}
    return [
        {
            **pick(item, **about),
            "for_left_cell": item.chosen[0],
            "for_right_cell": item.chosen[1],
            "no_difference": item.undecided,
            "rating_left_cell": item.ratings[0],
            "rating_right_cell": item.ratings[1],
            "median_seconds": item.seconds,
        }
        for item in analysis.items
    ]


def _list_answers(analysis: Analysis) -> list[dict[str, Any]]:
    """Every answer by cell, for models that a reader may fit."""
    key = analysis.responses.key
    about = {name: name for name in ("participant", "item", "question", "place")}
    return [
        {
            **pick(answer, **about),
            "prompt": key.items[answer.item].prompt,
            "choice": "no difference" if answer.choice is None else key.cells[answer.choice],
            "side": answer.side,
            "rating_left_cell": answer.ratings[0],
            "rating_right_cell": answer.ratings[1],
            "seconds": answer.seconds,
        }
        for answer in analysis.responses.answers
    ]


def _list_everything(analysis: Analysis) -> dict[str, Any]:
    responses, key = analysis.responses, analysis.responses.key
    return {
        **pick(key, study="study", sweep="sweep", cells="cells", wording="questions"),
        "counts": key.counts,
        "conclusion": conclude_study(analysis),
        "warning": warn(analysis),
        "rule": state_rule(analysis),
        **pick(responses, participants="participants", left_out="left_out", notes="notes"),
        "minutes": analysis.minutes,
        "questions": [asdict(result) for result in analysis.questions],
        "attention": asdict(analysis.attention),
        "without_inattentive": [asdict(result) for result in analysis.attentive],
        "items": [asdict(item) for item in analysis.items],
    }


def _drop_nan(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _drop_nan(entry) for name, entry in value.items()}
    return [_drop_nan(entry) for entry in value] if isinstance(value, list | tuple) else value


def _to_markdown(analysis: Analysis, tables: Sequence[Table]) -> str:
    parts = [f"# User study: {escape_markdown(analysis.responses.key.sweep)}"]
    parts.append(f"**Answer.** {escape_markdown(conclude_study(analysis))}")
    if warning := warn(analysis):
        parts.append(f"**Warning.** {escape_markdown(warning)}")
    parts += [to_markdown(table).rstrip() for table in tables]
    parts.append(escape_markdown(state_rule(analysis)))
    facts = list_facts(analysis)
    parts.append("\n".join(f"- {name}: {escape_markdown(text)}" for name, text in facts))
    return "\n\n".join([*parts, to_markdown(item_table(analysis)).rstrip()]) + "\n"


def _build_content(analysis: Analysis, tables: Sequence[Table]) -> dict[str, Any]:
    """The content of the PDF's one page, for the template of all reports."""
    key = analysis.responses.key
    people = prose.count(len(analysis.responses.participants), "participant")
    pairs = prose.count(key.counts["pairs"], "pair")
    warning = warn(analysis)
    return typeset.page(
        f"{key.cells[0]} or {key.cells[1]}?",
        kicker=f"User study · {key.sweep} · {people} × {pairs}",
        footer=f"{key.sweep}, study {key.study}",
        question=" ".join(key.questions[result.question] for result in analysis.questions),
        warning=warning[:1].upper() + warning[1:],
        answer=conclude_study(analysis),
        small=state_rule(analysis),
        front=[
            typeset.table(tables[0], ["fill", "auto"], 8.6),
            typeset.table(tables[1], ["auto", *["fill"] * 3, "auto"], 8.6),
        ],
        alone=False,
        blocks=[typeset.pairs(list_facts(analysis))],
    )
