"""Comparisons seed by seed: sign flips, Holm, effect sizes, and what n seeds can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from reports.statistics.intervals import Interval, mean_interval
from reports.statistics.roots import find_root
from reports.statistics.rounding import ROUNDING, drop_rounding

__all__ = [
    "Effect",
    "Paired",
    "detectable_effect",
    "detectable_shift",
    "fewest_seeds_for_holm",
    "holm",
    "paired",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "standardised",
]

EXACT_UP_TO = 20  # 2**19 sums; beyond that the flips are drawn


@dataclass(frozen=True)
class Paired:
    """Differences left - right over the seeds that both sides have; the other seeds are named."""

    seeds: tuple[int, ...]
    missing_left: tuple[int, ...]
    missing_right: tuple[int, ...]
    differences: tuple[float, ...]
    interval: Interval
    p: float
    smallest_p: float


@dataclass(frozen=True)
class Effect:
    """Hedges' g of paired differences, in units of their standard deviation.

    ``low`` and ``high`` bound its true value. NaN where n < 3 or the differences have no spread.
    """

    g: float
    low: float
    high: float


def paired(left: Mapping[int, float], right: Mapping[int, float], level: float = 0.95) -> Paired:
    """Compare two cells by their values, seed -> value. ValueError where no seed is common.

    Differences below 1e-9 of the values are rounding and are 0; where all seeds differ alike but
    for rounding, they differ by the same.
    """
    seeds = tuple(sorted(left.keys() & right.keys()))
    if not seeds:
        sides = f"{sorted(left)} on one side, {sorted(right)} on the other"
        raise ValueError(f"no common seed: {sides}; run the missing seeds")
    differences = _subtract([left[s] for s in seeds], [right[s] for s in seeds])
    return Paired(
        seeds=seeds,
        missing_left=tuple(sorted(right.keys() - left.keys())),
        missing_right=tuple(sorted(left.keys() - right.keys())),
        differences=differences,
        interval=mean_interval(differences, level),
        p=sign_flip_p(differences),
        smallest_p=smallest_sign_flip_p(len(seeds)),
    )


def _subtract(left: Sequence[float], right: Sequence[float]) -> tuple[float, ...]:
    """left - right without the noise of rounding."""
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    d = a - b
    if not np.isfinite(d).all():
        return tuple(map(float, d))
    scale = max(np.abs(a).max(), np.abs(b).max())
    if np.ptp(d) <= ROUNDING * scale:
        d = np.full_like(d, d[0])
    return tuple(map(float, drop_rounding(d, scale)))


def sign_flip_p(differences: Sequence[float], draws: int = 100_000, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test: the share of sign patterns with a mean as far from zero.

    Exact over all 2**n patterns up to n = 20; beyond, ``draws`` random patterns from ``seed``, with
    the observed one counted in. ``scipy.stats.permutation_test`` gives the same p, and takes
    seconds for twenty seeds where this takes milliseconds.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size == 0:
        raise ValueError("expected one or more differences, got none")
    # Sums of equal terms in another order differ in the last bit
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if d.size > EXACT_UP_TO:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, d.size))
        return float((1 + (np.abs(signs @ d) >= observed).sum()) / (1 + draws))
    sums = d[:1]  # The first sign stays: the other half of the patterns mirrors this one
    for value in d[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= observed).mean())


def smallest_sign_flip_p(n: int) -> float:
    """The smallest two-sided p that n differences can reach in an exact sign-flip test."""
    return min(1.0, 2.0 ** (1 - n))


def fewest_seeds_for_holm(comparisons: int, level: float = 0.05) -> int:
    """Seeds from which sign flips adjusted by Holm can pass ``level`` at all.

    The smallest p of n seeds is 2^(1−n), and the smallest of k comparisons is multiplied by k: 6
    seeds for one comparison, 8 for four, 11 for 26.
    """
    if comparisons < 1 or not 0 < level < 1:
        raise ValueError(f"expected comparisons >= 1, 0 < level < 1, got {comparisons}, {level}")
    seeds = 1
    while comparisons * smallest_sign_flip_p(seeds) > level:
        seeds += 1
    return seeds


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p) - rank) * float(p[index]))
        adjusted[int(index)] = min(1.0, running)
    return adjusted


def standardised(differences: Sequence[float], level: float = 0.95) -> Effect:
    """mean / sd of paired differences, times the factor that takes its bias away (Hedges 1981).

    The interval holds the true mean / sd and comes from the noncentral t distribution (Steiger
    and Fouladi 1997), exact for normal differences.
    """
    interval = mean_interval(differences, level)
    if interval.n < 3 or not interval.sd > 0:
        return Effect(math.nan, math.nan, math.nan)
    freedom, root = interval.n - 1, math.sqrt(interval.n)
    d = interval.mean / interval.sd
    gammas = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)
    factor = float(np.exp(gammas) / np.sqrt(freedom / 2))
    spread = _relative_sd(freedom)
    far = abs(d) * root * float(spread[-1]) + 10

    def bound(share: float) -> float:
        """The noncentrality under which a t below the one seen has probability ``share``."""
        return find_root(
            lambda shift: float(special.ndtr(d * root * spread - shift).mean()) - share,
            -far,
            far,
            xtol=1e-7,
        )

    return Effect(factor * d, bound((1 + level) / 2) / root, bound((1 - level) / 2) / root)


def detectable_effect(sd: float, n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean that a two-sided paired t-test at ``level`` finds with ``power``.

    ``sd`` is the standard deviation of the n differences. NaN where n < 2.
    """
    if n < 2 or not math.isfinite(sd):
        return math.nan
    critical = float(special.stdtrit(n - 1, (1 + level) / 2))
    return sd * detectable_shift(critical, n - 1, power) / math.sqrt(n)


def detectable_shift(critical: float, df: float, power: float = 0.8) -> float:
    """The true mean, in standard errors, at which |t| passes ``critical`` with ``power``."""
    spread = _relative_sd(df)

    def miss(shift: float) -> float:
        hits = special.ndtr(shift - critical * spread) + special.ndtr(-critical * spread - shift)
        return float(hits.mean()) - power

    return find_root(miss, 0.0, 10 * critical + 10)


@lru_cache(maxsize=256)
def _relative_sd(freedom: float) -> np.ndarray:
    """[4000] quantiles of an estimated sd over its true value.

    A plain average over them is stabler than scipy's noncentral t far from zero.
    """
    share = (np.arange(4000) + 0.5) / 4000
    return np.sqrt(2 * special.gammaincinv(freedom / 2, share) / freedom)
