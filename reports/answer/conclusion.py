"""The answer of a sweep: what each level does to the headline metric, and whether the method at its
control level helps at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports import prose
from reports.ablation import find_ablation
from reports.answer.ablation import state_ablation
from reports.answer.factors import state_effects
from reports.answer.parts import Subject, group_verdicts, is_judged, join_parts
from reports.answer.rule import state_rule
from reports.answer.words import (
    describe_collapse,
    describe_settling,
    describe_verdict,
    show_range,
    show_shift,
)
from reports.factors import judge_factors
from reports.results import CellResults, SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE
from reports.tables import CellMetric, verdicts_of
from reports.verdicts import (
    COLLAPSED,
    IDENTICAL,
    IMAGES_ALONE,
    PER_SEED_T,
    UNTRAINED,
    MetricVerdicts,
    Verdict,
)

__all__ = ["Conclusion", "conclude", "conclude_briefly"]

FEW = 3  # Levels that a few words name


@dataclass(frozen=True)
class Conclusion:
    """``levels``: what the factor does; ``method``: whether the method at its control level helps.

    ``factors``: what several factors do, and whether they add up;
    ``rule``: how levels and method were decided, a paragraph each; ``brackets``: what the intervals
    in the answer are.
    """

    levels: str
    method: str
    rule: tuple[str, ...]
    brackets: str
    factors: str = ""
    screened: bool = False  # What factors do is asked first, then what cells do

    @property
    def text(self) -> str:
        parts = [self.levels, self.factors]
        parts = [*(reversed(parts) if self.screened else parts), self.method]
        return " ".join(filter(None, parts))


def conclude(results: SweepResults, entries: Sequence[CellMetric]) -> Conclusion:
    """The answer; the headline metric decides."""
    verdicts = verdicts_of(entries, results.headline)
    method = ""
    if results.untouched:
        judged = [_judge_method(results, verdicts, control) for control in results.controls]
        method = " ".join(judged)
    return Conclusion(
        _judge_levels(results, entries, verdicts),
        method,
        state_rule(results, entries),
        _describe_brackets(results, verdicts),
        _state_factors(results, verdicts),
        results.tags.get("mode") == "screen",
    )


def _state_factors(results: SweepResults, verdicts: MetricVerdicts) -> str:
    """What several factors do; of a path that was asked for, its steps."""
    text = state_effects(results, judge_factors(results, verdicts))
    if results.tags.get("mode") == "path" and (ablation := find_ablation(results, verdicts)):
        text = f"{text} {state_ablation(results, ablation)}".strip()
    return text


def conclude_briefly(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    """What the factor does, in a few words and by the same rule."""
    verdicts = verdicts_of(entries, results.headline).levels
    if not verdicts:
        return "no answer yet"
    if not any(is_judged(verdict) for verdict in verdicts):
        return "one seed cannot tell"
    if _is_unchanged(entries, {m.key for m in results.metrics}):
        return "changes nothing at all"
    groups = group_verdicts(verdicts)
    parts = []
    for word, own in groups.items():
        labels = [_name(results, v.cell) for v in own]
        listed = ", ".join(labels[:FEW]) + (", …" if len(labels) > FEW else "")
        parts.append(f"{word}: {'all' if len(own) == len(verdicts) > 1 else listed}")
    return "; ".join(parts)


def _is_unchanged(entries: Sequence[CellMetric], metrics: set[str]) -> bool:
    """True where every compared level equals the control in all of ``metrics`` and seeds."""
    compared = [e for e in entries if e.metric.key in metrics and not e.cell.untouched]
    differences = [d for e in compared if e.versus for d in e.versus.differences]
    return bool(differences) and not any(differences)


def _name(results: SweepResults, cell: str) -> str:
    found = next(known for known in results.cells if known.name == cell)
    return prose.name_cell(results, found)


def _judge_levels(
    results: SweepResults, entries: Sequence[CellMetric], judged: MetricVerdicts
) -> str:
    factor, metric, noun = prose.name_factors(results), results.headline, results.noun
    control, name = prose.name_control(results), prose.lower(metric.label)
    verdicts = judged.levels
    if not any(cell.per_seed(metric.key) for cell in results.controls):
        lacks = f"has no finished seed with a defined {name}"
        return f"No answer yet: the control {noun} {control} {lacks}."
    if not verdicts:
        lacks = "has finished a seed that the control has too"
        return f"No answer yet: no other {noun} than the control {control} {lacks}."
    size = _count_data(verdicts)
    if _is_unchanged(entries, {m.key for m in results.metrics}):
        same = "gives the same numbers"
        if all(v.verdict == IDENTICAL for v in verdicts):
            same = "is identical in every image, and gives the same numbers"
        return (
            f"The setting changed nothing at all: every {noun} of {factor} {same} "
            f"as {control} in every metric and seed ({size})."
        )
    if not any(is_judged(verdict) for verdict in verdicts):
        largest = max(verdicts, key=lambda v: abs(v.mean))
        why = "there is no spread to judge it by"
        if largest.rule == IMAGES_ALONE:
            why = f"the interval is of {IMAGES_ALONE}, one training, and says nothing of others"
        return (
            f"One seed cannot tell: the largest difference from {control} in {name} is "
            f"{show_shift(largest)} at {_name(results, largest.cell)}, and {why} ({size})."
        )
    subject = Subject(metric, noun, f"{noun} of {factor}", control, lambda c: _name(results, c))
    text = join_parts(subject, verdicts, size)
    return f"{text}{_name_primary(results, verdicts)}"


def _name_primary(results: SweepResults, verdicts: Sequence[Verdict]) -> str:
    """Which comparison was fixed before, and what it says; "" where none was."""
    primary = next((v for v in verdicts if v.cell == results.primary), None)
    if primary is None:
        return ""
    others = "; the others are secondary" if len(verdicts) > 1 else ""
    name, what = _name(results, primary.cell), describe_verdict(primary)
    return f" The primary comparison, fixed before, is {name}: {what}{others}."


def _count_data(verdicts: Sequence[Verdict]) -> str:
    """N = 3 seeds of 112 prompts."""
    counts = [len(verdict.seeds) for verdict in verdicts]
    low, high = min(counts), max(counts)
    text = f"n = {low} to {high} seeds" if low != high else f"n = {prose.count(low, 'seed')}"
    prompts = {verdict.prompts for verdict in verdicts} - {0}
    return f"{text} of {prose.count(max(prompts), 'prompt')}" if prompts else text


def _judge_method(results: SweepResults, judged: MetricVerdicts, control: CellResults) -> str:
    """Whether the method at a control cell helps at all."""
    metric = results.headline
    label, name = prose.name_cell(results, control), prose.lower(metric.label)
    at = f"{prose.name_factors(results)} {label}" if len(results.factors) == 1 else label
    verdict = next((v for v in judged.untouched if v.cell == control.name), None)
    if verdict is None:
        backbone = results.untouched.per_seed(metric.key) if results.untouched else {}
        why = "the two share no finished seed"
        if backbone.keys() & control.per_seed(metric.key).keys():
            why = "nothing that is compared with it has finished, to tell how far trainings scatter"
        return (
            f"Whether the method at {at} is any better than the untouched backbone is open: {why}."
        )
    shift, delta = show_shift(verdict), prose.show_delta(metric.delta)
    if not is_judged(verdict):
        alone = f", by {IMAGES_ALONE}," if verdict.rule == IMAGES_ALONE else ""
        return (
            f"Against the untouched backbone, the method at {at} changes {name} by {shift}{alone} "
            "in its one seed, which cannot tell."
        )
    if verdict.verdict == IDENTICAL:
        return f"The method at {at} and the untouched backbone are {IDENTICAL}."
    if verdict.mean == 0 and not verdict.high > verdict.low:
        return f"The method at {at} gives the same {name} as the untouched backbone in every seed."
    if verdict.verdict == COLLAPSED and verdict.collapse:
        return (
            f"Against the untouched backbone, the method at {at} {COLLAPSED} in {name} "
            f"{describe_collapse(verdict.collapse)}."
        )
    if verdict.verdict == DIFFERS and verdict.matters:
        return (
            f"The method at {at} is {verdict.direction} than the untouched backbone in {name}: "
            f"{shift}."
        )
    if verdict.verdict == DIFFERS:
        return (
            f"The method at {at} differs from the untouched backbone in {name}, by less than "
            f"matters ({delta}): {shift}."
        )
    if verdict.verdict == NO_DIFFERENCE:
        return (
            f"Against the untouched backbone, the method at {at} makes {NO_DIFFERENCE} in {name} "
            f"({delta}): {shift}."
        )
    settling = describe_settling([verdict])
    return (
        f"Whether the method at {at} is any better than the untouched backbone is open: the "
        f"difference in {name} is {show_range(verdict)}{f'; {settling}' if settling else ''}."
    )


def _describe_brackets(results: SweepResults, verdicts: MetricVerdicts) -> str:
    count = len(verdicts.levels)
    text = f"Brackets: {prose.show_level(results.level)} % intervals"
    if count > 1:
        text += f"; those of the {results.noun}s hold for all {count} at once"
    if len(verdicts.untouched) > 1:
        text += f", those of the {len(verdicts.untouched)} controls against the backbone likewise"
    if verdicts.by_images:
        every = (*verdicts.levels, *verdicts.untouched)
        if every and all(v.rule == UNTRAINED for v in every):
            return f"{text}; nothing is trained: for prompts like these and other noise."
        alone = [v.rule == IMAGES_ALONE for v in every]
        if alone and all(alone):
            return f"{text}; of {IMAGES_ALONE}, for prompts like these but no other training."
        but = f" (but of {IMAGES_ALONE} where there is one training)" if any(alone) else ""
        return f"{text}, for prompts like these and other seeds{but}."
    if any(verdict.rule == PER_SEED_T for verdict in verdicts.levels):
        return f"{text}; t-intervals over seeds, for these prompts only."
    return f"{text}."
