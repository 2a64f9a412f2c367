"""The table of results that a person sees when a sweep ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from reports.statistics import Interval, mean_interval, paired
from sweeps.sweep import Cell, Metric, Sweep

__all__ = ["summary_table"]

Values = Mapping[str, Mapping[int, Mapping[str, float]]]  # Cell -> seed -> metric -> value
NONE = "–"


def summary_table(
    sweep: Sweep, cells: Sequence[Cell], seeds: Sequence[int], values: Values, width: int
) -> Table:
    """Cells × metrics: mean over seeds; the headline with its 95 % interval, and its difference
    from the control, seed by seed.

    Holds as many of the other metrics as fit into ``width`` characters; the report has all.
    """

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
    while others and sum(max(len(metric.label), 6) + 3 for metric in others) > room:
        others.pop()
    compared = f"the control of the same {sweep.within}" if sweep.within else controls[0].text
    title = f"mean over seeds; ± half the 95 % interval; Δ to {compared} seed by seed"
    # A long cell name takes several lines of a narrow terminal before a number is cut
    table = Table("cell", title=title, title_justify="left", title_style="")
    labels = (metric.label for metric in others)
    for name in ("n", headline.label, f"Δ {headline.label}", *labels):
        table.add_column(name, justify="right", no_wrap=True)
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
        table.add_row(cell.text, str(len(own)), mean, difference, *means)
    return table


def _format_mean(values: Sequence[float], seeds: int) -> str:
    """The mean, and of how many where some of the ``seeds`` have no value."""
    if not values:
        return NONE
    mean = sum(values) / len(values)
    text = f"{mean:.3f}" if abs(mean) < 1000 else f"{mean:.0f}"
    return text if len(values) >= seeds else f"{text} (n={len(values)})"


def _format(interval: Interval, sign: str = "") -> str:
    half = f" ± {interval.half:.3f}" if interval.n > 1 else ""
    if interval.uncut is not None:  # At the bounds of a share
        half = f" [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
    return f"{interval.mean:{sign}.3f}{half}"
