"""Main effects of sweeps over several factors: a panel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.answer.factors import name_reach
from reports.answer.words import show_shift, verdict_word
from reports.factors import FactorEffects, judge_factors
from reports.figures.forest import BAND, explain_marks, find_look
from reports.figures.style import (
    BLUE,
    WIDTH,
    new_figure,
    plot_points,
    save,
    title_difference,
    wrap,
)
from reports.results import CellResults, SweepResults, SweptFactor
from reports.statistics import DIFFERS
from reports.tables import CellMetric, verdicts_of
from reports.typeset import Picture
from reports.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3  # Panels in a row
CROWD = 7  # Levels side by side with names of full size
LINES = 12  # Combinations of other factors that are drawn singly
NAMED = 4  # Effects that the caption names


@dataclass(frozen=True)
class EffectPanel:
    """A factor: its levels in the order of the plan, with what is said of each less the control
    level, None of that itself. ``singly``: at each combination of the other factors that has all
    these levels, the difference of each from the control level."""

    factor: SweptFactor
    texts: tuple[str, ...]
    verdicts: tuple[Verdict | None, ...]
    singly: tuple[tuple[float, ...], ...]


def find_panels(results: SweepResults, effects: FactorEffects) -> list[EffectPanel]:
    """One for each factor of which there is a main effect."""
    found = []
    for place, factor in enumerate(results.factors):
        own = {e.effect.levels[0]: e.verdict for e in effects.main if e.effect.factors == (place,)}
        if not own:
            continue
        control = factor.texts.index(results.control.values[factor.key])
        levels = sorted([*own, control])
        texts = tuple(factor.texts[level] for level in levels)
        singly = _compare_singly(results, effects, factor, texts)
        found.append(EffectPanel(factor, texts, tuple(map(own.get, levels)), singly))
    return found


def _compare_singly(
    results: SweepResults, effects: FactorEffects, factor: SweptFactor, texts: Sequence[str]
) -> tuple[tuple[float, ...], ...]:
    own: dict[tuple[str, ...], dict[str, CellResults]] = {}
    for i in effects.design.used:
        cell = effects.cells[int(i)]
        others = tuple(text for key, text in cell.values.items() if key != factor.key)
        own.setdefault(others, {})[cell.values[factor.key]] = cell
    whole = [cells for cells in own.values() if cells.keys() >= set(texts)]
    key, control = effects.metric.key, results.control.values[factor.key]
    found = []
    for cells in whole:
        values = {text: cells[text].per_seed(key) for text in texts}
        seeds = set.intersection(*map(set, values.values()))
        if seeds:
            means = [float(np.mean([values[text][seed] for seed in seeds])) for text in texts]
            found.append(tuple(mean - means[texts.index(control)] for mean in means))
    return tuple(found)


def draw_effects(
    results: SweepResults, entries: Sequence[CellMetric], folder: Path
) -> Picture | None:
    """None where cells tell no main effects apart."""
    effects = judge_factors(results, verdicts_of(entries, results.headline))
    panels = find_panels(results, effects) if effects else []
    if effects is None or not panels:
        return None
    metric = results.headline
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    sizes = [max(2, *(len(p.texts) for p in panels[i::columns])) for i in range(columns)]
    with new_figure(WIDTH, 2.15 * rows + 0.1) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True, width_ratios=sizes)
        for axes, panel in zip(grid.ravel(), panels, strict=False):
            _draw_panel(axes, panel, metric.delta, 6.5 if sum(sizes) > CROWD else 8)
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel(wrap(title_difference(metric), 26))
        save(figure, folder, "effects")
    verdicts = [verdict for panel in panels for verdict in panel.verdicts if verdict]
    level = prose.show_level(verdicts[0].level)
    many = f", with {level} % intervals that hold for all {len(verdicts)} at once"
    lines = "; grey lines: at each combination of these, parallel where factors do not interact"
    caption = (
        f"Main effects on {prose.lower(metric.label)}: a level less the control level of its "
        f"factor (black bar), {name_reach(effects)}{many}"
        f"{lines if any(map(_has_lines, panels)) else ''}. {_name_claims(panels)} "
        f"{' '.join(explain_marks(verdicts))}"
    )
    names = prose.join([prose.lower(panel.factor.label) for panel in panels])
    return Picture("effects.svg", caption, f"Main effects of {names}. {_name_claims(panels)}")


def _has_lines(panel: EffectPanel) -> bool:
    return 1 < len(panel.singly) <= LINES


def _draw_panel(axes: Axes, panel: EffectPanel, delta: float | None, size: float) -> None:
    if delta is not None:
        axes.axhspan(-delta, delta, color=BAND, linewidth=0, zorder=0)
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    places = range(len(panel.texts))
    if _has_lines(panel):
        axes.plot(places, np.array(panel.singly).T, color="#999999", linewidth=0.6, zorder=1.5)
    if panel.factor.numeric:
        means = [verdict.mean if verdict else 0.0 for verdict in panel.verdicts]
        axes.plot(places, means, color=BLUE, linewidth=1.0, zorder=2)
    for x, verdict in enumerate(panel.verdicts):
        if verdict is None:
            bar: dict[str, Any] = {"marker": "_", "color": "black", "markeredgewidth": 2.6}
            plot_points(axes, x, 0, size=13, zorder=4, **bar)
            continue
        look = find_look(verdict)
        if math.isfinite(verdict.low):
            style: dict[str, Any] = {"color": look.color, "linestyle": look.line, "linewidth": 1.7}
            axes.plot([x, x], [verdict.low, verdict.high], zorder=3, **style)
        marker = {">": "^", "<": "v"}.get(look.marker, look.marker)
        point = {"color": look.color, "markerfacecolor": look.color if look.full else "white"}
        plot_points(
            axes, x, verdict.mean, size=5.5, marker=marker, markeredgewidth=1.3, zorder=4, **point
        )
    axes.set_xticks(places, [wrap(text, 10) for text in panel.texts], fontsize=size)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel(panel.factor.title)
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)


def _name_claims(panels: Sequence[EffectPanel]) -> str:
    said = [
        f"{panel.factor.label} {text} ({verdict_word(verdict)}, {show_shift(verdict)})"
        for panel in panels
        for text, verdict in zip(panel.texts, panel.verdicts, strict=True)
        if verdict is not None and verdict.verdict == DIFFERS
    ]
    return f"{prose.join_some(said, NAMED)}." if said else "No main effect excludes 0."
