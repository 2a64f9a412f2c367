"""The figures of a report, each as SVG and PNG with the same bytes for the same numbers.

Colours are told apart by the colour-blind (Okabe and Ito) and never carry meaning alone: every series has its own line, marker or text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.fonts import printable
from reports.statistics import Interval, mean_interval
from reports.study import Cell, Metric, Study
from reports.tables import Entry, factor_words, in_sentence, of_metric, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CROWD", "Picture", "axis_text", "canvas", "counted", "factor_axis", "precision_recall", "response", "save", "wrapped"]

WIDTH = 6.7  # inches: the text width of the A4 page, so that font sizes in the figure are those on paper
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
MARKERS = "oDs^vPXp*h"
CROWD = 8  # points; of more, each is drawn with a number and named in the legend
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False,
    "svg.hashsalt": "reports", "svg.fonttype": "path", "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure on disk. `file` is the name in the figures folder that the PDF places; `caption` says N; `alt` is for who cannot see it."""

    file: str
    caption: str
    alt: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, folder: Path, name: str, dpi: int = 200) -> None:
    from matplotlib.text import Text

    folder.mkdir(parents=True, exist_ok=True)
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{name}.png", dpi=dpi, metadata={"Software": None})


def axis_text(metric: Metric) -> str:
    return titled(metric) + (f" ({metric.unit})" if metric.unit else "")


def factor_axis(study: Study) -> str:
    return " × ".join(f.label + (f" ({f.unit})" if f.unit else "") for f in study.factors)


TITLE = 34  # characters that fit over half a figure


def wrapped(text: str, width: int) -> str:
    """Text in lines of `width` signs, broken at blanks and behind underscores; a longer piece stays whole."""
    lines = [""]
    for piece in re.findall(r"[^ _]*[ _]|[^ _]+", printable(text)):
        fits = len((lines[-1] + piece).rstrip()) <= width
        lines = [*lines[:-1], lines[-1] + piece] if fits or not lines[-1] else [*lines, piece]
    return "\n".join(line.rstrip() for line in lines)


def counted(study: Study) -> str:
    counts = {len(cell.trials) for cell in study.cells}
    return f"N = {min(counts)} seeds" if len(counts) == 1 else f"N = {min(counts)} to {max(counts)} seeds (missing ones are named below)"


# ---- response


def response(study: Study, found: Sequence[Entry], folder: Path) -> Picture:
    """Left: the headline metric over the factor. Right: paired differences from the baseline level."""
    found = of_metric(found, study.headline)
    levels = [e for e in found if not e.cell.reference]
    with canvas(WIDTH, 3.3) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.08})
        (_curve if study.numeric else _intervals)(left, study, found, levels)
        _differences(right, study, levels)
        save(figure, folder, "response")
    untouched = "; dashed line and grey band: untouched backbone with its 95 % interval" if study.reference else ""
    shape = "line and band" if study.numeric else "points and bars"
    caption = (
        f"Left: {in_sentence(study.headline.label)} over {factor_words(study)}; {shape}: mean and 95 % t-interval over seeds, "
        f"small dots: single seeds, filled marker: baseline level{untouched}. "
        "Right: difference from "
        "the baseline level, seed by seed; thick bar: 95 % interval, thin bar: widened to hold for all levels at once, which is what the "
        "answer goes by. "
        f"{counted(study)}."
    )
    return Picture("response.svg", caption, f"{study.headline.label} for each level, and the differences from the baseline level")


def _positions(study: Study, levels: Sequence[Entry]) -> list[float]:
    return [float(e.cell.label) if study.numeric else float(i) for i, e in enumerate(levels)]


def _ticks(axes: Axes, study: Study, levels: Sequence[Entry]) -> None:
    labels = [e.cell.label if study.numeric else wrapped(e.cell.label, 14) for e in levels]
    turned = not study.numeric and len(levels) > 4
    axes.set_xticks(_positions(study, levels), labels, rotation=35 if turned else 0, ha="right" if turned else "center")
    axes.set_xlabel(factor_axis(study))
    axes.margins(x=0.08)
    axes.grid(axis="y")


def _reference(axes: Axes, found: Sequence[Entry]) -> None:
    entry = next((e for e in found if e.cell.reference and e.summary), None)
    if entry is None or entry.summary is None:
        return
    axes.axhline(entry.summary.mean, color=GREY, linestyle=(0, (4, 2)), linewidth=1.1, label="untouched backbone", zorder=1.5)
    if entry.summary.n > 1:
        axes.axhspan(entry.summary.low, entry.summary.high, color=GREY, alpha=0.13, linewidth=0, zorder=1)


def _points(axes: Axes, study: Study, levels: Sequence[Entry]) -> None:
    """Single seeds, and the mean of every level, the baseline level filled."""
    for x, e in zip(_positions(study, levels), levels, strict=True):
        values = list(e.cell.per_seed(e.metric.key).values())
        axes.plot(
            [x] * len(values), values, linestyle="none", marker="o", markersize=2.4, color=BLUE, alpha=0.55, zorder=3, markeredgewidth=0
        )
        if e.summary:
            fill = BLUE if e.cell.baseline else "white"
            axes.plot(x, e.summary.mean, marker="o", markersize=6, color=BLUE, markerfacecolor=fill, markeredgewidth=1.4, zorder=4)


