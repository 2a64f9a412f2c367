"""Effects of several factors in words and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reports import prose
from reports.answer.words import LESS, show_shift, verdict_word
from reports.factors import FactorEffects, Interaction, JudgedEffect
from reports.results import SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN
from reports.verdicts import IMAGES_ALONE, PER_SEED_T, UNTRAINED

__all__ = [
    "describe_design",
    "factors_json",
    "name_effect",
    "name_interaction",
    "name_part",
    "name_reach",
    "name_term",
    "state_effects",
    "state_factor_rule",
    "show_test",
    "word_of_interaction",
]

CLAIMS = ("better", "worse", "higher", "lower")
QUOTED = 4  # Levels that one part of the answer names, those with the largest effect
NAMED = 6  # Cells, or groups of aliases, that a sentence names


def name_term(results: SweepResults, factors: Sequence[int]) -> str:
    """Start bias × gradient."""
    labels = [results.factors[i].label for i in factors]
    return " × ".join([labels[0], *map(prose.lower, labels[1:])])


def name_effect(results: SweepResults, judged: JudgedEffect) -> str:
    """Start bias 0.0, or: start bias 0.0 with gradient released."""
    effect = judged.effect
    parts = [
        f"{prose.lower(results.factors[i].label)} {results.factors[i].texts[level]}"
        for i, level in zip(effect.factors, effect.levels, strict=True)
    ]
    return " with ".join(parts)


def name_part(results: SweepResults, interaction: Interaction) -> str:
    """The levels of its largest part, on a line of their own; empty where it has one part."""
    return f"\n{name_effect(results, interaction.largest)}" if len(interaction.parts) > 1 else ""


def _name_largest(results: SweepResults, interaction: Interaction) -> str:
    part = name_part(results, interaction).strip()
    return f"largest with {part}: " if part else ""


def show_test(interaction: Interaction) -> tuple[str, str]:
    """F (df) and p."""
    test = interaction.test
    if not math.isfinite(test.p):
        return prose.DASH, prose.DASH
    f = prose.show(test.F, 2) if math.isfinite(test.F) else "∞"
    p = "< 0.001" if test.p < 0.001 else prose.show(test.p, 3)
    return f"{f} ({test.df}, {prose.show(test.error_df, 0)})", p


def word_of_interaction(interaction: Interaction) -> str:
    """For tables: one of the three words."""
    if interaction.verdict == DIFFERS and interaction.excluded:
        return f"{DIFFERS}, by less than matters"
    return interaction.verdict


def name_interaction(results: SweepResults, interaction: Interaction) -> str:
    """The interaction, or the sum of those that the cells cannot separate from it."""
    text = name_term(results, interaction.factors)
    for sign, other in interaction.aliases:
        if len(other) == 2:
            text += f" {'−' if sign < 0 else '+'} {prose.lower(name_term(results, other))}"
    return text


def name_reach(effects: FactorEffects) -> str:
    """Over which levels of the other factors a main effect is."""
    used = prose.count(len(effects.design.used), "cell")
    return {
        "sub-grid": f"over the levels of the other factors in the full grid of {used}",
        "fraction": f"over the {used} measured, a balanced fraction of all combinations",
        "model": f"by least squares over the {used} measured, which lack some combinations",
        "one factor": "at the control levels of the other factors",
    }.get(effects.design.kind, "over all levels of the other factors")


def describe_design(results: SweepResults, effects: FactorEffects) -> str:
    """Which cells there are, and what they can and cannot tell apart."""
    design = effects.design
    names = [prose.lower(results.factors[i].label) for i in design.varied]
    factors, count = prose.join(names), prose.count(len(effects.cells), "cell")
    mean = (
        f"A main effect is a level less the control level, {name_reach(effects)}; an "
        "interaction is how much that difference changes from the other factor's control level to "
        "another of its levels."
    )
    if design.kind == "grid":
        return f"All combinations of {factors} were measured: main effects and interactions " + (
            f"are told apart. {mean}"
        )
    if design.kind == "sub-grid":
        left = [cell.name for cell in effects.left_out]
        return (
            f"Not all combinations of {factors} were measured. Effects are from the largest full "
            f"grid with the control, {prose.count(len(design.used), 'cell')}. Of levels outside "
            f"({prose.join_some(left, NAMED)}) only the difference of each cell from the control "
            f"is known: a main effect cannot be separated from interactions there. {mean}"
        )
    if design.kind == "model":
        shape = _describe_gaps(results, effects)
        text = f"{shape} Effects are estimated by least squares, supposing that no " + (
            f"{_number(design.order + 1)} factors interact: "
        )
        aliased = {other for e in design.effects for _, other in e.aliases}
        if aliased:
            terms = sorted(aliased, key=lambda term: (len(term), term))
            listed = prose.join_some([name_term(results, term) for term in terms], NAMED)
            which = "some of them" if len(aliased) > 1 else "them"
            text += f"{listed} cannot be separated from {which}. "
        else:
            text += "they are free of interactions of three. "
        return text + mean
    if design.kind == "fraction":
        groups = [
            name_interaction(results, interaction)
            for interaction in effects.interactions
            if any(len(other) == 2 for _, other in interaction.aliases)
        ]
        text = (
            f"{_describe_gaps(results, effects)} Main effects are free of interactions of two "
            "factors; of those of three they are not (supposed to be none). "
        )
        if groups:
            text += (
                "Interactions that these cells cannot separate from each other, of which a row "
                f"gives the sum: {prose.join_some(groups, NAMED)}. "
            )
        return text + mean
    if design.kind == "one factor":
        return (
            f"Each of {count} differs from the control in one factor, of {factors}: an effect is "
            "that at the control levels of the other factors, as the table of all combinations "
            "has it. Whether it is the same at other levels, an interaction, these cells cannot "
            "tell."
        )
    return (
        f"These {count} are no full grid of {factors}, nor a fraction of one: main effects cannot "
        "be separated from interactions. Each cell is compared with the control."
    )


def _number(n: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(n, str(n))


def _describe_gaps(results: SweepResults, effects: FactorEffects) -> str:
    design = effects.design
    levels = [
        len({cell.values[results.factors[i].key] for cell in effects.cells}) for i in design.varied
    ]
    return (
        f"{len(effects.cells)} of the {math.prod(levels)} combinations of "
        f"{prose.join([prose.lower(results.factors[i].label) for i in design.varied])} were "
        "measured."
    )


def state_effects(results: SweepResults, effects: FactorEffects | None) -> str:
    """What the factors do, in a sentence or two; empty where no effects are told apart."""
    if effects is None or not effects.main:
        return ""
    name = prose.lower(effects.metric.label)
    if not any(len(judged.verdict.seeds) > 1 for judged in effects.main):
        return ""
    groups: dict[str, list[JudgedEffect]] = {}
    for judged in sorted(effects.main, key=lambda judged: -abs(judged.verdict.mean)):
        verdict = judged.verdict
        word = verdict.verdict
        if word == DIFFERS:
            word = verdict.direction if verdict.matters else LESS
        groups.setdefault(word, []).append(judged)
    parts = []
    for word in (*CLAIMS, LESS, NO_DIFFERENCE, OPEN):
        shown = [
            name_effect(results, judged)
            + (f" ({show_shift(judged.verdict)})" if word in (*CLAIMS, LESS) else "")
            for judged in groups.get(word, [])
        ]
        parts += [f"{word} with {prose.join_some(shown, QUOTED)}"] if shown else []
    reach = name_reach(effects)
    text = f"Main effects, {reach}: {name} is {'; '.join(parts)}."
    if not groups.keys() & set(CLAIMS):
        text = f"Main effects on {name}, {reach}: {'; '.join(parts)}."
    return f"{text} {_state_interactions(results, effects)}".strip()


def _state_interactions(results: SweepResults, effects: FactorEffects) -> str:
    """Which factors do not add up."""
    if not effects.interactions:
        return ""
    differ = [own for own in effects.interactions if own.verdict == DIFFERS and not own.excluded]
    if differ:
        listed = [
            f"{prose.lower(name_interaction(results, own))} ({_name_largest(results, own)}"
            f"{show_shift(own.largest.verdict)})"
            for own in differ
        ]
        return f"Effects depend on each other in {prose.join_some(listed, 3)}."
    decimals = effects.interactions[0].parts[0].verdict.decimals
    bound = prose.show_up(max(own.bound for own in effects.interactions), decimals)
    parts = sum(len(own.parts) for own in effects.interactions)
    at_once = f"{prose.show_level(effects.interactions[0].parts[0].verdict.level)} %"
    at_once += ", all parts at once" if parts > 1 else ""
    what = "no interaction of two"
    if any(len(other) == 2 for own in effects.interactions for _, other in own.aliases):
        what += ", or sum of those that cannot be separated,"
    if all(own.excluded for own in effects.interactions):
        return (
            f"They add up, but for less than matters: {what} is larger than {bound} in any part "
            + (f"({at_once}).")
        )
    if not math.isfinite(max(own.bound for own in effects.interactions)):
        return ""
    return (
        f"Whether they add up is {OPEN}: {what} is shown to matter, and one may be as large as "
        f"{bound} ({at_once})."
    )


def state_factor_rule(effects: FactorEffects) -> str:
    """How effects were decided."""
    count, pairs = len(effects.main), sum(len(own.parts) for own in effects.interactions)
    if not count:
        return ""
    text = f"The intervals of {prose.count(count, 'main effect')} hold for all of them at once"
    if count == 1:
        level = prose.show_level(effects.main[0].verdict.level)
        text = f"The interval of the main effect is one of {level} %"
    if pairs:
        text += f", those of {prose.count(pairs, 'part')} of interactions likewise"
    apart = " Cells, main effects" + (" and interactions" if pairs else "")
    apart += " are families of their own, not adjusted for each other."
    if effects.rule == PER_SEED_T:
        text += (
            "; they are t-intervals of each contrast over seeds, widened (Bonferroni), of these "
            "prompts only."
        )
        if pairs:
            text += (
                " F compares an interaction with the scatter of cells over seeds, pooled, which "
                "supposes that cells scatter alike; it claims nothing."
            )
        return text + apart
    if effects.rule == UNTRAINED:
        text += (
            "; nothing is trained, and they are of images: of prompts like these and other noise."
        )
        return text + apart
    if effects.rule == IMAGES_ALONE:
        return f"{text}; they are of {IMAGES_ALONE}, one training, and say nothing of others."
    text += ", by the rule of the answer: of prompts like these and other seeds."
    if pairs:
        text += (
            " F tests all parts of an interaction together against the same variances, with "
            "Satterthwaite's degrees of freedom; p is not adjusted for the other interactions."
        )
    return text + apart


def factors_json(results: SweepResults, effects: FactorEffects | None) -> dict[str, Any] | None:
    """The effects as data; null where a number is undefined."""
    if effects is None:
        return None

    def part(judged: JudgedEffect) -> dict[str, Any]:
        effect, verdict = judged.effect, judged.verdict
        return {
            "factors": [results.factors[i].key for i in effect.factors],
            "levels": [
                results.factors[i].texts[level]
                for i, level in zip(effect.factors, effect.levels, strict=True)
            ],
            "mean": _finite(verdict.mean),
            "low": _finite(verdict.low),
            "high": _finite(verdict.high),
            "verdict": verdict.verdict,
            "word": verdict_word(verdict),
            "aliases": [[results.factors[i].key for i in other] for _, other in effect.aliases],
            "family": verdict.family,
        }

    return {
        "metric": effects.metric.key,
        "design": effects.design.kind,
        "cells": [effects.cells[int(i)].name for i in effects.design.used],
        "main": [part(judged) for judged in effects.main],
        "interactions": [
            {
                "factors": [results.factors[i].key for i in own.factors],
                "F": _finite(own.test.F),
                "df": own.test.df,
                "error_df": _finite(own.test.error_df),
                "p": _finite(own.test.p),
                "verdict": own.verdict,
                "parts": [part(judged) for judged in own.parts],
            }
            for own in effects.interactions
        ],
        "simple": [[results.factors[i].key, level, v.cell] for i, level, v in effects.simple],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
