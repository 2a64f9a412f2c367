"""The trade between precision and recall, with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.figures.style import (
    GREY,
    WIDTH,
    count_seeds,
    lay_out,
    new_figure,
    plot_points,
    save,
    wrap,
)
from reports.results import CellResults, SweepResults
from reports.statistics import Interval, mean_interval
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]  # Recall, precision

MARKERS = "oDs^vPXp*h"
SHARE = (0.0, 1.0)
CROWD = 8  # Points; of more, each is drawn with a number and named in the legend
NEAR = 1.2  # Times the spread of the means: as far as bars may reach beyond them
DASHES = (0, (4, 2))


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other beats: as high in both numbers, higher in one."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points)
    ]


def draw_precision_recall(results: SweepResults, folder: Path) -> Picture | None:
    """Means of all cells; None where the sweep does not measure both."""
    if not {"precision", "recall"} <= {metric.key for metric in results.metrics}:
        return None
    cells: list[CellResults] = []
    recalls: list[Interval] = []
    precisions: list[Interval] = []
    for cell in results.cells:
        values = [list(cell.per_seed(key).values()) for key in ("recall", "precision")]
        if all(values):
            cells.append(cell)
            recalls.append(mean_interval(values[0]).within(SHARE))
            precisions.append(mean_interval(values[1]).within(SHARE))
    if not cells:
        return None
    import matplotlib

    means = [(r.mean, p.mean) for r, p in zip(recalls, precisions, strict=True)]
    levels = [mean for mean, cell in zip(means, cells, strict=True) if not cell.untouched]
    best = pareto_front(means)
    has_bars = _keeps_means_apart(recalls) and _keeps_means_apart(precisions)
    is_crowded = len(cells) > CROWD
    shades = iter(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.8, max(2, len(levels)))))
    size = (WIDTH, max(2.6, 0.17 * len(cells) + 0.8)) if is_crowded else (5.2, 2.8)
    with new_figure(*size) as figure:
        axes = figure.subplots()
        if results.numeric:
            axes.plot(*zip(*levels, strict=True), color="#aaaaaa", linewidth=0.9, zorder=1)
        for i, (cell, recall, precision) in enumerate(zip(cells, recalls, precisions, strict=True)):
            marker = MARKERS[(i - len(cells) + len(levels)) % len(MARKERS)]
            color, marker = (GREY, "X") if cell.untouched else (next(shades), marker)
            style: dict[str, Any] = {"marker": marker, "markersize": 6.5, "color": color}
            style |= {"markeredgecolor": "white", "markeredgewidth": 0.6, "linestyle": "none"}
            if has_bars and recall.n > 1:
                style |= {"xerr": _arms(recall), "yerr": _arms(precision), "elinewidth": 0.8}
                style["ecolor"] = (*matplotlib.colors.to_rgb(color), 0.45)
            label = f"{i}  " * is_crowded + cell.marked_label
            order = 4 if cell.untouched else 3
            axes.errorbar(recall.mean, precision.mean, label=label, zorder=order, **style)
        axes.set(xlabel="Recall ↑ (share)", ylabel="Precision ↑ (share)")
        axes.grid()
        axes.margins(0.12)
        axes.locator_params(axis="x", nbins=5)  # Its labels have up to five signs
        _draw_staircase(axes, sorted({means[i] for i in best}))
        place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "alignment": "left"}
        axes.legend(title=prose.title_factors(results), fontsize=7.5, title_fontsize=7.5, **place)
        names = ["backbone" if cell.untouched else cell.label for cell in cells]
        names = [str(i) for i in range(len(cells))] if is_crowded else names
        _label_points(figure, axes, list(zip(names, means, strict=True)))
        save(figure, folder, "precision_recall")

    shown = "; bars: 95 % t-intervals"
    if not has_bars:
        across, up = (max((i.half for i in s if i.n > 1), default=0) for s in (recalls, precisions))
        widths = f"up to ±{across:.3f} in recall and ±{up:.3f} in precision"
        shown = f"; their 95 % t-intervals, {widths}, are wider than this panel"
    line = "; thin grey line: the levels in order" if results.numeric else ""
    front = prose.join([prose.name_cell(results, cells[i]) for i in best])
    caption = (
        f"Precision and recall at the {results.noun}s of {prose.name_factors(results)}; markers: "
        f"mean over seeds{shown}{line}. Black rings and dashed staircase: the Pareto front, the "
        f"cells that no other beats, being at least as good in both means and better in one "
        f"({front}). "
        f"It is of means and claims no significance. {count_seeds(results, 'precision', 'recall')}."
    )
    alt = "Precision against recall, one marker per level, with the Pareto front"
    return Picture("precision_recall.svg", caption, alt)


def _arms(interval: Interval) -> list[list[float]]:
    """How far a bar reaches down and up."""
    return [[interval.mean - interval.low], [interval.high - interval.mean]]


def _keeps_means_apart(intervals: Sequence[Interval]) -> bool:
    """Whether no bar reaches farther than ``NEAR`` times the spread of the means."""
    means, halves = [i.mean for i in intervals], [i.half for i in intervals if i.n > 1]
    return len(set(means)) == 1 or max(halves, default=0.0) <= NEAR * (max(means) - min(means))


def _draw_staircase(axes: Axes, best: Sequence[Point]) -> None:
    """The rim of what the front, in order of recall, beats: the best precision of this recall."""
    x, y = [axes.get_xlim()[0]], [best[0][1]]
    steps = [*(v for _, v in best[1:]), axes.get_ylim()[0]]
    for (u, v), below in zip(best, steps, strict=True):
        x, y = [*x, u, u], [*y, v, below]
    axes.plot(x, y, "k", linewidth=0.9, linestyle=DASHES, zorder=2, scalex=False, scaley=False)
    ring = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 0.9}
    plot_points(axes, *zip(*best, strict=True), size=10.5, zorder=4.5, **ring)


def _label_points(figure: Figure, axes: Axes, points: Sequence[tuple[str, Point]]) -> None:
    """Name points beside them: each name where it keeps farthest from points and other names."""
    from matplotlib.patheffects import withStroke

    lay_out(figure)
    scale = figure.dpi / 72
    places: list[np.ndarray] = []  # In points of paper
    names: list[list[str]] = []
    for name, point in points:
        own = axes.transData.transform(point) / scale
        near = [k for k, other in enumerate(places) if np.hypot(*(own - other)) < 4]
        if near:
            names[near[0]].append(name)  # Points that lie on one another share a name
        else:
            places.append(own)
            names.append([name])
    low, high = np.array(axes.bbox.min) / scale, np.array(axes.bbox.max) / scale
    taken = [(place, np.array([4.0, 4.5])) for place in places]  # Center, half of width and height
    angles = np.arange(8) * np.pi / 4 + 0.4
    rings = [(r * np.cos(a), r * np.sin(a)) for r in (11, 20, 30) for a in angles]
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "zorder": 5}
    look["path_effects"] = [withStroke(linewidth=2, foreground="white")]
    look["arrowprops"] = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5}
    for own, group in zip(places, names, strict=True):
        name = wrap(", ".join(group), 16)
        lines = name.split("\n")
        half = np.array([2.2 * max(map(len, lines)), 4.5 * len(lines)])
        stretch, lift = 1 + half[0] / 20, half[1] - 4.5
        offsets = [np.array([x * stretch, y + np.sign(y) * lift]) for x, y in rings]
        room = []
        for offset in offsets:
            center = own + offset
            gaps = [max(abs(center - place) - half - size) for place, size in taken]
            room.append(min(1.0, *(center - half - low), *(high - center - half), *gaps))
        offset = offsets[int(np.argmax(room))]  # The nearest of those with room enough
        taken.append((own + offset, half))
        x, y = axes.transData.inverted().transform(own * scale)
        axes.annotate(name, (x, y), xytext=tuple(offset), textcoords="offset points", **look)