def _finish(axes: Axes, study: Study, levels: Sequence[Entry]) -> None:
    _ticks(axes, study, levels)
    axes.set_ylabel(axis_text(study.headline))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=7.5)
    axes.set_title("Mean of every level")


def _curve(axes: Axes, study: Study, found: Sequence[Entry], levels: Sequence[Entry]) -> None:
    _reference(axes, found)
    drawn = [(float(e.cell.label), e.summary) for e in levels if e.summary]
    axes.plot([x for x, _ in drawn], [s.mean for _, s in drawn], color=BLUE, linewidth=1.5, zorder=2.5)
    banded = [(x, s) for x, s in drawn if s.n > 1]
    axes.fill_between(
        [x for x, _ in banded], [s.low for _, s in banded], [s.high for _, s in banded], color=BLUE, alpha=0.17, linewidth=0, zorder=2
    )
    _points(axes, study, levels)
    _finish(axes, study, levels)


def _intervals(axes: Axes, study: Study, found: Sequence[Entry], levels: Sequence[Entry]) -> None:
    _reference(axes, found)
    for x, e in zip(_positions(study, levels), levels, strict=True):
        if e.summary and e.summary.n > 1:
            axes.plot([x, x], [e.summary.low, e.summary.high], color=BLUE, linewidth=2.2, solid_capstyle="butt", zorder=2)
    _points(axes, study, levels)
    _finish(axes, study, levels)


def _differences(axes: Axes, study: Study, levels: Sequence[Entry]) -> None:
    axes.axhline(0, color="black", linewidth=0.9, zorder=1)
    for x, e in zip(_positions(study, levels), levels, strict=True):
        if e.cell.baseline:
            axes.plot(x, 0, marker="o", markersize=6, color=BLUE, zorder=4)
        if e.versus is None:
            continue
        for interval, width in ((e.wide, 1.0), (e.versus.interval, 3.2)):
            if interval is not None and interval.n > 1:
                axes.plot([x, x], [interval.low, interval.high], color=ORANGE, linewidth=width, solid_capstyle="butt", zorder=2)
        axes.plot(
            [x] * len(e.versus.differences),
            e.versus.differences,
            linestyle="none",
            marker="o",
            markersize=2.4,
            color="black",
            zorder=5,
            markeredgewidth=0,
        )
        axes.plot(x, e.versus.interval.mean, marker="D", markersize=5, color=ORANGE, markerfacecolor="white", markeredgewidth=1.3, zorder=4)
    _ticks(axes, study, levels)
    unit = f" ({study.headline.unit})" if study.headline.unit else ""
    axes.set_ylabel(f"Difference in {in_sentence(study.headline.label)}{unit}")
    axes.set_title(wrapped(f"Paired difference from {study.baseline.label}", TITLE))


# ---- precision and recall


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
    with canvas(*((WIDTH, max(2.6, 0.17 * len(points) + 0.8)) if crowded else (4.8, 2.6))) as figure:
        axes = figure.subplots()
        if study.numeric:
            axes.plot([r.mean for _, r, _ in levels], [p.mean for _, _, p in levels], color="#aaaaaa", linewidth=0.9, zorder=1)
        for i, (cell, recall_i, precision_i) in enumerate(points):
            place = i - (len(points) - len(levels))
            color, marker = (GREY, "X") if cell.reference else (shades[place], MARKERS[place % len(MARKERS)])
            error: dict[str, Any] = {}
            if recall_i.n > 1:
                error = {
                    "xerr": recall_i.half,
                    "yerr": precision_i.half,
                    "elinewidth": 0.8,
                    "ecolor": (*matplotlib.colors.to_rgb(color), 0.55),
                }
            label = (f"{i}  " if crowded else "") + cell.label + (" (baseline)" if cell.baseline else "")
            axes.errorbar(
                recall_i.mean, precision_i.mean, marker=marker, markersize=6.5, color=color, linestyle="none", label=label,
                zorder=4 if cell.reference else 3, markeredgecolor="white", markeredgewidth=0.6, **error,
            )  # fmt: skip
        axes.set_xlabel("Recall ↑ (share)")
        axes.set_ylabel("Precision ↑ (share)")
        axes.grid()
        axes.legend(
            title=factor_axis(study), loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7.5, title_fontsize=7.5, alignment="left"
        )
        names = [
            (str(i) if crowded else "backbone" if cell.reference else cell.label, (r.mean, p.mean))
            for i, (cell, r, p) in enumerate(points)
        ]
        _label(figure, axes, names)
        save(figure, folder, "precision_recall")
    caption = (
        f"Precision and recall at the {study.noun}s of {factor_words(study)}; markers: mean over seeds, bars: 95 % t-intervals"
        f"{', thin line: the levels in order' if study.numeric else ''}. {counted(study)}."
    )
    return Picture("precision_recall.svg", caption, "Precision against recall, one marker per level")


def _label(figure: Figure, axes: Axes, points: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Name points beside them: each label goes where it keeps farthest from the points and from the labels already there."""
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()  # the layout decides where on paper a point lies
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
