"""How much of an image's variance each source has: what to spend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from reports.statistics.components import mean_squares

__all__ = ["VarianceSource", "variance_table"]


@dataclass(frozen=True)
class VarianceSource:
    """``factors``: those of a main effect or interaction; empty for a random source.

    ``variance`` may be below 0 by chance, ``share`` (of all sources) counts it as 0.
    """

    source: str
    factors: tuple[str, ...]
    variance: float
    share: float
    df: int


def variance_table(y: ArrayLike, factors: Sequence[str]) -> list[VarianceSource]:
    """Sources of variance of ``y`` [levels of each factor, seeds, prompts].

    Factors' levels are fixed: the variance of a term is the mean square of its true effects over
    the levels. Random are "seed" (alike in all cells), "prompt" (how hard it is), "cell × seed"
    (a training's own luck), "cell × prompt" (what suits a prompt), "seed × prompt" (a noise that
    is lucky for every cell) and "image" (all the rest). Estimates solve the expected mean squares
    (Searle, Casella and McCulloch 1992) and are unbiased. Raises ValueError unless every axis has
    two or more entries and all values are finite.
    """
    x = np.asarray(y, dtype=np.float64)
    names = list(factors)
    if x.ndim != len(names) + 2 or min(x.shape) < 2 or not np.isfinite(x).all() or not names:
        raise ValueError(
            f"expected finite values [levels of {names}, seeds, prompts], two or more of each, got "
            f"shape {x.shape}"
        )
    shape, seeds, prompts = x.shape[:-2], x.shape[-2], x.shape[-1]
    cells = math.prod(shape)
    random = mean_squares(x.reshape(cells, seeds, prompts))
    (cs, df_cs), (cp, df_cp), (sp, df_sp) = random[0, 1], random[0, 2], random[1, 2]
    image, df_image = random[0, 1, 2]
    noise = cs + cp - image  # What the mean square of a term without effect is on average
    found: list[tuple[str, tuple[str, ...], float, int]] = []
    of_cells = mean_squares(x.mean(axis=(-2, -1)))
    for size in range(1, len(names) + 1):
        for axes in combinations(range(len(names)), size):
            ms, df = of_cells[axes]
            levels = math.prod(shape[axis] for axis in axes)
            each = x.size // levels  # Images behind each effect
            variance = (ms * seeds * prompts - noise) / each * df / levels
            of = tuple(names[axis] for axis in axes)
            found.append((" × ".join(of), of, variance, df))
    found += [
        ("seed", (), (random[(1,)][0] - cs - sp + image) / (cells * prompts), seeds - 1),
        ("prompt", (), (random[(2,)][0] - cp - sp + image) / (cells * seeds), prompts - 1),
        ("cell × seed", (), (cs - image) / prompts, df_cs),
        ("cell × prompt", (), (cp - image) / seeds, df_cp),
        ("seed × prompt", (), (sp - image) / cells, df_sp),
        ("image", (), image, df_image),
    ]
    total = sum(max(0.0, variance) for _, _, variance, _ in found)
    return [
        VarianceSource(source, of, variance, max(0.0, variance) / total if total else math.nan, df)
        for source, of, variance, df in found
    ]
