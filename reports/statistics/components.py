"""Mean squares of balanced tables without replication: one value of each cell, seed and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

__all__ = [
    "Components",
    "PairComponents",
    "components",
    "mean_squares",
    "pair_components",
    "residual_with_floor",
]


@dataclass(frozen=True)
class Components:
    """Mean squares of a table [C cells, S seeds, P prompts] and what they estimate.

    ``df``: degrees of freedom of cell × seed, cell × prompt and residual. With variances σ² of
    the random parts their expectations are

        MS_cs  = σ²_csp + P σ²_cs      MS_cp = σ²_csp + S σ²_cp      MS_csp = σ²_csp

    ``var_cell_seed``, ``var_cell_prompt`` solve these and may be negative; ``var_residual`` is
    MS_csp. A cell's mean less the control's has the variance 2(σ²_cs/S + σ²_cp/P + σ²_csp/(SP)).
    """

    ms_cell_seed: float
    ms_cell_prompt: float
    ms_residual: float
    df: tuple[int, int, int]
    var_cell_seed: float
    var_cell_prompt: float
    var_residual: float


@dataclass(frozen=True)
class PairComponents:
    """Mean squares of differences [S seeds, P prompts] of two cells.

    ``ms_seed`` A = P var_s(mean_p d), df S − 1; ``ms_prompt`` B = S var_p(mean_s d), df P − 1;
    ``ms_residual`` E, what seed and prompt leave, df (S − 1)(P − 1).
    """

    mean: float
    ms_seed: float
    ms_prompt: float
    ms_residual: float


def mean_squares(y: np.ndarray) -> dict[tuple[int, ...], tuple[float, int]]:
    """Axes of each effect and interaction of a full table -> its mean square and df.

    The last, of all axes, is the residual. Raises ValueError where an axis has one entry only or
    a value is not finite.
    """
    if min(y.shape, default=0) < 2 or not np.isfinite(y).all():
        raise ValueError(f"expected finite values, two or more along each axis, got {y.shape}")
    axes = range(y.ndim)
    effects: dict[tuple[int, ...], np.ndarray] = {(): y.mean(keepdims=True)}
    found = {}
    for size in range(1, y.ndim + 1):
        for term in combinations(axes, size):
            others = tuple(axis for axis in axes if axis not in term)
            effect = y.mean(axis=others, keepdims=True)
            for part, values in effects.items():
                if set(part) < set(term):
                    effect = effect - values
            effects[term] = effect
            df = int(np.prod([y.shape[axis] - 1 for axis in term]))
            found[term] = (float((effect**2).mean()) * y.size / df, df)
    return found


def components(y: np.ndarray) -> Components:
    """Mean squares of the three-way analysis of variance of ``y`` [cells, seeds, prompts].

    Raises ValueError unless all three have two or more entries and all values are finite.
    """
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 3:
        raise ValueError(f"expected [cells, seeds, prompts], got shape {y.shape}")
    table = mean_squares(y)
    (cell_seed, df_cs), (cell_prompt, df_cp) = table[0, 1], table[0, 2]
    residual, df_csp = table[0, 1, 2]
    return Components(
        cell_seed,
        cell_prompt,
        residual,
        (df_cs, df_cp, df_csp),
        (cell_seed - residual) / y.shape[2],
        (cell_prompt - residual) / y.shape[1],
        residual,
    )


def pair_components(d: np.ndarray) -> PairComponents:
    """Mean squares of the two-way analysis of variance of differences ``d`` [seeds, prompts].

    With one seed A and E cannot be known apart: ``ms_seed`` is NaN, and B and E are both the
    variance over prompts. Raises ValueError on fewer than two prompts or values not finite.
    """
    d = np.asarray(d, dtype=np.float64)
    if d.ndim != 2 or len(d) < 1 or d.shape[1] < 2 or not np.isfinite(d).all():
        raise ValueError(
            f"expected finite differences [seeds, prompts] of two or more prompts, got {d.shape}"
        )
    if len(d) == 1:
        spread = float(d.var(ddof=1))
        return PairComponents(float(d.mean()), float("nan"), spread, spread)
    table = mean_squares(d)
    return PairComponents(float(d.mean()), table[(0,)][0], table[(1,)][0], table[0, 1][0])


def residual_with_floor(ms_residual: float, images: int) -> float:
    """The residual mean square of differences of outcomes 0 and 1 with two images more, one of
    which flips: (n E + 1) / (n + 2) for n ``images`` of a cell.

    No flip in n images is no proof that none can be (Agresti and Min 2005 add as much to paired
    shares); without it the interval would have no width.
    """
    if images < 1 or ms_residual < 0:
        raise ValueError(
            f"expected images >= 1 and a mean square >= 0, got {images}, {ms_residual}"
        )
    return (images * ms_residual + 1) / (images + 2)
