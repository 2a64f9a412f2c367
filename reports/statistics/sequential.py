"""Sweeps that are looked at more than once: seeds to a width, and tests that hold at each look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import special

__all__ = ["anytime_quantile", "e_value", "error_of_looks", "stein_total_seeds"]

NODES = 1001  # Of the grid of a sum between its limits


def e_value(t: float, n: int, df: float, g: float = 0.3) -> float:
    """Evidence against a mean of 0: the Bayes factor of a t statistic under a normal mixture.

        (1 + n g)^(−1/2) [ (1 + t²/df) / (1 + t²/(df (1 + n g))) ]^((df + 1)/2)

    ``g`` is the prior variance of the effect in units of one observation's (of n). Under the null
    it exceeds 1/alpha at any of all looks with probability of at most alpha (Ville), whenever one
    stops (Hendriksen et al. 2021; Wang and Ramdas 2025).
    """
    _check(n, df, g)
    wide = 1 + n * g
    ratio = (1 + t * t / df) / (1 + t * t / (df * wide))
    return wide**-0.5 * ratio ** ((df + 1) / 2)


def anytime_quantile(n: int, df: float, alpha: float, g: float = 0.3) -> float:
    """The |t| at which ``e_value`` reaches 1/alpha; infinite where no t does.

    mean ± this · standard error is a confidence sequence: it holds at all looks at once.
    """
    _check(n, df, g)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: expected a number between 0 and 1")
    wide = 1 + n * g
    ratio = (math.sqrt(wide) / alpha) ** (2 / (df + 1))
    if ratio >= wide:
        return math.inf
    return math.sqrt(df * (ratio - 1) / (1 - ratio / wide))


def stein_total_seeds(
    variance_of_difference: float, quantile: float, half_width: float, start: int
) -> int:
    """Seeds in all, those of ``start`` included, after which the half-width is ``half_width``.

    Stein's (1945) two stages: ``variance_of_difference`` (of one seed) and ``quantile`` are those
    of the first ``start`` seeds and stay, so the interval keeps its level whatever the number.
    """
    if variance_of_difference < 0 or not quantile > 0 or not half_width > 0 or start < 2:
        raise ValueError(
            f"expected variance >= 0, quantile > 0, half_width > 0 and start >= 2, got "
            f"{variance_of_difference}, {quantile}, {half_width}, {start}"
        )
    exact = variance_of_difference * (quantile / half_width) ** 2
    return max(start, math.ceil(exact * (1 - 1e-12)))


def _check(n: int, df: float, g: float) -> None:
    if n < 1 or not df > 0 or not g > 0:
        raise ValueError(f"expected n >= 1, df > 0 and g > 0, got n={n}, df={df}, g={g}")


def error_of_looks(sizes: Sequence[float], alpha: float = 0.05) -> float:
    """How often a true null is rejected at one or more of several looks, each at ``alpha``.

    The mean of normal observations of known variance is tested with ``sizes`` of them, each look
    on those before and more (a look on no more counts once): Armitage, McPherson and Rowe (1969),
    whose integrals over the sum at each look are done on a grid, exact to 1e-5.
    """
    if not sizes or not 0 < alpha < 1 or not min(sizes) > 0:
        raise ValueError(f"expected sizes above 0 and 0 < alpha < 1, got {list(sizes)}, {alpha}")
    totals = [n for i, n in enumerate(sizes) if n > max(sizes[:i], default=0.0)]
    limit = float(special.ndtri(1 - alpha / 2))
    half = limit * math.sqrt(totals[0])
    nodes = np.linspace(-half, half, NODES)
    density = np.exp(-(nodes**2) / (2 * totals[0])) / math.sqrt(2 * math.pi * totals[0])
    for before, now in pairwise(totals):
        weights = np.full(NODES, nodes[1] - nodes[0])
        weights[[0, -1]] /= 2
        half = limit * math.sqrt(now)
        after, step = np.linspace(-half, half, NODES), now - before
        kernel = np.exp(-((after[:, None] - nodes) ** 2) / (2 * step))
        density = kernel @ (weights * density) / math.sqrt(2 * math.pi * step)
        nodes = after
    return 1 - float(np.trapezoid(density, nodes))
