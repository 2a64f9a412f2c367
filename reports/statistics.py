"""Statistics of paired, seeded comparisons. Pure functions of numbers: nothing here knows of MLflow, cells or files.

Seeds are the unit of replication: a mean is a mean over seeds, and two cells are compared by their differences seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special, stats

__all__ = [
    "Effect",
    "Interval",
    "Paired",
    "clustered_difference",
    "detectable_effect",
    "holm",
    "mean_interval",
    "paired",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "standardised",
    "welch",
    "wilson",
]

EXACT_UP_TO = 20  # 2**19 sums; beyond that the flips are drawn


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided t-interval; `low`, `high` and `sd` are NaN where n = 1."""

    mean: float
    low: float
    high: float
    sd: float
    n: int
    level: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """True where zero lies outside. An interval without width never excludes: equal values show no spread to judge by."""
        return self.high > self.low and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Paired:
    """Differences left - right over the seeds that both sides have; the seeds that only one side has are named, not used."""

    seeds: tuple[int, ...]
    missing_left: tuple[int, ...]
    missing_right: tuple[int, ...]
    differences: tuple[float, ...]
    interval: Interval
    p: float
    smallest_p: float


@dataclass(frozen=True)
class Effect:
    """A standardised mean difference: Hedges' g of paired differences, in units of their standard deviation, and an interval of its
    true value. NaN where n < 3 or the differences have no spread."""

    g: float
    low: float
    high: float


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of n values with mean ± t(n-1) · sd / sqrt(n). Raises ValueError on no value or one that is not finite."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"expected one or more finite values, got {list(values)}: drop undefined values first and say that you did")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, float("nan"), float("nan"), float("nan"), 1, level)
    equal = np.ptp(x) <= 1e-12 * np.abs(x).max()  # equal but for rounding: a spread of 1e-17 would make any difference look certain
    sd = 0.0 if equal else float(x.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, x.size - 1)) * sd / float(np.sqrt(x.size))
    return Interval(mean, mean - half, mean + half, sd, int(x.size), level)


def paired(left: Mapping[int, float], right: Mapping[int, float], level: float = 0.95) -> Paired:
    """Compare two cells seed by seed. Both arguments map a seed to its value. Raises ValueError where no seed is common."""
    seeds = tuple(sorted(left.keys() & right.keys()))
    if not seeds:
        raise ValueError(f"no common seed: {sorted(left)} on one side, {sorted(right)} on the other; run the missing seeds")
    differences = tuple(float(left[s] - right[s]) for s in seeds)
    return Paired(
        seeds=seeds,
        missing_left=tuple(sorted(right.keys() - left.keys())),
        missing_right=tuple(sorted(left.keys() - right.keys())),
        differences=differences,
        interval=mean_interval(differences, level),
        p=sign_flip_p(differences),
        smallest_p=smallest_sign_flip_p(len(seeds)),
    )


def welch(left: Sequence[float], right: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of `left` - mean of `right`, of seeds that do not pair, with Welch's t-interval (Welch 1947).

    `sd` is NaN, since there is no difference of a seed, and `n` is the smaller of the two numbers of values. With one value on a side
    the interval is NaN; without spread on both it has no width. Raises ValueError as `mean_interval` does.
    """
    sides = [mean_interval(values, level) for values in (left, right)]
    mean, n = sides[0].mean - sides[1].mean, min(side.n for side in sides)
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), float("nan"), n, level)
    parts = [side.sd**2 / side.n for side in sides]
    half = 0.0
    if any(parts):
        freedom = sum(parts) ** 2 / sum(part**2 / (side.n - 1) for part, side in zip(parts, sides, strict=True))
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * float(np.sqrt(sum(parts)))
    return Interval(mean, mean - half, mean + half, float("nan"), n, level)


def standardised(differences: Sequence[float], level: float = 0.95) -> Effect:
    """d_z = mean / sd of paired differences, times Hedges' factor, which takes away its upward bias (Hedges 1981).

    The interval holds the true mean / sd and comes from the noncentral t distribution (Steiger and Fouladi 1997), exact for normal
    differences; with few seeds it is as wide as it has to be.
    """
    found = mean_interval(differences, level)
    if found.n < 3 or not found.sd > 0:
        return Effect(float("nan"), float("nan"), float("nan"))
    freedom, root = found.n - 1, float(np.sqrt(found.n))
    d = found.mean / found.sd
    factor = float(np.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2))
    spread = _relative_sd(freedom)

    def bound(share: float) -> float:
        """The noncentrality under which a t below the one seen has probability `share`."""
        far = abs(d) * root * float(spread[-1]) + 10
        return float(optimize.brentq(lambda shift: float(special.ndtr(d * root * spread - shift).mean()) - share, -far, far, xtol=1e-7))

    return Effect(factor * d, bound((1 + level) / 2) / root, bound((1 - level) / 2) / root)


@cache
def _relative_sd(freedom: int) -> np.ndarray:
    """[4000] quantiles of an estimated sd over its true value; a plain average over them is stabler than scipy's nct far from zero."""
    return np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, freedom) / freedom)


