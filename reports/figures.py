"""The figures of a report, each as SVG and PNG with the same bytes for the same numbers.

Colours are told apart by the colour-blind (Okabe and Ito) and never carry meaning alone: every series has its own line, marker or text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from reports.fonts import printable
from reports.study import Metric, Study
from reports.tables import Entry, factor_words, in_sentence, listed, of_metric, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Picture", "axis_text", "canvas", "counted", "factor_axis", "lay_out", "response", "save", "wrapped"]

WIDTH = 6.7  # inches: the text width of the A4 page, so that font sizes in the figure are those on paper
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
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


def lay_out(figure: Figure) -> None:
    """Decide where on paper everything lies, with all text as it will be written."""
    _make_printable(figure)
    figure.draw_without_rendering()


def _make_printable(figure: Figure) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))


def save(figure: Figure, folder: Path, name: str, dpi: int = 200) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _make_printable(figure)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{name}.png", dpi=dpi, metadata={"Software": None})


def axis_text(metric: Metric) -> str:
    return titled(metric) + (f" ({metric.unit})" if metric.unit else "")


def factor_axis(study: Study) -> str:
    return " × ".join(f.label + (f" ({f.unit})" if f.unit else "") for f in study.factors)


TITLE = 34  # characters that fit over half a figure
TURNED = 35  # degrees


def wrapped(text: str, width: int) -> str:
    """Text in lines of `width` signs, broken at blanks and behind underscores; a longer piece stays whole."""
    lines = [""]
    for piece in re.findall(r"[^ _]*[ _]|[^ _]+", printable(text)):
        fits = len((lines[-1] + piece).rstrip()) <= width
        lines = [*lines[:-1], lines[-1] + piece] if fits or not lines[-1] else [*lines, piece]
    return "\n".join(line.rstrip() for line in lines)


def counted(study: Study) -> str:
    counts = {len(cell.trials) for cell in study.cells}
    if len(counts) > 1:
        return f"N = {min(counts)} to {max(counts)} seeds (missing ones are named below)"
    return f"N = {min(counts)} seed{'' if counts == {1} else 's'}"


# ---- response


def response(study: Study, found: Sequence[Entry], folder: Path) -> Picture:
    """Left: the headline metric over the factor. Right: paired differences from the baseline level."""
    found = of_metric(found, study.headline)
    levels = [e for e in found if not e.cell.reference]
    with canvas(WIDTH, 3.3) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.08})
        (_curve if study.numeric else _intervals)(left, study, found, levels)
        _differences(right, study, levels)
        unnamed = _place_labels(figure, study, levels)
        save(figure, folder, "response")
    untouched = "; dashed line and grey band: untouched backbone with its 95 % interval" if study.reference else ""
    shape = "line and band" if study.numeric else "points and bars"
    caption = (
        f"Left: {in_sentence(study.headline.label)} over {factor_words(study)}; {shape}: mean and 95 % t-interval over seeds, "
        f"small dots: single seeds, filled marker: baseline level{untouched}. "
        "Right: difference from "
        "the baseline level, seed by seed; thick bar: 95 % interval, thin bar: widened to hold for all levels at once, which is what the "
        "answer goes by. " + (f"Without a label, for lack of room: {listed(unnamed)}. " if unnamed else "") + f"{counted(study)}."
    )
    return Picture("response.svg", caption, f"{study.headline.label} for each level, and the differences from the baseline level")


def _positions(study: Study, levels: Sequence[Entry]) -> list[float]:
    return [float(e.cell.label) if study.numeric else float(i) for i, e in enumerate(levels)]


def _ticks(axes: Axes, study: Study, levels: Sequence[Entry]) -> None:
    labels = [e.cell.label if study.numeric else wrapped(e.cell.label, 14) for e in levels]
    axes.set_xticks(_positions(study, levels), labels)
    axes.set_xlabel(factor_axis(study))
    axes.margins(x=0.08)
    axes.grid(axis="y")


def _place_labels(figure: Figure, study: Study, levels: Sequence[Entry]) -> list[str]:
    """Keep the labels of the levels from running into each other; return those that found no place.

    Names are turned. Numbers are staggered over two rows: first the baseline level's, then those of the ends, then the others from the
    left, each in the upper row if it is free there, else in the lower one.
    """
    lay_out(figure)
    boxes = [[label.get_window_extent() for label in axes.get_xticklabels()] for axes in figure.axes]
    gap = 0.05 * figure.dpi
    crowded = [any(a.x1 + gap > b.x0 for a, b in pairwise(sorted(found, key=lambda box: box.x0))) for found in boxes]
    if not any(crowded):
        return []
    if not study.numeric:
        for axes in figure.axes:
            axes.set_xticks(range(len(levels)), [e.cell.label for e in levels], rotation=TURNED, ha="right", rotation_mode="anchor")
        return []
    order = sorted(range(len(levels)), key=lambda i: (not levels[i].cell.baseline, i not in (0, len(levels) - 1), i))
    rows: list[list[int]] = [[], []]
    for i in order:
        for row in rows:
            if all(found[i].x0 > found[k].x1 + gap or found[i].x1 + gap < found[k].x0 for found in boxes for k in row):
                row.append(i)
                break
    labels = [levels[i].cell.label if i in rows[0] else f"\n{levels[i].cell.label}" if i in rows[1] else "" for i in range(len(levels))]
    for axes in figure.axes:
        axes.set_xticks(_positions(study, levels), labels)
    return [levels[i].cell.label for i, label in enumerate(labels) if not label]


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
        # beside the title, where no data can be
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, borderpad=0.2, fontsize=7.5, handlelength=1.8)
    axes.set_title("Mean by level")


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
