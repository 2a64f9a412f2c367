"""The headline metric of every cell, and its paired differences from the control.

One factor lies on the x axis; combinations of several have a row each, so that their names can be
read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import prose
from reports.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    count_seeds,
    lay_out,
    new_figure,
    plot_points,
    save,
    title_difference,
    wrap,
)
from reports.results import SweepResults
from reports.statistics import Interval
from reports.tables import CellMetric, of_metric
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT, LOW = 3.3, 2.2  # Inches, of the figure of one factor, and of a numeric one
# Inches: a row where there is room; title, axis and legend around all rows; all of it at most
ROW, FRAME, PAGE = 0.2, 0.85, 8.4
THICK = 2.6  # Points
TITLE = 34  # Characters that fit over half a figure
BESIDE_NAMES = 24  # Over a half that names of combinations have made narrower
TURNED = 35  # Degrees of names that have no room


def draw_response(results: SweepResults, entries: Sequence[CellMetric], folder: Path) -> Picture:
    """Left: the headline metric over the cells. Right: paired differences from the control."""
    metric, noun = results.headline, results.noun
    entries = of_metric(entries, metric)
    levels = [e for e in entries if not e.cell.untouched]
    rows = len(results.factors) > 1
    at = [float(e.cell.label) if results.numeric else float(i) for i, e in enumerate(levels)]
    untouched = next((e.summary for e in entries if e.cell.untouched), None)
    height = min(PAGE, ROW * len(levels) + FRAME) if rows else HEIGHT
    height = LOW if results.numeric else height
    with new_figure(WIDTH, height) as figure:
        left, right = figure.subplots(1, 2, sharey=rows, gridspec_kw={"wspace": 0.06})
        _draw_means(left, at, levels, untouched, rows, results.numeric)
        _draw_differences(right, at, levels, rows)
        unnamed = (_name_rows if rows else _name_levels)(figure, results, at, levels)
        save(figure, folder, "response")
    scale = ""
    if _is_logarithmic(results, at):
        zero = " but for the part that 0 lies in" if min(at) <= 0 else ""
        scale = f" {results.factors[0].label} is on a logarithmic scale{zero}."

    marks = f"small dots: single seeds, filled marker{' and bold name' if rows else ''}"
    shape = "line and band" if results.numeric else "points and bars"
    where = f"{'at the combinations of' if rows else 'over'} {prose.name_factors(results)}"
    backbone = "; dashed line and grey band: untouched backbone with its 95 % interval"
    caption = (
        f"Left: {prose.lower(metric.label)} {where}; {shape}: mean and 95 % t-interval over seeds, "
        f"{marks}: control {noun}{backbone if results.untouched else ''}. Right: difference from "
        f"the control {noun}, small dots seed by seed; bar: the "
        f"{prose.show_level(results.level)} % interval that the answer goes by, which holds for "
        f"all {noun}s at once. "
        f"{'A bar that ends at the edge of its panel continues beyond it. ' * rows}"
        f"{f'Without a label, for lack of room: {prose.join(unnamed)}. ' if unnamed else ''}"
        f"{count_seeds(results)}.{scale}"
    )
    alt = f"{metric.label} for each {noun}, and the differences from the control"
    return Picture("response.svg", caption, alt)


def _is_logarithmic(results: SweepResults, at: Sequence[float]) -> bool:
    """Whether levels lie on a logarithmic axis, as their setting declares."""
    return results.numeric and results.factors[0].log and min(at) >= 0 and max(at) > 0


def _scale(axes: Axes, at: Sequence[float]) -> None:
    """A logarithmic axis; 0, which has no logarithm, stands a step below the smallest level."""
    if min(at) > 0:
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=min(x for x in at if x > 0), linscale=0.5)
    axes.minorticks_off()


def _orient(rows: bool, at: Any, values: Any) -> tuple[Any, Any]:
    """x and y: values lie along x where cells have rows."""
    return (values, at) if rows else (at, values)


def _draw_bar(
    axes: Axes, rows: bool, at: float, interval: Interval | None, color: str, width: float
) -> None:
    if interval is not None and math.isfinite(interval.low):
        bounds = _orient(rows, [at, at], [interval.low, interval.high])
        axes.plot(*bounds, color=color, linewidth=width, solid_capstyle="butt", zorder=2)


def _draw_seeds(axes: Axes, rows: bool, at: float, values: Sequence[float]) -> None:
    points = _orient(rows, [at] * len(values), values)
    plot_points(axes, *points, size=2.3, color="black", markeredgewidth=0, zorder=5)


def _draw_means(
    axes: Axes,
    at: Sequence[float],
    levels: Sequence[CellMetric],
    untouched: Interval | None,
    rows: bool,
    curve: bool,
) -> None:
    if untouched is not None:
        line, band = (axes.axvline, axes.axvspan) if rows else (axes.axhline, axes.axhspan)
        dashes = (0, (4, 2))
        line(untouched.mean, color=GREY, linestyle=dashes, linewidth=1.1, zorder=1.5)
        if untouched.n > 1:
            band(untouched.low, untouched.high, color=GREY, alpha=0.13, linewidth=0, zorder=1)
    means = [(x, e.summary) for x, e in zip(at, levels, strict=True) if e.summary]
    if curve:
        axes.plot([x for x, _ in means], [s.mean for _, s in means], color=BLUE, zorder=2.5)
        wide = [(x, s) for x, s in means if s.n > 1]
        lows, highs = [s.low for _, s in wide], [s.high for _, s in wide]
        look: dict[str, Any] = {"color": BLUE, "alpha": 0.17, "linewidth": 0}
        axes.fill_between([x for x, _ in wide], lows, highs, **look)
    for x, entry in zip(at, levels, strict=True):
        if not curve:
            _draw_bar(axes, rows, x, entry.summary, BLUE, THICK)
        _draw_seeds(axes, rows, x, list(entry.cell.per_seed(entry.metric.key).values()))
        if entry.summary:
            fill = {"markerfacecolor": BLUE if entry.cell.control else "white"}
            point = _orient(rows, x, entry.summary.mean)
            plot_points(axes, *point, size=5.5, color=BLUE, markeredgewidth=1.4, zorder=4, **fill)


def _draw_differences(
    axes: Axes, at: Sequence[float], levels: Sequence[CellMetric], rows: bool
) -> None:
    (axes.axvline if rows else axes.axhline)(0, color="black", linewidth=0.9, zorder=1)
    for x, entry in zip(at, levels, strict=True):
        if entry.cell.control:
            plot_points(axes, *_orient(rows, x, 0), size=5.5, color=BLUE, zorder=4)
        if entry.versus is None:
            continue
        interval = entry.versus.interval
        _draw_seeds(axes, rows, x, entry.versus.differences)
        diamond = {"marker": "D", "markerfacecolor": "white", "markeredgewidth": 1.3}
        point = _orient(rows, x, interval.mean)
        plot_points(axes, *point, size=4.6, color=ORANGE, zorder=4, **diamond)
    if rows:
        # With few seeds and many combinations intervals over seeds are several times as wide as all
        # that is to be seen
        axes.set_xlim(axes.get_xlim())
    for x, entry in zip(at, levels, strict=True):
        _draw_bar(axes, rows, x, entry.wide, ORANGE, THICK)


def _name_rows(
    figure: Figure, results: SweepResults, at: Sequence[float], levels: Sequence[CellMetric]
) -> list[str]:
    """Name every combination and put a band behind every other level of the first factor."""
    left, right = figure.axes
    metric = results.headline
    left.set(xlabel=metric.title + metric.in_parentheses, title="Mean of every combination")
    right.set_xlabel(title_difference(metric))
    right.set_title(wrap("Paired difference from the control", BESIDE_NAMES))
    left.set_yticks(at, [e.cell.label for e in levels])
    left.set_ylim(len(levels) - 0.4, -0.6)
    left.set_ylabel(prose.title_factors(results))
    for tick, entry in zip(left.get_yticklabels(), levels, strict=True):
        tick.set_fontweight("bold" if entry.cell.control else "normal")
        tick.set_fontsize(min(8.0, 40 * (PAGE - FRAME) / len(levels)))
    first = [next(iter(e.cell.values.values())) for e in levels]
    order = list(dict.fromkeys(first))
    for axes in (left, right):
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        for y, level in enumerate(first):
            if order.index(level) % 2:
                axes.axhspan(y - 0.5, y + 0.5, color="#f1f1f1", linewidth=0, zorder=0)
    return []


def _name_levels(
    figure: Figure, results: SweepResults, at: Sequence[float], levels: Sequence[CellMetric]
) -> list[str]:
    """Name the levels so that no two names overlap; return those that found no room.

    Names are turned. Numbers are staggered over two rows: first the control's, then those of the
    ends, then the others from the left, each in the upper row if it is free there, else in the
    lower one.
    """
    left, right = figure.axes
    metric, labels = results.headline, [e.cell.label for e in levels]
    left.set(ylabel=metric.title + metric.in_parentheses, title="Mean by level")
    right.set_ylabel(title_difference(metric))
    right.set_title(wrap(f"Paired difference from {results.control.label}", TITLE))
    for axes in (left, right):
        if _is_logarithmic(results, at):
            _scale(axes, at)
        axes.set_xticks(at, labels if results.numeric else [wrap(text, 14) for text in labels])
        axes.set_xlabel(prose.title_factors(results))
        axes.margins(x=0.08)
        axes.grid(axis="y")
    lay_out(figure)
    gap = 0.05 * figure.dpi
    boxes = [[text.get_window_extent() for text in axes.get_xticklabels()] for axes in figure.axes]
    in_order = [sorted(panel, key=lambda box: box.x0) for panel in boxes]
    if not any(a.x1 + gap > b.x0 for panel in in_order for a, b in pairwise(panel)):
        return []
    if not results.numeric:
        for axes in (left, right):
            axes.set_xticks(at, labels, rotation=TURNED, ha="right", rotation_mode="anchor")
        return []

    def is_free(i: int, row: list[int]) -> bool:
        return all(
            panel[i].x0 > panel[k].x1 + gap or panel[i].x1 + gap < panel[k].x0
            for panel in boxes
            for k in row
        )

    ends = (0, len(levels) - 1)
    upper: list[int] = []
    lower: list[int] = []
    for i in sorted(
        range(len(levels)), key=lambda i: (not levels[i].cell.control, i not in ends, i)
    ):
        for row in (upper, lower):
            if is_free(i, row):
                row.append(i)
                break
    shown = dict.fromkeys(range(len(levels)), "")
    shown |= {i: labels[i] for i in upper} | {i: f"\n{labels[i]}" for i in lower}
    for axes in (left, right):
        axes.set_xticks(at, list(shown.values()))
    return [labels[i] for i, text in shown.items() if not text]
