"""The numbers of a report, one entry per cell and metric, and the tables that show them.

Numbers are formatted here, once, so that the PDF and every text file show the same characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from reports import prose
from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import Effect, Interval, Paired, holm, mean_interval, paired, standardised

MEANS_A_TABLE, DIFFERENCES_A_TABLE = 6, 5  # Cells side by side on an A4 page
MOST_DECIMALS = 8
HOLM_FROM = 6  # With fewer seeds no sign-flip p can reach .05


@dataclass(frozen=True)
class CellMetric:
    """One cell and metric.

    ``versus`` is cell - its control over common seeds; ``wide`` the same with the widened interval.
    """

    cell: CellResults
    metric: ReportedMetric
    summary: Interval | None
    versus: Paired | None = None
    wide: Interval | None = None
    holm: float | None = None

    @property
    def intervals(self) -> tuple[Interval | None, ...]:
        """All of them."""
        return self.summary, self.versus.interval if self.versus else None, self.wide

    @cached_property
    def effect(self) -> Effect | None:
        """The difference in units of its standard deviation between seeds."""
        return standardised(self.versus.differences) if self.versus else None


@dataclass(frozen=True)
class Table:
    """Text ready to be set.

    A newline in a cell starts a new line; ``marks`` maps a row to "control" or "untouched".
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    marks: dict[int, str] = field(default_factory=dict)


def compare_cells(results: SweepResults, level: float = 0.95) -> list[CellMetric]:
    """Every cell × metric.

    Intervals named ``wide`` hold for all compared levels at once (Bonferroni):
    1 - (1 - level) / comparisons.
    """
    entries = []
    for metric in results.metrics:
        values = {cell.name: cell.per_seed(metric.key) for cell in results.cells}
        pairs = {
            cell.name: paired(values[cell.name], values[base.name], level)
            for cell in results.cells
            if (base := results.control_of(cell)) and values[base.name].keys() & values[cell.name]
        }
        compared = [cell.name for cell in results.levels if cell.name in pairs]
        wide_level = widen(level, len(compared))
        adjusted = dict(zip(compared, holm([pairs[n].p for n in compared]), strict=True))
        for cell in results.cells:
            versus, own = pairs.get(cell.name), list(values[cell.name].values())
            wide = versus and cell.name in adjusted
            apart = metric.difference_bounds
            if versus:
                versus = replace(versus, interval=versus.interval.within(apart))
            entries.append(
                CellMetric(
                    cell=cell,
                    metric=metric,
                    summary=mean_interval(own, level).within(metric.bounds) if own else None,
                    versus=versus,
                    wide=mean_interval(versus.differences, wide_level).within(apart)
                    if versus and wide
                    else None,
                    holm=adjusted.get(cell.name),
                )
            )
    return entries


def widen(level: float, comparisons: int) -> float:
    """The level of each of so many intervals that hold at once with ``level`` (Bonferroni)."""
    return 1 - (1 - level) / max(1, comparisons)


def of_metric(entries: Sequence[CellMetric], metric: ReportedMetric) -> list[CellMetric]:
    return [entry for entry in entries if entry.metric.key == metric.key]


def count_decimals(entries: Sequence[CellMetric], metric: ReportedMetric) -> int:
    """Digits after the point for one metric, the same in every cell."""
    means = [abs(entry.summary.mean) for entry in of_metric(entries, metric) if entry.summary]
    if means and all(float(mean).is_integer() for mean in means) and metric.unit != "share":
        return 0
    if metric.unit != "share" and 0 < max(means, default=0) < 0.1:
        return min(2 - math.floor(math.log10(max(means))), MOST_DECIMALS)  # As a KID: not 0.000
    if metric.unit == "share" or not means or max(means) < 10:
        return 3
    return 2 if max(means) < 100 else 1


def mark_rows(cells: Sequence[CellResults]) -> dict[int, str]:
    return {i: cell.mark for i, cell in enumerate(cells) if cell.mark}


def split_evenly(cells: list[CellResults], most: int) -> list[list[CellResults]]:
    """Parts of equal size, of at most ``most`` cells."""
    size = math.ceil(len(cells) / max(1, math.ceil(len(cells) / most)))
    return [cells[i : i + size] for i in range(0, len(cells), max(1, size))] or [[]]


# ---- Tables


def headline_table(results: SweepResults, entries: Sequence[CellMetric]) -> Table:
    """Cells as rows, the headline metric only."""
    metric, digits = results.headline, count_decimals(entries, results.headline)
    shows_p = len(results.seeds) >= HOLM_FROM
    rows = []
    for entry in of_metric(entries, metric):
        summary, versus = entry.summary, entry.versus.interval if entry.versus else None
        p = [prose.DASH if entry.holm is None else f"{entry.holm:.3f}"] if shows_p else []
        rows.append(
            [
                entry.cell.marked_label,
                prose.show(summary.mean, digits) if summary else prose.DASH,
                prose.show_interval(summary, digits, prose.show),
                prose.show_signed(versus.mean, digits) if versus else prose.DASH,
                prose.show_interval(versus, digits),
                *p,
                _count_seeds(entry, len(results.seeds)),
            ]
        )
    columns = [prose.title_factors(results), f"{metric.title} mean", "95 % interval", "Difference"]
    columns += ["95 % interval", *(["p (Holm)"] if shows_p else []), "Seeds"]
    unit = f", {metric.unit}" if metric.unit else ""
    versus_what = f"the control {results.noun}{prose.of_the_same(results)}"
    title = f"{metric.label}{unit}: mean over seeds and paired difference from {versus_what}."
    return Table(title, columns, rows, note_missing_seeds(results), mark_rows(results.cells))


