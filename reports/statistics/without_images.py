"""Comparisons of metrics that have one value a training: distances of distributions, times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reports.statistics.components import mean_squares
from reports.statistics.dunnett import dunnett_quantile

__all__ = ["ValueComparisons", "compare_cells_without_images"]


@dataclass(frozen=True)
class ValueComparisons:
    """One entry a comparison, in the order of the cells without the control.

    ``plain_half`` supposes that all cells scatter alike; ``half`` is wider where a cell's
    differences scatter more than the pool's (``variance_used``, of one seed's difference).
    """

    ms_cell_seed: float
    df: int
    plain_half: float
    variance_used: tuple[float, ...]
    half: tuple[float, ...]
    mean: tuple[float, ...]


def compare_cells_without_images(
    values: ArrayLike, baseline: int = 0, level: float = 0.95
) -> ValueComparisons:
    """Compare cells with the cell ``baseline`` by ``values`` [cells, seeds], error pooled.

    MS_cs of the two-way table has (C − 1)(S − 1) degrees of freedom and q is Dunnett's quantile of
    the k = C − 1 comparisons: plain half = q √(2 MS_cs / S). With D the larger of 2 MS_cs and the
    mean variance of the differences (which sees an unstable control) and v_i that of comparison i,
    its variance is max(D, (4 D + (S − 1) v_i) / (4 + S − 1)).

    It supposes that cells scatter alike, which values without images cannot show: to be reported
    beside the t-interval of each difference, labelled so, and to claim nothing. With cells that
    scatter differently its family-wise error is .10 to .19. Raises ValueError unless there are two
    or more cells and seeds and all values are finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(
            f"expected finite values [cells, seeds] of two or more of each, got shape {x.shape}"
        )
    if not 0 <= baseline < len(x):
        raise ValueError(f"baseline={baseline}: expected an index below {len(x)}")
    ms, df = mean_squares(x)[0, 1]
    d = np.delete(x, baseline, axis=0) - x[baseline]
    weight, own = x.shape[1] - 1, d.var(axis=1, ddof=1)
    pooled = max(2 * ms, float(own.mean()))
    used = np.maximum(pooled, (4 * pooled + weight * own) / (4 + weight))
    quantile = dunnett_quantile(len(d), df, level)
    return ValueComparisons(
        ms,
        df,
        quantile * math.sqrt(2 * ms / x.shape[1]),
        tuple(map(float, used)),
        tuple(float(quantile * math.sqrt(variance / x.shape[1])) for variance in used),
        tuple(map(float, d.mean(axis=1))),
    )
