"""Tables of images by cell, seed and prompt, with seeds missing, and contrasts of their cells."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.statistics.components import pair_components
from reports.statistics.rounding import ROUNDING, drop_rounding

__all__ = [
    "CellContrast",
    "CellTable",
    "Sample",
    "draw_sample",
    "find_cell",
    "pair_contrast",
    "read_table",
]


@dataclass(frozen=True)
class CellTable:
    cells: tuple[Hashable, ...]
    seeds: tuple[Any, ...]
    y: np.ndarray  # [cells, seeds, prompts], NaN where a cell lacks a seed

    @property
    def there(self) -> np.ndarray:
        return ~np.isnan(self.y[:, :, 0])  # [cells, seeds]


@dataclass(frozen=True)
class CellContrast:
    """``weights`` [cells] sum to 0; ``size`` is the sum of their squares, 2 for a pair."""

    cell: Hashable
    control: Hashable
    weights: np.ndarray

    @property
    def size(self) -> float:
        return float((self.weights**2).sum())


@dataclass(frozen=True)
class Sample:
    """Differences of one contrast over ``seeds`` (indexes): mean squares without rounding.

    ``scale``: the largest value behind them; ``differs``: whether any image does. NaN without
    seeds; ``ms_seed`` is NaN with one.
    """

    contrast: CellContrast
    seeds: tuple[int, ...]
    mean: float
    ms_seed: float
    ms_prompt: float
    ms_residual: float
    scale: float
    differs: bool


def read_table(y: Any) -> CellTable:
    if isinstance(y, Mapping):
        cells = tuple(y)
        rows = {cell: dict(_seeds_of(y[cell])) for cell in cells}
        seeds = tuple(dict.fromkeys(seed for cell in cells for seed in rows[cell]))
        if all(isinstance(seed, int | np.integer) for seed in seeds):
            seeds = tuple(sorted(seeds))  # type: ignore[type-var]
        lengths = {len(row) for of_cell in rows.values() for row in of_cell.values()}
        if len(lengths) != 1:
            raise ValueError(
                f"expected values of the same prompts in every cell and seed, got rows of "
                f"{sorted(lengths)} prompts: keep those that all have"
            )
        table = np.full((len(cells), len(seeds), lengths.pop()), np.nan)
        for i, cell in enumerate(cells):
            for j, seed in enumerate(seeds):
                if seed in rows[cell]:
                    table[i, j] = rows[cell][seed]
    else:
        table = np.asarray(y, dtype=np.float64)
        if table.ndim != 3:
            raise ValueError(f"expected [cells, seeds, prompts], got shape {table.shape}")
        cells, seeds = tuple(range(table.shape[0])), tuple(range(table.shape[1]))
    if table.shape[2] < 2:
        raise ValueError(
            f"expected two or more prompts, got {table.shape[2]}: one image a training does not "
            "tell image noise from that of training; compare the values of seeds instead"
        )
    lacking = np.isnan(table)
    partly = lacking.any(axis=2) & ~lacking.all(axis=2)
    wrong = partly | np.isinf(table).any(axis=2)
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(
            f"cell {cells[i]!r}, seed {seeds[j]!r}: expected finite values of all "
            f"{table.shape[2]} prompts, or none; drop the prompts that lack one from all cells"
        )
    return CellTable(cells, seeds, table)


def _seeds_of(rows: Any) -> Any:
    return rows.items() if isinstance(rows, Mapping) else enumerate(np.asarray(rows, dtype=float))


def find_cell(table: CellTable, cell: Hashable) -> int:
    if cell in table.cells:
        return table.cells.index(cell)
    if cell == 0:  # The default
        return 0
    raise ValueError(f"no cell {cell!r}: expected one of {list(table.cells)}")


def pair_contrast(table: CellTable, cell: int, control: int) -> CellContrast:
    weights = np.zeros(len(table.cells))
    weights[cell], weights[control] = 1.0, -1.0
    return CellContrast(table.cells[cell], table.cells[control], weights)


def draw_sample(
    table: CellTable, contrast: CellContrast, seeds: np.ndarray | None = None
) -> Sample:
    """The contrast over the seeds (or those of ``seeds``) that all its cells have."""
    cells = np.flatnonzero(contrast.weights)
    own = np.flatnonzero(table.there[cells].all(axis=0))
    if seeds is not None:
        own = np.intersect1d(own, seeds)
    if not own.size:
        return Sample(contrast, (), math.nan, math.nan, math.nan, math.nan, 0.0, False)
    values = table.y[np.ix_(cells, own)]
    d = np.tensordot(contrast.weights[cells], values, axes=1)
    scale = float(np.abs(values).max())
    d = drop_rounding(d, scale)
    pair, least = pair_components(d), (ROUNDING * scale) ** 2
    squares = (pair.ms_seed, pair.ms_prompt, pair.ms_residual)
    a, b, e = (0.0 if square <= least else square for square in squares)
    return Sample(contrast, tuple(map(int, own)), pair.mean, a, b, e, scale, bool(d.any()))
