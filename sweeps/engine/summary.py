"""The table of results that a person sees when a sweep ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from reports.answer.files import CONTROL, headline_rows
from reports.statistics import Interval, mean_interval, paired
from sweeps.sweep import Cell, Metric, Sweep

__all__ = ["summary_table"]

Values = Mapping[str, Mapping[int, Mapping[str, float]]]  # Cell -> seed -> metric -> value
NONE = "–"
CORRECTED = 12  # Characters of the column of shares that are corrected for the detector's errors


def summary_table(
    sweep: Sweep,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    values: Values,
    width: int,
    answer: Mapping[str, Any] | None = None,
) -> Table:
    """Cells × metrics: mean over seeds; the headline with its 95 % interval, its difference from
    the control and what the ``answer`` of the report says of it (see ``reports.answer``). Without
    an answer, the difference seed by seed with an interval of its own.

    Holds as many of the other metrics as fit into ``width`` characters; the report has all.
    """
    said = {row["cell"]: row for row in headline_rows(answer or {}) if row["against"] == CONTROL}

    def per_seed(cell: Cell | None, metric: Metric) -> dict[int, float]:
        stored = values.get(cell.text, {}) if cell else {}
        known = {s: m.get(metric.key, math.nan) for s, m in sorted(stored.items()) if s in seeds}
        return {seed: value for seed, value in known.items() if math.isfinite(value)}

    headline = next(metric for metric in sweep.metrics if metric.key == sweep.headline)
    controls = [cell for cell in cells if cell.control]
    others = [
        metric
        for metric in sweep.metrics
        if metric is not headline and any(per_seed(cell, metric) for cell in cells)
    ]
    room = width - max(len(cell.text) for cell in cells)
    room -= max(len(headline.label), 13) + max(len(headline.label) + 2, 14) + 16
    if said:
        room -= max(len(row["shift"]) - 14 for row in said.values())
        room -= 3 + max(len(row["word"]) for row in said.values())
    corrected = ((answer or {}).get("corrected") or {}).get("shares", {}).get(headline.key, {})
    corrected = corrected if room >= CORRECTED else {}
    room -= CORRECTED if corrected else 0
    while others and sum(max(len(metric.label), 6) + 3 for metric in others) > room:
        others.pop()
    compared = f"the control of the same {sweep.within}" if sweep.within else controls[0].text
    title = f"mean over seeds; ± half the 95 % interval; Δ to {compared} seed by seed"
    if said and answer:
        level = 100 * max((row["level"] for row in said.values() if "level" in row), default=0.95)
        wide = f"{level:.1f}".removesuffix(".0")
        title = (
            f"mean over seeds; ± half the 95 % interval; Δ to {compared} with the {wide} % "
            f"interval of all at once; conclusive: {answer['conclusive']}"
        )
    # A long cell name takes several lines of a narrow terminal before a number is cut
    table = Table("cell", title=title, title_justify="left", title_style="")
    labels = (metric.label for metric in others)
    verdict = ["verdict"] if said else []
    shares = ["corrected"] if corrected else []
    for name in ("n", headline.label, *shares, f"Δ {headline.label}", *verdict, *labels):
        table.add_column(name, justify="right", no_wrap=name != "verdict")
    for cell in cells:
        own = per_seed(cell, headline)
        control = per_seed(sweep.control_of(cell, controls), headline)
        share = headline.unit == "share"
        bounds = (0.0, 1.0) if share else None
        mean = _format(mean_interval(list(own.values())).within(bounds)) if own else NONE
        difference = NONE
        if own.keys() & control.keys():
            apart = (-1.0, 1.0) if share else None
            difference = _format(paired(own, control).interval.within(apart), "+")
        means = (_format_mean(list(per_seed(cell, metric).values()), len(own)) for metric in others)
        own_words = []
        if said:
            row = said.get(cell.text)
            difference, own_words = (row["shift"], [row["word"]]) if row else (NONE, [NONE])
        own_share = [_format_share(corrected.get(cell.text))] if corrected else []
        table.add_row(cell.text, str(len(own)), mean, *own_share, difference, *own_words, *means)
    return table


def _format_share(corrected: Mapping[str, float] | None) -> str:
    return f"{corrected['share']:.3f}" if corrected else NONE


def _format_mean(values: Sequence[float], seeds: int) -> str:
    """The mean, and of how many where some of the ``seeds`` have no value."""
    if not values:
        return NONE
    mean = sum(values) / len(values)
    text = f"{mean:.{_decimals(mean)}f}" if abs(mean) < 1000 else f"{mean:.0f}"
    return text if len(values) >= seeds else f"{text} (n={len(values)})"


def _format(interval: Interval, sign: str = "") -> str:
    half = interval.half if interval.n > 1 and math.isfinite(interval.half) else 0.0
    at = f".{_decimals(max(abs(interval.mean), half))}f"
    text = f" ± {interval.half:{at}}" if interval.n > 1 else ""
    if interval.uncut is not None:  # At the bounds of a share
        text = f" [{interval.low:{sign}{at}}, {interval.high:{sign}{at}}]"
    return f"{interval.mean:{sign}{at}}{text}"


def _decimals(number: float) -> int:
    """Three, or as many as show two significant digits of a small number."""
    if not math.isfinite(number) or number == 0:
        return 3
    return min(9, max(3, 1 - math.floor(math.log10(abs(number)))))
