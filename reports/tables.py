"""The numbers of a report as one list of entries (cell × metric), and that list as tables to be shown.

Numbers are formatted here, once, so that the PDF and every text file show the same characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from reports.statistics import Effect, Interval, Paired, holm, mean_interval, paired, standardised
from reports.study import PARTED, Cell, Metric, Study

__all__ = [
    "Entry",
    "Table",
    "difference_tables",
    "effect_tables",
    "entries",
    "factor_words",
    "headline_table",
    "in_sentence",
    "listed",
    "mean_tables",
    "number",
    "signed",
    "span",
    "stacked",
    "titled",
]

DASH = "–"
MEANS_A_TABLE, DIFFERENCES_A_TABLE = 6, 5  # cells side by side on an A4 page at a readable size, each number on one line
HOLM_FROM = 6  # with fewer seeds no sign-flip p can reach .05


@dataclass(frozen=True)
class Entry:
    """One cell and metric. `versus` is cell - its baseline cell over common seeds; `wide` the same with the widened interval."""

    cell: Cell
    metric: Metric
    summary: Interval | None
    versus: Paired | None = None
    wide: Interval | None = None
    holm: float | None = None

    @cached_property
    def effect(self) -> Effect | None:
        """The difference in units of its standard deviation between seeds."""
        return standardised(self.versus.differences) if self.versus else None


@dataclass(frozen=True)
class Table:
    """Text ready to be placed. A newline in a cell parts two lines; `marks` maps a row to "baseline" or "reference"."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    marks: dict[int, str] = field(default_factory=dict)


def entries(study: Study, level: float = 0.95) -> list[Entry]:
    """Every cell × metric. Intervals named `wide` hold for all compared levels at once (Bonferroni): 1 - (1 - level) / comparisons."""
    found = []
    for metric in study.metrics:
        values = {cell.name: cell.per_seed(metric.key) for cell in study.cells}
        bases = {cell.name: values[base.name] for cell in study.cells if (base := study.base_of(cell))}
        pairs = {name: paired(values[name], base, level) for name, base in bases.items() if base.keys() & values[name].keys()}
        compared = [cell.name for cell in study.levels if cell.name in pairs]
        wide_level = 1 - (1 - level) / max(1, len(compared))
        adjusted = dict(zip(compared, holm([pairs[name].p for name in compared]), strict=True))
        for cell in study.cells:
            versus = pairs.get(cell.name)
            found.append(
                Entry(
                    cell=cell,
                    metric=metric,
                    summary=mean_interval(list(values[cell.name].values()), level) if values[cell.name] else None,
                    versus=versus,
                    wide=mean_interval(versus.differences, wide_level) if versus and cell.name in adjusted else None,
                    holm=adjusted.get(cell.name),
                )
            )
    return found


def of_metric(found: Sequence[Entry], metric: Metric) -> list[Entry]:
    return [entry for entry in found if entry.metric.key == metric.key]


# ---- numbers as text


def decimals(found: Sequence[Entry], metric: Metric) -> int:
    """Digits after the point for one metric, the same in every cell."""
    means = [abs(entry.summary.mean) for entry in of_metric(found, metric) if entry.summary]
    if means and all(float(mean).is_integer() for mean in means) and metric.unit != "share":
        return 0
    if metric.unit == "share" or not means or max(means) < 10:
        return 3
    return 2 if max(means) < 100 else 1


def number(value: float, digits: int) -> str:
    """Fixed digits, a true minus sign, a dash where undefined, never "−0.000"."""
    if not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return f"+{text}" if text[0].isdigit() and float(text) != 0 else text


def span(interval: Interval | None, digits: int, *, sign: bool = False) -> str:
    if interval is None or not math.isfinite(interval.low):
        return DASH
    show = signed if sign else number
    return f"[{show(interval.low, digits)}, {show(interval.high, digits)}]"


def in_sentence(label: str) -> str:
    """A label inside a sentence: lower case, unless it is an abbreviation such as FID."""
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def listed(items: Sequence[str]) -> str:
    """One, two and three."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def factor_words(study: Study) -> str:
    """The factors in a sentence."""
    return listed([in_sentence(factor.label) for factor in study.factors])


def stacked(cell: Cell) -> str:
    """A cell's label with one level a line, for narrow columns."""
    return cell.label.replace(PARTED, "\n")


def titled(metric: Metric) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
    return f"{metric.label}{arrow}"


def count(entry: Entry, planned: int) -> str:
    """Number of seeds behind a mean; where seeds are missing, of how many and how many are paired."""
    n = entry.summary.n if entry.summary else 0
    text = f"{n}" if n == planned else f"{n} of {planned}"
    return f"{text} ({len(entry.versus.seeds)} paired)" if entry.versus and len(entry.versus.seeds) != n else text


def _marks(cells: Sequence[Cell]) -> dict[int, str]:
    return {i: "baseline" if cell.baseline else "reference" for i, cell in enumerate(cells) if cell.baseline or cell.reference}


# ---- display tables


