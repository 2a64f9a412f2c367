"""How each comparison of a sweep is judged.

Where a metric has a table of images (``image_tables``), cells are compared by them, with the
scatter of trainings pooled over cells (``statistics.compare_cells``). Where it has none, by the
t-interval of each difference over seeds, widened for all comparisons (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from reports import prose
from reports.image_tables import ImageTable, NoTable, build_table
from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import (
    OPEN,
    CellComparisons,
    Comparison,
    Needed,
    compare_cells,
    compare_cells_without_images,
    decision,
    find_collapsed_seeds,
    mean_interval,
    needed,
    paired,
)
from reports.verdicts import (
    COLLAPSED,
    IDENTICAL,
    IMAGES_ALONE,
    PER_SEED_T,
    POOLED,
    UNTRAINED,
    MetricVerdicts,
    Verdict,
)

__all__ = ["judge", "judge_metrics", "read_costs", "scatters"]

BY_CHANCE = 0.001  # A p of a cell's scatter over seeds below which images do not explain it
# What a training costs in images, where times are not known
TRAINING_IN_IMAGES = 295.0

Pairs = Sequence[tuple[CellResults, CellResults]] | None


def judge_metrics(results: SweepResults, level: float | None = None) -> dict[str, MetricVerdicts]:
    """The verdicts of every metric, by its key; at the ``results.level`` if none is given."""
    found = {metric.key: judge(results, metric, level) for metric in results.metrics}
    same = _find_identical(found.values())
    return {key: _mark_identical(verdicts, same) for key, verdicts in found.items()}


def judge(
    results: SweepResults,
    metric: ReportedMetric,
    level: float | None = None,
    pairs: Pairs = None,
) -> MetricVerdicts:
    """Every comparison of one metric, at the ``results.level`` if none is given; with ``pairs`` of
    (cell, control), these and no others."""
    level = results.level if level is None else level
    means = [float(np.mean([*own.values()])) for own in _values(results, metric).values()]
    decimals = prose.choose_decimals(metric, means)
    try:
        if pairs is None and _differ_in_prompts(results, metric):
            return _judge_apart(results, metric, level, decimals)
        table = build_table(results, metric)
        return _judge_images(results, table, level, decimals, pairs)
    except NoTable as reason:
        return _judge_seeds(results, metric, level, decimals, str(reason), pairs)


def _values(results: SweepResults, metric: ReportedMetric) -> dict[str, dict[int, float]]:
    """Cell -> seed -> value, without cells that have none."""
    values = {cell.name: cell.per_seed(metric.key) for cell in results.cells}
    return {name: own for name, own in values.items() if own}


def _list_pairs(
    results: SweepResults, seeds: Mapping[str, Mapping[int, Any]], given: Pairs
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(cell, control) of levels, and (control, untouched backbone), that share a seed."""

    def share(one: CellResults | None, other: CellResults | None) -> bool:
        if one is None or other is None:
            return False
        return bool(seeds.get(one.name, {}).keys() & seeds.get(other.name, {}).keys())

    if given is not None:
        return [(cell.name, base.name) for cell, base in given if share(cell, base)], []
    pairs = [(cell, results.control_of(cell)) for cell in results.levels]
    levels = [(cell.name, base.name) for cell, base in pairs if base and share(cell, base)]
    untouched = results.untouched
    against = [
        (c.name, untouched.name) for c in results.controls if untouched and share(c, untouched)
    ]
    return levels, against


def _decide(
    metric: ReportedMetric, mean: float, low: float, high: float, decimals: int, scale: float
) -> str:
    return decision(low, high, metric.delta, mean=mean, scale=scale, decimals=decimals)


def _cut(metric: ReportedMetric, low: float, high: float) -> tuple[float, float]:
    """To what a difference can be."""
    if metric.difference_bounds is None:
        return low, high
    least, most = metric.difference_bounds
    if low > most or high < least:  # Whatever it is, it is no share
        return low, high
    return max(least, low), min(most, high)