def _count_seeds(entry: CellMetric, planned: int) -> str:
    """Seeds behind a mean; where seeds are missing, of how many and how many are paired."""
    n = entry.summary.n if entry.summary else 0
    text = f"{n}" if n == planned else f"{n} of {planned}"
    pairs = len(entry.versus.seeds) if entry.versus else n
    return text if pairs == n else f"{text} ({pairs} paired)"


def note_missing_seeds(results: SweepResults) -> str:
    """Names cells whose seeds, or whose values, are not all there; empty where all are."""
    parts = [
        f"{cell.label} lacks seed {', '.join(map(str, sorted(cell.unfinished)))}"
        for cell in results.cells
        if cell.unfinished
    ]
    parts += describe_undefined(results)
    if results.other_code:
        counts: dict[int, list[str]] = {}
        for label, trials in results.other_code.items():
            counts.setdefault(len(trials), []).append(label)
        left = [f"{', '.join(labels)} of {prose.count(n, 'trial')}" for n, labels in counts.items()]
        parts.append(f"{'; '.join(left)}: left out, since other code measured them")
    means = "Means are over the seeds that have a value, differences over common seeds only."
    return f"{'; '.join(parts)}. {means}" if parts else ""


def describe_undefined(results: SweepResults) -> list[str]:
    """Which metrics have no value in seeds that finished, and why."""
    parts = []
    for cell in results.cells:
        for metric in results.metrics:
            why = cell.without_value(metric.key)
            if why:
                reasons = "; ".join(dict.fromkeys(why.values()))
                seeds = ", ".join(map(str, why))
                parts.append(
                    f"{metric.label} of {cell.label} is undefined for seed {seeds} ({reasons})"
                )
    return parts


def metric_tables(
    title: str,
    cells: list[CellResults],
    most: int,
    metrics: Sequence[ReportedMetric],
    show: Callable[[ReportedMetric, CellResults], str],
    note: str = "",
    mark: bool = True,
) -> list[Table]:
    """Metrics as rows, cells as columns, as many tables as keep to ``most`` cells a table."""
    tables = []
    for part in split_evenly(cells, most):
        marks = ["\n(control)" if mark and cell.control else "" for cell in part]
        heads = [prose.stack_levels(cell) + sign for cell, sign in zip(part, marks, strict=True)]
        rows = [
            [metric.title + metric.in_parentheses, *(show(metric, cell) for cell in part)]
            for metric in metrics
        ]
        tables.append(Table(title, ["Metric", *heads], rows, note))
    return tables


def mean_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    """Metrics as rows, cells as columns: mean ± half of the 95 % interval."""
    by_place = {(e.metric.key, e.cell.name): e.summary for e in entries}
    digits = {m.key: count_decimals(entries, m) for m in results.metrics}

    def show(metric: ReportedMetric, cell: CellResults) -> str:
        summary = by_place[metric.key, cell.name]
        if summary is None:
            return prose.DASH
        at = digits[metric.key]
        half = f" ± {prose.show(summary.half, at)}" if summary.n > 1 else ""
        if summary.uncut is not None:
            half = f" {prose.show_interval(summary, at, prose.show)}"
        return prose.show(summary.mean, at) + half

    title = "All metrics: mean over seeds ± half of the 95 % t-interval"
    cut = any(e.summary is not None and e.summary.uncut is not None for e in entries)
    title += "; [bounds] where a share's ends at 0 or 1." if cut else "."
    note = note_missing_seeds(results)
    return metric_tables(title, results.cells, MEANS_A_TABLE, results.metrics, show, note)


def difference_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    """Metrics as rows, cells as columns: paired difference, its interval, and p."""
    by_place = {(e.metric.key, e.cell.name): e for e in entries}
    digits = {m.key: count_decimals(entries, m) for m in results.metrics}

    def show(metric: ReportedMetric, cell: CellResults) -> str:
        entry = by_place[metric.key, cell.name]
        if entry.versus is None:
            return prose.DASH
        shift, at = entry.versus.interval, digits[metric.key]
        text = f"{prose.show_signed(shift.mean, at)}\n{prose.show_interval(shift, at)}"
        shows_p = entry.holm is not None and len(entry.versus.seeds) >= HOLM_FROM
        return f"{text}\np = {entry.holm:.3f}" if shows_p else text

    title = (
        f"All metrics: paired difference from the control {results.noun} "
        f"({prose.name_control(results)}) with its 95 % t-interval, not widened for the number of "
        f"{results.noun}s."
    )
    cells = [cell for cell in results.cells if not cell.control]
    note = note_missing_seeds(results)
    return metric_tables(title, cells, DIFFERENCES_A_TABLE, results.metrics, show, note)


def effect_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    """Cells as rows: the headline's difference in units of its spread; none below three pairs."""
    metric, digits = results.headline, count_decimals(entries, results.headline)
    rows, cells = [], []
    for entry in of_metric(entries, metric):
        if entry.versus is None or entry.effect is None or len(entry.versus.seeds) < 3:
            continue
        interval, effect = entry.versus.interval, entry.effect
        spread = prose.show(interval.sd, digits + 1)
        g = [prose.show_signed(effect.g, 2), prose.show_interval(effect, 2)]
        rows.append([entry.cell.label, prose.show_signed(interval.mean, digits), spread, *g])
        cells.append(entry.cell)
    title = (
        f"{metric.label}: how large a difference is against its own scatter between seeds. g: mean "
        "over standard deviation (SD) of the paired differences, with Hedges' correction; its "
        "interval is that of the noncentral t distribution, not widened. It says how surely the "
        "next seed shows the same sign, not whether the difference matters; where all seeds agree "
        "to the last digit it is not defined."
    )
    columns = ["Cell", "Difference", "SD", "g", "95 % interval of g"]
    return [Table(title, columns, rows, "", mark_rows(cells))] if rows else []
