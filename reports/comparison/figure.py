"""The figure of a comparison: the headline metric of every common cell on both sides, and the difference."""

from __future__ import annotations

from pathlib import Path

from reports.comparison.differences import Comparison
from reports.figures import BLUE, ORANGE, WIDTH, Picture, axis_text, canvas, save, wrapped
from reports.tables import in_sentence

__all__ = ["draw"]

ROW, FRAME, PAGE = 0.36, 1.0, 7.6  # inches: a row where there is room, titles, axes and legend around all rows; all of it at most
APART = 0.16  # rows: how far the two sides of a cell stand from its middle
NAME = 22  # characters of a cell's name in a line


def draw(comparison: Comparison, folder: Path, name: str) -> Picture:
    """Write `name`.svg and `name`.png into `folder`."""
    metric = comparison.headline
    rows = comparison.of(metric)
    sides = [(comparison.left.label, -APART, BLUE, "o"), (comparison.right.label, APART, ORANGE, "D")]
    with canvas(WIDTH, min(PAGE, ROW * len(rows) + FRAME)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.04})
        for i, (label, shift, color, marker) in enumerate(sides):
            for y, d in enumerate(rows):
                side = (d.left, d.right)[i]
                if side.n > 1:
                    left.plot([side.low, side.high], [y + shift] * 2, color=color, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
                values = list(d.used[i].values())
                left.plot(values, [y + shift] * len(values), linestyle="none", marker="o", markersize=2.2, color="black", zorder=3)
                left.plot(
                    side.mean, y + shift, marker=marker, markersize=5, color=color, markerfacecolor="white" if i else color,
                    linestyle="none", zorder=4, label=wrapped(label, 30) if y == 0 else None,
                )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=2)
        left.set_xlabel(axis_text(metric))
        left.set_title("Mean of every common cell")
        right.axvline(0, color="black", linewidth=0.9)
        for y, d in enumerate(rows):
            for interval, width in ((d.plain, 2.6), (d.wide, 0.9)):
                if interval is not None and interval.n > 1:
                    right.plot([interval.low, interval.high], [y, y], color="black", linewidth=width, alpha=0.75, solid_capstyle="butt")
            values = list(d.pairs.differences) if d.pairs else []
            right.plot(values, [y] * len(values), linestyle="none", marker="o", markersize=2.4, color="black", zorder=3)
            right.plot(d.plain.mean, y, marker="s", markersize=4.6, color="black", markerfacecolor="white", zorder=4)
        unit = f" ({metric.unit})" if metric.unit else ""
        right.set_xlabel(f"Difference in {in_sentence(metric.label)}{unit}")
        right.set_title("Second minus first")
        left.set_yticks(range(len(rows)), [wrapped(d.cell.label, NAME) for d in rows], fontsize=min(8.0, 24 * (PAGE - FRAME) / len(rows)))
        left.set_ylim(len(rows) - 0.4, -0.6)
        for axes in (left, right):
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.locator_params(axis="x", nbins=5)
        save(figure, folder, name)
    dots = "; small dots: single seeds" + ("" if comparison.unpaired else ", on the right their differences")
    counts = sorted({n for d in rows for n in ((d.left.n, d.right.n) if comparison.unpaired else (d.plain.n,))})
    numbers = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = (
        f"Left: {in_sentence(metric.label)} of every common cell, mean and 95 % t-interval over seeds, filled circle: "
        f"{comparison.left.label}, empty diamond: {comparison.right.label}. Right: {comparison.right.label} minus "
        f"{comparison.left.label}, {'not paired' if comparison.unpaired else 'seed by seed'}; thick bar: 95 % interval, thin bar: widened "
        f"to hold for all common cells at once{dots}. N = {numbers} seeds{' a side' if comparison.unpaired else ''}."
    )
    return Picture(f"{name}.svg", caption, f"{metric.label} of every common cell on both sides, and the difference")
