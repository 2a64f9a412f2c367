"""A comparison as a sentence with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports import prose
from reports.answer.parts import Subject, is_judged, join_parts
from reports.answer.words import show_shift, verdict_word
from reports.compare.differences import CellDifference, Comparison, EffectChange
from reports.results import ReportedMetric
from reports.tables import count_decimals
from reports.verdicts import IMAGES_ALONE

QUOTED = 3  # Cells that a sentence names


def decimals_of(comparison: Comparison, metric: ReportedMetric) -> int:
    return max(count_decimals(side.entries, metric) for side in comparison.sides)


def conclude_comparison(comparison: Comparison) -> str:
    """Whether the two differ in the headline metric, and in what they claim of their cells."""
    return f"{_judge_differences(comparison)} {_judge_effects(comparison)}".strip()


def _judge_differences(comparison: Comparison) -> str:
    metric, digits = comparison.headline, decimals_of(comparison, comparison.headline)
    name, differences = prose.lower(metric.label), comparison.headline_differences
    first, second = comparison.left.label, comparison.right.label
    seeds = _count_seeds(differences)
    minus = f"{second} minus {first}"
    verdicts = [d.verdict for d in differences if d.verdict]
    if not verdicts:
        shift = prose.show_difference(differences[0].plain, digits)
        only = f"The untouched backbone is the only cell with {name} that both have"
        return f"{only}: its difference, {minus}, is {shift} ({seeds})."
    everything = [x for d in comparison.differences if d.pairs for x in d.pairs.differences]
    if everything and not any(everything):
        return (
            f"{second} gives the same numbers as {first} in every common cell, metric and seed "
            f"({seeds})."
        )
    if not any(is_judged(verdict) for verdict in verdicts):
        largest = max(verdicts, key=lambda v: abs(v.mean))
        why = "with no spread to judge it by"
        if largest.rule == IMAGES_ALONE:
            why = f"by {IMAGES_ALONE}, one training, which says nothing of others"
        where = f"{show_shift(largest)} at {largest.cell}"
        return (
            f"One seed cannot tell: the largest difference in {name}, {minus}, is {where}, {why}."
        )
    subject = Subject(
        metric,
        "common cell",
        "common cell",
        first,
        lambda cell: cell,
        ("differs in", "does not differ in"),
        f" of {second}",
    )
    return join_parts(subject, verdicts, seeds)


def _count_seeds(differences: Sequence[CellDifference]) -> str:
    if differences[0].pairs:
        counts = [d.plain.n for d in differences]
        return f"n = {prose.join_range(counts)} paired seed{'s' if max(counts) > 1 else ''}"
    left, right = (
        prose.join_range([n[i] for n in [(d.left.n, d.right.n) for d in differences]])
        for i in (0, 1)
    )
    return f"n = {left} and {right} seed{'' if right == '1' else 's'}, not paired"


def _judge_effects(comparison: Comparison) -> str:
    """Whether the sides claim the same of their cells against their own controls."""
    digits = decimals_of(comparison, comparison.headline)
    claims = [
        (change, verdict_word(change.left), verdict_word(change.right))
        for change in comparison.changes
    ]
    if not claims:
        return ""
    other = [c for c in claims if c[1] != c[2] or c[0].change.excludes_zero]
    if not other:
        return "What either side says of these cells against its own control is the same."

    def describe(change: EffectChange, one: str, two: str) -> str:
        both = f"{one} on both sides"
        if one != two:
            both = f"{one} in {comparison.left.label}, {two} in {comparison.right.label}"
        shift = prose.show_difference(change.change, digits)
        zero = "does not exclude zero, so that the two may well agree"
        if change.change.excludes_zero:
            zero = "excludes zero"
        if not math.isfinite(change.change.low):
            zero = "one seed cannot judge"
        return f"{change.cell.name} ({both}; the effect itself changes by {shift}, which {zero})"

    texts = prose.join_some([describe(*claim) for claim in other], QUOTED)
    return f"Against its own control either side says something else of {texts}."
