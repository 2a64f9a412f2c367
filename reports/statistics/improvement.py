"""How often a cell's image is better than the control's."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.statistics.cell_table import find_cell, read_table
from reports.statistics.pooled import compare_cells
from reports.statistics.rounding import drop_rounding

__all__ = ["Improvement", "probability_of_improvement"]


@dataclass(frozen=True)
class Improvement:
    """``share`` of images that are better than the control's, ties as half; .5 is no difference.

    ``low`` and ``high`` hold for all cells at once, for other seeds and prompts like these.
    """

    cell: Hashable
    share: float
    low: float
    high: float


def probability_of_improvement(
    y: Any,
    baseline: Hashable = 0,
    level: float = 0.95,
    better: str = "higher",
    *,
    pairs: Sequence[tuple[Hashable, Hashable]] | None = None,
    untrained: Collection[Hashable] = (),
) -> list[Improvement]:
    """P(better) + P(equal) / 2 over seeds and prompts, for each cell against ``baseline``.

    As the probability of improvement of Agarwal et al. (2021), but of images that share seed,
    prompt and noise, not of all pairs. The interval is ``compare_cells`` of the signs −1, 0 and 1,
    with two pseudo-images. ``y``, ``pairs`` of (cell, control) and ``untrained`` are as there.
    Raises ValueError as it does.
    """
    if better not in ("higher", "lower"):
        raise ValueError(f"better={better!r}: expected higher or lower")
    table = read_table(y)
    if pairs is None:
        control = find_cell(table, baseline)
        compared = [(i, control) for i in range(len(table.cells)) if i != control]
    else:
        compared = [(find_cell(table, cell), find_cell(table, base)) for cell, base in pairs]
    scale = float(np.nanmax(np.abs(table.y)))
    sign = np.where(np.isnan(table.y), np.nan, 0.0)
    for i, base in compared:
        sign[i] = np.sign(drop_rounding(table.y[i] - table.y[base], scale))
    sign *= 1 if better == "higher" else -1
    plain = [i for i, cell in enumerate(table.cells) if cell in untrained]
    judged = compare_cells(sign, 0, level, binary=True, pairs=compared, untrained=plain).comparisons
    return [
        Improvement(
            table.cells[int(row.cell)],  # type: ignore[call-overload]
            0.5 + row.mean / 2,
            max(0.0, 0.5 + row.low / 2),
            min(1.0, 0.5 + row.high / 2),
        )
        for row in judged
    ]
