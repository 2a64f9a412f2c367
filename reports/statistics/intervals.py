"""Intervals of means and shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import (
    special,
)  # Its quantiles are those of scipy.stats, which takes half a second to load

__all__ = ["Interval", "clopper_pearson", "mean_interval", "welch", "wilson"]


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided t-interval; ``low``, ``high`` and ``sd`` are NaN where n = 1."""

    mean: float
    low: float
    high: float
    sd: float
    n: int
    level: float
    uncut: float | None = None  # Half the width before bounds cut it

    @property
    def half(self) -> float:
        """Half the width of the t-interval."""
        return (self.high - self.low) / 2 if self.uncut is None else self.uncut

    def within(self, bounds: tuple[float, float] | None) -> Interval:
        """The part that lies within ``bounds``, beyond which no mean can be: it holds the true mean
        as often as the whole, and is not symmetric."""
        if bounds is None or self.n < 2 or (bounds[0] <= self.low and self.high <= bounds[1]):
            return self
        low, high = max(self.low, bounds[0]), min(self.high, bounds[1])
        return replace(self, low=low, high=high, uncut=self.half)

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside. Without width it never does: equal values have no spread."""
        return self.high > self.low and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of n values with mean ± t(n-1) · sd / sqrt(n).

    Raises ValueError on no value or one that is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(
            f"expected one or more finite values, got {list(values)}: drop others first"
        )
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, math.nan, math.nan, math.nan, 1, level)
    # Equal but for rounding: a spread of 1e-17 would make any difference look certain
    equal = np.ptp(x) <= 1e-12 * np.abs(x).max()
    sd = 0.0 if equal else float(x.std(ddof=1))
    half = float(special.stdtrit(x.size - 1, (1 + level) / 2)) * sd / math.sqrt(x.size)
    return Interval(mean, mean - half, mean + half, sd, int(x.size), level)


def welch(left: Sequence[float], right: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of ``left`` - mean of ``right``, of seeds that do not pair (Welch 1947).

    ``sd`` is NaN, since there is no difference of a seed, and ``n`` is the smaller of the two
    numbers of values. With one value on a side the interval is NaN; without spread on both it has
    no width. Raises ValueError as ``mean_interval`` does.
    """
    sides = [mean_interval(values, level) for values in (left, right)]
    mean, n = sides[0].mean - sides[1].mean, min(side.n for side in sides)
    if n == 1:
        return Interval(mean, math.nan, math.nan, math.nan, n, level)
    parts = [side.sd**2 / side.n for side in sides]
    half = 0.0
    if any(parts):
        pooled = sum(part**2 / (side.n - 1) for part, side in zip(parts, sides, strict=True))
        freedom = sum(parts) ** 2 / pooled
        half = float(special.stdtrit(freedom, (1 + level) / 2)) * math.sqrt(sum(parts))
    return Interval(mean, mean - half, mean + half, math.nan, n, level)


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent trials (Wilson 1927).

    ``n`` may be an effective number, which ``scipy.stats.binomtest`` does not take.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    z = float(special.ndtri((1 + level) / 2))
    share, scale = successes / n, 1 + z * z / n
    center = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of n trials (Clopper and Pearson 1934)."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    tail, failures = (1 - level) / 2, n - successes
    low = special.betaincinv(successes, failures + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
    return float(low), float(high)
