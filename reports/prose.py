"""Numbers, names and lists as text, formatted in one place so that all files show the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reports.results import SEPARATOR, CellResults, ReportedMetric, SweepResults
from reports.statistics import Interval

DASH = "–"
MOST_DECIMALS = 8


def choose_decimals(metric: ReportedMetric, means: Sequence[float]) -> int:
    """Digits after the point for one metric, from the means of its cells."""
    largest = max(map(abs, means), default=0.0)
    if means and all(float(mean).is_integer() for mean in means) and metric.unit != "share":
        return 0
    if metric.unit != "share" and 0 < largest < 0.1:
        return min(2 - math.floor(math.log10(largest)), MOST_DECIMALS)  # As a KID: not 0.000
    if metric.unit == "share" or not means or largest < 10:
        return 3
    return 2 if largest < 100 else 1


def show(value: float, digits: int) -> str:
    """Fixed digits, a true minus sign, a dash where undefined, never "−0.000"."""
    if not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def show_signed(value: float, digits: int) -> str:
    text = show(value, digits)
    return f"+{text}" if text[0].isdigit() and float(text) != 0 else text


def show_up(value: float, digits: int) -> str:
    """A bound, rounded away from 0 so that it still holds."""
    if not math.isfinite(value):
        return DASH
    scale = 10.0**digits
    return show(math.ceil(abs(value) * scale - 1e-6) / scale, digits)


def show_level(level: float) -> str:
    """A level in percent: 95, 99, 99.3."""
    return f"{100 * level:.1f}".removesuffix(".0")


def show_delta(delta: float | None) -> str:
    """δ = 0.05; "" without one."""
    return "" if delta is None else f"δ = {delta:g}"


def show_interval(
    interval: Any, digits: int, form: Callable[[float, int], str] = show_signed
) -> str:
    """The bounds of anything with ``low`` and ``high`` in brackets; a dash where there are none, or
    where they are the same: equal values have no spread, which is no certainty."""
    if interval is None or not interval.high > interval.low:
        return DASH
    marks = getattr(interval, "marks", ())  # Of a verdict
    low, high = (form(x, count_digits(x, digits, marks)) for x in (interval.low, interval.high))
    return f"[{low}, {high}]"


def count_digits(value: float, digits: int, marks: Sequence[float]) -> int:
    """``digits``, or as many more (four at most) as tell on which side of each mark a value is: an
    interval that ends at 0.0003 does not read as one that has 0 in it."""
    for more in range(5):
        shown = round(value, digits + more)
        if all(np.sign(shown - mark) == np.sign(value - mark) for mark in marks):
            return digits + more
    return digits


def show_difference(interval: Interval, digits: int) -> str:
    """A difference with its interval where it has one."""
    mean = show_signed(interval.mean, digits)
    shown = show_interval(interval, digits)
    return mean if shown == DASH else f"{mean} {shown}"


def lower(label: str) -> str:
    """A label inside a sentence: lower case, unless it is an abbreviation such as FID."""
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def join(items: Sequence[str]) -> str:
    """One, two and three."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def join_some(items: Sequence[str], most: int) -> str:
    """The first ``most`` items, and how many more there are."""
    rest = [f"{len(items) - most} more"] if len(items) > most else []
    return join([*items[:most], *rest])


def count(n: int, noun: str) -> str:
    """1 pair, 2 pairs."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def join_range(counts: Sequence[int]) -> str:
    """``3``, or ``2 to 5``."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def name_factors(results: SweepResults) -> str:
    """The factors in a sentence."""
    return join([lower(factor.label) for factor in results.factors])


def title_factors(results: SweepResults) -> str:
    """The factors as a heading or the name of an axis."""
    return " × ".join(factor.title for factor in results.factors)


def name_cell(results: SweepResults, cell: CellResults) -> str:
    """A cell in a sentence, where no heading says which level is of which factor."""
    return cell.label if cell.untouched or len(results.factors) == 1 else cell.name


def name_control(results: SweepResults) -> str:
    """The cell that others are compared with: ``0.5``, or ``sound of the same method``."""
    if not results.within:
        return name_cell(results, results.control)
    values = results.control.values.items()
    levels = SEPARATOR.join(level for key, level in values if key != results.within)
    return levels + of_the_same(results)


def of_the_same(results: SweepResults) -> str:
    """With ``within``, whose control is meant: `` of the same method``; else nothing."""
    for factor in results.factors:
        if factor.key == results.within:
            return f" of the same {factor.label[:1].lower()}{factor.label[1:]}"
    return ""


def stack_levels(cell: CellResults) -> str:
    """A cell's label with one level a line, for narrow columns."""
    return cell.label.replace(SEPARATOR, "\n")
