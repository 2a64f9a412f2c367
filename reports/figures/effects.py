"""Main effects of sweeps over several factors: a panel each, all other factors averaged over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.figures.forest import BAND
from reports.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    new_figure,
    plot_points,
    save,
    title_difference,
    wrap,
)
from reports.results import CellResults, ReportedMetric, SweepResults, SweptFactor
from reports.statistics import (
    DIFFERS,
    FactorialEffects,
    compare_contrasts,
    decision,
    factorial_effects,
    mean_interval,
)
from reports.tables import CellMetric, verdicts_of, widen
from reports.typeset import Picture
from reports.variances import arrange_grid
from reports.verdicts import MetricVerdicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3  # Panels in a row
LINES = 12  # Combinations of other factors that are drawn singly


@dataclass(frozen=True)
class LevelEffect:
    """A level less the control level, mean over the other factors; NaN bounds where there are none.

    ``singly``: that difference at each combination of the others.
    """

    level: str
    mean: float
    low: float
    high: float
    verdict: str
    singly: tuple[float, ...]


@dataclass(frozen=True)
class MainEffect:
    """``levels`` in the order of the plan, None for the control level."""

    factor: SweptFactor
    control: str
    levels: tuple[LevelEffect | None, ...]
    texts: tuple[str, ...]


def find_main_effects(
    results: SweepResults, entries: Sequence[CellMetric], level: float = 0.95
) -> list[MainEffect]:
    """Of the headline, one for each factor; intervals hold for all levels of all factors at once.

    By images where the answer goes by them (``compare_contrasts``), else by t-intervals over seeds
    (Bonferroni). Empty with one factor, in a search, where combinations are missing, and with one
    seed.
    """
    metric = results.headline
    if len(results.factors) < 2 or results.tags.get("mode") == "search":
        return []
    values = {cell.name: cell.per_seed(metric.key) for cell in results.levels}
    cells = [cell for cell in results.levels if values[cell.name]]
    grid = arrange_grid(results, cells)
    seeds = sorted(set.intersection(*(set(values[c.name]) for c in cells))) if cells else []
    if grid is None or len(grid.factors) < 2 or len(seeds) < 2 or len(cells) < len(results.levels):
        return []
    ordered = [cells[i] for i in grid.order]
    means = np.array([[values[cell.name][seed] for seed in seeds] for cell in ordered])
    names = [factor.key for factor in grid.factors]
    controls = [
        texts.index(results.control.values[name])
        for texts, name in zip(grid.levels, names, strict=True)
    ]
    shaped = means.reshape(*grid.shape, len(seeds))
    effects = factorial_effects(shaped, level, names, controls)
    intervals = _find_intervals(verdicts_of(entries, metric), ordered, means, effects, names, level)
    found = []
    for axis, (factor, texts) in enumerate(zip(grid.factors, grid.levels, strict=True)):
        along = np.moveaxis(shaped.mean(axis=-1), axis, 0).reshape(len(texts), -1)
        base = controls[axis]
        levels: list[LevelEffect | None] = []
        for i, text in enumerate(texts):
            if i == base:
                levels.append(None)
                continue
            mean, low, high, scale = intervals[factor.key, i]
            verdict = decision(low, high, metric.delta, mean=mean, scale=scale)
            singly = tuple(float(d) for d in along[i] - along[base])
            levels.append(LevelEffect(text, mean, low, high, verdict, singly))
        found.append(MainEffect(factor, texts[base], tuple(levels), tuple(texts)))
    return found


def _find_intervals(
    verdicts: MetricVerdicts,
    cells: Sequence[CellResults],
    means: np.ndarray,
    effects: FactorialEffects,
    names: Sequence[str],
    level: float,
) -> dict[tuple[str, int], tuple[float, float, float, float]]:
    """(factor, level) -> mean, bounds and the largest value behind it, of ``means`` [cells,
    seeds]."""
    weights = {
        (name, contrast.levels[0]): contrast.weights.ravel()
        for name in names
        for contrast in effects.terms[name].contrasts
    }
    table = verdicts.table
    if table is not None and verdicts.pooled is not None:
        y = {cell.name: table.y[cell.name] for cell in cells}
        found = compare_contrasts(y, weights, level, table.binary).comparisons
        return {c.cell: (c.mean, c.low, c.high, c.scale) for c in found}  # type: ignore[misc]
    intervals = {}
    for key, weight in weights.items():
        found_t = mean_interval(list(weight @ means), widen(level, len(weights)))
        scale = float(np.abs(means).max())
        intervals[key] = (found_t.mean, found_t.low, found_t.high, scale)
    return intervals


def draw_effects(
    results: SweepResults, entries: Sequence[CellMetric], folder: Path
) -> Picture | None:
    """None where there are no main effects to draw."""
    effects = find_main_effects(results, entries)
    if not effects:
        return None
    metric = results.headline
    columns = min(ACROSS, len(effects))
    rows = -(-len(effects) // columns)
    with new_figure(WIDTH, 2.15 * rows + 0.1) as figure:
        sizes = [max(2, *(len(e.texts) for e in effects[i::columns])) for i in range(columns)]
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True, width_ratios=sizes)
        for axes, effect in zip(panels.ravel(), effects, strict=False):
            _draw_panel(axes, effect, metric, 11 if sum(sizes) <= 9 else 8)
        for axes in panels.ravel()[len(effects) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel(wrap(title_difference(metric), 26))
        save(figure, folder, "effects")
    many = sum(level is not None for effect in effects for level in effect.levels)
    lines = any(_has_lines(effect) for effect in effects)
    caption = (
        f"Main effects on {prose.lower(metric.label)}: a level less the control level of its "
        "factor (black bar), averaged over all combinations of the other factors, with 95 % "
        f"intervals that hold for all {many} at once"
    )
    if lines:
        caption += "; grey lines: at each of these, parallel where factors do not interact"
    caption += "; shaded: differences below δ" * (metric.delta is not None)
    return Picture("effects.svg", f"{caption}. {_name_claims(effects)}", _describe(effects))


def _has_lines(effect: MainEffect) -> bool:
    singly = next(level.singly for level in effect.levels if level is not None)
    return 1 < len(singly) <= LINES


def _draw_panel(axes: Axes, effect: MainEffect, metric: ReportedMetric, name: int) -> None:
    if metric.delta is not None:
        axes.axhspan(-metric.delta, metric.delta, color=BAND, linewidth=0, zorder=0)
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    levels = effect.levels
    if _has_lines(effect):
        size = len(next(level.singly for level in levels if level is not None))
        singly = np.array([level.singly if level else (0.0,) * size for level in levels])
        axes.plot(range(len(levels)), singly, color="#999999", linewidth=0.6, zorder=1.5)
    if effect.factor.numeric:
        means = [level.mean if level else 0.0 for level in levels]
        axes.plot(range(len(levels)), means, color=BLUE, linewidth=1.0, zorder=2)
    for x, level in enumerate(levels):
        if level is None:
            bar: dict[str, Any] = {
                "marker": "_",
                "markersize": 13,
                "markeredgewidth": 2.6,
                "color": "black",
            }
            axes.plot(x, 0, zorder=4, linestyle="none", **bar)
            continue
        worse = level.mean < 0 if metric.better == "higher" else level.mean > 0
        claim = level.verdict == DIFFERS
        color = (ORANGE if worse and metric.better != "none" else BLUE) if claim else GREY
        if math.isfinite(level.low):
            axes.plot([x, x], [level.low, level.high], color=color, linewidth=1.8, zorder=3)
        point: dict[str, Any] = {"color": color, "markerfacecolor": color if claim else "white"}
        plot_points(axes, x, level.mean, size=5.5, markeredgewidth=1.3, zorder=4, **point)
    labels = [wrap(text, name) for text in effect.texts]
    axes.set_xticks(range(len(levels)), labels)
    axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.set_xlabel(effect.factor.title)
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)


def _name_claims(effects: Sequence[MainEffect]) -> str:
    said = [
        f"{effect.factor.label} {level.level} ({prose.show_signed(level.mean, 3)} "
        f"{prose.show_interval(level, 3)})"
        for effect in effects
        for level in effect.levels
        if level is not None and level.verdict == DIFFERS
    ]
    if not said:
        return "No main effect excludes 0."
    return f"Filled: the interval excludes 0: {prose.join_some(said, 4)}."


def _describe(effects: Sequence[MainEffect]) -> str:
    names = prose.join([prose.lower(effect.factor.label) for effect in effects])
    return f"Main effects of {names}. {_name_claims(effects)}"
