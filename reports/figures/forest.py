"""What was compared, in one look: differences with the intervals and verdicts of the answer.

A comparison has a row. Where a difference that matters (δ) is known, the band of those that do not
is shaded, so that the three things that an answer can say are seen: an interval beside zero, one
inside of the band, and one that is neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from reports import prose
from reports.answer.words import LESS, verdict_word
from reports.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    WIDTH,
    new_figure,
    plot_points,
    save,
    title_difference,
    wrap,
)
from reports.results import SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN
from reports.tables import CellMetric, verdicts_of
from reports.typeset import Picture
from reports.verdicts import COLLAPSED, IDENTICAL, IMAGES_ALONE, PER_SEED_T, UNTRAINED, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches: a line of text of a row, what a row has at least, all around the rows, all of it at most
LINE, ROW, FRAME, PAGE = 0.145, 0.2, 0.62, 8.4
NAME = 30  # Signs of a row's name in a line
SIZE, SIGN = 7.5, 0.58  # Points of a text where there is room, and ems: the width of a sign
FAR = 3  # Times what is seen of means, δ and the middle interval: as far as bars may reach
BAND, RIM = "#e4e9ee", "#9aa5b1"


@dataclass(frozen=True)
class ForestRow:
    """A comparison; without a verdict, the control that others are compared with.

    ``apart``: of the family of the untouched backbone. ``group``: a line parts rows of one from
    those of another.
    """

    label: str
    verdict: Verdict | None
    apart: bool = False
    group: str = ""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Of the interval, where there is one."""
        v = self.verdict
        return (v.low, v.high) if v is not None and math.isfinite(v.low) else None


@dataclass(frozen=True)
class Look:
    """How a verdict is drawn: ``full`` markers claim a difference, hollow ones do not."""

    marker: str
    color: str
    full: bool
    line: Any = "-"


LOOKS = {
    NO_DIFFERENCE: Look("s", GREEN, False),
    OPEN: Look("o", GREY, False, (0, (2.2, 1.1))),
    COLLAPSED: Look("X", ORANGE, True),
    IDENTICAL: Look("d", GREEN, False),
}
CONTROL = Look("|", "black", True)


def find_look(verdict: Verdict | None) -> Look:
    """Differences point to their side; orange is worse."""
    if verdict is None:
        return CONTROL
    if verdict.verdict != DIFFERS:
        return LOOKS[verdict.verdict]
    color = ORANGE if verdict.direction == "worse" else BLUE
    return Look(">" if verdict.mean > 0 else "<", color, verdict.matters)


def forest_rows(results: SweepResults, entries: Sequence[CellMetric]) -> list[ForestRow]:
    """The headline's comparisons in the order of the plan, with their controls, then those of the
    controls with the untouched backbone. Empty where nothing was compared."""
    verdicts = verdicts_of(entries, results.headline)
    if not verdicts.levels and not verdicts.untouched:
        return []
    levels = {verdict.cell: verdict for verdict in verdicts.levels}
    key = results.within or (results.factors[0].key if len(results.factors) > 1 else "")
    rows = [
        ForestRow(cell.label, levels.get(cell.name), group=cell.values.get(key, ""))
        for cell in results.levels
        if cell.control or cell.name in levels
    ]
    names = {cell.name: cell.label for cell in results.cells}
    for verdict in verdicts.untouched:
        rows.append(
            ForestRow(f"{names[verdict.cell]} against the untouched backbone", verdict, True)
        )
    return rows


def find_limits(rows: Sequence[ForestRow], delta: float | None) -> tuple[float, float]:
    """As far as the axis reaches: to the ends of all intervals, unless some are so wide that means
    and δ could not be told apart; those are cut."""
    means = [row.verdict.mean for row in rows if row.verdict]
    bars = [row.bounds for row in rows if row.bounds]
    middle = median((high - low) / 2 for low, high in bars) if bars else 0.0
    known = [*means, -(delta or 0.0), delta or 0.0]
    edge = FAR * max(*map(abs, known), middle)
    low = max(min([*known, *(low for low, _ in bars)]), -edge)
    high = min(max([*known, *(high for _, high in bars)]), edge)
    if low == high:
        return -1.0, 1.0
    room = 0.05 * (high - low)
    return low - room, high + room


