"""Statistics of answers that several people gave on the same items: pure functions of arrays [participants, items], NaN for no answer.

Answers of one person resemble each other, and so do answers to one item. Intervals here come from the spread of a bootstrap that draws
participants and, independently, items (the two-way bootstrap of Owen 2007), with the t quantile of the fewer of the two: over simulated
studies of 3 to 20 participants and 30 items they covered the truth in 91 % (3 participants) to 100 %, Wilson's interval over
all answers in 40 to 75 % where people or items differed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reports.statistics import wilson

__all__ = ["Mean", "Share", "clustered_mean", "clustered_share", "krippendorff_alpha", "resampled"]


@dataclass(frozen=True)
class Mean:
    """A mean of n values. `low`, `high`: clustered interval, NaN with fewer than two participants or items."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Share:
    """A share of n answers. `low`, `high`: clustered interval; `percentile`: that of the bootstrap as it is, too narrow with few people and
    without width where all agree; `wilson`: as if answers were independent; `effective`: independent answers that n are worth."""

    share: float
    n: int
    low: float
    high: float
    percentile: tuple[float, float]
    wilson: tuple[float, float]
    effective: float


def resampled(values: np.ndarray, draws: int = 4000, seed: int = 0) -> np.ndarray:
    """Means of `draws` bootstrap samples that draw participants and items with replacement; samples without a value are left out."""
    if values.ndim != 2 or np.isnan(values).all():
        raise ValueError(f"expected [participants, items] with one or more values, got shape {values.shape}")
    people, items = values.shape
    there = ~np.isnan(values)
    rng = np.random.default_rng(seed)
    of_people = rng.multinomial(people, np.full(people, 1 / people), size=draws)  # [draws, P]
    of_items = rng.multinomial(items, np.full(items, 1 / items), size=draws)  # [draws, I]
    total = ((of_people @ np.where(there, values, 0.0)) * of_items).sum(axis=1)
    count = ((of_people @ there.astype(float)) * of_items).sum(axis=1)
    return total[count > 0] / count[count > 0]


def _quantile(values: np.ndarray, level: float) -> float:
    """Of t, with one degree of freedom fewer than there are participants or items, whichever are fewer; NaN where that is none."""
    fewer = int(min((~np.isnan(values)).any(axis=1).sum(), (~np.isnan(values)).any(axis=0).sum()))
    return float(stats.t.ppf((1 + level) / 2, fewer - 1)) if fewer > 1 else math.nan


def clustered_mean(values: np.ndarray, level: float = 0.95) -> Mean:
    """Mean with the interval mean ± t · spread of the bootstrap. `values` [participants, items]."""
    mean, n = float(np.nanmean(values)), int((~np.isnan(values)).sum())
    half = _quantile(values, level) * float(resampled(values).std())
    return Mean(mean, mean - half, mean + half, n)


def clustered_share(values: np.ndarray, level: float = 0.95) -> Share:
    """Share of answers of value 1 among those of 0 to 1, [participants, items].

    The clustered interval is Wilson's for as many answers as the bootstrap's spread says that n are worth (never more than n), with the t
    quantile. Where all agree there is no spread to go by: n are then worth as many answers as there are participants, or items if fewer.
    """
    there = ~np.isnan(values)
    share, n = float(np.nanmean(values)), int(there.sum())
    means = resampled(values)
    tail = (1 - level) / 2
    low, high = (float(q) for q in np.quantile(means, [tail, 1 - tail]))
    spread = float(means.var())
    worth = share * (1 - share) / spread if spread > 0 else min(there.any(axis=1).sum(), there.any(axis=0).sum())
    effective = min(float(n), float(worth))
    quantile = _quantile(values, level)
    clustered = (math.nan, math.nan)
    if math.isfinite(quantile):
        clustered = wilson(share * effective, effective, float(2 * stats.norm.cdf(quantile) - 1))
    return Share(share, n, *clustered, (low, high), wilson(share * n, n, level), effective)


def krippendorff_alpha(values: np.ndarray, metric: str) -> float:
    """Krippendorff's alpha of `values` [raters, units], "nominal" or "ordinal" (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability): 1 is full agreement, 0 what chance gives. NaN where no unit has two values, or all values are equal.
    """
    if metric not in ("nominal", "ordinal"):
        raise ValueError(f"metric={metric!r}: expected nominal or ordinal")
    levels = np.unique(values[~np.isnan(values)])
    counts = (values[:, :, None] == levels).sum(axis=0).astype(float)  # [units, levels]
    counts = counts[counts.sum(axis=1) > 1]
    raters = counts.sum(axis=1)[:, None, None]
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(levels.size) * counts[:, :, None]
    observed = (pairs / (raters - 1)).sum(axis=0)  # the coincidence matrix [levels, levels]
    of_level = observed.sum(axis=1)
    if metric == "nominal":
        distance = 1.0 - np.eye(levels.size)
    else:
        upto = np.cumsum(of_level)
        between = np.abs(upto[:, None] - upto[None, :])  # of the higher of two levels and of all between
        low, high = np.minimum(*np.indices(between.shape)), np.maximum(*np.indices(between.shape))
        distance = np.where(low == high, 0.0, between + (of_level[low] - of_level[high]) / 2) ** 2
    expected = (np.outer(of_level, of_level) * distance).sum()
    if expected == 0:
        return math.nan
    return float(1 - (of_level.sum() - 1) * (observed * distance).sum() / expected)
