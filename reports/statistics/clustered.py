"""Statistics of values in two clusters, [seeds, prompts] or [participants, items]; NaN is no value.

Values of one person resemble each other, and so do values of one item. Intervals come from the
spread of a bootstrap that draws both independently (the two-way bootstrap of Owen 2007). With the
t quantile of the fewer of the two, over simulated studies of 3 to 20 participants and 30 items,
they covered the truth in 91 % (3 participants) to 100 %; Wilson's interval over all answers in 40
to 75 % where people or items differed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from reports.statistics.intervals import wilson
from reports.statistics.rounding import drop_rounding

__all__ = [
    "ClusteredMean",
    "ClusteredShare",
    "clustered_difference",
    "clustered_mean",
    "clustered_share",
    "krippendorff_alpha",
    "two_way_bootstrap",
]


@dataclass(frozen=True)
class ClusteredMean:
    """A mean of n values; ``low``, ``high`` are NaN with fewer than two participants or items."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ClusteredShare:
    """A share of n answers with its clustered interval ``low``, ``high``.

    ``percentile``: the interval of the bootstrap as it is, too narrow with few people and without
    width where all agree; ``wilson``: as if answers were independent; ``effective``: how many
    independent answers the n are worth.
    """

    share: float
    n: int
    low: float
    high: float
    percentile: tuple[float, float]
    wilson: tuple[float, float]
    effective: float


def two_way_bootstrap(values: np.ndarray, draws: int = 4000, seed: int = 0) -> np.ndarray:
    """Means of ``draws`` samples that draw rows and columns of ``values`` with replacement.

    Samples without a value are left out. Raises ValueError where there is no value at all.
    """
    if values.ndim != 2 or np.isnan(values).all():
        raise ValueError(f"expected [rows, columns] with values, got shape {values.shape}")
    rows, columns = values.shape
    there = ~np.isnan(values)
    rng = np.random.default_rng(seed)
    of_rows = rng.multinomial(rows, np.full(rows, 1 / rows), size=draws)  # [draws, R]
    of_columns = rng.multinomial(columns, np.full(columns, 1 / columns), size=draws)  # [draws, C]
    total = ((of_rows @ np.where(there, values, 0.0)) * of_columns).sum(axis=1)
    count = ((of_rows @ there.astype(float)) * of_columns).sum(axis=1)
    return total[count > 0] / count[count > 0]


def clustered_difference(
    left: np.ndarray, right: np.ndarray, draws: int = 4000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean difference of per-image scores with its percentile interval over seeds and prompts.

    ``left`` and ``right`` are [seeds, prompts]. With few seeds the interval is too narrow, since a
    handful of values cannot show the spread of all seeds: where seeds scatter as much as prompts
    do, it misses the true value in a fifth of all cases with three seeds, in a tenth with six, and
    keeps its level of 5 % from about twenty on.
    """
    if left.shape != right.shape or left.ndim != 2 or left.size == 0:
        raise ValueError(f"expected two arrays [seeds, prompts], got {left.shape}, {right.shape}")
    scale = float(max(np.abs(left).max(), np.abs(right).max()))
    d = drop_rounding(left.astype(np.float64) - right.astype(np.float64), scale)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(two_way_bootstrap(d, draws, seed), tails)
    return float(d.mean()), float(low), float(high)


def clustered_mean(values: np.ndarray, level: float = 0.95) -> ClusteredMean:
    """Mean of ``values`` [participants, items] with mean ± t · spread of the bootstrap."""
    mean, n = float(np.nanmean(values)), int((~np.isnan(values)).sum())
    half = _t_quantile(values, level) * float(two_way_bootstrap(values).std())
    return ClusteredMean(mean, mean - half, mean + half, n)


def clustered_share(values: np.ndarray, level: float = 0.95) -> ClusteredShare:
    """Share of answers of value 1 among those of 0 to 1, [participants, items].

    The clustered interval is Wilson's for as many answers as the bootstrap's spread says that n
    are worth (never more than n), with the t quantile. Where all agree there is no spread to go
    by: n are then worth as many answers as there are participants, or items if fewer.
    """
    share, n = float(np.nanmean(values)), int((~np.isnan(values)).sum())
    means = two_way_bootstrap(values)
    low, high = map(float, np.quantile(means, [(1 - level) / 2, 1 - (1 - level) / 2]))
    spread = float(means.var())
    worth = share * (1 - share) / spread if spread > 0 else _fewer(values)
    effective = min(float(n), float(worth))
    quantile = _t_quantile(values, level)
    clustered = (math.nan, math.nan)
    if math.isfinite(quantile):
        clustered = wilson(share * effective, effective, float(2 * special.ndtr(quantile) - 1))
    return ClusteredShare(share, n, *clustered, (low, high), wilson(share * n, n, level), effective)


def _fewer(values: np.ndarray) -> int:
    """How many participants or items have values, whichever are fewer."""
    there = ~np.isnan(values)
    return int(min(there.any(axis=1).sum(), there.any(axis=0).sum()))


def _t_quantile(values: np.ndarray, level: float) -> float:
    """Of t, with a degree of freedom fewer than participants or items; NaN where that is none."""
    fewer = _fewer(values)
    return float(special.stdtrit(fewer - 1, (1 + level) / 2)) if fewer > 1 else math.nan


def krippendorff_alpha(values: np.ndarray, metric: str) -> float:
    """Krippendorff's alpha of ``values`` [raters, units], "nominal" or "ordinal".

    1 is full agreement, 0 what chance gives (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability). NaN where no unit has two values, or all values are equal.
    """
    if metric not in ("nominal", "ordinal"):
        raise ValueError(f"metric={metric!r}: expected nominal or ordinal")
    levels = np.unique(values[~np.isnan(values)])
    counts = (values[:, :, None] == levels).sum(axis=0).astype(float)  # [units, levels]
    counts = counts[counts.sum(axis=1) > 1]
    raters = counts.sum(axis=1)[:, None, None]
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(levels.size) * counts[:, :, None]
    observed = (pairs / (raters - 1)).sum(axis=0)  # The coincidence matrix [levels, levels]
    of_level = observed.sum(axis=1)
    distance = 1.0 - np.eye(levels.size)
    if metric == "ordinal":
        up_to = np.cumsum(of_level)
        between = np.abs(up_to[:, None] - up_to[None, :])  # Of the higher level and all between
        low, high = np.sort(np.indices(between.shape), axis=0)
        distance *= (between + (of_level[low] - of_level[high]) / 2) ** 2
    expected = (np.outer(of_level, of_level) * distance).sum()
    if expected == 0:
        return math.nan
    return float(1 - (of_level.sum() - 1) * (observed * distance).sum() / expected)
