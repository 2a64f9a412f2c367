"""The way from the control to a cell, and back, in words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from reports import prose
from reports.ablation import Ablation, Change
from reports.answer.words import show_shift
from reports.factors import FactorEffects
from reports.results import SweepResults, sweep_command
from reports.statistics import DIFFERS, NO_DIFFERENCE

__all__ = [
    "confirming_command",
    "name_change",
    "need_word",
    "state_ablation",
    "state_next_path",
    "state_path_rule",
]

UNNEEDED = f"not needed ({NO_DIFFERENCE})"
# Words of a command that say which cells and seeds
PLAN = ("mode", "cells", "against", "resolution", "to", "until", "primary")
SIZE = (*PLAN, "seed", "seeds")


def name_change(results: SweepResults, change: Change) -> str:
    return f"{prose.lower(results.factors[change.factor].label)} {change.level}"


def need_word(change: Change) -> str:
    """Whether the target needs this change: for tables."""
    verdict = change.verdict
    if verdict.verdict != DIFFERS:
        return UNNEEDED if verdict.verdict == NO_DIFFERENCE else verdict.verdict
    if not verdict.matters:
        return "matters less than δ"
    return "needed" if verdict.direction == "better" else "better without"


def state_ablation(results: SweepResults, ablation: Ablation) -> str:
    """The path and what is needed, in two sentences."""
    goal = prose.name_cell(results, ablation.target)
    parts = []
    if ablation.steps:
        listed = [f"{name_change(results, c)} ({show_shift(c.verdict)})" for c in ablation.steps]
        parts.append(
            f"From the control to {goal}, one change at a time and the largest gain first: "
            f"{', then '.join(listed)}."
        )
    if ablation.removals:
        groups: dict[str, list[Change]] = {}
        for change in ablation.removals:
            groups.setdefault(need_word(change), []).append(change)
        order = ("needed", "better without", UNNEEDED)
        words = [word for word in order if word in groups]
        words += [word for word in groups if word not in words]
        said = [f"{word}: {_list_names(results, groups[word])}" for word in words]
        parts.append(f"With each change taken back alone from {goal}, {'; '.join(said)}.")
    return " ".join(parts)


def _list_names(results: SweepResults, changes: Sequence[Change]) -> str:
    return prose.join(
        [f"{name_change(results, change)} ({show_shift(change.verdict)})" for change in changes]
    )


def state_path_rule(results: SweepResults, ablation: Ablation) -> str:
    """Who chose what, what the intervals hold for, and what to measure next."""
    why = "Each step was chosen for its gain on these very seeds"
    if ablation.chosen:
        why = (
            f"The cell was chosen as the best of {prose.count(ablation.candidates, 'cell')} and "
            "each step for its gain, on these very seeds"
        )
    between = "between cells that were measured" if ablation.chosen else "from the control to it"
    text = (
        f"{why}, so that these means flatter them. The intervals hold for all "
        f"{prose.count(ablation.family, 'single change')} {between} at once, and so for those that "
        f"were chosen by looking; on other seeds: {confirming_command(results, ablation)}"
    )
    if not ablation.whole:
        rest = shlex.join(["mode=path", f"to={ablation.target.name}"])
        text += (
            f". Not all cells between were measured, so that steps are the best of those that "
            f"were; the rest is run by {rest}"
        )
    return f"{text}."


def confirming_command(results: SweepResults, ablation: Ablation) -> str:
    """Measures the target and the control on seeds that it was not chosen by."""
    words = shlex.split(sweep_command(results.sweep, results.tags, results.uri))
    kept = [word for word in words if word.partition("=")[0] not in SIZE]
    cells = json.dumps([ablation.target.name], ensure_ascii=False)
    seeds = [f"seed={max(results.seeds) + 1}", f"seeds={max(len(results.seeds), 3)}"]
    return shlex.join([*kept, "mode=list", f"cells={cells}", *seeds])


def state_next_path(results: SweepResults, effects: FactorEffects) -> str:
    """What a screen leads to: a path to the levels whose main effects are better, as a command."""
    better: dict[int, str] = {}
    for judged in effects.main:
        verdict, (factor,), (level,) = judged.verdict, judged.effect.factors, judged.effect.levels
        if verdict.verdict == DIFFERS and verdict.matters and verdict.direction == "better":
            better[factor] = results.factors[factor].texts[level]
    parts = results.control.name.split(", ")
    if len(parts) != len(results.factors):  # A level with a comma in it
        return ""
    if len(better) < 2:
        few = "one factor has" if better else "no factor has"
        return (
            f"By its main effect {few} a level that is better than the control's: there is no path "
            "of several changes to go on with."
        )
    names = [part.partition("=")[0] for part in parts]
    for factor, text in better.items():
        parts[factor] = f"{names[factor]}={text}"
    words = shlex.split(sweep_command(results.sweep, results.tags, results.uri))
    kept = [word for word in words if word.partition("=")[0] not in PLAN]
    command = shlex.join([*kept, "mode=path", f"to={', '.join(parts)}"])
    return (
        f"{len(better)} factors have a level that is better by its main effect, chosen on these "
        "seeds (seed= and seeds= of its own would confirm it). Which of the changes are needed is "
        f"told by a path: {command}"
    )
