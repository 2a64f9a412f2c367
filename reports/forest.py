"""The response figure of a sweep of several factors: one row a combination, so that its name can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.figures import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    Picture,
    axis_text,
    canvas,
    counted,
    factor_axis,
    save,
)
from reports.study import Study
from reports.tables import Entry, factor_words, in_sentence, of_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forest"]

ROW, FRAME, PAGE = 0.2, 0.85, 8.4  # inches: a row where there is room, title, axis and legend around all rows; all of it at most
THIN, THICK = 0.9, 2.6  # points: widened and plain intervals


def forest(study: Study, found: Sequence[Entry], folder: Path) -> Picture:
    """Left: the headline metric of every combination. Right: its paired differences from the baseline combination."""
    found = of_metric(found, study.headline)
    rows = [e for e in found if not e.cell.reference]
    with canvas(WIDTH, min(PAGE, ROW * len(rows) + FRAME)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.04})
        _means(left, found, rows)
        left.set_xlabel(axis_text(study.headline))
        left.set_title("Mean of every combination")
        _differences(right, rows)
        unit = f" ({study.headline.unit})" if study.headline.unit else ""
        right.set_xlabel(f"Difference in {in_sentence(study.headline.label)}{unit}")
        right.set_title("Paired difference from the baseline")
        left.set_yticks(range(len(rows)), [e.cell.label for e in rows])
        left.set_ylim(len(rows) - 0.4, -0.6)
        left.set_ylabel(factor_axis(study))
        for tick, e in zip(left.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if e.cell.baseline else "normal")
            tick.set_fontsize(min(8.0, 40 * (PAGE - FRAME) / len(rows)))
        for axes in (left, right):
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            _stripes(axes, rows)
        save(figure, folder, "response")
    untouched = "; dashed line and grey band: untouched backbone with its 95 % interval" if study.reference else ""
    caption = (
        f"Left: {in_sentence(study.headline.label)} at the combinations of {factor_words(study)}; points and bars: mean and 95 % "
        f"t-interval over seeds, small dots: single seeds, filled marker and bold name: baseline combination{untouched}. Right: "
        "difference from the baseline combination, seed by seed; thick bar: 95 % interval, thin bar: widened to hold for all combinations "
        "at once, which is what the answer goes by. A bar that ends at "
        f"the edge of its panel goes on beyond it. {counted(study)}."
    )
    return Picture("response.svg", caption, f"{study.headline.label} for each combination, and the differences from the baseline")


def _stripes(axes: Axes, rows: Sequence[Entry]) -> None:
    """A band behind every other level of the first factor: which rows belong together."""
    first = [next(iter(e.cell.values.values())) for e in rows]
    levels = list(dict.fromkeys(first))
    for y, level in enumerate(first):
        if levels.index(level) % 2:
            axes.axhspan(y - 0.5, y + 0.5, color="#f1f1f1", linewidth=0, zorder=0)


def _means(axes: Axes, found: Sequence[Entry], rows: Sequence[Entry]) -> None:
    untouched = next((e.summary for e in found if e.cell.reference), None)
    if untouched is not None:
        axes.axvline(untouched.mean, color=GREY, linestyle=(0, (4, 2)), linewidth=1.1, zorder=1.5)
        if untouched.n > 1:
            axes.axvspan(untouched.low, untouched.high, color=GREY, alpha=0.13, linewidth=0, zorder=1)
    for y, e in enumerate(rows):
        if e.summary is None:
            continue
        if e.summary.n > 1:
            axes.plot([e.summary.low, e.summary.high], [y, y], color=BLUE, linewidth=THICK, solid_capstyle="butt", alpha=0.6, zorder=2)
        _seeds(axes, y, list(e.cell.per_seed(e.metric.key).values()))
        fill = BLUE if e.cell.baseline else "white"
        axes.plot(e.summary.mean, y, marker="o", markersize=5, color=BLUE, markerfacecolor=fill, markeredgewidth=1.3, zorder=4)


def _differences(axes: Axes, rows: Sequence[Entry]) -> None:
    axes.axvline(0, color="black", linewidth=0.9, zorder=1)
    for y, e in enumerate(rows):
        if e.cell.baseline:
            axes.plot(0, y, marker="o", markersize=5, color=BLUE, zorder=4)
        if e.versus is None:
            continue
        interval = e.versus.interval
        if interval.n > 1:
            axes.plot([interval.low, interval.high], [y, y], color=ORANGE, linewidth=THICK, solid_capstyle="butt", alpha=0.7, zorder=2)
        _seeds(axes, y, e.versus.differences)
        axes.plot(interval.mean, y, marker="D", markersize=4.2, color=ORANGE, markerfacecolor="white", markeredgewidth=1.2, zorder=4)
    # with few seeds and many combinations the widened intervals are several times as wide as all that is to be seen
    axes.set_xlim(axes.get_xlim())
    for y, e in enumerate(rows):
        if e.wide is not None and e.wide.n > 1:
            axes.plot([e.wide.low, e.wide.high], [y, y], color=ORANGE, linewidth=THIN, solid_capstyle="butt", zorder=2)


def _seeds(axes: Axes, y: int, values: Sequence[float]) -> None:
    axes.plot(values, [y] * len(values), linestyle="none", marker="o", markersize=2.2, color="black", markeredgewidth=0, zorder=3)
