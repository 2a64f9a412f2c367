"""The trade between precision and recall, with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.figures import (
    GREY,
    WIDTH,
    Picture,
    canvas,
    counted,
    factor_axis,
    lay_out,
    save,
    wrapped,
)
from reports.statistics import Interval, mean_interval
from reports.study import Cell, Study
from reports.tables import factor_words, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CROWD", "front", "precision_recall"]

MARKERS = "oDs^vPXp*h"
CROWD = 8  # points; of more, each is drawn with a number and named in the legend
NEAR = 1.2  # times the spread of the means: as far as the axes go beyond it, so that bars do not shrink the means to a point


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats: none is at least as high in both numbers and higher in one."""
    return [i for i, (x, y) in enumerate(points) if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points)]


def precision_recall(study: Study, folder: Path) -> Picture | None:
    """The trade between precision and recall over the levels; None where the sweep does not measure both."""
    if not {"precision", "recall"} <= {m.key for m in study.metrics}:
        return None
    points: list[tuple[Cell, Interval, Interval]] = []
    for cell in study.cells:
        precision, recall = cell.per_seed("precision"), cell.per_seed("recall")
        if precision and recall:
            points.append((cell, mean_interval(list(recall.values())), mean_interval(list(precision.values()))))
    if not points:
        return None
    import matplotlib

    levels = [p for p in points if not p[0].reference]
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.8, max(2, len(levels))))
    crowded = len(points) > CROWD
    means = [(r.mean, p.mean) for _, r, p in points]
    best = front(means)
    bars = _fit([r for _, r, _ in points]) and _fit([p for _, _, p in points])
    with canvas(*((WIDTH, max(2.6, 0.17 * len(points) + 0.8)) if crowded else (5.2, 2.8))) as figure:
        axes = figure.subplots()
        if study.numeric:
            axes.plot([r.mean for _, r, _ in levels], [p.mean for _, _, p in levels], color="#aaaaaa", linewidth=0.9, zorder=1)
        for i, (cell, recall_i, precision_i) in enumerate(points):
            place = i - (len(points) - len(levels))
            color, marker = (GREY, "X") if cell.reference else (shades[place], MARKERS[place % len(MARKERS)])
            error: dict[str, Any] = {}
            if bars and recall_i.n > 1:
                error = {
                    "xerr": recall_i.half,
                    "yerr": precision_i.half,
                    "elinewidth": 0.8,
                    "ecolor": (*matplotlib.colors.to_rgb(color), 0.45),
                }
            label = (f"{i}  " if crowded else "") + cell.label + (" (baseline)" if cell.baseline else "")
            axes.errorbar(
                recall_i.mean, precision_i.mean, marker=marker, markersize=6.5, color=color, linestyle="none", label=label,
                zorder=4 if cell.reference else 3, markeredgecolor="white", markeredgewidth=0.6, **error,
            )  # fmt: skip
        axes.set_xlabel("Recall ↑ (share)")
        axes.set_ylabel("Precision ↑ (share)")
        axes.grid()
        axes.margins(0.12)
        axes.locator_params(axis="x", nbins=5)  # its labels have up to five signs
        _staircase(axes, sorted({means[i] for i in best}))
        axes.legend(
            title=factor_axis(study), loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7.5, title_fontsize=7.5, alignment="left"
        )
        names = [(str(i) if crowded else "backbone" if cell.reference else cell.label, means[i]) for i, (cell, _, _) in enumerate(points)]
        _label(figure, axes, names)
        save(figure, folder, "precision_recall")
    across, up = (max((i.half for i in some if i.n > 1), default=0.0) for some in zip(*[point[1:] for point in points], strict=True))
    if bars:
        shown = "; bars: 95 % t-intervals"
    else:
        shown = f"; their 95 % t-intervals, up to ±{across:.3f} in recall and ±{up:.3f} in precision, are wider than this panel"
    caption = (
        f"Precision and recall at the {study.noun}s of {factor_words(study)}; markers: mean over seeds{shown}"
        f"{'; thin grey line: the levels in order' if study.numeric else ''}. Black rings and dashed "
        f"staircase: the Pareto front, the cells that no other beats, being at least as good in both means and better in one "
        f"({listed([study.words(points[i][0]) for i in best])}). It is of means and claims no significance. {counted(study)}."
    )
    return Picture("precision_recall.svg", caption, "Precision against recall, one marker per level, with the Pareto front")


def _fit(intervals: Sequence[Interval]) -> bool:
    """Whether bars leave the means apart: none reaches farther than `NEAR` times their spread. One mean always has room for its own."""
    means, halves = [i.mean for i in intervals], [i.half for i in intervals if i.n > 1]
    return len(set(means)) == 1 or max(halves, default=0.0) <= NEAR * (max(means) - min(means))


def _staircase(axes: Axes, best: Sequence[tuple[float, float]]) -> None:
    """The rim of what the points of the front, in order of recall, beat: as high as the best that has at least this recall."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    x, y = [left], [best[0][1]]
    for (u, v), below in zip(best, [*(v for _, v in best[1:]), bottom], strict=True):
        x, y = [*x, u, u], [*y, v, below]
    axes.plot(x, y, color="black", linewidth=0.9, linestyle=(0, (4, 2)), zorder=2, scalex=False, scaley=False)
    axes.plot(
        [u for u, _ in best], [v for _, v in best], linestyle="none", marker="o", markersize=10.5, markerfacecolor="none",
        markeredgecolor="black", markeredgewidth=0.9, zorder=4.5,
    )  # fmt: skip


def _label(figure: Figure, axes: Axes, points: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Name points beside them: each label goes where it keeps farthest from the points and from the labels already there."""
    from matplotlib.patheffects import withStroke

    lay_out(figure)
    scale = figure.dpi / 72
    places: list[np.ndarray] = []
    names: list[list[str]] = []
    for name, place in points:
        own = axes.transData.transform(place) / scale
        near = [k for k, other in enumerate(places) if np.hypot(*(own - other)) < 4]
        if near:
            names[near[0]].append(name)  # points that lie on one another share a label
        else:
            places.append(own)
            names.append([name])
    low, high = np.array(axes.bbox.min) / scale, np.array(axes.bbox.max) / scale
    taken = [(place, np.array([4.0, 4.5])) for place in places]  # centre and half of width and height, in points
    for own, name in zip(places, (wrapped(", ".join(group), 16) for group in names), strict=True):
        lines = name.split("\n")
        half = np.array([2.2 * max(map(len, lines)), 4.5 * len(lines)])
        spread = (1 + half[0] / 20, half[1] - 4.5)
        turns = [(r * np.cos(a), r * np.sin(a)) for r in (11, 20, 30) for a in np.arange(8) * np.pi / 4 + 0.4]
        offsets = [np.array([x * spread[0], y + np.sign(y) * spread[1]]) for x, y in turns]
        room = [
            min(1.0, *(own + o - half - low), *(high - own - o - half), *(max(abs(own + o - place) - half - h) for place, h in taken))
            for o in offsets
        ]
        offset = offsets[int(np.argmax(room))]  # the nearest of those with room enough
        taken.append((own + offset, half))
        x, y = axes.transData.inverted().transform(own * scale)
        axes.annotate(
            name, (float(x), float(y)), xytext=tuple(offset), textcoords="offset points", ha="center", va="center", fontsize=7.5, zorder=5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5},
        )  # fmt: skip
