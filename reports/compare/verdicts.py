"""Verdicts on common cells: the second side less the first, and how what a cell does against its
own control differs. By images where seeds pair and a metric has a table of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence

from reports import prose
from reports.image_tables import NoTable, build_table
from reports.judging import judge
from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import Interval, compare_contrasts, decision, welch
from reports.verdicts import Verdict

__all__ = ["WELCH", "change_intervals", "judge_cells", "judge_unpaired"]

WELCH = "Welch's t"
SIDES = ("left", "right")


def _merge(
    sides: tuple[SweepResults, SweepResults], cells: Sequence[tuple[CellResults, CellResults]]
) -> tuple[SweepResults, list[tuple[CellResults, CellResults]]]:
    """One sweep of both sides' cells, and the pairs (right, left) in it."""
    pairs = [
        tuple(
            dataclasses.replace(
                cell, name=_name(side, cell.name), control=False, untouched=False, unfinished={}
            )
            for side, cell in zip(SIDES, both, strict=True)
        )
        for both in cells
    ]
    merged = dataclasses.replace(sides[0], cells=[cell for both in pairs for cell in both])
    return merged, [(right, left) for left, right in pairs]


def _name(side: str, cell: str) -> str:
    return f"{side}: {cell}"


def judge_cells(
    sides: tuple[SweepResults, SweepResults],
    cells: Sequence[tuple[CellResults, CellResults]],
    metric: ReportedMetric,
    level: float,
) -> dict[str, Verdict]:
    """Cell -> verdict of the second side less the first, seed by seed, as one family."""
    merged, pairs = _merge(sides, cells)
    found = judge(merged, metric, level, pairs).levels
    names = {right.name: cell.name for (right, _), (cell, _) in zip(pairs, cells, strict=True)}
    return {
        names[v.cell]: dataclasses.replace(v, cell=names[v.cell], control=names[v.cell])
        for v in found
    }


def judge_unpaired(
    used: Sequence[tuple[CellResults, Mapping[int, float], Mapping[int, float]]],
    metric: ReportedMetric,
    level: float,
) -> dict[str, Verdict]:
    """The same of seeds that do not pair, by Welch's t-intervals with Bonferroni's level."""
    means = [sum(side.values()) / len(side) for _, *both in used for side in both]
    decimals = prose.choose_decimals(metric, means)
    each = 1 - (1 - level) / max(1, len(used))
    found = {}
    for cell, left, right in used:
        whole = welch([*right.values()], [*left.values()], each)
        cut = whole.within(metric.difference_bounds)
        scale = max(abs(value) for side in (left, right) for value in side.values())
        found[cell.name] = Verdict(
            metric=metric,
            cell=cell.name,
            control=cell.name,
            mean=whole.mean,
            low=cut.low,
            high=cut.high,
            verdict=decision(
                cut.low, cut.high, metric.delta, mean=whole.mean, scale=scale, decimals=decimals
            ),
            rule=WELCH,
            seeds=tuple(range(whole.n)),
            prompts=0,
            family=len(used),
            level=level,
            decimals=decimals,
            half=whole.half,
        )
    return found


def change_intervals(
    sides: tuple[SweepResults, SweepResults],
    rows: Sequence[tuple[tuple[CellResults, CellResults], tuple[CellResults, CellResults]]],
    metric: ReportedMetric,
    level: float,
) -> dict[str, Interval]:
    """Cell -> how much its effect differs, by images; ``rows`` are (cell, its control) as pairs of
    both sides. Empty where the metric has no table."""
    cells = [both for row in rows for both in row]
    unique = list({both[0].name: both for both in cells}.values())
    merged, _ = _merge(sides, unique)
    try:
        table = build_table(merged, metric)
    except NoTable:
        return {}
    if len(table.prompts) < 2 or any(cell.name not in table.y for cell in merged.cells):
        return {}
    contrasts: dict[Hashable, dict[Hashable, float]] = {
        cell[0].name: {
            _name("right", cell[0].name): 1.0,
            _name("right", control[0].name): -1.0,
            _name("left", cell[0].name): -1.0,
            _name("left", control[0].name): 1.0,
        }
        for cell, control in rows
    }
    found = compare_contrasts(
        table.y, contrasts, level, table.binary, untrained=merged.untrained
    ).comparisons
    return {
        str(c.cell): Interval(
            c.mean,
            c.low,
            c.high,
            math.sqrt(c.ms_seed / c.prompts) if len(c.seeds) > 1 else math.nan,
            len(c.seeds),
            level,
        )
        for c in found
        if len(c.seeds) > 1
    }