def sign_flip_p(differences: Sequence[float], draws: int = 100_000, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test on the mean: the share of the 2**n sign patterns with a mean at least as far from zero.

    Exact up to n = 20; beyond, `draws` random patterns from `seed`, with the observed one counted in.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size == 0:
        raise ValueError("expected one or more differences, got none")
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums of equal terms in another order differ in the last bit
    if d.size > EXACT_UP_TO:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, d.size))
        return float((1 + (np.abs(signs @ d) >= observed).sum()) / (1 + draws))
    sums = d[:1]  # the first sign stays: the other half of the patterns mirrors this one
    for value in d[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= observed).mean())


def smallest_sign_flip_p(n: int) -> float:
    """The smallest two-sided p that n differences can reach in an exact sign-flip test: 2 / 2**n."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p) - rank) * float(p[index]))
        adjusted[int(index)] = min(1.0, running)
    return adjusted


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent trials (Wilson 1927); n may be an effective number."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    z = float(stats.norm.ppf((1 + level) / 2))
    share, scale = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def detectable_effect(sd: float, n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean difference that a two-sided paired t-test at `level` finds with probability `power`.

    `sd` is the standard deviation of the n differences. NaN where n < 2.
    """
    if n < 2 or not np.isfinite(sd):
        return float("nan")
    critical = float(stats.t.ppf((1 + level) / 2, n - 1))
    spread = _relative_sd(n - 1)

    def lacking(shift: float) -> float:
        found = stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift)
        return float(found.mean()) - power

    return sd * float(optimize.brentq(lacking, 0.0, 10 * critical + 10)) / float(np.sqrt(n))


def clustered_difference(
    left: np.ndarray, right: np.ndarray, draws: int = 4000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean difference of per-image scores with a percentile interval that respects both clusters: prompts and seeds.

    `left` and `right` are [seeds, prompts], the same seed and prompt at the same place. Each of `draws` bootstrap samples draws seeds
    and, independently, prompts with replacement (the two-way bootstrap of Owen 2007), from generator `seed`. With few seeds its
    interval is too narrow, since a handful of values cannot show the spread of all seeds: where seeds scatter as much as prompts do, it
    misses the true value in a fifth of all cases with three seeds, in a tenth with six, and keeps its level of 5 % from about twenty on.
    """
    if left.shape != right.shape or left.ndim != 2 or left.size == 0:
        raise ValueError(f"expected two arrays [seeds, prompts] of one shape, got {left.shape} and {right.shape}")
    d = left.astype(np.float64) - right.astype(np.float64)  # [S, P]
    count_s, count_p = d.shape
    rng = np.random.default_rng(seed)
    of_seeds = rng.multinomial(count_s, np.full(count_s, 1 / count_s), size=draws)  # [draws, S]
    of_prompts = rng.multinomial(count_p, np.full(count_p, 1 / count_p), size=draws)  # [draws, P]
    means = ((of_seeds @ d) * of_prompts).sum(axis=1) / (count_s * count_p)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(d.mean()), float(low), float(high)
