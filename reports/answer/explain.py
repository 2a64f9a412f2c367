"""The section on statistics: how the answer was decided, and how small a difference the data could
have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports import prose
from reports.answer.conclusion import Conclusion
from reports.correcting import explain_correction
from reports.results import SweepResults
from reports.seeds import explain_seeds
from reports.statistics import (
    Variances,
    detectable_effect,
    fewest_seeds_for_holm,
    predict_smallest_difference,
    smallest_sign_flip_p,
    variances_of,
)
from reports.tables import CellMetric, count_decimals, of_metric, shows_p, verdicts_of
from reports.verdicts import MetricVerdicts

__all__ = ["explain_resolution", "explain_statistics"]

POWER = 0.8


def explain_statistics(
    results: SweepResults, entries: Sequence[CellMetric], conclusion: Conclusion
) -> list[str]:
    """The paragraphs of the section."""
    texts = [
        *conclusion.rule,
        explain_correction(results),
        f"{explain_seeds(results)} Intervals of means are t-intervals over seeds, each for itself; "
        "where seeds share their prompts they speak of these prompts only.",
    ]
    if any(part is not None and part.uncut is not None for e in entries for part in e.intervals):
        texts.append(
            "Intervals of shares end at 0 and 1, those of their differences at −1 and 1: what lies "
            "beyond cannot be."
        )
    texts.append(_explain_sign_flips(results, entries))
    metric, spreads = results.headline, []
    for entry in of_metric(entries, metric):
        if entry.cell.control and entry.summary and math.isfinite(entry.summary.sd):
            sd = prose.show(entry.summary.sd, count_decimals(entries, metric) + 1)
            cell = f" ({prose.name_cell(results, entry.cell)})" if results.within else ""
            spreads.append(f"{sd}{metric.in_parentheses}{cell}")
    if spreads:
        noise = (
            f"Noise floor: the standard deviation of {prose.lower(metric.label)} over the seeds of "
            f"the control {results.noun} is {prose.join(spreads)}; what all cells of a seed "
            "share of it leaves a difference between them alone."
        )
        texts.append(f"{noise} {explain_resolution(results, entries)}".strip())
    return [text for text in texts if text]


def _explain_sign_flips(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    if shows_p(entries, results.headline):
        return (
            "Beside the verdict stands the p value of the exact sign-flip test over all sign "
            f"patterns of the seeds, adjusted by Holm's method over the compared {results.noun}s "
            "of one metric; metrics are not adjusted for each other. It decides nothing here."
        )
    compared = [e for e in of_metric(entries, results.headline) if e.holm is not None]
    if not compared:
        return ""
    n = max(len(e.versus.seeds) for e in compared if e.versus)
    fewest = fewest_seeds_for_holm(len(compared))
    many = prose.count(len(compared), "comparison")
    adjusted = f", adjusted by Holm's method for {many}," if len(compared) > 1 else ""
    return (
        f"With {prose.count(n, 'seed')} an exact sign-flip test{adjusted} cannot give a p below "
        f"{min(1.0, len(compared) * smallest_sign_flip_p(n)):g}, whatever the data; so no p values "
        f"are shown. {fewest} seeds are the fewest that can reach p < .05."
    )


def explain_resolution(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    """The smallest difference that the data could have shown; empty where there is no spread."""
    verdicts = verdicts_of(entries, results.headline)
    found = _of_images(verdicts) if verdicts.by_images else _of_seeds(verdicts, entries)
    if not found:
        return ""
    size, smallest = found
    digits = count_decimals(entries, results.headline)
    return (
        f"With {size}, and variances as measured, a true difference in "
        f"{prose.lower(results.headline.label)} has to be about {prose.show(smallest, digits)} for "
        f"its interval to exclude 0 with probability {100 * POWER:.0f} %."
    )


def _of_images(verdicts: MetricVerdicts) -> tuple[str, float] | None:
    rows = [v.images for v in verdicts.levels if v.images and len(v.seeds) > 1]
    if not rows or not verdicts.by_images:
        return None
    each = [variances_of(row) for row in rows]
    mean = Variances(*(sum(getattr(v, name) for v in each) / len(each) for name in SOURCES))
    seeds, prompts = max(len(row.seeds) for row in rows), rows[0].prompts
    if not mean.image > 0:
        return None
    smallest = predict_smallest_difference(
        mean,
        seeds,
        prompts,
        rows[0].family,
        rows[0].level,
        rows[0].rho,
        rows[0].degrees_a_seed,
        POWER,
    )
    size = f"{prose.count(seeds, 'seed')} of {prose.count(prompts, 'prompt')}"
    return (size, smallest) if math.isfinite(smallest) else None


SOURCES = ("seed", "prompt", "image")


def _of_seeds(verdicts: MetricVerdicts, entries: Sequence[CellMetric]) -> tuple[str, float] | None:
    levels = {v.cell for v in verdicts.levels}
    compared = [e for e in of_metric(entries, verdicts.metric) if e.cell.name in levels]
    spreads = [e.versus.interval for e in compared if e.versus and e.versus.interval.n > 1]
    if not spreads:
        return None
    n = max(spread.n for spread in spreads)
    pooled = math.sqrt(sum(spread.sd**2 for spread in spreads) / len(spreads))
    if pooled == 0:
        return None
    each = 1 - (1 - verdicts.levels[0].level) / len(levels)
    return prose.count(n, "seed"), detectable_effect(pooled, n, each, POWER)
