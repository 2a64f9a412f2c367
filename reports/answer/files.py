"""The answer as data: answer.json beside the report, and the tags of cells in MLflow."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.answer.conclusion import conclude, conclude_briefly
from reports.answer.factors import factors_json
from reports.answer.words import count_conclusive, describe_verdict, show_shift, verdict_word
from reports.correcting import read_errors
from reports.factors import judge_factors
from reports.results import SweepResults
from reports.tables import CellMetric, verdicts_of
from reports.verdicts import Verdict

__all__ = [
    "ANSWER",
    "answer_json",
    "headline_rows",
    "read_answer",
    "read_verdicts",
    "verdict_tags",
]

ANSWER = "answer.json"
CONTROL, UNTOUCHED = "control", "untouched backbone"


def answer_json(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    """The answer with every comparison of every metric; numbers in full, null where undefined."""
    found = {metric.key: verdicts_of(entries, metric) for metric in results.metrics}
    conclusion = conclude(results, entries)
    headline = found[results.headline.key]
    counted = {
        key: [sum(v.conclusive for v in own.levels), len(own.levels)] for key, own in found.items()
    }
    content = {
        "sweep": results.sweep,
        "headline": results.headline.key,
        "answer": conclusion.text,
        "briefly": conclude_briefly(results, entries),
        "conclusive": count_conclusive(headline.levels),
        "conclusive_of": counted,
        "rule": list(conclusion.rule),
        "older_rule": {key: own.why for key, own in found.items() if own.why},
        "corrected": _describe_corrected(results, entries),
        "factors": factors_json(results, judge_factors(results, headline)),
        "comparisons": [
            _describe(verdict, against, own is headline and verdict.cell == results.primary)
            for own in found.values()
            for against, part in ((CONTROL, own.levels), (UNTOUCHED, own.untouched))
            for verdict in part
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _describe_corrected(
    results: SweepResults, entries: Sequence[CellMetric]
) -> dict[str, Any] | None:
    """Shares corrected for the detector's errors: metric -> cell -> share and interval, and what a
    difference is divided by; None where there are none."""
    shares: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.corrected:
            own = shares.setdefault(entry.metric.key, {})
            own[entry.cell.name] = entry.corrected._asdict()
    errors = next(filter(None, (read_errors(results, metric) for metric in results.metrics)), None)
    if not shares or errors is None:
        return None
    return {**errors._asdict(), "informative": errors.informative, "shares": shares}


def _describe(verdict: Verdict, against: str, primary: bool) -> dict[str, Any]:
    images, settle = verdict.images, verdict.settle
    return {
        "metric": verdict.metric.key,
        "control": verdict.control,
        "cell": verdict.cell,
        "against": against,
        "mean": verdict.mean,
        "low": _finite(verdict.low),
        "high": _finite(verdict.high),
        "verdict": verdict.verdict,
        "word": verdict_word(verdict),
        "shift": show_shift(verdict),
        "words": describe_verdict(verdict),
        "conclusive": verdict.conclusive,
        "delta": verdict.metric.delta,
        "bound": _finite(verdict.bound),
        "rule": verdict.rule,
        "family": verdict.family,
        "primary": primary,
        "level": verdict.level,
        "seeds": list(verdict.seeds),
        "prompts": verdict.prompts,
        "decimals": verdict.decimals,
        "design_effect": _finite(images.design_effect) if images else None,
        "unstable": verdict.unstable,
        "these_prompts_half": _finite(images.half_these_prompts) if images else None,
        "alike": list(verdict.alike) if verdict.alike else None,
        "collapsed_seeds": list(verdict.collapse.seeds) if verdict.collapse else [],
        "settle": {"seeds": settle.seeds, "prompts": settle.prompts} if settle else None,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_answer(folder: Path) -> str | None:
    """The answer of the report in ``folder``; None where there is none, or one that was cut off."""
    try:
        answer = json.loads((folder / "report.json").read_text(encoding="utf-8"))["answer"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return str(answer)


def read_verdicts(folder: Path) -> dict[str, Any]:
    """What answer.json in ``folder`` holds; nothing where there is none, or one that was cut
    off."""
    try:
        content = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        content["comparisons"], content["headline"], content["conclusive"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return dict(content)


def verdict_tags(content: dict[str, Any]) -> dict[str, str]:
    """Cell -> what its run in MLflow says of the headline, from ``read_verdicts``. The control says
    how it compares with the untouched backbone."""
    return {
        row["cell"]: row["words"]
        if row["against"] == CONTROL
        else f"control; against the untouched backbone: {row['words']}"
        for row in headline_rows(content)
    }


def headline_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of the headline, from ``read_verdicts``."""
    rows = content.get("comparisons", [])
    return [row for row in rows if row["metric"] == content["headline"]]
