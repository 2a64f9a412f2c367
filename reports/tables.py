"""The numbers of a report, one entry per cell and metric, and the tables that show them.

Numbers are formatted here, once, so that the PDF and every text file show the same characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from reports import prose
from reports.answer.words import verdict_word
from reports.correcting import correct_cells, show_corrected
from reports.image_tables import NoTable, read_plain_values
from reports.judging import judge_metrics
from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import (
    CorrectedShare,
    Effect,
    Improvement,
    Interval,
    Paired,
    fewest_seeds_for_holm,
    holm,
    mean_interval,
    paired,
    probability_of_improvement,
    standardised,
)
from reports.verdicts import IMAGES_ALONE, PER_SEED_T, MetricVerdicts, Verdict

CORRECTED = " corrected"  # Ends the key of the row below that of a metric
OLDER = " t"  # Marks intervals over seeds where others are of images
MEANS_A_TABLE, DIFFERENCES_A_TABLE = 6, 5  # Cells side by side on an A4 page
METRICS_A_TABLE = 11  # Rows of four lines below each other
T = TypeVar("T")


@dataclass(frozen=True)
class CellMetric:
    """One cell and metric.

    ``versus`` is cell - its control over common seeds, with the t-interval of this difference
    alone; ``wide`` the same with the interval that the answer goes by, which holds for all levels
    at once (None for the untouched backbone); ``verdicts`` are all of the metric.
    """

    cell: CellResults
    metric: ReportedMetric
    summary: Interval | None
    verdicts: MetricVerdicts
    versus: Paired | None = None
    wide: Interval | None = None
    holm: float | None = None
    improvement: Improvement | None = None  # Of the headline alone, over seeds and prompts
    corrected: CorrectedShare | None = None  # For the detector's errors, where these are known

    @property
    def intervals(self) -> tuple[Interval | None, ...]:
        """All of them."""
        return self.summary, self.versus.interval if self.versus else None, self.wide

    @property
    def verdict(self) -> Verdict | None:
        """Of the cell against its control."""
        return self.verdicts.of(self.cell) if self.versus else None

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
    """Every cell × metric, with what is said of it."""
    entries = []
    judged = judge_metrics(results)
    improved = find_improvements(results, judged[results.headline.key], level)
    for metric in results.metrics:
        verdicts, corrected = judged[metric.key], correct_cells(results, metric)
        values = {cell.name: cell.per_seed(metric.key) for cell in results.cells}
        pairs = {
            cell.name: paired(values[cell.name], values[base.name], level)
            for cell in results.cells
            if (base := results.control_of(cell)) and values[base.name].keys() & values[cell.name]
        }
        compared = [cell.name for cell in results.levels if cell.name in pairs]
        adjusted = dict(zip(compared, holm([pairs[n].p for n in compared]), strict=True))
        for cell in results.cells:
            versus, own = pairs.get(cell.name), list(values[cell.name].values())
            verdict = verdicts.of(cell) if cell.name in adjusted else None
            if versus:
                shown = versus.interval.within(metric.difference_bounds)
                versus = replace(versus, interval=shown)
            entries.append(
                CellMetric(
                    cell=cell,
                    metric=metric,
                    summary=mean_interval(own, level).within(metric.bounds) if own else None,
                    verdicts=verdicts,
                    versus=versus,
                    wide=verdict.interval if verdict else None,
                    holm=adjusted.get(cell.name),
                    improvement=improved.get(cell.name)
                    if metric.key == results.headline.key
                    else None,
                    corrected=corrected.get(cell.name),
                )
            )
    return entries


def find_improvements(
    results: SweepResults, verdicts: MetricVerdicts, level: float
) -> dict[str, Improvement]:
    """Compared level -> how often its images are better than the control's; empty where images
    cannot tell, or neither side is better."""
    if verdicts.apart:
        every = len(verdicts.levels)
        each = [
            find_improvements(results, part, level ** (len(part.levels) / every))
            for part in verdicts.apart
        ]
        return {cell: found for own in each for cell, found in own.items()}
    table, better = verdicts.table, verdicts.metric.better
    pairs = [(verdict.cell, verdict.control) for verdict in verdicts.levels]
    if table is None or verdicts.pooled is None or better == "none" or not pairs:
        return {}
    used = {name for pair in pairs for name in pair}
    try:
        table = read_plain_values(results, table)
    except NoTable:
        return {}
    y = {name: rows for name, rows in table.y.items() if name in used}
    found = probability_of_improvement(
        y, level=level, better=better, pairs=pairs, untrained=verdicts.untrained
    )
    alone = {verdict.cell for verdict in verdicts.levels if verdict.rule == IMAGES_ALONE}
    return {  # One training says nothing of others
        str(i.cell): replace(i, low=math.nan, high=math.nan) if i.cell in alone else i
        for i in found
    }


def verdicts_of(entries: Sequence[CellMetric], metric: ReportedMetric) -> MetricVerdicts:
    """All verdicts of one metric."""
    return next(entry.verdicts for entry in of_metric(entries, metric))


def shows_p(entries: Sequence[CellMetric], metric: ReportedMetric) -> bool:
    """Whether sign flips of so many seeds, adjusted by Holm, can pass .05 at all."""
    compared = [e for e in of_metric(entries, metric) if e.versus and e.holm is not None]
    if not compared:
        return False
    seeds = max(len(e.versus.seeds) for e in compared if e.versus)
    return seeds >= fewest_seeds_for_holm(len(compared))


def widen(level: float, comparisons: int) -> float:
    """The level of each of so many intervals that hold at once with ``level`` (Bonferroni)."""
    return 1 - (1 - level) / max(1, comparisons)


def of_metric(entries: Sequence[CellMetric], metric: ReportedMetric) -> list[CellMetric]:
    return [entry for entry in entries if entry.metric.key == metric.key]


def count_decimals(entries: Sequence[CellMetric], metric: ReportedMetric) -> int:
    """Digits after the point for one metric, the same in every cell."""
    means = [entry.summary.mean for entry in of_metric(entries, metric) if entry.summary]
    return prose.choose_decimals(metric, means)


def mark_rows(cells: Sequence[CellResults]) -> dict[int, str]:
    return {i: cell.mark for i, cell in enumerate(cells) if cell.mark}


def split_evenly(items: Sequence[T], most: int) -> list[list[T]]:
    """Parts of equal size, of at most ``most`` items."""
    size = math.ceil(len(items) / max(1, math.ceil(len(items) / most)))
    return [[*items[i : i + size]] for i in range(0, len(items), max(1, size))] or [[]]


# ---- Tables


def headline_table(results: SweepResults, entries: Sequence[CellMetric]) -> Table:
    """Cells as rows, the headline metric only."""
    metric, digits = results.headline, count_decimals(entries, results.headline)
    with_p = shows_p(entries, metric)
    with_better = any(entry.improvement for entry in entries)
    with_corrected = any(entry.corrected for entry in of_metric(entries, metric))
    rows = []
    for entry in of_metric(entries, metric):
        summary, verdict = entry.summary, entry.verdict
        p = [prose.DASH if entry.holm is None else f"{entry.holm:.3f}"] if with_p else []
        rows.append(
            [
                entry.cell.marked_label,
                prose.show(summary.mean, digits) if summary else prose.DASH,
                prose.show_interval(summary, digits, prose.show),
                *([show_corrected(entry.corrected, digits, "\n")] if with_corrected else []),
                prose.show_signed(verdict.mean, digits) if verdict else prose.DASH,
                prose.show_interval(verdict, digits),
                *p,
                *([_show_improvement(entry)] if with_better else []),
                _count_seeds(entry, len(results.seeds)),
                verdict_word(verdict) if verdict else prose.DASH,
            ]
        )
    columns = [prose.title_factors(results), f"{metric.title} mean", "95 % interval"]
    columns += [*(["Corrected"] if with_corrected else []), "Difference"]
    columns += [f"{prose.show_level(results.level)} %, all at once"]
    columns += ["p (Holm)"] if with_p else []
    columns += [*(["P(better)"] if with_better else []), "Seeds", "Verdict"]
    unit = f", {metric.unit}" if metric.unit else ""
    versus_what = f"the control {results.noun}{prose.of_the_same(results)}"
    delta = (
        f" A difference matters from {prose.show_delta(metric.delta)} on." if metric.delta else ""
    )
    title = (
        f"{metric.label}{unit}: mean over seeds, difference from {versus_what} and what the answer "
        f"says of it.{delta}{_describe_untouched(entries)}"
    )
    if with_better:
        title += (
            " P(better): how often an image is better than the control's of the same seed and "
            "prompt (of several noises, their mean), equal ones as half, with an interval for all "
            "at once, by the rule of the answer."
        )
    if with_corrected:
        title += " Corrected: for the detector's errors, as the section Statistics says."
    return Table(title, columns, rows, note_missing_seeds(results), mark_rows(results.cells))


def _describe_untouched(entries: Sequence[CellMetric]) -> str:
    if not any(e.cell.untouched and e.verdict for e in entries):
        return ""
    return " The row of the untouched backbone is a family of its own."


def _show_improvement(entry: CellMetric) -> str:
    if entry.improvement is None:
        return prose.DASH
    share = prose.show(entry.improvement.share, 3)
    return f"{share}\n{prose.show_interval(entry.improvement, 3, prose.show)}"


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
    corrected = {(e.metric.key, e.cell.name): e.corrected for e in entries if e.corrected}
    digits = {m.key: count_decimals(entries, m) for m in results.metrics}

    def show(metric: ReportedMetric, cell: CellResults) -> str:
        if metric.key.endswith(CORRECTED):
            key = metric.key.removesuffix(CORRECTED)
            return show_corrected(corrected.get((key, cell.name)), digits[key])
        summary = by_place[metric.key, cell.name]
        if summary is None:
            return prose.DASH
        at = digits[metric.key]
        half = f" ± {prose.show(summary.half or math.nan, at)}" if summary.n > 1 else ""
        if summary.uncut is not None:
            half = f" {prose.show_interval(summary, at, prose.show)}"
        return prose.show(summary.mean, at) + half

    title = "All metrics: mean over seeds ± half of the 95 % t-interval"
    cut = any(e.summary is not None and e.summary.uncut is not None for e in entries)
    title += "; [bounds] where a share's ends at 0 or 1." if cut else "."
    if any(e.summary is not None and e.summary.half == 0 for e in entries):
        title += " Seeds with equal values have no spread to judge by: –."
    metrics = []
    for metric in results.metrics:
        metrics.append(metric)
        if any(key == metric.key for key, _ in corrected):
            key, label = f"{metric.key}{CORRECTED}", f"{metric.label}, corrected"
            metrics.append(replace(metric, key=key, label=label))
    if corrected:
        title += " Corrected for the detector's errors, with the 95 % interval of images and labels"
        title += " (see Statistics)."
    note = note_missing_seeds(results)
    return metric_tables(title, results.cells, MEANS_A_TABLE, metrics, show, note)


def difference_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    """Metrics as rows, cells as columns: difference, the interval that its verdict goes by, the
    verdict, and p."""
    by_place = {(e.metric.key, e.cell.name): e for e in entries}
    digits = {m.key: count_decimals(entries, m) for m in results.metrics}
    with_p = {m.key: shows_p(entries, m) for m in results.metrics}

    def show(metric: ReportedMetric, cell: CellResults) -> str:
        entry = by_place[metric.key, cell.name]
        verdict, at = entry.verdict, digits[metric.key]
        if verdict is None:
            return prose.DASH
        older = OLDER if verdict.rule == PER_SEED_T else ""
        shift = f"{prose.show_signed(verdict.mean, at)}\n{prose.show_interval(verdict, at)}{older}"
        text = f"{shift}\n{verdict_word(verdict)}"
        return f"{text}\np = {entry.holm:.3f}" if with_p[metric.key] and entry.holm else text

    title = (
        f"All metrics: difference from the control {results.noun} "
        f"({prose.name_control(results)}), its {prose.show_level(results.level)} % interval for "
        f"all {results.noun}s at once, and what that says."
    )
    if any(e.cell.untouched and e.verdict for e in entries):
        title += " The untouched backbone is a family of its own."
    if any(e.verdict and e.verdict.rule == PER_SEED_T for e in entries):
        title += f" {OLDER.strip()}: no table of images, so by t-intervals over seeds (Bonferroni)."
    cells = [cell for cell in results.cells if not cell.control]
    note = note_missing_seeds(results)
    return [
        table
        for metrics in split_evenly(results.metrics, METRICS_A_TABLE)
        for table in metric_tables(title, cells, DIFFERENCES_A_TABLE, metrics, show, note)
    ]


def alike_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    """Metrics without a table of images: the interval that pools error over cells."""
    by_place = {(e.metric.key, e.cell.name): e for e in entries}
    digits = {m.key: count_decimals(entries, m) for m in results.metrics}
    alike = {e.metric.key for e in entries if e.verdict and e.verdict.alike}
    metrics = [metric for metric in results.metrics if metric.key in alike]

    def show(metric: ReportedMetric, cell: CellResults) -> str:
        verdict, at = by_place[metric.key, cell.name].verdict, digits[metric.key]
        if verdict is None or verdict.alike is None:
            return prose.DASH
        low, high = (prose.show_signed(bound, at) for bound in verdict.alike)
        return f"[{low}, {high}]"

    title = (
        f"Metrics without a table of images: {prose.show_level(results.level)} % interval of the "
        f"difference with error pooled over cells, for all {results.noun}s at once. It supposes "
        "that cells scatter alike, and claims "
        "nothing."
    )
    cells = [cell for cell in results.levels if not cell.control]
    return metric_tables(title, cells, DIFFERENCES_A_TABLE, metrics, show) if metrics else []


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