def headline_table(study: Study, found: Sequence[Entry]) -> Table:
    """Cells as rows, the headline metric only."""
    metric = study.headline
    digits = decimals(found, metric)
    speaks = len(study.seeds) >= HOLM_FROM
    rows = []
    for entry in of_metric(found, metric):
        versus = entry.versus.interval if entry.versus else None
        row = [
            entry.cell.label + (" (baseline)" if entry.cell.baseline else ""),
            number(entry.summary.mean, digits) if entry.summary else DASH,
            span(entry.summary, digits),
            signed(versus.mean, digits) if versus else DASH,
            span(versus, digits, sign=True),
            *([] if not speaks else [DASH if entry.holm is None else f"{entry.holm:.3f}"]),
            count(entry, len(study.seeds)),
        ]
        rows.append(row)
    factor = " × ".join(f.label + (f" ({f.unit})" if f.unit else "") for f in study.factors)
    unit = f", {metric.unit}" if metric.unit else ""
    return Table(
        title=f"{metric.label}{unit}: mean over seeds and paired difference from the baseline {study.noun}{study.of_same}.",
        columns=[
            factor,
            f"{titled(metric)} mean",
            "95 % interval",
            "Difference",
            "95 % interval",
            *(["p (Holm)"] if speaks else []),
            "Seeds",
        ],
        rows=rows,
        note=missing_note(study),
        marks=_marks(study.cells),
    )


def missing_note(study: Study) -> str:
    """Names cells whose seeds are not all there; empty where all are."""
    parts = [f"{cell.label} lacks seed {', '.join(map(str, sorted(cell.unfinished)))}" for cell in study.cells if cell.unfinished]
    return f"{'; '.join(parts)}. Means are over the seeds that finished, differences over common seeds only." if parts else ""


def chunks(cells: list[Cell], most: int) -> list[list[Cell]]:
    parts = max(1, math.ceil(len(cells) / most))
    size = math.ceil(len(cells) / parts)
    return [cells[i : i + size] for i in range(0, len(cells), size)]


def mean_tables(study: Study, found: Sequence[Entry]) -> list[Table]:
    """Metrics as rows, cells as columns: mean ± half of the 95 % interval."""
    tables = []
    for cells in chunks(study.cells, MEANS_A_TABLE):
        rows = []
        for metric in study.metrics:
            digits = decimals(found, metric)
            by_name = {entry.cell.name: entry.summary for entry in of_metric(found, metric)}
            shown = [_plus_minus(by_name[cell.name], digits) for cell in cells]
            rows.append([_named(metric), *shown])
        tables.append(
            Table(
                "All metrics: mean over seeds ± half of the 95 % t-interval.", ["Metric", *_heads(cells)], rows, missing_note(study)
            )
        )
    return tables


def difference_tables(study: Study, found: Sequence[Entry]) -> list[Table]:
    """Metrics as rows, cells as columns: paired difference from the baseline level, its 95 % interval, Holm's p if it can speak."""
    tables = []
    for cells in chunks([cell for cell in study.cells if not cell.baseline], DIFFERENCES_A_TABLE):
        rows = []
        for metric in study.metrics:
            digits = decimals(found, metric)
            by_name = {entry.cell.name: entry for entry in of_metric(found, metric)}
            rows.append([_named(metric), *(_difference(by_name[cell.name], digits) for cell in cells)])
        title = (
            f"All metrics: paired difference from the baseline {study.noun} ({study.base_words}) with its 95 % "
            f"t-interval, not widened for the number of {study.noun}s."
        )
        tables.append(Table(title, ["Metric", *_heads(cells)], rows, missing_note(study)))
    return tables


def effect_tables(study: Study, found: Sequence[Entry]) -> list[Table]:
    """Cells as rows: the headline metric's paired difference in units of its spread; no table where three seeds are nowhere paired."""
    metric = study.headline
    digits = decimals(found, metric)
    shown = [(e, e.versus, e.effect) for e in of_metric(found, metric) if e.versus and e.effect and len(e.versus.seeds) > 2]
    if not shown:
        return []
    rows = [
        [
            entry.cell.label,
            signed(versus.interval.mean, digits),
            number(versus.interval.sd, digits + 1),
            signed(effect.g, 2),
            f"[{signed(effect.low, 2)}, {signed(effect.high, 2)}]" if math.isfinite(effect.low) else DASH,
        ]
        for entry, versus, effect in shown
    ]
    title = (
        f"{metric.label}: how large a difference is against its own scatter between seeds. g: mean over standard deviation (SD) of the "
        "paired differences, with Hedges' correction; its interval is that of the noncentral t distribution, not widened. It says how "
        "surely the next seed shows the same sign, not whether the difference matters; where all seeds agree to the last digit it is not "
        "defined."
    )
    marks = {i: "reference" for i, (entry, _, _) in enumerate(shown) if entry.cell.reference}
    return [Table(title, ["Cell", "Difference", "SD", "g", "95 % interval of g"], rows, "", marks)]


def _named(metric: Metric) -> str:
    return titled(metric) + (f" ({metric.unit})" if metric.unit else "")


def _heads(cells: Sequence[Cell]) -> list[str]:
    return [stacked(cell) + ("\n(baseline)" if cell.baseline else "") for cell in cells]


def _plus_minus(summary: Interval | None, digits: int) -> str:
    if summary is None:
        return DASH
    return number(summary.mean, digits) + (f" ± {number(summary.half, digits)}" if math.isfinite(summary.half) else "")


def _difference(entry: Entry, digits: int) -> str:
    if entry.versus is None:
        return DASH
    text = f"{signed(entry.versus.interval.mean, digits)}\n{span(entry.versus.interval, digits, sign=True)}"
    shows_p = entry.holm is not None and len(entry.versus.seeds) >= HOLM_FROM
    return f"{text}\np = {entry.holm:.3f}" if shows_p else text
