"""The figure of two factors whose combinations form a grid: means, and paired differences from the baseline combination, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.figures import WIDTH, Picture, canvas, counted, save, wrapped
from reports.study import Factor, Study
from reports.tables import Entry, decimals, in_sentence, number, of_metric, signed, span, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["heatmap", "leads"]

LEVELS = 3  # that both factors need at least for the heat map to lead
SIDE_BY_SIDE, MOST = 6, 14  # columns of two panels in a row, and of panels below each other; rows of the latter
ROW, FRAME, PAGE = 0.42, 0.85, 8.4  # inches: a row where there is room, title and axis of a panel, all of the figure at most
NAME, TITLE = 13, 38  # signs of a level's name and of a title in one line
# dark blue below zero, light orange above: in grey one end is dark, the other not, and the sign stands in every cell
DIVERGING = ((0.0, "#1c4f8a"), (0.25, "#7da7d0"), (0.5, "#ffffff"), (0.75, "#fbc98a"), (1.0, "#e08a1e"))
SEQUENTIAL = ((0.0, "#f4f7fa"), (1.0, "#3f7fb5"))
MARK = "◆"  # beside a difference whose widened interval excludes zero


def leads(study: Study) -> bool:
    """Whether the heat map, and not the forest plot, is the figure of page one: both factors are long, and most combinations are there."""
    lengths = [len(factor.levels) for factor in study.factors]
    return drawable(study) and min(lengths) >= LEVELS and 2 * len(study.levels) > lengths[0] * lengths[1]


def drawable(study: Study) -> bool:
    """Two factors of two or more levels, of which a search tried no scattered points, and few enough for a page."""
    lengths = sorted(len(factor.levels) for factor in study.factors)
    if len(lengths) != 2 or lengths[0] < 2 or study.tags.get("mode") == "search":
        return False
    return lengths[1] <= (2 * MOST if lengths[0] <= SIDE_BY_SIDE else MOST)


def heatmap(study: Study, found: Sequence[Entry], folder: Path) -> Picture | None:
    """One panel with the mean of the headline metric in every cell, one with the paired difference; None where cells form no grid."""
    if not drawable(study):
        return None
    down, across = study.factors if len(study.factors[0].levels) >= len(study.factors[1].levels) else study.factors[::-1]
    rows, columns = _levels(down, upwards=True), _levels(across)
    own = {(e.cell.values[down.key], e.cell.values[across.key]): e for e in of_metric(found, study.headline) if not e.cell.reference}
    grid = [[own.get((row, column)) for column in columns] for row in rows]
    digits = decimals(found, study.headline)
    stacked = len(columns) > SIDE_BY_SIDE
    panels = 2 if stacked else 1
    with canvas(WIDTH, min(PAGE, panels * (ROW * len(rows) + FRAME))) as figure:
        first, second = figure.subplots(2, 1) if stacked else figure.subplots(1, 2, sharey=True)
        large = len(columns) <= 4 or (stacked and len(columns) <= 2 * SIDE_BY_SIDE)
        unit = f" ({study.headline.unit})" if study.headline.unit else ""
        means = [[_mean(e) for e in row] for row in grid]
        _panel(first, means, _shades(SEQUENTIAL), _around(means), [[_mean_text(e, study, digits) for e in row] for row in grid], large)
        first.set_title(wrapped(f"{titled(study.headline)}{unit}, mean", TITLE))
        shifts = [[_shift(e) for e in row] for row in grid]
        most = max((abs(value) for row in shifts for value in row if np.isfinite(value)), default=0.0) or 1.0
        words = [[_shift_text(e, digits) for e in row] for row in grid]
        _panel(second, shifts, _shades(DIVERGING), (-most, most), words, large)
        second.set_title(wrapped(f"Difference from {'each' if study.within else 'the'} baseline{unit}", TITLE))
        for axes in (first, second):
            axes.set_xticks(range(len(columns)), [wrapped(level, NAME if len(columns) <= 4 else 8) for level in columns])
            axes.set_xlabel(_named(across))
            for y, row in enumerate(grid):
                for x, entry in enumerate(row):
                    _finish(axes, x, y, entry)
        for axes in (first, second) if stacked else (first,):
            axes.set_yticks(range(len(rows)), [wrapped(level, NAME) for level in rows])
            axes.set_ylabel(_named(down))
        save(figure, folder, "heatmap")
    return Picture("heatmap.svg", _caption(study, found, grid), f"{study.headline.label} over {down.label} and {across.label}")


def _levels(factor: Factor, *, upwards: bool = False) -> list[str]:
    """The levels as the cells name them; with `upwards` numbers from the top down, as an axis has them."""
    texts = factor.texts
    return texts[::-1] if upwards and factor.numeric else texts


def _named(factor: Factor) -> str:
    return factor.label + (f" ({factor.unit})" if factor.unit else "")


def _mean(entry: Entry | None) -> float:
    return entry.summary.mean if entry and entry.summary else np.nan


def _shift(entry: Entry | None) -> float:
    if entry is None or entry.cell.baseline:
        return np.nan if entry is None or entry.summary is None else 0.0
    return entry.versus.interval.mean if entry.versus else np.nan


def _mean_text(entry: Entry | None, study: Study, digits: int) -> list[str]:
    """The lines of a cell; the first is large."""
    if entry is None:
        return []
    if entry.summary is None:
        return ["", "missing"]
    short = f"n = {entry.summary.n}" if entry.summary.n < len(study.seeds) else ""
    notes = ", ".join(note for note in ("baseline" if entry.cell.baseline else "", short) if note)
    return [number(entry.summary.mean, digits), notes]


def _shift_text(entry: Entry | None, digits: int) -> list[str]:
    if entry is None:
        return []
    if entry.cell.baseline:
        return ["", "baseline"]
    if entry.versus is None:
        return ["", "missing"]
    shows = entry.wide is not None and entry.wide.n > 1
    text = signed(entry.versus.interval.mean, digits) + (f" {MARK}" if _clear(entry) else "")
    return [text, f"± {number(entry.wide.half, digits)}" if entry.wide and shows else ""]


def _clear(entry: Entry) -> bool:
    return entry.wide is not None and entry.wide.excludes_zero


def _around(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    finite = [value for row in values for value in row if np.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _shades(stops: Sequence[tuple[float, str]]) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("reports", list(stops))


def ink(color: Sequence[float]) -> str:
    """Black or white, whichever stands out more from an RGB colour (contrast as WCAG 2 defines it, never below 4.5)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _panel(
    axes: Axes, values: Sequence[Sequence[float]], shades: Colormap, limits: tuple[float, float], words: list[list[list[str]]], large: bool
) -> None:
    from matplotlib.colors import Normalize

    scale = Normalize(*limits)
    shown = np.ma.masked_invalid(np.array(values, dtype=float))
    axes.imshow(shown, cmap=shades, norm=scale, aspect="auto", interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    for y, row in enumerate(words):
        for x, lines in enumerate(row):
            color = "black" if not np.isfinite(values[y][x]) else ink(shades(scale(values[y][x])))
            for line, size, shift in zip(lines, (8.5 if large else 7, 6.5 if large else 5.5), (-0.14, 0.22), strict=False):
                alone = not lines[0] or not lines[1]
                axes.text(x, y + (0 if alone else shift), line, fontsize=size, color=color, ha="center", va="center")


def _finish(axes: Axes, x: int, y: int, entry: Entry | None) -> None:
    """White lines between cells; what is not there is hatched; a frame for a baseline cell."""
    from matplotlib.patches import Rectangle

    style: Mapping[str, Any] = {"fill": False, "edgecolor": "white", "linewidth": 1.5}
    if entry is None:
        style = {"facecolor": "white", "edgecolor": "#bbbbbb", "hatch": "////", "linewidth": 0}
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **style))
    if entry is not None and entry.cell.baseline:
        axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.4, zorder=4))


