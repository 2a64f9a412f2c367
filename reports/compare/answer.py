"""A comparison as a sentence with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reports import prose
from reports.compare.differences import CellDifference, Comparison, EffectChange
from reports.results import ReportedMetric
from reports.statistics import Interval
from reports.tables import count_decimals
from reports.verdicts import name_direction

NO_CLAIM = "no claim"
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
    seeds = f"({_count_seeds(differences)})"
    minus = f"{second} minus {first}"
    compared = {d.cell.name: d.wide for d in differences if d.wide}
    if not compared:
        shift = prose.show_difference(differences[0].plain, digits)
        only = f"The untouched backbone is the only cell with {name} that both have"
        return f"{only}: its difference, {minus}, is {shift} {seeds}."
    everything = [x for d in comparison.differences if d.pairs for x in d.pairs.differences]
    if everything and not any(everything):
        return (
            f"{second} gives the same numbers as {first} in every common cell, metric and seed "
            f"{seeds}."
        )
    largest_first = sorted(compared, key=lambda cell: -abs(compared[cell].mean))
    judged = {cell: compared[cell] for cell in largest_first if compared[cell].n > 1}
    if not judged:
        largest = largest_first[0]
        where = f"{prose.show_signed(compared[largest].mean, digits)} at {largest}"
        return (
            f"One seed cannot tell: the largest difference in {name}, {minus}, is {where}, with no "
            "spread to judge it by."
        )
    note = ""
    in_order = {cell: compared[cell] for cell in compared if cell in judged}
    if flat := name_flat(in_order):
        where = prose.join([f"{x} ({prose.show_signed(judged[x].mean, digits)})" for x in flat])
        no_spread = "which has no spread to judge by"
        note = f"; all seeds gave the same difference at {where}, {no_spread}"
    claims = group_claims(metric, judged)
    if not claims:
        largest = next(iter(judged))
        where = f"{prose.show_difference(judged[largest], digits)} at {largest}"
        return (
            f"No common cell differs in {name} by more than its interval: the largest difference, "
            f"{minus}, is {where}{note} {seeds}."
        )
    parts = []
    for word, labels in claims.items():
        quoted = [f"{cell} ({prose.show_difference(judged[cell], digits)})" for cell in labels]
        parts.append(f"{word} at {prose.join_some(quoted, QUOTED)}")
    rest = len(judged) - sum(map(len, claims.values()))
    others = f"; of the other {rest} none differs by more than its interval" if rest else ""
    if rest == 1:
        others = "; the other one does not differ by more than its interval"
    claim = f"Compared with {first}, {name} of {second} is {' and '.join(parts)}"
    return f"{claim}{others}{note} {seeds}."


def _count_seeds(differences: Sequence[CellDifference]) -> str:
    if differences[0].pairs:
        counts = [d.plain.n for d in differences]
        return f"n = {prose.join_range(counts)} paired seed{'s' if max(counts) > 1 else ''}"
    left, right = (
        prose.join_range([n[i] for n in [(d.left.n, d.right.n) for d in differences]])
        for i in (0, 1)
    )
    return f"n = {left} and {right} seed{'' if right == '1' else 's'}, not paired"


def group_claims(metric: ReportedMetric, intervals: Mapping[str, Interval]) -> dict[str, list[str]]:
    """Map "better" or "worse" to the labels whose interval excludes zero, in their order."""
    claims: dict[str, list[str]] = {}
    for label, interval in intervals.items():
        if interval.excludes_zero:
            claims.setdefault(name_direction(metric, interval.mean), []).append(label)
    return dict(sorted(claims.items()))


def name_flat(intervals: Mapping[str, Interval]) -> list[str]:
    """The labels whose differences are all the same and not zero: they have no spread."""
    return [label for label, i in intervals.items() if i.high == i.low and i.mean != 0]


def claim_of(interval: Interval, metric: ReportedMetric) -> str:
    return name_direction(metric, interval.mean) if interval.excludes_zero else NO_CLAIM


def _judge_effects(comparison: Comparison) -> str:
    """Whether the sides claim the same of their cells against their own controls."""
    metric, digits = comparison.headline, decimals_of(comparison, comparison.headline)
    claims = [
        (change, claim_of(change.left, metric), claim_of(change.right, metric))
        for change in comparison.changes
    ]
    if not claims:
        return ""
    other = [c for c in claims if c[1] != c[2] or c[0].change.excludes_zero]
    if not other and all(one == two == NO_CLAIM for _, one, two in claims):
        return "Neither side claims anything of these cells against its own control."
    if not other:
        return "What either side claims of these cells against its own control is the same."

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
    return f"Against its own control either side claims something else of {texts}."
