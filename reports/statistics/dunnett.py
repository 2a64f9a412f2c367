"""Dunnett's two-sided quantile by exact quadrature."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from scipy import special

from reports.statistics.roots import find_root

__all__ = ["dunnett_quantile"]

_TAIL = 1e-14  # Probability of the chi distribution that is left out at either end


@lru_cache(maxsize=4096)
def dunnett_quantile(k: int, df: float, level: float = 0.95, rho: float = 0.5) -> float:
    """The c that all of k equicorrelated t variables stay within, in either direction, with
    probability ``level``.

    With one control and equal numbers the correlation ``rho`` is 1/2 (Dunnett 1955, 1964); 0 is
    right for comparisons that share nothing and too wide, never too narrow, for others (Šidák
    1967). ``df`` is the degrees of freedom of the common error: real, at least 1, or infinite.

        P(max|T| <= c) = ∬ φ(z) f_df(s) [Φ((√ρ z + c s)/√(1−ρ)) − Φ((√ρ z − c s)/√(1−ρ))]^k dz ds

    where s is distributed as χ_df/√df: Gauss–Legendre over z and over s in two parts, right to
    seven digits for k up to a thousand. Raises ValueError outside of these ranges.
    """
    if k != int(k) or k < 1:
        raise ValueError(f"k={k}: expected a number of comparisons, 1 or more")
    if not df >= 1:
        raise ValueError(f"df={df}: expected degrees of freedom of at least 1, or infinity")
    if not 0 < level < 1 or not 0 <= rho < 1:
        raise ValueError(f"level={level}, rho={rho}: expected 0 < level < 1 and 0 <= rho < 1")
    lone, sidak = _t_quantile(df, level), _t_quantile(df, level ** (1 / k))
    if k == 1:
        return lone

    def miss(c: float) -> float:
        return _probability(c, int(k), df, rho) - level

    return find_root(miss, lone * (1 - 1e-6), sidak * (1 + 1e-6), xtol=1e-10)


@cache
def _legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(nodes)


def _t_quantile(df: float, level: float) -> float:
    share = (1 + level) / 2
    return float(special.ndtri(share) if math.isinf(df) else special.stdtrit(df, share))


def _probability(c: float, k: int, df: float, rho: float) -> float:
    s, density = _chi_nodes(c, df)
    if rho == 0:
        return float(density @ special.erf(c * s / math.sqrt(2)) ** k)
    # Near-equal variables turn from inside to outside over a small part of z
    nodes, of_node = _legendre(64 if rho <= 0.6 else 600)
    z = 4.5 * (nodes + 1)  # The integrand is even in z: 0 to 9, doubled
    weights = 2 * 4.5 * of_node * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    scale = math.sqrt(1 - rho)
    mid, reach = (math.sqrt(rho) / scale) * z[:, None], (c / scale) * s
    inside = special.ndtr(mid + reach) - special.ndtr(mid - reach)  # [z, s]
    return float(weights @ inside**k @ density)


def _chi_nodes(c: float, df: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes s and their weights times the density of χ_df/√df."""
    if math.isinf(df):
        return np.ones(1), np.ones(1)
    low = math.sqrt(2 * special.gammaincinv(df / 2, _TAIL) / df)
    high = math.sqrt(2 * special.gammainccinv(df / 2, _TAIL) / df)
    middle = (low + high) / 2
    bend = 8 / c if low < 8 / c < middle else middle  # Beyond 8 / c nearly all lies inside
    nodes, of_node = _legendre(64)
    parts, weights = [], []
    for start, end in ((low, bend), (bend, high)):
        # Squared nodes: s**(df - 1) is then smooth at 0 where df is no whole number
        u = math.sqrt(start) + (math.sqrt(end) - math.sqrt(start)) * (nodes + 1) / 2
        parts.append(u * u)
        weights.append(of_node * (math.sqrt(end) - math.sqrt(start)) * u)
    s, weight = np.concatenate(parts), np.concatenate(weights)
    constant = (df / 2) * math.log(df) - (df / 2 - 1) * math.log(2) - special.gammaln(df / 2)
    return s, weight * np.exp(constant + (df - 1) * np.log(s) - df * s * s / 2)
