"""Which effects of several factors a set of cells can tell apart, and by which contrasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["FactorEffect", "SeparableEffects", "separable_effects"]

TINY = 1e-9
MOST_SUBSETS = 50_000  # Sub-grids that are looked through
MOST_TERMS = 4000  # Parameters of a model that is tried


@dataclass(frozen=True)
class FactorEffect:
    """A main effect of ``factors`` (one), level ``levels[0]`` less the control level, or a two-way
    interaction (two): that difference at ``levels[1]`` of the other factor less at its control.

    Both are over all other factors. ``weights`` [cells] make the estimate of cell means;
    ``aliases``: sign and factors of other effects that are in it, too, of up to three factors.
    """

    factors: tuple[int, ...]
    levels: tuple[int, ...]
    weights: np.ndarray
    aliases: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class SeparableEffects:
    """``kind``: "grid" (all combinations), "model" (effects of up to ``order`` factors are told
    apart if none of more is there), "fraction" (main effects are free of two-way interactions,
    which are aliased with each other), "sub-grid" (all combinations of the cells ``used``; the
    others have levels that are not combined), "one factor" (every cell differs from the control in
    one factor) or "none".

    ``effects``: main effects, then interactions; of aliased interactions the first stands for all.
    ``varied``: the factors that have effects here. ``shape``: of a grid, the levels of these.
    """

    kind: str
    order: int
    varied: tuple[int, ...]
    used: np.ndarray  # Indexes of cells, of a grid in the order of its levels
    effects: tuple[FactorEffect, ...]
    shape: tuple[int, ...] = ()

    @property
    def main(self) -> tuple[FactorEffect, ...]:
        return tuple(effect for effect in self.effects if len(effect.factors) == 1)

    @property
    def interactions(self) -> tuple[FactorEffect, ...]:
        return tuple(effect for effect in self.effects if len(effect.factors) == 2)


def separable_effects(cells: ArrayLike, control: int) -> SeparableEffects:
    """Of ``cells`` [cells, factors], the index of each level, and which of them is the control.

    Raises ValueError where two cells are alike.
    """
    x = np.asarray(cells, dtype=int)
    if x.ndim != 2 or len({*map(tuple, x)}) < len(x) or not 0 <= control < len(x):
        raise ValueError(f"expected different cells [cells, factors], got shape {x.shape}")
    base = x[control]
    varied = tuple(i for i in range(x.shape[1]) if len(set(x[:, i])) > 1)
    every = np.arange(len(x))
    if len(varied) < 2:
        return SeparableEffects("none", 0, varied, every, ())
    levels = [sorted(set(x[:, i].tolist())) for i in varied]
    if len(x) == math.prod(map(len, levels)):
        return _of_grid("grid", x, base, varied, levels, every)
    for order in range(len(varied) - 1, 0, -1):
        found = _of_model(x, base, varied, levels, order)
        if found is None:
            continue
        if order > 1:
            return found
        if not any(len(other) == 2 for e in found.effects for _, other in e.aliases):
            return _with_aliased(x, base, varied, levels, found)
        break
    if used := _largest_grid(x, base, varied, levels):
        own = [sorted(set(x[used, i].tolist())) for i in varied]
        kept = tuple(i for i, of in zip(varied, own, strict=True) if len(of) > 1)
        return _of_grid(
            "sub-grid", x, base, kept, [of for of in own if len(of) > 1], np.array(used)
        )
    if ((x != base).sum(axis=1) <= 1).all():
        return SeparableEffects("one factor", 0, varied, every, ())
    return SeparableEffects("none", 0, varied, every, ())


def _of_grid(
    kind: str,
    x: np.ndarray,
    base: np.ndarray,
    varied: tuple[int, ...],
    levels: list[list[int]],
    used: np.ndarray,
) -> SeparableEffects:
    place = {tuple(x[cell, list(varied)]): int(cell) for cell in used}
    order = np.array([place[key] for key in product(*levels)])
    grid = x[order]
    effects = []
    for factors in _terms(len(varied)):
        for own in _levels_of(factors, varied, levels, base):
            weights = np.zeros(len(x))
            weights[order] = _grid_weights(grid, varied, levels, base, factors, own)
            effects.append(FactorEffect(tuple(varied[i] for i in factors), own, weights))
    shape = tuple(map(len, levels))
    return SeparableEffects(kind, len(varied), varied, order, tuple(effects), shape)


def _grid_weights(
    grid: np.ndarray,
    varied: tuple[int, ...],
    levels: list[list[int]],
    base: np.ndarray,
    factors: tuple[int, ...],
    own: tuple[int, ...],
) -> np.ndarray:
    """Of the cells ``grid``: level less control level of ``factors``, the mean over the others."""
    weights = np.ones(len(grid))
    for i, factor in enumerate(varied):
        column = grid[:, factor]
        if i in factors:
            level = own[factors.index(i)]
            weights *= (column == level).astype(float) - (column == base[factor])
        else:
            weights /= len(levels[i])
    return weights


def _terms(count: int) -> list[tuple[int, ...]]:
    return [term for size in (1, 2) for term in combinations(range(count), size)]


def _levels_of(
    factors: tuple[int, ...],
    varied: tuple[int, ...],
    levels: list[list[int]],
    base: np.ndarray,
) -> list[tuple[int, ...]]:
    return list(product(*([v for v in levels[i] if v != base[varied[i]]] for i in factors)))


# ---- Designs with gaps


def _columns(x: np.ndarray, levels: list[list[int]], factors: tuple[int, ...]) -> np.ndarray:
    """Of ``x`` [cells, varied factors]: deviation coding of an interaction, [cells, df]; columns
    sum to 0 over the levels of each factor."""
    found = np.ones((len(x), 1))
    for i in factors:
        own = x[:, i]
        coded = np.stack(
            [(own == v).astype(float) - (own == levels[i][0]) for v in levels[i][1:]], axis=1
        )
        found = (found[:, :, None] * coded[:, None, :]).reshape(len(x), -1)
    return found


def _of_model(
    x: np.ndarray, base: np.ndarray, varied: tuple[int, ...], levels: list[list[int]], order: int
) -> SeparableEffects | None:
    """Effects of a model with all interactions of up to ``order`` factors, by least squares; None
    where these cells do not determine it."""
    count = len(varied)
    terms = [term for size in range(order + 1) for term in combinations(range(count), size)]
    sizes = [math.prod(len(levels[i]) - 1 for i in term) for term in terms]
    cells = x[:, list(varied)]
    if sum(sizes) > len(x) or sum(sizes) > MOST_TERMS:
        return None
    model = np.hstack([_columns(cells, levels, term) for term in terms])
    if np.linalg.matrix_rank(model) < sum(sizes):
        return None
    solve = np.linalg.pinv(model)
    starts = dict(zip(terms, np.cumsum([0, *sizes[:-1]]), strict=True))
    effects = []
    for factors in _terms(count):
        if len(factors) > order:
            continue
        for own in _levels_of(factors, varied, levels, base):
            # Of this term's columns alone: those of others average out over all combinations
            points = np.zeros((2 ** len(factors), count), dtype=int)
            signs = np.array(list(product((1, -1), repeat=len(factors))))
            for k, i in enumerate(factors):
                points[:, i] = np.where(signs[:, k] > 0, own[k], base[varied[i]])
            contrast = np.zeros(sum(sizes))
            start = starts[factors]
            coded = _columns(points, levels, factors)
            contrast[start : start + coded.shape[1]] = signs.prod(axis=1) @ coded
            weights = contrast @ solve
            weights[abs(weights) < TINY] = 0.0
            of = tuple(varied[i] for i in factors)
            aliases = _find_aliases(cells, base[list(varied)], levels, factors, weights, order)
            aliases = [(sign, tuple(varied[i] for i in term)) for sign, term in aliases]
            effects.append(FactorEffect(of, own, weights, tuple(aliases)))
    every = np.arange(len(x))
    return SeparableEffects("model", order, varied, every, tuple(effects))


def _find_aliases(
    cells: np.ndarray,
    base: np.ndarray,
    levels: list[list[int]],
    factors: tuple[int, ...],
    weights: np.ndarray,
    order: int,
    most: int = 3,
) -> list[tuple[int, tuple[int, ...]]]:
    """Effects of more than ``order`` factors that the estimate of ``factors`` has in it, too; with
    a sign where all levels are two and the other effect is in it as a whole, else 0."""
    own, found = np.abs(weights @ _columns(cells, levels, factors)).max(), []
    for size in range(order + 1, most + 1):
        for term in combinations(range(len(levels)), size):
            leaks = weights @ _columns(cells, levels, term)
            if abs(leaks).max() <= TINY:
                continue
            whole = all(len(of) == 2 for of in levels) and abs(abs(leaks[0]) - own) < TINY
            turned = sum(base[i] != levels[i][0] for i in term)  # The control counts as −1
            found.append((int(np.sign(leaks[0])) * (-1) ** turned if whole else 0, term))
    return found


def _with_aliased(
    x: np.ndarray,
    base: np.ndarray,
    varied: tuple[int, ...],
    levels: list[list[int]],
    main: SeparableEffects,
) -> SeparableEffects:
    """Two-way interactions of factors of two levels whose columns are equal up to sign, as one."""
    effects = list(main.effects)
    if all(len(own) == 2 for own in levels):
        signs = np.where(x[:, list(varied)] == base[list(varied)], -1.0, 1.0)
        groups: list[tuple[np.ndarray, tuple[int, int], list[tuple[int, tuple[int, ...]]]]] = []
        for i, j in combinations(range(len(varied)), 2):
            column = signs[:, i] * signs[:, j]
            for other, _, aliases in groups:
                match = float(column @ other) / len(x)
                if abs(abs(match) - 1) < TINY:
                    aliases.append((round(match), (varied[i], varied[j])))
                    break
            else:
                groups.append((column, (i, j), []))
        for column, (i, j), aliases in groups:
            own = tuple(next(v for v in levels[k] if v != base[varied[k]]) for k in (i, j))
            of = (varied[i], varied[j])
            effects.append(FactorEffect(of, own, 4 * column / len(x), tuple(aliases)))
    return SeparableEffects("fraction", 1, varied, main.used, tuple(effects))


def _largest_grid(
    x: np.ndarray, base: np.ndarray, varied: tuple[int, ...], levels: list[list[int]]
) -> list[int]:
    """Cells of the largest full grid of two factors or more that has the control; empty where
    there is none."""
    choices = []
    for i, own in zip(varied, levels, strict=True):
        others = [v for v in own if v != base[i]]
        sets = [c for n in range(len(others) + 1) for c in combinations(others, n)]
        choices.append([{int(base[i]), *c} for c in sets])
    if math.prod(map(len, choices)) > MOST_SUBSETS:
        return []
    there = {tuple(cell[list(varied)]) for cell in x}
    best: list[tuple[int, ...]] = []
    for kept in product(*choices):
        size = math.prod(map(len, kept))
        if size <= len(best) or sum(len(own) > 1 for own in kept) < 2:
            continue
        if all(key in there for key in product(*kept)):
            best = list(product(*map(sorted, kept)))
    place = {tuple(cell[list(varied)]): i for i, cell in enumerate(x)}
    return [place[key] for key in best]
