"""Two factors whose combinations form a grid: means, and paired differences, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.figures.style import WIDTH, count_seeds, new_figure, save, wrap
from reports.results import SweepResults
from reports.statistics import DIFFERS
from reports.tables import CellMetric, count_decimals, of_metric
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Grid = Sequence[Sequence[CellMetric | None]]

LEVELS = 3  # That both factors need at least for the heat map to be the main figure
# Columns of two panels in a row, and of panels below each other; rows of the latter
SIDE_BY_SIDE, MOST = 6, 14
# Inches: a row where there is room, title and axis of a panel, all of the figure at most
ROW, FRAME, PAGE = 0.42, 0.85, 8.4
NAME, TITLE = 13, 38  # Signs of a level's name and of a title in one line
# Dark blue below zero, light orange above: in grey one end is dark, the other not
DIVERGING = (
    (0.0, "#1c4f8a"),
    (0.25, "#7da7d0"),
    (0.5, "#ffffff"),
    (0.75, "#fbc98a"),
    (1.0, "#e08a1e"),
)
SEQUENTIAL = ((0.0, "#f4f7fa"), (1.0, "#3f7fb5"))
MARK = "◆"  # Beside a difference whose widened interval excludes zero


def is_main_figure(results: SweepResults) -> bool:
    """Whether the heat map is the figure of page one.

    Both factors are long, and most combinations are there.
    """
    lengths = [len(factor.levels) for factor in results.factors]
    if not is_drawable(results) or min(lengths) < LEVELS:
        return False
    return 2 * len(results.levels) > lengths[0] * lengths[1]


def is_drawable(results: SweepResults) -> bool:
    """Two factors of two or more levels, not of a search, and few enough for a page."""
    lengths = sorted(len(factor.levels) for factor in results.factors)
    if len(lengths) != 2 or lengths[0] < 2 or results.tags.get("mode") == "search":
        return False
    return lengths[1] <= (2 * MOST if lengths[0] <= SIDE_BY_SIDE else MOST)


def draw_heatmap(
    results: SweepResults, entries: Sequence[CellMetric], folder: Path
) -> Picture | None:
    """A panel of means and one of paired differences; None where cells form no grid."""
    if not is_drawable(results):
        return None
    metric, digits = results.headline, count_decimals(entries, results.headline)
    down, across = results.factors
    if len(down.levels) < len(across.levels):
        down, across = across, down
    # Numbers rise from the bottom, as on an axis
    rows, columns = down.texts[::-1] if down.numeric else down.texts, across.texts
    own = {
        (e.cell.values[down.key], e.cell.values[across.key]): e
        for e in of_metric(entries, metric)
        if not e.cell.untouched
    }
    grid = [[own.get((row, column)) for column in columns] for row in rows]
    means = [[e.summary.mean if e and e.summary else np.nan for e in row] for row in grid]
    shifts = [[_shift(e) for e in row] for row in grid]
    finite = [mean for row in means for mean in row if np.isfinite(mean)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    limits = (low, high) if high > low else (low - 0.5, high + 0.5)
    most = max((abs(s) for row in shifts for s in row if np.isfinite(s)), default=0.0) or 1.0

    stacked = len(columns) > SIDE_BY_SIDE
    large = len(columns) <= (2 * SIDE_BY_SIDE if stacked else 4)
    height = (2 if stacked else 1) * (ROW * len(rows) + FRAME)
    with new_figure(WIDTH, min(PAGE, height)) as figure:
        layout: dict[str, Any] = {"nrows": 2} if stacked else {"ncols": 2, "sharey": True}
        first, second = figure.subplots(**layout)
        texts = [[_describe_mean(e, len(results.seeds), digits) for e in row] for row in grid]
        _draw_panel(first, grid, means, SEQUENTIAL, limits, texts, large)
        first.set_title(wrap(f"{metric.title}{metric.in_parentheses}, mean", TITLE))
        texts = [[_describe_shift(e, digits) for e in row] for row in grid]
        _draw_panel(second, grid, shifts, DIVERGING, (-most, most), texts, large)
        which = "each" if results.within else "the"
        second.set_title(wrap(f"Difference from {which} control{metric.in_parentheses}", TITLE))
        width = NAME if len(columns) <= 4 else 8
        for axes in (first, second):
            axes.set_xticks(range(len(columns)), [wrap(level, width) for level in columns])
            axes.set_xlabel(across.title)
        for axes in (first, second) if stacked else (first,):
            axes.set_yticks(range(len(rows)), [wrap(level, NAME) for level in rows])
            axes.set_ylabel(down.title)
        save(figure, folder, "heatmap")
    alt = f"{metric.label} over {down.label} and {across.label}"
    return Picture("heatmap.svg", _caption(results, entries, grid), alt)


def _differs(entry: CellMetric) -> bool:
    return entry.verdict is not None and entry.verdict.verdict == DIFFERS


def _shift(entry: CellMetric | None) -> float:
    if entry is None or entry.cell.control:
        return 0.0 if entry and entry.summary else np.nan
    return entry.versus.interval.mean if entry.versus else np.nan


def _describe_mean(entry: CellMetric | None, seeds: int, digits: int) -> list[str]:
    """The lines of a cell; the first is large."""
    if entry is None:
        return []
    if entry.summary is None:
        return ["", "missing"]
    notes = ["control"] if entry.cell.control else []
    notes += [f"n = {entry.summary.n}"] if entry.summary.n < seeds else []
    return [prose.show(entry.summary.mean, digits), ", ".join(notes)]


def _describe_shift(entry: CellMetric | None, digits: int) -> list[str]:
    if entry is None:
        return []
    if entry.cell.control or entry.versus is None:
        return ["", "control" if entry.cell.control else "missing"]
    text, wide = prose.show_signed(entry.versus.interval.mean, digits), entry.wide
    if wide is None or not wide.high > wide.low:
        return [text, "" if wide is None or wide.n < 2 else "no spread"]
    mark = f" {MARK}" if _differs(entry) else ""
    if wide.uncut is not None:
        return [text + mark, prose.show_interval(wide, digits)]
    return [text + mark, f"± {prose.show(wide.half, digits)}"]


def _draw_panel(
    axes: Axes,
    grid: Grid,
    values: Sequence[Sequence[float]],
    stops: Sequence[tuple[float, str]],
    limits: tuple[float, float],
    texts: Sequence[Sequence[list[str]]],
    large: bool,
) -> None:
    """Colours and texts of all cells; what is not there is hatched, a control is framed."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    shades, scale = LinearSegmentedColormap.from_list("reports", list(stops)), Normalize(*limits)
    shown = np.ma.masked_invalid(np.array(values, dtype=float))
    axes.imshow(shown, cmap=shades, norm=scale, aspect="auto", interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    sizes = (8.5, 6.5) if large else (7, 5.5)
    for (y, x), entry in np.ndenumerate(np.array(grid, dtype=object)):
        value, lines = values[y][x], texts[y][x]
        color = "black" if not np.isfinite(value) else readable_ink(shades(scale(value)))
        for line, size, offset in zip(lines, sizes, (-0.14, 0.22), strict=False):
            middle = y + (offset if all(lines) else 0)
            axes.text(x, middle, line, fontsize=size, color=color, ha="center", va="center")
        style: Mapping[str, Any] = {"fill": False, "edgecolor": "white", "linewidth": 1.5}
        if entry is None:
            style = {"facecolor": "white", "edgecolor": "#bbbbbb", "hatch": "////", "linewidth": 0}
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **style))
        if entry is not None and entry.cell.control:
            frame: dict[str, Any] = {
                "fill": False,
                "edgecolor": "black",
                "linewidth": 1.4,
                "zorder": 4,
            }
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, **frame))


