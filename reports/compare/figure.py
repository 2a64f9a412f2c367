"""The figure of a comparison: the headline metric of every common cell, and the difference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from reports import prose
from reports.compare.differences import Comparison
from reports.figures.style import (
    BLUE,
    ORANGE,
    WIDTH,
    new_figure,
    plot_points,
    save,
    title_difference,
    wrap,
)
from reports.typeset import Picture

# Inches: a row where there is room; titles, axes and legend around all rows; all of it at most
ROW, FRAME, PAGE = 0.36, 1.0, 7.6
APART = 0.16  # Rows: how far the two sides of a cell stand from its middle
NAME = 22  # Characters of a cell's name in a line


def draw_comparison(comparison: Comparison, folder: Path, name: str) -> Picture:
    """Write ``name``.svg and ``name``.png into ``folder``."""
    metric, rows = comparison.headline, comparison.headline_differences
    with new_figure(WIDTH, min(PAGE, ROW * len(rows) + FRAME)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.04})
        dots: dict[str, Any] = {"size": 2.3, "color": "black", "zorder": 3}
        for i, (offset, color, marker) in enumerate(((-APART, BLUE, "o"), (APART, ORANGE, "D"))):
            label = wrap(comparison.sides[i].label, 30)
            look: dict[str, Any] = {"size": 5, "color": color, "marker": marker, "zorder": 4}
            look["markerfacecolor"] = "white" if i else color
            for y, d in enumerate(rows):
                mean, at, values = (d.left, d.right)[i], y + offset, list(d.used[i].values())
                if mean.n > 1:
                    bar = {"linewidth": 2.2, "alpha": 0.6, "solid_capstyle": "butt"}
                    left.plot([mean.low, mean.high], [at] * 2, color=color, **bar)
                plot_points(left, values, [at] * len(values), **dots)
                plot_points(left, mean.mean, at, label=None if y else label, **look)
        figure.legend(loc="outside lower center", ncols=2)
        left.set(xlabel=metric.title + metric.in_parentheses, title="Mean of every common cell")
        right.axvline(0, color="black", linewidth=0.9)
        for y, d in enumerate(rows):
            interval = d.wide or d.plain  # The latter of the untouched backbone
            if math.isfinite(interval.low):
                bar = {"linewidth": 2.6, "alpha": 0.75, "solid_capstyle": "butt"}
                right.plot([interval.low, interval.high], [y, y], color="black", **bar)
            values = list(d.pairs.differences) if d.pairs else []
            plot_points(right, values, [y] * len(values), **dots)
            square = {"marker": "s", "markerfacecolor": "white", "color": "black"}
            plot_points(right, d.plain.mean, y, size=4.6, zorder=4, **square)
        right.set_xlabel(title_difference(metric))
        right.set_title("Second minus first")
        size = min(8.0, 24 * (PAGE - FRAME) / len(rows))
        left.set_yticks(range(len(rows)), [wrap(d.cell.label, NAME) for d in rows], fontsize=size)
        left.set_ylim(len(rows) - 0.4, -0.6)
        for axes in (left, right):
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.locator_params(axis="x", nbins=5)
        save(figure, folder, name)
    first, second = (side.label for side in comparison.sides)
    counts = [n for d in rows for n in (d.left.n, d.right.n)]
    caption = (
        f"Left: {prose.lower(metric.label)} of every common cell, mean and 95 % t-interval over "
        f"seeds, filled circle: {first}, empty diamond: {second}. Right: {second} minus {first}, "
        f"{'not paired' if comparison.unpaired else 'seed by seed'}; bar: the 95 % interval that "
        "the answer goes by, which holds for all common cells at once; small dots: single seeds"
        f"{'' if comparison.unpaired else ', on the right their differences'}. "
        f"N = {prose.join_range(counts)} seed{'' if max(counts) == 1 else 's'}"
        f"{' a side' if comparison.unpaired else ''}."
    )
    alt = f"{metric.label} of every common cell on both sides, and the difference"
    return Picture(f"{name}.svg", caption, alt)
