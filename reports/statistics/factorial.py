"""Main effects and interactions of sweeps over several factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from string import ascii_uppercase

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from reports.statistics.components import mean_squares
from reports.statistics.dunnett import dunnett_quantile

__all__ = ["Contrast", "FactorialEffects", "Term", "factorial_effects"]


@dataclass(frozen=True)
class Contrast:
    """Of a main effect: level ``levels[0]`` less the control level, over all other factors; of an
    interaction: that difference at ``levels[1]`` of the other factor less at its control level.

    ``half`` is of this contrast alone, ``half_simultaneous`` for all contrasts of main effects at
    once, or of interactions, as one family.
    """

    levels: tuple[int, ...]
    estimate: float
    half: float
    half_simultaneous: float
    weights: np.ndarray  # [levels of each factor], of the cells


@dataclass(frozen=True)
class Term:
    """A main effect or interaction of ``factors``; ``contrasts`` of one or two factors only."""

    factors: tuple[str, ...]
    ms: float
    df: int
    F: float
    p: float
    contrasts: tuple[Contrast, ...]

    @property
    def largest(self) -> Contrast:
        """The contrast that is farthest from 0."""
        return max(self.contrasts, key=lambda contrast: abs(contrast.estimate))


@dataclass(frozen=True)
class FactorialEffects:
    """``terms``, ``F`` and ``p`` go by the joined names of their factors ("A", "B", "AB").

    The contrast of a term whose factors all have two levels is an attribute of that name, too.
    ``half_main`` and ``half_interaction`` are the widest of their kind, each of one contrast alone;
    NaN where there is none.
    """

    df: int
    ms_error: float
    half_main: float
    half_interaction: float
    F: Mapping[str, float]
    p: Mapping[str, float]
    terms: Mapping[str, Term]

    def __getattr__(self, name: str) -> float:
        terms = self.__dict__.get("terms", {})
        if name in terms and len(terms[name].contrasts) == 1:
            return terms[name].contrasts[0].estimate
        raise AttributeError(name)


def factorial_effects(
    values: ArrayLike,
    level: float = 0.95,
    factors: Sequence[str] | None = None,
    controls: Sequence[int] | None = None,
) -> FactorialEffects:
    """Effects of a full factorial design from ``values`` [levels of A, levels of B, …, seeds].

    ``factors`` names the axes (default A, B, …; names of more than one letter are joined by " × ")
    and ``controls`` the control level of each (default: the first). The error is cell × seed, with
    (C − 1)(S − 1) degrees of freedom, of an analysis of variance with seeds as blocks (Box, Hunter
    and Hunter 2005); it supposes that cells scatter alike. Each contrast has ± t · √(MS Σw²/S);
    simultaneous halves use Dunnett's quantile with ρ = 0 over all contrasts of main effects, or of
    two-way interactions.

    ``Contrast.weights`` are those of the cells, for ``compare_contrasts`` where there are images.
    Raises ValueError unless every axis has two or more entries and all values are finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim < 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(
            "expected finite values [levels of each factor, seeds], two or more of each, got "
            f"shape {x.shape}"
        )
    shape, seeds = x.shape[:-1], x.shape[-1]
    names = list(factors) if factors is not None else list(ascii_uppercase[: len(shape)])
    base = list(controls) if controls is not None else [0] * len(shape)
    if len(names) != len(shape) or len(set(names)) != len(names) or len(base) != len(shape):
        raise ValueError(f"expected {len(shape)} names and control levels, got {names}, {base}")
    if any(not 0 <= b < n for b, n in zip(base, shape, strict=True)):
        raise ValueError(f"controls={base}: expected an index of a level of each factor, {shape}")
    error, df = mean_squares(x.reshape(-1, seeds))[0, 1]
    joint = "" if all(len(name) == 1 for name in names) else " × "
    cells = x.mean(axis=-1)
    squares = mean_squares(cells)
    sizes = {
        order: sum(
            math.prod(shape[i] - 1 for i in term) for term in combinations(range(len(shape)), order)
        )
        for order in (1, 2)
    }
    terms = {}
    for axes, (ms, term_df) in squares.items():
        ratio = ms * seeds / error if error else math.inf if ms else math.nan
        found = []
        for levels in _contrast_levels(axes, shape, base) if len(axes) < 3 else ():
            weights = _weights(axes, levels, shape, base)
            deviation = math.sqrt(error * float((weights**2).sum()) / seeds)
            together = dunnett_quantile(sizes[len(axes)], df, level, 0.0)
            alone = dunnett_quantile(1, df, level)
            estimate = float((weights * cells).sum())
            found.append(
                Contrast(levels, estimate, alone * deviation, together * deviation, weights)
            )
        p = float(special.fdtrc(term_df, df, ratio)) if not math.isnan(ratio) else math.nan
        label = joint.join(names[axis] for axis in axes)
        of = tuple(names[axis] for axis in axes)
        terms[label] = Term(of, ms * seeds, term_df, ratio, p, tuple(found))
    halves = {}
    for order in (1, 2):
        of_order = (term for term in terms.values() if len(term.factors) == order)
        halves[order] = max((c.half for term in of_order for c in term.contrasts), default=math.nan)
    return FactorialEffects(
        df,
        error,
        halves[1],
        halves[2],
        {label: term.F for label, term in terms.items()},
        {label: term.p for label, term in terms.items()},
        terms,
    )


def _contrast_levels(
    axes: tuple[int, ...], shape: tuple[int, ...], base: Sequence[int]
) -> list[tuple[int, ...]]:
    return list(product(*([i for i in range(shape[axis]) if i != base[axis]] for axis in axes)))


def _weights(
    axes: tuple[int, ...], levels: tuple[int, ...], shape: tuple[int, ...], base: Sequence[int]
) -> np.ndarray:
    """Of cells: level less control level on each of ``axes``, the mean over other axes."""
    weights = np.ones(())
    for axis, size in enumerate(shape):
        of_axis = np.full(size, 1 / size)
        if axis in axes:
            of_axis = np.zeros(size)
            of_axis[levels[axes.index(axis)]], of_axis[base[axis]] = 1.0, -1.0
        weights = np.multiply.outer(weights, of_axis)
    return weights
