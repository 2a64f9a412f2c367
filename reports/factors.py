"""Effects of several factors on a metric: which of them the cells tell apart, and what is said of
each, by the rule of ``judging``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import (
    DIFFERS,
    NO_DIFFERENCE,
    OPEN,
    CellComparisons,
    FactorEffect,
    SeparableEffects,
    TermTest,
    compare_contrasts,
    decision,
    mean_interval,
    separable_effects,
    term_test,
    value_term_test,
)
from reports.verdicts import (
    IMAGES_ALONE,
    PER_SEED_T,
    POOLED,
    UNTRAINED,
    MetricVerdicts,
    Verdict,
)

__all__ = [
    "FactorEffects",
    "Interaction",
    "JudgedEffect",
    "judge_effects",
    "judge_factors",
    "rows_of",
    "vary",
]


@dataclass(frozen=True)
class JudgedEffect:
    """``effect`` with what is said of it: the interval of ``verdict`` holds for all main effects,
    or all interactions, at once."""

    effect: FactorEffect
    verdict: Verdict


@dataclass(frozen=True)
class Interaction:
    """Of two factors; of aliased ones the first stands for all. ``parts``: every level of one with
    every level of the other."""

    factors: tuple[int, ...]
    aliases: tuple[tuple[int, tuple[int, ...]], ...]
    parts: tuple[JudgedEffect, ...]
    test: TermTest

    @property
    def largest(self) -> JudgedEffect:
        return max(self.parts, key=lambda part: abs(part.verdict.mean))

    @property
    def bound(self) -> float:
        """The largest interaction that is left open."""
        return max(part.verdict.bound for part in self.parts)

    @property
    def verdict(self) -> str:
        """Of all parts together: one of the three words."""
        words = {part.verdict.verdict for part in self.parts}
        if DIFFERS in words:
            return DIFFERS
        return OPEN if OPEN in words else NO_DIFFERENCE

    @property
    def excluded(self) -> bool:
        """Whether none is as large as matters."""
        delta = self.parts[0].verdict.metric.delta
        return delta is not None and self.bound < delta


@dataclass(frozen=True)
class FactorEffects:
    """``cells``: those with values, in the order of ``design``; ``simple``: levels alone off the
    control, of factors in an interaction that is not excluded."""

    metric: ReportedMetric
    cells: tuple[CellResults, ...]
    design: SeparableEffects
    main: tuple[JudgedEffect, ...]
    interactions: tuple[Interaction, ...]
    simple: tuple[tuple[int, str, Verdict], ...]  # Factor, level, verdict
    rule: str = POOLED

    @property
    def left_out(self) -> list[CellResults]:
        """Cells that are no part of the sub-grid that effects are from."""
        used = {int(i) for i in self.design.used}
        return [cell for i, cell in enumerate(self.cells) if i not in used]


def vary(results: SweepResults) -> bool:
    """Whether cells of one control differ in two factors or more."""
    if results.within or not any(cell.control for cell in results.cells):
        return False
    levels = [{c.values.get(f.key) for c in results.levels} for f in results.factors]
    return sum(len(own) > 1 for own in levels) > 1


def judge_factors(results: SweepResults, verdicts: MetricVerdicts) -> FactorEffects | None:
    """The effects on one metric, of the cells that have it; None where fewer than two factors vary,
    or the control has no value."""
    metric = verdicts.metric
    if not vary(results):
        return None
    values = {cell.name: cell.per_seed(metric.key) for cell in results.levels}
    cells = tuple(cell for cell in results.levels if values[cell.name])
    if results.control not in cells:
        return None
    places = [
        [factor.texts.index(cell.values[factor.key]) for factor in results.factors]
        for cell in cells
    ]
    design = separable_effects(places, cells.index(results.control))
    if len(design.varied) < 2:
        return None
    names = [cell.name for cell in cells]
    rows = rows_of(verdicts, names)
    main, _ = judge_effects(verdicts, names, values, rows, design.main)
    both, pooled = judge_effects(verdicts, names, values, rows, design.interactions)
    interactions = _join(verdicts, names, values, rows, design, both, pooled)
    simple = _find_simple(results, verdicts, interactions)
    rule = main[0].verdict.rule if main else verdicts.levels[0].rule if verdicts.levels else POOLED
    return FactorEffects(metric, cells, design, main, interactions, simple, rule)


def rows_of(
    verdicts: MetricVerdicts, names: Sequence[str]
) -> dict[str, dict[int, np.ndarray]] | None:
    """The images that these cells are compared by; None without."""
    table = verdicts.table
    if table is None or len(table.prompts) < 2 or not set(names) <= table.y.keys():
        return None
    return table.y


def judge_effects(
    verdicts: MetricVerdicts,
    names: Sequence[str],
    values: Mapping[str, Mapping[int, float]],
    rows: Mapping[str, Mapping[int, np.ndarray]] | None,
    effects: Sequence[FactorEffect],
    family: int | None = None,
) -> tuple[tuple[JudgedEffect, ...], CellComparisons | None]:
    """All of ``effects`` on the cells ``names`` as one family, or as part of one of so many; by
    their images ``rows``, or without these by their ``values`` over seeds."""
    if not effects:
        return (), None
    size = family or len(effects)
    level = verdicts.levels[0].level if verdicts.levels else 0.95
    decimals = verdicts.levels[0].decimals if verdicts.levels else 3
    if rows is None:
        return tuple(
            JudgedEffect(
                effect, _judge_seeds(verdicts, names, values, effect, size, level, decimals)
            )
            for effect in effects
        ), None
    assert verdicts.table is not None
    pooled = compare_contrasts(
        {name: rows[name] for name in names},
        {i: dict(zip(names, e.weights.tolist(), strict=True)) for i, e in enumerate(effects)},
        level,
        verdicts.table.binary,
        family=size,
        untrained=verdicts.untrained,
    )
    found = []
    for effect, c in zip(effects, pooled.comparisons, strict=True):
        low, high = _cut(verdicts.metric, effect, c.low, c.high)
        word = decision(
            low, high, verdicts.metric.delta, mean=c.mean, scale=c.scale, decimals=decimals
        )
        verdict = Verdict(
            metric=verdicts.metric,
            cell="",
            control="",
            mean=c.mean,
            low=low,
            high=high,
            verdict=OPEN if c.images_alone else word,
            rule=UNTRAINED if c.untrained else IMAGES_ALONE if c.images_alone else POOLED,
            seeds=c.seeds,
            prompts=c.prompts,
            family=c.family,
            level=level,
            decimals=decimals,
            half=c.half_prompts_like_these,
            images=c,
        )
        found.append(JudgedEffect(effect, verdict))
    return tuple(found), pooled


def _judge_seeds(
    verdicts: MetricVerdicts,
    names: Sequence[str],
    values: Mapping[str, Mapping[int, float]],
    effect: FactorEffect,
    family: int,
    level: float,
    decimals: int,
) -> Verdict:
    """By the t-interval of the contrast over seeds, widened for the family (Bonferroni)."""
    used = [(name, w) for name, w in zip(names, effect.weights.tolist(), strict=True) if w]
    seeds = sorted(set.intersection(*(set(values[name]) for name, _ in used)))
    differences = [math.fsum(w * values[name][seed] for name, w in used) for seed in seeds]
    scale = max((abs(values[name][seed]) for name, _ in used for seed in seeds), default=0.0)
    interval = mean_interval(differences, 1 - (1 - level) / family) if seeds else None
    mean = low = high = half = math.nan
    if interval is not None:
        mean = interval.mean
        if interval.n > 1:
            low, high = _cut(verdicts.metric, effect, interval.low, interval.high)
            half = interval.half
    word = OPEN
    if math.isfinite(low):
        word = decision(low, high, verdicts.metric.delta, mean=mean, scale=scale, decimals=decimals)
    return Verdict(
        metric=verdicts.metric,
        cell="",
        control="",
        mean=mean,
        low=low,
        high=high,
        verdict=word,
        rule=PER_SEED_T,
        seeds=tuple(seeds),
        prompts=0,
        family=family,
        level=level,
        decimals=decimals,
        half=half,
    )


def _cut(
    metric: ReportedMetric, effect: FactorEffect, low: float, high: float
) -> tuple[float, float]:
    """To what a difference, or the difference of two, can be."""
    if metric.difference_bounds is None:
        return low, high
    least, most = (len(effect.factors) * limit for limit in metric.difference_bounds)
    return max(least, low), min(most, high)


def _join(
    verdicts: MetricVerdicts,
    names: Sequence[str],
    values: Mapping[str, Mapping[int, float]],
    rows: Mapping[str, Mapping[int, np.ndarray]] | None,
    design: SeparableEffects,
    parts: Sequence[JudgedEffect],
    pooled: CellComparisons | None,
) -> tuple[Interaction, ...]:
    """One interaction for each pair of factors, with its test."""
    of_pair: dict[tuple[int, ...], list[JudgedEffect]] = {}
    for part in parts:
        of_pair.setdefault(part.effect.factors, []).append(part)
    table = _arrange(names, design, values if rows is None else rows)
    found = []
    for pair, own in of_pair.items():
        test = TermTest(math.nan, len(own), math.nan, math.nan)
        weights = [part.effect.weights[np.sort(design.used)] for part in own]
        if table is not None and rows is None:
            test = value_term_test(table, weights)
        elif table is not None and pooled is not None and verdicts.table is not None:
            binary = verdicts.table.binary
            test = term_test(table, weights, pooled.design_effect, pooled.df[0], binary)
        found.append(Interaction(pair, own[0].effect.aliases, tuple(own), test))
    return tuple(found)


def _arrange(
    names: Sequence[str], design: SeparableEffects, values: Mapping[str, Mapping[int, object]]
) -> np.ndarray | None:
    """Values of the cells that effects are from, [cells, seeds, …] over the seeds that all have;
    None where these are fewer than two."""
    used = [names[int(i)] for i in np.sort(design.used)]
    seeds = sorted(set.intersection(*(set(values[name]) for name in used)))
    if len(seeds) < 2:
        return None
    return np.array([[values[name][seed] for seed in seeds] for name in used], dtype=float)


def _find_simple(
    results: SweepResults, verdicts: MetricVerdicts, interactions: Sequence[Interaction]
) -> tuple[tuple[int, str, Verdict], ...]:
    """Verdicts of cells that differ from the control in one factor, where its effect may depend on
    another."""
    depend = {
        i
        for own in interactions
        if not own.excluded
        for pair in (own.factors, *(other for _, other in own.aliases))
        for i in pair
    }
    control, found = results.control, []
    for cell in results.levels:
        off = [
            i
            for i, factor in enumerate(results.factors)
            if cell.values[factor.key] != control.values[factor.key]
        ]
        verdict = verdicts.of(cell) if len(off) == 1 and off[0] in depend else None
        if verdict is not None:
            found.append((off[0], cell.values[results.factors[off[0]].key], verdict))
    return tuple(sorted(found, key=lambda entry: entry[0]))