def _caption(study: Study, found: Sequence[Entry], grid: Sequence[Sequence[Entry | None]]) -> str:
    name, digits = in_sentence(study.headline.label), decimals(found, study.headline)
    there = [entry for row in grid for entry in row if entry]
    compared = [entry for entry in there if entry.wide is not None]
    untouched = next((e.summary for e in of_metric(found, study.headline) if e.cell.reference and e.summary), None)
    own = "the baseline combination of its own level" if study.within else "the baseline combination"
    first, second = ("Left", "Right") if len(grid[0]) <= SIDE_BY_SIDE else ("Above", "Below")
    texts = [
        f"{first}: mean of {name} over seeds at each combination; darker is higher.",
        f"{second}: difference from {own} (framed), seed by seed, with half the width of its "
        f"interval, widened to hold for all {len(compared)} combinations at once; {MARK}: that interval excludes zero"
        f"{'' if any(map(_clear, compared)) else ', which none does'}. Blue, dark in grey: lower; orange, light: higher; white: no "
        "difference.",
    ]
    if len(there) < sum(map(len, grid)):
        texts.append("Hatched: combinations that are not part of the plan.")
    if untouched is not None:
        interval = f" {span(untouched, digits)}" if untouched.n > 1 else ""
        texts.append(f"Untouched backbone: {number(untouched.mean, digits)}{interval}.")
    return " ".join([*texts, f"{counted(study)}."])