def readable_ink(color: Sequence[float]) -> str:
    """Black or white, whichever stands out more from an RGB colour (WCAG 2, never below 4.5)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _caption(results: SweepResults, entries: Sequence[CellMetric], grid: Grid) -> str:
    metric, digits = results.headline, count_decimals(entries, results.headline)
    there = [entry for row in grid for entry in row if entry]
    wide = [entry.wide for entry in there if entry.wide is not None]
    own = "the control combination" + (" of its own level" if results.within else "")
    first, second = ("Left", "Right") if len(grid[0]) <= SIDE_BY_SIDE else ("Above", "Below")
    none = "" if any(_differs(entry) for entry in there) else ", which none does"
    texts = [
        f"{first}: mean of {prose.lower(metric.label)} over seeds at each combination; darker is "
        f"higher. {second}: difference from {own} (framed), seed by seed, with half the width of "
        f"its interval, which holds for all {len(wide)} combinations at once; {MARK}: it "
        f"differs{none}. Blue, dark in grey: lower; orange, light: higher; white: "
        "no difference."
    ]
    if len(there) < sum(map(len, grid)):
        texts.append("Hatched: combinations that are not part of the plan.")
    for entry in of_metric(entries, metric):
        if entry.cell.untouched and (untouched := entry.summary):
            interval = f" {prose.show_interval(untouched, digits, prose.show)}" * (untouched.n > 1)
            texts.append(f"Untouched backbone: {prose.show(untouched.mean, digits)}{interval}.")
    return " ".join([*texts, f"{count_seeds(results)}."])
