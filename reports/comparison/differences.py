"""Two sweeps, or two versions of one, compared cell by cell: the numbers. What is said of them stands in `comparison.text`.

Everything is right minus left. Where the same seed gave both sides the same prompts on the same noise, seeds pair; where it did not, they
do not, and Welch's interval takes the place of the paired one. A metric that was measured in different ways is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from reports.collect import differing
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
from reports.study import Cell, Metric, ReportError, Study, Trial
from reports.tables import Entry, entries

__all__ = ["Change", "Comparison", "Difference", "Side", "compare", "side_of"]

NOISE_IS_OF = ("backbone.name", "backbone.path", "backbone.resolution")  # the same noise seed means the same noise
DRAWN = ("evaluation.", "data.")  # settings that say which prompts are drawn on which noise


@dataclass(frozen=True)
class Side:
    """One of the two. `label` names it wherever both are spoken of."""

    label: str
    study: Study
    found: list[Entry]


@dataclass(frozen=True)
class Difference:
    """A cell and metric that both sides have: `right` mean - `left` mean, of the values `used` on either side, seed -> value. Where seeds
    pair these are the seeds that both have.

    `plain` is its 95 % interval, `wide` the same widened to hold for all common cells at once (None for the untouched backbone, a control
    that is none of them), `pairs` the differences seed by seed where seeds pair, `holm` their sign-flip p adjusted over the cells.
    """

    cell: Cell
    metric: Metric
    used: tuple[dict[int, float], dict[int, float]]
    left: Interval
    right: Interval
    plain: Interval
    wide: Interval | None
    pairs: Paired | None
    holm: float | None = None

    @property
    def effect(self) -> Effect | None:
        return standardised(self.pairs.differences) if self.pairs else None


@dataclass(frozen=True)
class Change:
    """What a cell does against the baseline cell of its own side (widened as there), and how that differs: `change`, right - left."""

    cell: Cell
    left: Interval
    right: Interval
    change: Interval


@dataclass(frozen=True)
class Comparison:
    """`unpaired` says why seeds do not pair, "" where they do; `by` what that rests on. `refused` maps a metric's label to why it is not
    compared; `counts` a label to a remark on what is compared nevertheless."""

    left: Side
    right: Side
    cells: list[tuple[Cell, Cell]]
    metrics: list[Metric]
    headline: Metric
    unpaired: str
    by: str
    differences: list[Difference]
    changes: list[Change]
    refused: dict[str, str]
    counts: dict[str, str]

    def of(self, metric: Metric) -> list[Difference]:
        return [d for d in self.differences if d.metric.key == metric.key]


def compare(left: Side, right: Side, level: float = 0.95) -> Comparison:
    """Raises ReportError (one line) where the two have no cell, no metric or no finished trial in common."""
    cells = _common(left.study, right.study)
    if not cells:
        sides = "; ".join(f"{side.label} has {', '.join(cell.name for cell in side.study.cells)}" for side in (left, right))
        raise ReportError(f"the two have no cell in common, nothing to compare: {sides}")
    refused: dict[str, str] = {}
    counts: dict[str, str] = {}
    metrics = []
    for metric in left.study.metrics:
        if metric.key not in {other.key for other in right.study.metrics}:
            continue
        why, count = _ways(metric, left.study, right.study)
        if why:
            refused[metric.label] = why
            continue
        if count:
            counts[metric.label] = count
        metrics.append(metric)
    unpaired, by = _pairing(left.study, right.study, cells)
    if counts and not unpaired:
        unpaired = f"means are over different numbers of images ({next(iter(counts.values()))})"
    found = [d for metric in metrics for d in _differences(cells, metric, not unpaired, level)]
    compared = [metric for metric in metrics if any(d.metric.key == metric.key for d in found)]
    if not compared:
        told = "; ".join(f"{label}: {why}" for label, why in refused.items()) or "no metric is defined on both sides of a common cell"
        raise ReportError(f"nothing to compare between {left.label} and {right.label}: {told}")
    keys = {metric.key: metric for metric in compared}
    headline = keys.get(left.study.headline.key) or keys.get(right.study.headline.key) or compared[0]
    changes = _changes(left, right, cells, headline, not unpaired, level)
    return Comparison(left, right, cells, compared, headline, unpaired, by, found, changes, refused, counts)


def _common(left: Study, right: Study) -> list[tuple[Cell, Cell]]:
    """Cells of the same name and the same values, in the order of the left plan."""
    others = {(cell.name, *sorted(cell.values.items())): cell for cell in right.cells}
    return [(cell, others[key]) for cell in left.cells if (key := (cell.name, *sorted(cell.values.items()))) in others]


def _ways(metric: Metric, left: Study, right: Study) -> tuple[str, str]:
    """Why a metric cannot be compared, and where it can nevertheless, what differs: a mean over images does not depend on how many it is
    taken over, as a distance between sets of features does."""
    ways = {}
    for study in (left, right):
        for _, trial in study.trials():
            if metric.key in trial.metrics:
                way = trial.facts.get(metric.key, {})
                ways[json.dumps(way, sort_keys=True)] = way
    if len(ways) < 2:
        return "", ""
    told = differing(ways.values())
    if {name for way in ways.values() for name in way if len({json.dumps(w.get(name)) for w in ways.values()}) > 1} == {"images"}:
        return "", told
    return f"measured in different ways ({told})", ""


def _pairing(left: Study, right: Study, cells: Sequence[tuple[Cell, Cell]]) -> tuple[str, str]:
    """Why seeds do not pair ("" where they do), and what that was read from."""
    from reports.provenance import flat

    both = [(a.trials[seed], b.trials[seed]) for a, b in cells for seed in sorted(a.trials.keys() & b.trials.keys())]
    if not both:
        return "no seed of a common cell has finished on both sides", "the seeds that have finished"
    configs = [dict(flat(study.config)) for study in (left, right)]
    for key in NOISE_IS_OF:
        values = [config.get(key) for config in configs]
        if values[0] != values[1]:
            return f"{key} is {values[0]} and {values[1]}, so that the same seed does not give the same noise", "the settings"
    drawn = [(_drawn(a), _drawn(b)) for a, b in both]
    by = "the prompts and noise seeds that every image was recorded with"
    known = [a is not None and b is not None for a, b in drawn]
    other = [pair[0].seed for pair, (a, b), both_known in zip(both, drawn, known, strict=True) if both_known and a != b]
    if other or all(known):
        return (f"seed {other[0]} gave the two sides other prompts or other noise" if other else ""), by
    keys = sorted(key for key in configs[0].keys() | configs[1].keys() if key.startswith(DRAWN))
    differ = [key for key in keys if configs[0].get(key) != configs[1].get(key)]
    why = f"{', '.join(differ)} differ, and with them prompts and noise may" if differ else ""
    return why, "the settings of data and evaluation alone, since images were not recorded with their noise"


def _drawn(trial: Trial) -> list[tuple[str, str, int]] | None:
    """Name, prompt and noise seed of every image, None where that was not recorded."""
    samples = trial.samples
    if samples is None or None in samples.noise:
        return None
    return [(i, p, n) for i, p, n in zip(samples.ids, samples.prompts, samples.noise, strict=True) if n is not None]


def _differences(cells: Sequence[tuple[Cell, Cell]], metric: Metric, pair: bool, level: float) -> list[Difference]:
    kept = []
    for cell, other in cells:
        values = cell.per_seed(metric.key), other.per_seed(metric.key)
        if pair:
            common = values[0].keys() & values[1].keys()
            values = {seed: values[0][seed] for seed in sorted(common)}, {seed: values[1][seed] for seed in sorted(common)}
        if all(values):
            kept.append((cell, values))
    judged = [cell.name for cell, _ in kept if not cell.reference]
    wide_level = 1 - (1 - level) / max(1, len(judged))
    pairs = {cell.name: paired(values[1], values[0], level) for cell, values in kept} if pair else {}
    adjusted = dict(zip(judged, holm([pairs[name].p for name in judged]), strict=True)) if pair else {}
    found = []
    for cell, values in kept:
        one, two = (list(side.values()) for side in values)
        versus = pairs.get(cell.name)
        plain, wide = (mean_interval(versus.differences, at) if versus else welch(two, one, at) for at in (level, wide_level))
        found.append(
            Difference(
                cell=cell,
                metric=metric,
                used=values,
                left=mean_interval(one, level),
                right=mean_interval(two, level),
                plain=plain,
                wide=wide if cell.name in judged else None,
                pairs=versus,
                holm=adjusted.get(cell.name),
            )
        )
    return found


def _changes(
    left: Side, right: Side, cells: Sequence[tuple[Cell, Cell]], metric: Metric, pair: bool, level: float
) -> list[Change]:
    """For every common cell that both sides compare with a baseline cell of the same name."""
    rows = []
    for a, b in cells:
        bases = left.study.base_of(a), right.study.base_of(b)
        if a.reference or bases[0] is None or bases[1] is None or bases[0].name != bases[1].name:
            continue
        own = [_versus(side, cell.name, metric) for side, cell in ((left, a), (right, b))]
        if own[0] is None or own[1] is None:
            continue
        first, second = own[0].versus, own[1].versus
        assert first is not None and second is not None
        effects = [dict(zip(v.seeds, v.differences, strict=True)) for v in (first, second)]
        if not pair or effects[0].keys() & effects[1].keys():
            rows.append((a, own[0].wide, own[1].wide, effects))
    at = 1 - (1 - level) / max(1, len(rows))
    changes = []
    for cell, one, two, effects in rows:
        if pair:
            change = mean_interval(paired(effects[1], effects[0]).differences, at)
        else:
            change = welch(list(effects[1].values()), list(effects[0].values()), at)
        assert one is not None and two is not None
        changes.append(Change(cell, one, two, change))
    return changes


def _versus(side: Side, cell: str, metric: Metric) -> Entry | None:
    return next((e for e in side.found if e.cell.name == cell and e.metric.key == metric.key and e.versus and e.wide), None)


def side_of(label: str, study: Study) -> Side:
    return Side(label, study, entries(study))