def draw_forest(
    results: SweepResults, entries: Sequence[CellMetric], folder: Path
) -> Picture | None:
    """The headline's comparisons; None where there is none."""
    rows = forest_rows(results, entries)
    if not rows:
        return None
    draw_rows(rows, title_difference(results.headline), results.headline.delta, folder)
    marks = explain_marks([row.verdict for row in rows if row.verdict])
    cut = _explain_cut(rows, results.headline.delta)
    caption = " ".join(filter(None, [_explain(results, rows), *marks, cut]))
    said = "; ".join(f"{row.label}: {verdict_word(row.verdict)}" for row in rows if row.verdict)
    alt = f"Differences in {prose.lower(results.headline.label)} with intervals. {said}"
    return Picture("forest.svg", caption, alt)


def draw_rows(
    rows: Sequence[ForestRow], title: str, delta: float | None, folder: Path, name: str = "forest"
) -> None:
    """Write ``name``.svg and ``name``.png; rows from above to below, those apart last."""
    names = [wrap(row.label, NAME) for row in rows]
    heights = [max(ROW, LINE * (1 + text.count("\n"))) for text in names]
    gaps = [ROW if i and row.apart and not rows[i - 1].apart else 0.0 for i, row in enumerate(rows)]
    total = sum(heights) + sum(gaps)
    size = min(SIZE, SIZE * (PAGE - FRAME) / total)
    ends = [sum(heights[: i + 1]) + sum(gaps[: i + 1]) for i in range(len(rows))]
    at = [end - height / 2 for end, height in zip(ends, heights, strict=True)]
    with new_figure(WIDTH, min(PAGE, total + FRAME)) as figure:
        axes = figure.subplots()
        axes.set_xlim(*find_limits(rows, delta))
        axes.set_ylim(total + 0.04, -0.04)
        if delta is not None:
            axes.axvspan(-delta, delta, color=BAND, linewidth=0, zorder=0)
            for edge in (-delta, delta):
                axes.axvline(edge, color=RIM, linewidth=0.6, linestyle=(0, (1, 1.5)))
        axes.axvline(0, color="black", linewidth=0.8, zorder=1)
        for i, row in enumerate(rows[1:], 1):
            if gaps[i] or row.group != rows[i - 1].group:
                edge = at[i] - (heights[i] + gaps[i]) / 2
                axes.axhline(edge, color=GREY if gaps[i] else "#cccccc", linewidth=0.6, zorder=0.5)
        for row, y in zip(rows, at, strict=True):
            _draw_row(axes, row, y)
        _write_rows(axes, rows, at, size)
        axes.set_yticks(at, names, fontsize=size)
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("normal" if row.verdict else "bold")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(title)
        save(figure, folder, name)


def _draw_row(axes: Axes, row: ForestRow, y: float) -> None:
    look = find_look(row.verdict)
    if row.verdict is None:
        plot_points(axes, 0, y, size=7, marker="|", color="black", markeredgewidth=2.2, zorder=4)
        return
    left, right = axes.get_xlim()
    if row.bounds:
        rim = (right - left) / 80
        low, high = max(row.bounds[0], left + rim), min(row.bounds[1], right - rim)
        style = {"color": look.color, "linestyle": look.line, "solid_capstyle": "butt"}
        axes.plot([low, high], [y, y], linewidth=1.7, zorder=3, **style)
        for end, bound, marker in ((low, row.bounds[0], "<"), (high, row.bounds[1], ">")):
            if end != bound:
                arrow = {"marker": marker, "color": look.color, "markeredgewidth": 0, "zorder": 3}
                plot_points(axes, end, y, size=4, **arrow)
    point = {"marker": look.marker, "color": look.color, "zorder": 4}
    point["markerfacecolor"] = look.color if look.full else "white"
    plot_points(axes, row.verdict.mean, y, size=6, markeredgewidth=1.3, **point)


