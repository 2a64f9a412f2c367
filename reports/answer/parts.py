"""Verdicts of one family in a sentence: who differs, who does not, and what is open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports import prose
from reports.answer.words import (
    LESS,
    describe_bound,
    describe_collapse,
    describe_settling,
    show_range,
    show_shift,
)
from reports.results import ReportedMetric
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN
from reports.verdicts import COLLAPSED, IDENTICAL, IMAGES_ALONE, Verdict

__all__ = ["QUOTED", "Subject", "group_verdicts", "is_judged", "join_parts"]

QUOTED = 4  # Cells that one part of the answer names, those with the largest difference
CLAIMS = ("better", "worse", "higher", "lower")


@dataclass(frozen=True)
class Subject:
    """What a sentence is about: ``noun`` is what is compared ("level"), ``all_of`` the same with
    its factor, ``control`` with what. ``name`` gives a cell's name in the sentence. ``verbs``: what
    a cell does to the metric, and does not; ``of`` follows the metric's name."""

    metric: ReportedMetric
    noun: str
    all_of: str
    control: str
    name: Callable[[str], str]
    verbs: tuple[str, str] = ("changes", "does not change")
    of: str = ""

    @property
    def label(self) -> str:
        return prose.lower(self.metric.label)


def group_verdicts(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Words -> verdicts, the largest difference first."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda v: -abs(v.mean)):
        word = verdict.verdict
        if word == DIFFERS:
            word = verdict.direction if verdict.matters else LESS
        groups.setdefault(word, []).append(verdict)
    words = (*CLAIMS, LESS, NO_DIFFERENCE, IDENTICAL, COLLAPSED, OPEN)
    return {word: groups[word] for word in words if word in groups}


def is_judged(verdict: Verdict) -> bool:
    """Whether more than one training stands behind it, or none is asked for."""
    return verdict.judged


def join_parts(subject: Subject, verdicts: Sequence[Verdict], size: str) -> str:
    """The verdicts of a family; ``size`` says of how many seeds."""
    name, groups = subject.label, group_verdicts(verdicts)
    delta = prose.show_delta(subject.metric.delta)
    if groups.keys() == {NO_DIFFERENCE}:
        return (
            f"No {subject.all_of} {subject.verbs[0]} {name}{subject.of} by more than "
            f"{describe_bound(verdicts)} ({_describe_level(subject, verdicts)}): {NO_DIFFERENCE} "
            f"from {subject.control} ({delta}; {size})."
        )
    claims = [word for word in CLAIMS if word in groups]
    parts = [f"{word} at {_list(subject, groups[word], show_shift)}" for word in claims]
    text = f"Compared with {subject.control}, {name}{subject.of} is {' and '.join(parts)}"
    rest = _list_others(subject, groups)
    if not claims:
        text, rest = f"Compared with {subject.control} in {name}{subject.of}: {rest[0]}", rest[1:]
    about = f"{delta}; {size}" if delta else size
    return f"{'; '.join([text, *rest])} ({about}).{_state_bound(subject, verdicts)}"


def _list(
    subject: Subject, own: Sequence[Verdict], note: Callable[[Verdict], str] | None = None
) -> str:
    names = [subject.name(verdict.cell) for verdict in own]
    if note:
        names = [f"{label} ({note(v)})" for label, v in zip(names, own, strict=True)]
    return prose.join_some(names, QUOTED)


def _list_others(subject: Subject, groups: Mapping[str, Sequence[Verdict]]) -> list[str]:
    """Clauses on all that is neither better nor worse."""
    rest = []
    if own := groups.get(LESS):
        rest.append(f"differs at {_list(subject, own, show_shift)}, by less than matters")
    for word in (NO_DIFFERENCE, IDENTICAL):
        if own := groups.get(word):
            rest.append(f"{word} at {_list(subject, own)}")
    if own := groups.get(COLLAPSED):
        rest.append(f"{COLLAPSED} at {_list(subject, own, _describe_collapsed)}")
    if own := groups.get(OPEN):
        rest.append(f"{OPEN} at {_list(subject, own, _describe_open)}")
        if settling := describe_settling(own):
            rest.append(settling)
    return rest


def _describe_collapsed(verdict: Verdict) -> str:
    return describe_collapse(verdict.collapse) if verdict.collapse else ""


def _describe_open(verdict: Verdict) -> str:
    text = show_range(verdict)
    if verdict.rule == IMAGES_ALONE:
        return f"{text}, {IMAGES_ALONE}, one training"
    return text if is_judged(verdict) else f"one seed: {text}"


def _state_bound(subject: Subject, verdicts: Sequence[Verdict]) -> str:
    """The largest difference that is left open, over cells that were judged."""
    judged = [v for v in verdicts if math.isfinite(v.bound) and v.high > v.low]
    judged = [v for v in judged if v.verdict != COLLAPSED and is_judged(v)]
    if not judged:
        return ""
    what, verb = f"No {subject.noun}", subject.verbs[0]
    if len(judged) == 1:
        what, verb = subject.name(judged[0].cell), subject.verbs[1]
    elif len(judged) < len(verdicts):
        what = f"Of the {prose.count(len(judged), subject.noun)} judged by their means none"
    return (
        f" {what} {verb} {subject.label}{subject.of} by more than {describe_bound(judged)} "
        f"({_describe_level(subject, verdicts)})."
    )


def _describe_level(subject: Subject, verdicts: Sequence[Verdict]) -> str:
    level = f"{prose.show_level(verdicts[0].level)} %"
    return f"{level}, all {subject.noun}s at once" if verdicts[0].family > 1 else level