# ---- By images


def _judge_images(
    results: SweepResults, table: ImageTable, level: float, decimals: int, given: Pairs
) -> MetricVerdicts:
    metric, rows = table.metric, table.y
    pairs, against = _list_pairs(results, rows, given)
    if not pairs and not against:
        return MetricVerdicts(metric, (), (), table)
    if len(table.prompts) < 2:
        raise NoTable("there is one prompt")
    controls = list(dict.fromkeys(control for _, control in pairs))
    if not pairs and len(against) > 1:
        raise NoTable("nothing that is compared with a control has finished")
    if pairs:  # Cells of a control of its own tell how far its trainings scatter
        against = [(control, untouched) for control, untouched in against if control in controls]
    used = {name for pair in (*pairs, *against) for name in pair}
    families: dict[str, Any] = {"level": level, "binary": table.binary}
    families["untrained"] = results.untrained
    if metric is results.headline and results.primary:
        families["primary"] = results.primary
    if against:
        families["untouched"] = against[0][1]
    if len(controls) <= 1:
        families["baseline"] = controls[0] if controls else against[0][0]

    # Cells that were settled at an early look stand as they were then, and all others without them
    counts = {name: len(results.seeds_of(name)) for name in used}
    most, several = max(counts.values()), len(controls) > 1
    early = {cell: counts[cell] for cell, _ in pairs if counts[cell] < most}
    if several and early and len(early) == len(pairs):
        early = {}  # Only controls have more seeds, and they alone tell nothing

    def compare(count: int) -> CellComparisons:
        """Of the cells that have so many seeds, on the first of these, at the width that holds for
        all."""
        apart = families.get("untouched")  # In a family of its own, with the seeds that it has
        cells = {n for n in used if not early or counts[n] >= count or n == apart}
        kept = {name: rows[name] for name in rows if name in cells}
        if several:  # Each on the seeds that both have
            families["pairs"] = [pair for pair in pairs if cells.issuperset(pair)]
        if count < most:
            first = results.seeds[:count]
            kept = {n: {s: own[s] for s in own if s in first} for n, own in kept.items()}
        rho = 0.0 if several else 0.5
        return compare_cells(kept, **families, rho=rho, family=len(pairs) or None)

    pooled = compare(most)
    if early:
        found = {c.cell: c for c in pooled.comparisons}
        for seeds in sorted(set(early.values())):
            then = compare(seeds)
            found |= {c.cell: c for c in then.comparisons if early.get(str(c.cell)) == seeds}
        pooled = replace(pooled, comparisons=tuple(found[cell] for cell, _ in pairs))
    costs = read_costs(results, len(table.prompts)) or (TRAINING_IN_IMAGES, 1.0)

    def judged(comparisons: Sequence[Comparison]) -> tuple[Verdict, ...]:
        return tuple(_judge_one(table, c, settle(c), decimals) for c in comparisons if c.seeds)

    def settle(c: Comparison) -> Needed | None:
        """None without δ, where nothing small can be settled, and of one seed, which does not tell
        how trainings or noises scatter."""
        if metric.delta is None:
            return None
        if c.untrained:
            return needed([c], metric.delta, 0.0, costs[1])[0] if len(c.seeds) > 1 else None
        return needed([c], metric.delta, *costs)[0] if math.isfinite(pooled.design_effect) else None

    return MetricVerdicts(
        metric,
        judged(pooled.comparisons),
        judged(pooled.untouched),
        table,
        pooled,
        untrained=frozenset(results.untrained),
    )


def _differ_in_prompts(results: SweepResults, metric: ReportedMetric) -> bool:
    """Whether the levels of ``within`` have prompts of their own, as those of numbers of objects
    do, so that no table holds all of them."""
    if not results.within or (results.untouched and results.untouched.trials):
        return False
    found: dict[int, list[set[str]]] = {}
    for control in results.controls:
        for seed in control.per_seed(metric.key):
            if (samples := control.trials[seed].samples) is not None:
                own = {name.rpartition("#")[0] for name in samples.ids}
                found.setdefault(seed, []).append(own)
    return any(own != of_seed[0] for of_seed in found.values() for own in of_seed)


