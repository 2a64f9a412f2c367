"""The way from the control to a cell, one factor at a time, and which of its changes are needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reports.factors import judge_effects, rows_of, vary
from reports.results import CellResults, SweepResults
from reports.statistics import DIFFERS, FactorEffect
from reports.verdicts import MetricVerdicts, Verdict

__all__ = ["Ablation", "Change", "find_ablation"]

Levels = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One factor at its level of the target, in ``cell``, less the same cell with its control
    level; ``of``: how many changes were measured from there."""

    factor: int
    level: str
    cell: CellResults
    verdict: Verdict
    of: int = 1


@dataclass(frozen=True)
class Ablation:
    """``steps`` lead from the control to ``target``, the largest gain first, as far as their cells
    were measured; ``removals``: each change as the last one. Intervals hold for ``family`` single
    changes at once. ``chosen``: the target is the best of the cells that were measured."""

    target: CellResults
    chosen: bool
    changes: int
    steps: tuple[Change, ...]
    removals: tuple[Change, ...]
    family: int
    candidates: int  # Cells with values

    @property
    def whole(self) -> bool:
        """Whether every step and removal was measured."""
        return len(self.steps) == len(self.removals) == self.changes


def find_ablation(results: SweepResults, verdicts: MetricVerdicts) -> Ablation | None:
    """The path to the cell that was asked for (``mode=path``), else to the one of the best mean;
    None where this is not told from the control, or differs from it in fewer than two factors, or
    where nothing between was measured."""
    metric = verdicts.metric
    if not vary(results) or metric.better == "none":
        return None
    values = {cell.name: cell.per_seed(metric.key) for cell in results.levels}
    cells = [cell for cell in results.levels if values[cell.name]]
    if results.control not in cells:
        return None
    sign = -1 if metric.better == "lower" else 1
    gains = {cell.name: sign * float(np.mean([*values[cell.name].values()])) for cell in cells}
    asked = results.config.get("to") if results.tags.get("mode") == "path" else None
    target = next((cell for cell in cells if cell.name == asked), None)
    chosen = target is None
    target = target or max(cells, key=lambda cell: gains[cell.name])
    own = verdicts.of(target)
    if chosen and (own is None or own.verdict != DIFFERS):
        return None  # The best of many by chance
    base, goal = _levels(results, results.control), _levels(results, target)
    changed = [i for i, level in enumerate(goal) if level != base[i]]
    if len(changed) < 2:
        return None
    place = {_levels(results, cell): cell for cell in cells}
    if not chosen:  # What lies between
        place = {
            key: cell
            for key, cell in place.items()
            if all(level in (base[i], goal[i]) for i, level in enumerate(key))
        }
    pairs = _list_changes(place, base)
    most = len(pairs) if chosen else len(changed) * 2 ** (len(changed) - 1)
    family = max(most, len(pairs))
    judged = _judge(verdicts, values, place, pairs, family)
    steps = _walk(place, base, goal, gains, judged)
    back = {i: _back(goal, base, i) for i in changed}
    removals = [
        Change(i, goal[i], place[less], judged[goal, less])
        for i, less in back.items()
        if (goal, less) in judged
    ]
    if not steps and not removals:
        return None
    removals.sort(key=lambda change: -sign * change.verdict.mean)
    return Ablation(
        target,
        chosen,
        len(changed),
        tuple(steps),
        tuple(removals),
        family,
        len(cells),
    )


def _levels(results: SweepResults, cell: CellResults) -> Levels:
    return tuple(cell.values[factor.key] for factor in results.factors)


def _back(cell: Levels, base: Levels, factor: int) -> Levels:
    return (*cell[:factor], base[factor], *cell[factor + 1 :])


def _list_changes(
    place: dict[Levels, CellResults], base: Levels
) -> list[tuple[Levels, Levels, int]]:
    """Every measured cell with the same less one change, if that was measured, too."""
    return [
        (cell, _back(cell, base, i), i)
        for cell in place
        for i in range(len(base))
        if cell[i] != base[i] and _back(cell, base, i) in place
    ]


def _judge(
    verdicts: MetricVerdicts,
    values: dict[str, dict[int, float]],
    place: dict[Levels, CellResults],
    pairs: list[tuple[Levels, Levels, int]],
    family: int,
) -> dict[tuple[Levels, Levels], Verdict]:
    """(cell, the cell without one change) -> what the change does there."""
    names = [cell.name for cell in place.values()]
    effects = []
    for after, before, factor in pairs:
        weights = np.zeros(len(names))
        weights[names.index(place[after].name)] = 1.0
        weights[names.index(place[before].name)] = -1.0
        effects.append(FactorEffect((factor,), (0,), weights))
    found, _ = judge_effects(verdicts, names, values, rows_of(verdicts, names), effects, family)
    known = [(after, before) for after, before, _ in pairs]
    return {pair: judged.verdict for pair, judged in zip(known, found, strict=True)}


def _walk(
    place: dict[Levels, CellResults],
    base: Levels,
    goal: Levels,
    gains: dict[str, float],
    judged: dict[tuple[Levels, Levels], Verdict],
) -> list[Change]:
    """The largest gain first, of the cells that were measured."""
    at, steps = base, []
    while at != goal:
        open_factors = [i for i, level in enumerate(at) if level != goal[i]]
        nexts = {i: (*at[:i], goal[i], *at[i + 1 :]) for i in open_factors}
        there = {i: cell for i, cell in nexts.items() if (cell, at) in judged}
        if not there:
            break
        best = max(there, key=lambda i: gains[place[there[i]].name])
        verdict = judged[there[best], at]
        steps.append(Change(best, goal[best], place[there[best]], verdict, len(there)))
        at = there[best]
    return steps
