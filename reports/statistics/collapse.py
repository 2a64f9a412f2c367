"""Seeds whose training collapsed: an outcome of its own, beside the mean difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reports.statistics.components import residual_with_floor
from reports.statistics.intervals import clopper_pearson
from reports.statistics.rounding import drop_rounding

__all__ = ["Collapse", "find_collapsed_seeds"]

ERRORS = 5  # Image standard errors below the control


@dataclass(frozen=True)
class Collapse:
    """``seeds`` that collapsed of ``of`` seeds; the share has the interval ``low``, ``high``.

    ``distances``: each seed's difference from the control in image standard errors, worse is
    negative. ``mixed``: some seeds collapsed and others did not; where all did, the cell is
    simply worse.
    """

    seeds: tuple[Any, ...]
    of: int
    low: float
    high: float
    distances: tuple[float, ...]

    @property
    def share(self) -> float:
        return len(self.seeds) / self.of

    @property
    def mixed(self) -> bool:
        return 0 < len(self.seeds) < self.of


def find_collapsed_seeds(
    left: ArrayLike,
    right: ArrayLike,
    *,
    better: str = "higher",
    binary: bool = False,
    seeds: tuple[Any, ...] | None = None,
    level: float = 0.95,
) -> Collapse:
    """Seeds of a cell ``left`` [seeds, prompts] that are worse than the control ``right`` by more
    than five standard errors of that seed's images, with Clopper and Pearson's (1934) interval of
    their share.

    Image noise alone passes that once in millions, so such a seed trained otherwise than others.
    Raises ValueError unless both are [seeds, prompts] of the same shape, with two or more prompts.
    """
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 1 or a.shape[1] < 2:
        raise ValueError(
            f"expected two arrays [seeds, prompts] of two or more prompts, got {a.shape}, {b.shape}"
        )
    if better not in ("higher", "lower"):
        raise ValueError(f"better={better!r}: expected higher or lower")
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    d = drop_rounding(a - b if better == "higher" else b - a, scale)
    prompts = d.shape[1]
    distances = []
    for row in d:
        noise = float(row.var(ddof=1))
        noise = residual_with_floor(noise, prompts) if binary else noise
        mean, error = float(row.mean()), math.sqrt(noise / prompts)
        if mean == 0:
            distances.append(0.0)
        else:
            distances.append(mean / error if error else math.copysign(math.inf, mean))
    names = tuple(range(len(d))) if seeds is None else tuple(seeds)
    fallen = tuple(s for s, far in zip(names, distances, strict=True) if far < -ERRORS)
    low, high = clopper_pearson(len(fallen), len(d), level)
    return Collapse(fallen, len(d), low, high, tuple(distances))