def _write_rows(axes: Axes, rows: Sequence[ForestRow], at: Sequence[float], size: float) -> None:
    """Right of the panel: difference and interval, and the verdict, in columns of their own."""
    numbers = []
    for v in (row.verdict for row in rows):
        text = prose.show_signed(v.mean, v.decimals) if v else ""
        if v and math.isfinite(v.low):
            text += f" {prose.show_interval(v, v.decimals)}"
        numbers.append(text)
    column = 6 + SIGN * size * (2 + max(map(len, numbers)))
    place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": size}
    place["xycoords"] = axes.get_yaxis_transform()
    for row, y, number in zip(rows, at, numbers, strict=True):
        look = find_look(row.verdict)
        words = verdict_word(row.verdict) if row.verdict else "control"
        axes.annotate(number, (1, y), xytext=(6, 0), **place)
        weight = "bold" if look.full else "normal"
        axes.annotate(
            words, (1, y), xytext=(column, 0), color=look.color, fontweight=weight, **place
        )


def _explain(results: SweepResults, rows: Sequence[ForestRow]) -> str:
    """What was compared, and what the intervals are."""
    levels = [row.verdict for row in rows if row.verdict and not row.apart]
    apart = [row.verdict for row in rows if row.verdict and row.apart]
    noun, name = results.noun, prose.lower(results.headline.label)
    level = prose.show_level(results.level)
    if levels:
        text = (
            f"Differences in {name} from the control {noun} ({prose.name_control(results)}), with "
            f"{level} % intervals{f' that hold for all {len(levels)} at once' * (len(levels) > 1)}"
        )
        text += f"; below the line{_name_family(apart)}" if apart else ""
    else:
        text = f"Differences in {name}:{_name_family(apart)}, with {level} % intervals"
    rules = {verdict.rule for verdict in (*levels, *apart)}
    if PER_SEED_T in rules:
        text += ". Intervals are t-intervals over seeds (Bonferroni)"
    if UNTRAINED in rules:
        text += ". Where neither side trains anything, intervals are of images: prompts and noises"
    if IMAGES_ALONE in rules:
        one = "One seed" if rules == {IMAGES_ALONE} else "Where cells share one seed"
        text += f". {one}: intervals are of images alone and say nothing of another training"
    return f"{text}."


def _name_family(apart: Sequence[Verdict]) -> str:
    what = "controls" if len(apart) > 1 else "control"
    return f" the {what} against the untouched backbone, a family of its own"


def explain_marks(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences on the marks that are drawn, and on the band."""
    words = {verdict.verdict for verdict in verdicts}
    claims = [verdict for verdict in verdicts if verdict.verdict == DIFFERS]
    parts = []
    if any(verdict.matters for verdict in claims):
        sides = sorted({verdict.direction for verdict in claims if verdict.matters})
        parts.append(f"full triangle: {DIFFERS} ({' or '.join(sides)})")
    if not all(verdict.matters for verdict in claims):
        parts.append(f"hollow triangle: {LESS}")
    named = {NO_DIFFERENCE: "square", OPEN: "circle with a broken line", COLLAPSED: "cross"}
    named[IDENTICAL] = "diamond"
    parts += [f"{mark}: {word}" for word, mark in named.items() if word in words]
    marks = "; ".join(parts)
    texts = [f"{marks[:1].upper()}{marks[1:]}."] if marks else []
    delta = verdicts[0].metric.delta if verdicts else None
    if delta is not None:
        texts.append(f"Shaded: differences below {prose.show_delta(delta)}, which do not matter.")
    return texts


def _explain_cut(rows: Sequence[ForestRow], delta: float | None) -> str:
    left, right = find_limits(rows, delta)
    cut = any(row.bounds and (row.bounds[0] < left or row.bounds[1] > right) for row in rows)
    return "Where a bar ends in an arrow, the interval continues." if cut else ""
