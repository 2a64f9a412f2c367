"""The numbers of a comparison.

Everything is right minus left. Where the same seed gave both sides the same prompts on the same
noise, seeds pair; where it did not, Welch's interval stands in place of the paired one. A metric
that was measured in different ways is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.collect import describe_differences, ways_of_measuring
from reports.compare.verdicts import change_intervals, judge_cells, judge_unpaired
from reports.provenance import flatten
from reports.results import CellResults, ReportedMetric, ReportError, SweepResults, Trial
from reports.statistics import (
    Effect,
    Interval,
    Paired,
    holm,
    mean_interval,
    paired,
    standardised,
    welch,
)
from reports.tables import CellMetric, compare_cells, widen
from reports.verdicts import Verdict

__all__ = ["CellDifference", "ComparedSweep", "Comparison", "EffectChange", "compare"]

# The same noise seed means the same noise only where these agree
NOISE_SETTINGS = ("backbone.name", "backbone.path", "backbone.resolution")
# They say which prompts are drawn on which noise
PROMPT_SETTINGS = ("evaluation.", "data.", "sampling_seed", "prompt_seed")

OTHER_CODE = "measured by different code"

Values = Mapping[int, float]  # Seed -> value
CellPair = tuple[CellResults, CellResults]


@dataclass(frozen=True)
class ComparedSweep:
    """One of the two; ``label`` names it."""

    label: str
    results: SweepResults
    entries: list[CellMetric]


@dataclass(frozen=True)
class CellDifference:
    """A cell and metric that both sides have: ``right`` mean - ``left`` mean.

    Of the values ``used`` on either side; where seeds pair these are the seeds that both have.
    ``plain`` is its 95 % t-interval over seeds, ``verdict`` what is said of it; its interval holds
    for all common cells at once (None for the untouched backbone, which is none of them), ``pairs``
    the differences seed by seed where seeds pair, ``holm`` their sign-flip p adjusted over the
    cells.
    """

    cell: CellResults
    metric: ReportedMetric
    used: tuple[Values, Values]
    left: Interval
    right: Interval
    plain: Interval
    verdict: Verdict | None
    pairs: Paired | None
    holm: float | None = None

    @property
    def wide(self) -> Interval | None:
        return self.verdict.interval if self.verdict else None

    @property
    def effect(self) -> Effect | None:
        return standardised(self.pairs.differences) if self.pairs else None


@dataclass(frozen=True)
class EffectChange:
    """What is said of a cell against the control of its own side, and how that effect differs:
    ``change``."""

    cell: CellResults
    left: Verdict
    right: Verdict
    change: Interval


@dataclass(frozen=True)
class Comparison:
    """Two sweeps side by side.

    ``unpaired`` says why seeds do not pair, "" where they do; ``by`` what that rests on.
    ``refused`` maps a metric's label to why it is not compared; ``counts`` a label to a remark on
    what is compared nevertheless.
    """

    left: ComparedSweep
    right: ComparedSweep
    cells: list[CellPair]
    metrics: list[ReportedMetric]
    headline: ReportedMetric
    unpaired: str
    by: str
    differences: list[CellDifference]
    changes: list[EffectChange]
    refused: dict[str, str]
    counts: dict[str, str]

    @property
    def sides(self) -> tuple[ComparedSweep, ComparedSweep]:
        return self.left, self.right

    @property
    def headline_differences(self) -> list[CellDifference]:
        return [d for d in self.differences if d.metric.key == self.headline.key]


def compare(
    left: tuple[str, SweepResults], right: tuple[str, SweepResults], level: float = 0.95
) -> Comparison:
    """Compare two sweeps, each with its label.

    Raises ReportError (one line) where they have no cell, no metric or no finished trial in common.
    """
    one, two = (ComparedSweep(label, r, compare_cells(r)) for label, r in (left, right))
    others = {_identity(cell): cell for cell in two.results.cells}
    common = [cell for cell in one.results.cells if _identity(cell) in others]
    cells = [(cell, others[_identity(cell)]) for cell in common]
    if not cells:
        names = [(s.label, ", ".join(c.name for c in s.results.cells)) for s in (one, two)]
        sides = "; ".join(f"{label} has {cells}" for label, cells in names)
        raise ReportError(f"the two have no cell in common, nothing to compare: {sides}")

    refused, counts, metrics = {}, {}, []
    for metric in one.results.metrics:
        if metric.key not in {other.key for other in two.results.metrics}:
            continue
        ways = ways_of_measuring(metric.key, one.results, two.results)
        facts = {name for way in ways for name in way}
        differing = {name for name in facts if len({json.dumps(w.get(name)) for w in ways}) > 1}
        if differing == {"images"}:  # A mean does not depend on how many images it is over
            counts[metric.label] = describe_differences(ways)
        elif len(ways) > 1:
            how = f"measured in different ways ({describe_differences(ways)})"
            if "code" in differing:
                codes = " and ".join(dict.fromkeys(str(way["code"]) for way in ways))
                without = [{k: v for k, v in way.items() if k != "code"} for way in ways]
                more = describe_differences(without)
                how = f"{OTHER_CODE} ({codes}{'; ' if more else ''}{more})"
            refused[metric.label] = how
            continue
        metrics.append(metric)

    unpaired, by = _find_obstacle_to_pairing(one.results, two.results, cells)
    if counts and not unpaired:
        numbers = next(iter(counts.values()))
        unpaired = f"means are over different numbers of images ({numbers})"
    differences = [
        d
        for m in metrics
        for d in _subtract((one.results, two.results), cells, m, not unpaired, level)
    ]
    defined = {d.metric.key: d.metric for d in differences}
    if not defined:
        why = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
        why = why or "no metric is defined on both sides of a common cell"
        raise ReportError(f"nothing to compare between {one.label} and {two.label}: {why}")
    wanted = (one.results.headline.key, two.results.headline.key, *defined)
    headline = next(defined[key] for key in wanted if key in defined)
    return Comparison(
        left=one,
        right=two,
        cells=cells,
        metrics=list(defined.values()),
        headline=headline,
        unpaired=unpaired,
        by=by,
        differences=differences,
        changes=_compare_effects(one, two, cells, headline, not unpaired, level),
        refused=refused,
        counts=counts,
    )


def _identity(cell: CellResults) -> tuple[object, ...]:
    """Cells match that have the same name and the same values."""
    return (cell.name, *sorted(cell.values.items()))


def _find_obstacle_to_pairing(
    left: SweepResults, right: SweepResults, cells: Sequence[CellPair]
) -> tuple[str, str]:
    """Why seeds do not pair ("" where they do), and what that was read from."""
    both = [
        (a.trials[s], b.trials[s]) for a, b in cells for s in sorted(a.trials.keys() & b.trials)
    ]
    if not both:
        why = "no seed of a common cell has finished on both sides"
        return why, "the seeds that have finished"
    one, two = (dict(flatten(results.config)) for results in (left, right))
    for key in NOISE_SETTINGS:
        if one.get(key) != two.get(key):
            values = f"{key} is {one.get(key)} and {two.get(key)}"
            return f"{values}, so that the same seed does not give the same noise", "the settings"
    # Digests of data are of the part that these settings take
    keys = [k for k in one.keys() | two.keys() if k.startswith(("data.", "backbone.resolution"))]
    same_part = all(one.get(key) == two.get(key) for key in keys)
    for trial, other in both:
        for name, digest in trial.contents.items():
            same = other.contents.get(name, digest) == digest
            if not same and (same_part or not name.startswith("data.")):
                why = f"seed {trial.seed} was made from other content of {name} on the two sides"
                return why, "the content of the files that each trial recorded"
    draws = [(a.seed, _list_draws(a), _list_draws(b)) for a, b in both]
    by = "the prompts and noise seeds that every image was recorded with"
    for seed, first, second in draws:
        if first is not None and second is not None and first != second:
            return f"seed {seed} gave the two sides other prompts or other noise", by
    if all(first is not None and second is not None for _, first, second in draws):
        return "", by
    keys = sorted(key for key in one.keys() | two.keys() if key.startswith(PROMPT_SETTINGS))
    differing = ", ".join(key for key in keys if one.get(key) != two.get(key))
    by = (
        "the settings of data and evaluation alone, since images were not recorded with their noise"
    )
    return f"{differing} differ, and with them prompts and noise may" if differing else "", by


def _list_draws(trial: Trial) -> list[tuple[str, str, int | None]] | None:
    """Name, prompt and noise seed of every image, None where that was not recorded."""
    samples = trial.samples
    if samples is None or None in samples.noise:
        return None
    return list(zip(samples.ids, samples.prompts, samples.noise, strict=True))


def _interval(left: Values, right: Values, pair: bool, level: float) -> Interval:
    """Of the mean of ``right`` - the mean of ``left``."""
    if pair:
        return paired(right, left, level).interval
    return welch(list(right.values()), list(left.values()), level)


def _subtract(
    sides: tuple[SweepResults, SweepResults],
    cells: Sequence[CellPair],
    metric: ReportedMetric,
    pair: bool,
    level: float,
) -> list[CellDifference]:
    """One metric of all common cells that have it on both sides."""
    used: list[tuple[CellResults, Values, Values]] = []
    for cell, other in cells:
        left, right = cell.per_seed(metric.key), other.per_seed(metric.key)
        if pair:
            common = sorted(left.keys() & right.keys())
            left, right = ({seed: side[seed] for seed in common} for side in (left, right))
        if left and right:
            used.append((cell, left, right))
    judged = [cell.name for cell, _, _ in used if not cell.untouched]
    levels = [row for row in used if not row[0].untouched]
    if pair:
        both = [(cell, other) for cell, other in cells if cell.name in judged]
        verdicts = judge_cells(sides, both, metric, level)
    else:
        verdicts = judge_unpaired(levels, metric, level)
    pairs = {cell.name: paired(right, left, level) for cell, left, right in used} if pair else {}
    p_values = holm([pairs[name].p for name in judged]) if pair else [None] * len(judged)
    adjusted = dict(zip(judged, p_values, strict=True))
    return [
        CellDifference(
            cell=cell,
            metric=metric,
            used=(left, right),
            left=mean_interval(list(left.values()), level).within(metric.bounds),
            right=mean_interval(list(right.values()), level).within(metric.bounds),
            plain=_interval(left, right, pair, level).within(metric.difference_bounds),
            verdict=verdicts.get(cell.name),
            pairs=pairs.get(cell.name),
            holm=adjusted.get(cell.name),
        )
        for cell, left, right in used
    ]


def _compare_effects(
    left: ComparedSweep,
    right: ComparedSweep,
    cells: Sequence[CellPair],
    metric: ReportedMetric,
    pair: bool,
    level: float,
) -> list[EffectChange]:
    """For every common cell that both sides compare with a control of the same name."""
    rows, fours = [], []
    for a, b in cells:
        controls = [left.results.control_of(a), right.results.control_of(b)]
        names = [control.name for control in controls if control]
        if a.untouched or len(names) < 2 or names[0] != names[1]:
            continue
        one, two = (
            next(e for e in side.entries if (e.cell.name, e.metric.key) == (a.name, metric.key))
            for side in (left, right)
        )
        if not (one.versus and two.versus and one.verdict and two.verdict):
            continue
        first, second = (
            dict(zip(v.seeds, v.differences, strict=True)) for v in (one.versus, two.versus)
        )
        if not pair or first.keys() & second.keys():
            rows.append((a, one.verdict, two.verdict, first, second))
            by_name = {cell.name: (cell, other) for cell, other in cells}
            if names[0] in by_name:
                fours.append(((a, b), by_name[names[0]]))
    at = widen(level, len(rows))
    images: dict[str, Interval] = {}
    if pair and len(fours) == len(rows) > 0:
        images = change_intervals((left.results, right.results), fours, metric, level)
    return [
        EffectChange(cell, one, two, images.get(cell.name) or _interval(first, second, pair, at))
        for cell, one, two, first, second in rows
    ]
