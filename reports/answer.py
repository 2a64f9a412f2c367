"""The answer of a sweep in words, made from the entries by one stated rule, so that a null result is said as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.statistics import paired
from reports.study import Cell, Study
from reports.tables import (
    Entry,
    decimals,
    factor_words,
    in_sentence,
    listed,
    number,
    of_metric,
    signed,
    span,
)

__all__ = ["Answer", "answer", "brief", "verb"]

FEW = 3  # levels that a few words name
QUOTED = 4  # levels that one part of the answer names, those with the largest difference; the table has all


@dataclass(frozen=True)
class Answer:
    """`levels`: what the factor does. `method`: whether the method at its baseline level helps at all. `rule`: how both were decided.

    `brackets`: what the intervals in the answer are.
    """

    levels: str
    method: str
    rule: str
    brackets: str

    @property
    def text(self) -> str:
        return f"{self.levels} {self.method}".strip()


def answer(study: Study, found: Sequence[Entry]) -> Answer:
    """See `Answer`; the headline metric decides."""
    entries = of_metric(found, study.headline)
    method = " ".join(_method(study, found, base) for base in study.baselines) if study.reference else ""
    return Answer(_levels(study, found, entries), method, _rule(study, entries), _brackets(study, entries))


def brief(study: Study, found: Sequence[Entry]) -> str:
    """What the factor does, in a few words and by the same rule."""
    metric = study.headline
    compared = {study.words(e.cell): e.wide for e in of_metric(found, metric) if e.wide}
    if not compared:
        return "no answer yet"
    if all(interval.n == 1 for interval in compared.values()):
        return "one seed cannot tell"
    groups: dict[str, list[str]] = {}
    for label, interval in sorted(compared.items(), key=lambda item: -abs(item[1].mean)):
        if interval.excludes_zero:
            groups.setdefault(verb(metric.better, interval.mean), []).append(label)
    if groups:
        parts = [f"{word}: {', '.join(named[:FEW])}" + (", …" if len(named) > FEW else "") for word, named in sorted(groups.items())]
        return "; ".join(parts)
    if _unchanged(found, {m.key for m in study.metrics}):
        return "changes nothing at all"
    return f"no {study.noun} differs by more than its interval"


def verb(better: str, difference: float) -> str:
    if better == "none":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (better == "higher") else "worse"


def _unchanged(found: Sequence[Entry], keys: set[str]) -> bool:
    """True where every compared level equals the baseline level in every metric and seed."""
    differences = [d for e in found if e.metric.key in keys and e.versus and not e.cell.reference for d in e.versus.differences]
    return bool(differences) and not any(differences)


def _levels(study: Study, found: Sequence[Entry], entries: list[Entry]) -> str:
    factor, metric, noun, base = factor_words(study), study.headline, study.noun, study.base_words
    digits = decimals(found, metric)
    name = in_sentence(metric.label)
    compared = {study.words(e.cell): e.wide for e in entries if e.wide}
    if not any(cell.per_seed(metric.key) for cell in study.baselines):
        return f"No answer yet: the baseline {noun} {base} has no finished seed with a defined {name}."
    if not compared:
        return f"No answer yet: no other {noun} than the baseline {base} has finished a seed that the baseline has too."
    seeds = _seeds({interval.n for interval in compared.values()})
    if _unchanged(found, {m.key for m in study.metrics}):
        return (
            f"The setting changed nothing at all: every {noun} of {factor} gives the same numbers as {base} in every metric and seed "
            f"({seeds})."
        )
    if _unchanged(found, {metric.key}):
        return (
            f"No {noun} of {factor} changes {name}: it is the same number as at {base} in every seed ({seeds}), though other metrics "
            "differ."
        )

    def quoted(label: str) -> str:
        return f"{signed(compared[label].mean, digits)} {span(compared[label], digits, sign=True)}"

    def named(labels: list[str], note: Callable[[str], str] | None = None) -> str:
        largest = labels if len(labels) <= QUOTED else sorted(labels, key=lambda label: -abs(compared[label].mean))[:QUOTED]
        rest = [f"{len(labels) - QUOTED} more"] if len(labels) > QUOTED else []
        return listed([f"{label} ({note(label)})" if note else label for label in largest] + rest)

    alone = [label for label, interval in compared.items() if interval.n == 1]
    judged = [label for label in compared if label not in alone]
    largest = max(judged or alone, key=lambda label: abs(compared[label].mean))
    if not judged:
        shift = signed(compared[largest].mean, digits)
        return (
            f"One seed cannot tell: the largest difference from {base} in {name} is {shift} at {largest}, and there is no spread to judge "
            f"it by."
        )
    real = [label for label, interval in compared.items() if interval.excludes_zero]
    if real:
        groups: dict[str, list[str]] = {}
        for label in real:
            groups.setdefault(verb(metric.better, compared[label].mean), []).append(label)
        parts = " and ".join(f"{verb} at {named(labels, quoted)}" for verb, labels in sorted(groups.items()))
        others = len(judged) - len(real)
        rest = (
            f"; the other {_plural(others, noun)} not differ by more than {'its interval' if others == 1 else 'their intervals'}"
            if others
            else ""
        )
        text = f"Compared with {base}, {name} is {parts}{rest}"
    else:
        text = (
            f"No {noun} of {factor} differs from {base} in {name} by more than its interval: the largest difference is {quoted(largest)} "
            f"at {largest}"
        )
    flat = [label for label, interval in compared.items() if interval.high == interval.low and interval.mean != 0]
    note = f"; at {named(flat)} all seeds gave the same difference, which has no spread to judge by" if flat else ""
    note += f"; {named(alone)} cannot be judged by one seed" if alone else ""
    return f"{text}{note} ({seeds})."


def _plural(count: int, noun: str) -> str:
    return f"{noun} does" if count == 1 else f"{count} {noun}s do"


def _seeds(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"n = {low} to {high} seeds" if low != high else f"n = {low} seed{'s' if low != 1 else ''}"


def _method(study: Study, found: Sequence[Entry], cell: Cell) -> str:
    """Whether the method at a baseline cell helps at all."""
    metric, untouched = study.headline, study.reference
    base, name = study.words(cell), in_sentence(metric.label)
    at = f"{factor_words(study)} {base}" if len(study.factors) == 1 else base
    own, backbone = cell.per_seed(metric.key), untouched.per_seed(metric.key) if untouched else {}
    if not own.keys() & backbone.keys():
        return f"Whether the method helps at all is open: the untouched backbone and the method at {at} share no finished seed."
    versus, digits = paired(own, backbone), decimals(found, metric)
    gain = versus.interval
    if not math.isfinite(gain.low):
        return (
            f"Against the untouched backbone, the method at {at} changes {name} by {signed(gain.mean, digits)} in its one seed, which "
            "cannot tell."
        )
    shift = f"{signed(gain.mean, digits)} {span(gain, digits, sign=True)}"
    if not any(versus.differences):
        return f"The method at {at} gives the same {name} as the untouched backbone in every seed."
    if gain.excludes_zero:
        return f"The method at {at} is {verb(metric.better, gain.mean)} than the untouched backbone in {name}: {shift}."
    return f"Against the untouched backbone, the method at {at} does not differ by more than its interval: {shift}."


def _brackets(study: Study, entries: list[Entry]) -> str:
    compared = [e for e in entries if e.wide]
    widened = f"; those of the {study.noun}s are widened to hold for all {len(compared)} at once" if len(compared) > 1 else ""
    return f"Brackets: 95 % intervals{widened}."


def _rule(study: Study, entries: list[Entry]) -> str:
    compared = [e.wide for e in entries if e.wide]
    widened = ""
    if len(compared) > 1:
        each = number(100 * compared[0].level, 2).rstrip("0").rstrip(".")
        widened = f", widened to hold for all {len(compared)} comparisons at once (Bonferroni: {each} % each),"
    untouched = f" The baseline {study.noun} is compared with the untouched backbone by one 95 % interval." if study.reference else ""
    return (
        f"Every {study.noun} is compared with the baseline {study.noun} ({study.base_words}) on "
        f"{in_sentence(study.headline.label)} by its differences seed by seed. "
        f"A {study.noun} is called better or worse only if the t-interval of that difference{widened} excludes zero; an interval without "
        "width claims nothing. "
        f"The answer quotes these intervals; figures and tables say which they show.{untouched}"
    )
