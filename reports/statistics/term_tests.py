"""Tests of terms of several contrasts, as the interaction of two factors, by the rule of
``compare_cells``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from reports.statistics.components import mean_squares, pair_components, residual_with_floor

__all__ = ["TermTest", "term_test", "value_term_test"]


@dataclass(frozen=True)
class TermTest:
    """``F`` with ``df`` and ``error_df``; NaN where there is one seed."""

    F: float
    df: int
    error_df: float
    p: float


def term_test(
    y: ArrayLike, weights: ArrayLike, design_effect: float, nu: float, binary: bool = False
) -> TermTest:
    """Whether all contrasts ``weights`` [contrasts, cells] of ``y`` [cells, seeds, prompts] are 0.

    A quasi-F (Clark 1973; Satterthwaite 1946) with seeds and prompts random: the contrasts' mean
    square against V = F* E + v, where E and v (of prompts that respond differently) are those of
    the contrasts, made orthogonal, and F* is the pool's ``design_effect`` on ``nu`` degrees of
    freedom, or the contrasts' own where that is larger. Never surer than images and prompts alone
    are. With one contrast it is the square of its estimate over its standard error.
    """
    x, q = np.asarray(y, dtype=np.float64), _orthonormal(weights)
    _, seeds, prompts = x.shape
    df = q.shape[1]
    if seeds < 2 or prompts < 2:
        return TermTest(math.nan, df, math.nan, math.nan)
    z = np.tensordot(q.T, x, axes=1)
    parts = [pair_components(d) for d in z]
    images, freedom = seeds * prompts, float(df * (seeds - 1) * (prompts - 1))
    ms = images * float((z.mean(axis=(1, 2)) ** 2).mean())
    a, b, e = (
        float(np.mean([getattr(part, name) for part in parts]))
        for name in ("ms_seed", "ms_prompt", "ms_residual")
    )
    noise = residual_with_floor(2 * e, images) / 2 if binary else e  # Of one cell, not of a pair
    own, own_df = (a / e if e else 0.0), df * (seeds - 1)
    f = design_effect if math.isfinite(design_effect) else 1.0
    f = max(f, (4 * f + own_df * own) / (4 + own_df))
    nu = nu if nu > 0 else own_df
    extra, inflated = max(0.0, b - e), f * noise
    variance, error_df = inflated + extra, float(nu)
    if extra > 0:
        spread = inflated**2 / nu + b**2 / (df * (prompts - 1)) + e**2 / freedom
        error_df = max(error_df, variance**2 / spread)
    tests = [_test(ms, variance, df, error_df), _test(ms, noise + extra, df, freedom)]
    return max(tests, key=lambda test: test.p)


def value_term_test(values: ArrayLike, weights: ArrayLike) -> TermTest:
    """The same for ``values`` [cells, seeds] against cell × seed, supposing that cells scatter
    alike."""
    x, q = np.asarray(values, dtype=np.float64), _orthonormal(weights)
    df = q.shape[1]
    if min(x.shape) < 2:
        return TermTest(math.nan, df, math.nan, math.nan)
    error, error_df = mean_squares(x)[0, 1]
    ms = x.shape[1] * float(((q.T @ x).mean(axis=1) ** 2).mean())
    return _test(ms, error, df, error_df)


def _test(ms: float, error: float, df: int, error_df: float) -> TermTest:
    ratio = ms / error if error > 0 else math.inf if ms > 0 else 0.0
    return TermTest(ratio, df, error_df, float(special.fdtrc(df, error_df, ratio)))


def _orthonormal(weights: ArrayLike) -> np.ndarray:
    """[cells, contrasts], of the space that these span."""
    w = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    if abs(w.sum(axis=1)).max() > 1e-9 or not w.any():
        raise ValueError(f"expected contrasts whose weights sum to 0, got {w.tolist()}")
    u, sizes, _ = np.linalg.svd(w.T, full_matrices=False)
    return u[:, sizes > 1e-9 * sizes[0]]
