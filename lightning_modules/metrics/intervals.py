"""Intervals of what metrics count. `reports.statistics` has the same formula: neither of the two
packages may import the other."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927, no continuity correction) of the share of successes in
    n independent trials.

    Returns (low, high) in [0, 1]. Raises ValueError unless 0 <= successes <= n, n > 0 and 0 < level
    < 1.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(
            f"{successes} successes in {n} trials: expected 0 <= successes <= n and n > 0"
        )
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a probability between 0 and 1, such as 0.95")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not leave a share of exactly 0 or 1 outside its interval.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)
