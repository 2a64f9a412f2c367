"""The answer of a sweep in words, by one stated rule, so that a null result is reported as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports import prose
from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import Interval, paired
from reports.tables import CellMetric, count_decimals, of_metric

__all__ = ["Conclusion", "better_or_worse", "conclude", "conclude_briefly", "group_claims"]

FEW = 3  # Levels that a few words name
QUOTED = 4  # Levels that one part of the answer names, those with the largest difference


@dataclass(frozen=True)
class Conclusion:
    """``levels``: what the factor does; ``method``: whether the method at its control level helps.

    ``rule``: how both were decided; ``brackets``: what the intervals in the answer are.
    """

    levels: str
    method: str
    rule: str
    brackets: str

    @property
    def text(self) -> str:
        return f"{self.levels} {self.method}".strip()


def conclude(results: SweepResults, entries: Sequence[CellMetric]) -> Conclusion:
    """The answer; the headline metric decides."""
    wide = [e.wide for e in of_metric(entries, results.headline) if e.wide]
    method = ""
    if results.untouched:
        judged = [_judge_method(results, entries, control) for control in results.controls]
        method = " ".join(judged)
    widened = f"; those of the {results.noun}s are widened to hold for all {len(wide)} at once"
    brackets = f"Brackets: 95 % intervals{widened if len(wide) > 1 else ''}."
    return Conclusion(_judge_levels(results, entries), method, _state_rule(results, wide), brackets)


def conclude_briefly(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    """What the factor does, in a few words and by the same rule."""
    metric = results.headline
    compared = {
        prose.name_cell(results, e.cell): e.wide for e in of_metric(entries, metric) if e.wide
    }
    if not compared:
        return "no answer yet"
    if all(interval.n == 1 for interval in compared.values()):
        return "one seed cannot tell"
    order = sorted(compared, key=lambda label: -abs(compared[label].mean))
    claims = group_claims(metric, {label: compared[label] for label in order})
    if claims:
        return "; ".join(
            f"{word}: {', '.join(labels[:FEW])}" + (", …" if len(labels) > FEW else "")
            for word, labels in claims.items()
        )
    if _is_unchanged(entries, {m.key for m in results.metrics}):
        return "changes nothing at all"
    return f"no {results.noun} differs by more than its interval"


def better_or_worse(metric: ReportedMetric, difference: float) -> str:
    if metric.better == "none":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (metric.better == "higher") else "worse"


def group_claims(metric: ReportedMetric, intervals: Mapping[str, Interval]) -> dict[str, list[str]]:
    """Map "better" or "worse" to the labels whose interval excludes zero, in their order."""
    claims: dict[str, list[str]] = {}
    for label, interval in intervals.items():
        if interval.excludes_zero:
            claims.setdefault(better_or_worse(metric, interval.mean), []).append(label)
    return dict(sorted(claims.items()))


def name_flat(intervals: Mapping[str, Interval]) -> list[str]:
    """The labels whose differences are all the same and not zero: they have no spread."""
    return [label for label, i in intervals.items() if i.high == i.low and i.mean != 0]


def _is_unchanged(entries: Sequence[CellMetric], metrics: set[str]) -> bool:
    """True where every compared level equals the control in all of ``metrics`` and seeds."""
    compared = [e for e in entries if e.metric.key in metrics and not e.cell.untouched]
    differences = [d for e in compared if e.versus for d in e.versus.differences]
    return bool(differences) and not any(differences)


def _judge_levels(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    factor, metric, noun = prose.name_factors(results), results.headline, results.noun
    control, name = prose.name_control(results), prose.lower(metric.label)
    digits = count_decimals(entries, metric)
    compared = {
        prose.name_cell(results, e.cell): e.wide for e in of_metric(entries, metric) if e.wide
    }
    if not any(cell.per_seed(metric.key) for cell in results.controls):
        lacks = f"has no finished seed with a defined {name}"
        return f"No answer yet: the control {noun} {control} {lacks}."
    if not compared:
        lacks = "has finished a seed that the control has too"
        return f"No answer yet: no other {noun} than the control {control} {lacks}."
    seeds = _count_seeds([interval.n for interval in compared.values()])
    if _is_unchanged(entries, {m.key for m in results.metrics}):
        return (
            f"The setting changed nothing at all: every {noun} of {factor} gives the same numbers "
            f"as {control} in every metric and seed ({seeds})."
        )
    if _is_unchanged(entries, {metric.key}):
        return (
            f"No {noun} of {factor} changes {name}: it is the same number as at {control} in "
            f"every seed ({seeds}), though other metrics differ."
        )

    def quote(label: str) -> str:
        return prose.show_difference(compared[label], digits)

    def name_largest(labels: list[str], note: Callable[[str], str] | None = None) -> str:
        if len(labels) > QUOTED:
            labels = sorted(labels, key=lambda label: -abs(compared[label].mean))
        return prose.join_some([f"{x} ({note(x)})" if note else x for x in labels], QUOTED)

    alone = [label for label, interval in compared.items() if interval.n == 1]
    judged = [label for label in compared if label not in alone]
    largest = max(judged or alone, key=lambda label: abs(compared[label].mean))
    if not judged:
        return (
            f"One seed cannot tell: the largest difference from {control} in {name} is "
            f"{quote(largest)} at {largest}, and there is no spread to judge it by."
        )
    claims = group_claims(metric, compared)
    if claims:
        parts = [f"{word} at {name_largest(labels, quote)}" for word, labels in claims.items()]
        text = f"Compared with {control}, {name} is {' and '.join(parts)}"
        others = len(judged) - sum(map(len, claims.values()))
        if others == 1:
            text += f"; the other {noun} does not differ by more than its interval"
        elif others:
            text += f"; the other {others} {noun}s do not differ by more than their intervals"
    else:
        text = (
            f"No {noun} of {factor} differs from {control} in {name} by more than its interval: "
            f"the largest difference is {quote(largest)} at {largest}"
        )
    if flat := name_flat(compared):
        no_spread = "all seeds gave the same difference, which has no spread to judge by"
        text += f"; at {name_largest(flat)} {no_spread}"
    if alone:
        text += f"; {name_largest(alone)} cannot be judged by one seed"
    return f"{text} ({seeds})."


def _count_seeds(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"n = {low} to {high} seeds" if low != high else f"n = {prose.count(low, 'seed')}"


def _judge_method(
    results: SweepResults, entries: Sequence[CellMetric], control: CellResults
) -> str:
    """Whether the method at a control cell helps at all."""
    metric, untouched = results.headline, results.untouched
    label, name = prose.name_cell(results, control), prose.lower(metric.label)
    at = f"{prose.name_factors(results)} {label}" if len(results.factors) == 1 else label
    own = control.per_seed(metric.key)
    backbone = untouched.per_seed(metric.key) if untouched else {}
    if not own.keys() & backbone.keys():
        return (
            "Whether the method helps at all is open: the untouched backbone and the method at "
            f"{at} share no finished seed."
        )
    versus, digits = paired(own, backbone), count_decimals(entries, metric)
    gain = versus.interval
    shift = prose.show_difference(gain, digits)
    if not math.isfinite(gain.low):
        return (
            f"Against the untouched backbone, the method at {at} changes {name} by {shift} in its "
            "one seed, which cannot tell."
        )
    if not any(versus.differences):
        return f"The method at {at} gives the same {name} as the untouched backbone in every seed."
    if gain.excludes_zero:
        word = better_or_worse(metric, gain.mean)
        return f"The method at {at} is {word} than the untouched backbone in {name}: {shift}."
    return (
        f"Against the untouched backbone, the method at {at} does not differ by more than its "
        f"interval: {shift}."
    )


def _state_rule(results: SweepResults, wide: Sequence[Interval]) -> str:
    noun, widened, untouched = results.noun, "", ""
    if len(wide) > 1:
        each = prose.show(100 * wide[0].level, 2).rstrip("0").rstrip(".")
        bonferroni = f"(Bonferroni: {each} % each)"
        widened = f", widened to hold for all {len(wide)} comparisons at once {bonferroni},"
    if results.untouched:
        untouched = (
            f" The control {noun} is compared with the untouched backbone by one 95 % interval."
        )
    return (
        f"Every {noun} is compared with the control {noun} ({prose.name_control(results)}) on "
        f"{prose.lower(results.headline.label)} by its differences seed by seed. A {noun} is "
        f"called better or worse only if the t-interval of that difference{widened} excludes zero; "
        "an interval without width claims nothing. The answer quotes these intervals; figures and "
        f"tables say which they show.{untouched}"
    )