def _judge_apart(
    results: SweepResults, metric: ReportedMetric, level: float, decimals: int
) -> MetricVerdicts:
    """Each level of ``within`` by a table of its own, with the scatter of its own trainings: those
    of other levels are often the same trainings, and would be counted twice. Levels have their
    share of ``level``, so that all comparisons hold at once with it were levels independent
    (Šidák), and more often where what they have in common makes them err together. Raises NoTable.
    """
    pairs, _ = _list_pairs(results, _values(results, metric), None)
    parts: list[MetricVerdicts] = []
    found: dict[str, Verdict] = {}
    for control in results.controls:
        own = [c for c in results.cells if c is control or results.control_of(c) is control]
        count = sum(base == control.name for _, base in pairs)
        if not count:
            continue
        of_level = replace(results, cells=own)
        table = build_table(of_level, metric)
        part = _judge_images(of_level, table, level ** (count / len(pairs)), decimals, None)
        alone = results.primary if metric is results.headline else ""
        if alone in {v.cell for v in part.levels}:  # With all of the level
            whole = _judge_images(of_level, table, level, decimals, None)
            fixed = [v if v.cell != alone else whole.levels[i] for i, v in enumerate(part.levels)]
            part = replace(part, levels=tuple(fixed))
        parts.append(part)
        for verdict in part.levels:
            family = 1 if verdict.cell == alone else len(pairs)
            found[verdict.cell] = replace(verdict, family=family, level=level)
    return MetricVerdicts(metric, tuple(found[cell] for cell, _ in pairs), (), apart=tuple(parts))


def _judge_one(
    table: ImageTable, comparison: Comparison, settle: Needed | None, decimals: int
) -> Verdict:
    metric, c = table.metric, comparison
    cell, control = str(c.cell), str(c.control)
    low, high = _cut(metric, c.low, c.high)
    verdict = _decide(metric, c.mean, low, high, decimals, c.scale)
    rule = UNTRAINED if c.untrained else POOLED
    if c.images_alone:
        verdict, rule = OPEN, IMAGES_ALONE
    if c.identical and not table.binary:
        verdict = IDENTICAL
    collapse = None
    if metric.better != "none":
        left, right = ([table.y[name][seed] for seed in c.seeds] for name in (cell, control))
        found = find_collapsed_seeds(
            left, right, better=metric.better, binary=table.binary, seeds=c.seeds, level=c.level
        )
        # A cell that is far worse in every seed may pass the limit in some of them only
        if found.mixed and scatters(c):
            collapse, verdict = found, COLLAPSED
    if verdict != OPEN:
        settle = None
    return Verdict(
        metric=metric,
        cell=cell,
        control=control,
        mean=c.mean,
        low=low,
        high=high,
        verdict=verdict,
        rule=rule,
        seeds=c.seeds,
        prompts=c.prompts,
        family=c.family,
        level=c.level,
        decimals=decimals,
        half=c.half_prompts_like_these,
        images=c,
        collapse=collapse,
        settle=settle,
        fallen=cell if collapse else "",
    )


def scatters(c: Comparison) -> bool:
    """Whether its seeds scatter more than their images explain."""
    if not c.own_design_effect > 1:
        return False
    seeds = len(c.seeds) - 1
    p = special.fdtrc(seeds, seeds * (c.prompts - 1), c.own_design_effect)
    return bool(p < BY_CHANCE)


def _find_identical(metrics: Any) -> set[tuple[str, str]]:
    """Comparisons whose images are the same in all tables, of which some are no mere outcomes."""
    differing: set[tuple[str, str]] = set()
    graded: set[tuple[str, str]] = set()
    for verdicts in metrics:
        for verdict in (*verdicts.levels, *verdicts.untouched):
            pair = verdict.cell, verdict.control
            if verdict.images is None or not verdict.images.identical:
                if verdict.images is not None:
                    differing.add(pair)
            elif (table := verdicts.table_of(verdict.cell)) and not table.binary:
                graded.add(pair)
    return graded - differing


def _mark_identical(verdicts: MetricVerdicts, same: set[tuple[str, str]]) -> MetricVerdicts:
    def mark(verdict: Verdict) -> Verdict:
        if verdict.images is None or (verdict.cell, verdict.control) not in same:
            return verdict
        return replace(verdict, verdict=IDENTICAL, settle=None)

    levels, untouched = (tuple(map(mark, part)) for part in (verdicts.levels, verdicts.untouched))
    return replace(verdicts, levels=levels, untouched=untouched)


def read_costs(results: SweepResults, prompts: int) -> tuple[float, float] | None:
    """What a training and a prompt's images cost, in seconds; None where times are not known."""
    drawing = [t.seconds.get("sample", 0.0) for _, t in results.trials() if t.seconds]
    training = [t.seconds.get("train", 0.0) for _, t in results.trials() if t.seconds]
    trained = [seconds for seconds in training if seconds > 0]
    if not drawing or not max(drawing) > 0 or not trained:
        return None
    return float(np.mean(trained)), float(np.mean(drawing)) / prompts


# ---- By seeds, the older rule


def _judge_seeds(
    results: SweepResults,
    metric: ReportedMetric,
    level: float,
    decimals: int,
    why: str,
    given: Pairs,
) -> MetricVerdicts:
    values = _values(results, metric)
    pairs, against = _list_pairs(results, values, given)
    alike = _compare_values(results, values, level)
    families = []
    for family in (pairs, against):
        judged = []
        for pair in family:
            alone = metric is results.headline and pair[0] == results.primary and family is pairs
            size = 1 if alone else len(family)
            widths = level, 1 - (1 - level) / size, size
            judged.append(_judge_pair(metric, pair, values, widths, decimals, alike))
        families.append(tuple(judged))
    return MetricVerdicts(metric, families[0], families[1], why=why)


def _judge_pair(
    metric: ReportedMetric,
    pair: tuple[str, str],
    values: Mapping[str, Mapping[int, float]],
    family: tuple[float, float, int],
    decimals: int,
    alike: Mapping[str, tuple[float, float]],
) -> Verdict:
    (cell, control), (level, widened, size) = pair, family
    versus = paired(values[cell], values[control])
    interval = mean_interval(versus.differences, widened)
    low, high = _cut(metric, interval.low, interval.high) if interval.n > 1 else (math.nan,) * 2
    scale = max(abs(values[name][seed]) for name in pair for seed in versus.seeds)
    return Verdict(
        metric=metric,
        cell=cell,
        control=control,
        mean=interval.mean,
        low=low,
        high=high,
        verdict=_decide(metric, interval.mean, low, high, decimals, scale),
        rule=PER_SEED_T,
        seeds=versus.seeds,
        prompts=0,
        family=size,
        level=level,
        decimals=decimals,
        half=interval.half,
        alike=alike.get(cell),
    )


def _compare_values(
    results: SweepResults, values: Mapping[str, Mapping[int, float]], level: float
) -> dict[str, tuple[float, float]]:
    """Cell -> interval of its difference that supposes that all cells scatter alike; of one control
    and the seeds that all cells have."""
    cells = [cell.name for cell in results.levels if cell.name in values]
    if len(results.controls) != 1 or results.control.name not in cells or len(cells) < 2:
        return {}
    seeds = sorted(set.intersection(*(set(values[name]) for name in cells)))
    if len(seeds) < 2:
        return {}
    table = [[values[name][seed] for seed in seeds] for name in cells]
    found = compare_cells_without_images(table, cells.index(results.control.name), level)
    others = [name for name in cells if name != results.control.name]
    rows = zip(others, found.mean, found.half, strict=True)
    return {name: (mean - half, mean + half) for name, mean, half in rows}
