"""Noises that are lucky for every cell: which starts of an image do well whatever is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reports.statistics.rounding import ROUNDING, drop_rounding

__all__ = ["LuckyNoise", "LuckyNoises", "find_lucky_noises"]


@dataclass(frozen=True)
class LuckyNoise:
    """A noise on whose ``prompts`` (indexes) no cell does worse than on their other noises.

    ``mean``: its images in all cells; ``others``: the same prompts' other noises. ``p``: the chance
    of ranks as good, or better, if luck were drawn for each cell alone.
    """

    noise: int
    prompts: tuple[int, ...]
    mean: float
    others: float
    p: float


@dataclass(frozen=True)
class LuckyNoises:
    """``lucky``: those that chance does not explain, the smallest p first, of ``tested`` noises;
    ``by_chance``: how many chance alone would give at most (by p; no cell below the middle is asked
    for besides).

    ``cells``: how many count, where cells of the same images count once.
    """

    lucky: tuple[LuckyNoise, ...]
    by_chance: float
    tested: int
    cells: int


def find_lucky_noises(
    y: ArrayLike,
    prompts: Sequence[int],
    noises: Sequence[int],
    rate: float = 0.05,
    better: str = "higher",
) -> LuckyNoises:
    """Noises that are lucky for every cell, of images ``y`` [cells, images] with the prompt and the
    noise of each.

    A cell ranks the noises of a prompt (mid-ranks of equal values; images of one noise averaged).
    The statistic of a noise is the sum of its ranks over cells and prompts. If luck were drawn for
    each cell alone, each rank of a cell would fall to this noise with the same chance, and the sum
    has a known distribution (a convolution): its upper tail is p, exact. Listed are noises that no
    cell ranks below the middle, down to the largest p at which so many that chance alone would give
    (the sum over all noises of the chance of such a p) are at most ``rate`` of those listed: the
    step-up rule of Benjamini and Hochberg (1995) for discrete p values (Heyse 2011). Prompts of one
    noise say nothing. Cells that equal another in every image are left out: they would count its
    luck twice. Raises ValueError on shapes that do not fit and values that are not finite.
    """
    x = np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(prompts) or len(noises) != len(prompts):
        raise ValueError(
            f"expected [cells, images] with a prompt and a noise of each image, got {x.shape}, "
            f"{len(prompts)} and {len(noises)}"
        )
    if not np.isfinite(x).all():
        raise ValueError("expected finite values: leave out images that lack one in some cell")
    if better not in ("higher", "lower"):
        raise ValueError(f"better={better!r}: expected higher or lower")
    values = x
    if x.size:
        steps = np.round(x / (np.abs(x).max() or 1.0) / ROUNDING)  # Of rounding, whole numbers
        values = x[np.sort(np.unique(steps, axis=0, return_index=True)[1])]
    ranks: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    means: dict[tuple[int, int], float] = {}
    others: dict[int, list[int]] = {}
    of = np.asarray(prompts), np.asarray(noises)
    for prompt in dict.fromkeys(prompts):
        here = of[0] == prompt
        own = list(dict.fromkeys(of[1][here].tolist()))
        each = [values[:, here & (of[1] == noise)].mean(axis=1) for noise in own]
        if len(own) < 2:
            continue
        table = np.stack(each, axis=1)  # [cells, noises]
        others[prompt] = own
        centred = _double_ranks(table if better == "higher" else -table)
        for j, noise in enumerate(own):
            ranks.setdefault(noise, []).append((prompt, centred[:, j], centred))
            means[noise, prompt] = float(table[:, j].mean())
    tests, tails = [], []
    for noise, places in ranks.items():
        own_prompts = tuple(prompt for prompt, _, _ in places)
        of_cells = np.sum([rank for _, rank, _ in places], axis=0)
        upper, least = _upper_tails([table for _, _, table in places])
        p = float(upper[int(of_cells.sum()) - least])
        here = [means[noise, prompt] for prompt in own_prompts]
        rest = [
            means[other, prompt]
            for prompt in own_prompts
            for other in others[prompt]
            if other != noise
        ]
        found = LuckyNoise(noise, own_prompts, float(np.mean(here)), float(np.mean(rest)), p)
        tails.append(upper)
        if (of_cells >= 0).all() and (of_cells > 0).any():
            tests.append(found)
    tests.sort(key=lambda test: (test.p, test.noise))
    passed, by_chance = 0, 0.0
    for i, test in enumerate(tests, 1):
        if i < len(tests) and tests[i].p == test.p:
            continue  # All of one p are listed, or none
        expected = sum(_chance_of(upper, test.p) for upper in tails)
        if expected <= rate * i:
            passed, by_chance = i, expected
    return LuckyNoises(tuple(tests[:passed]), by_chance, len(tails), len(values))


def _double_ranks(table: np.ndarray) -> np.ndarray:
    """Twice the mid-ranks of each row, less their middle: whole numbers whose sum is 0."""
    d = drop_rounding(table[:, :, None] - table[:, None, :], float(np.abs(table).max()))
    return np.asarray(np.sign(d).sum(axis=2), dtype=np.int64)


def _upper_tails(tables: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """P(sum >= least), P(sum >= least + 1), … where each row of each table adds one of its entries,
    with equal chances; and ``least``, the smallest sum."""
    density, least = np.ones(1), 0
    for table in tables:
        for row in table:
            low, high = int(row.min()), int(row.max())
            own = np.bincount(row - low, minlength=high - low + 1) / row.size
            density, least = np.convolve(density, own), least + low
    return np.minimum(1.0, density[::-1].cumsum()[::-1]), least


def _chance_of(upper: np.ndarray, p: float) -> float:
    """The chance of a p value so small or smaller: the largest one that can be had."""
    below = upper[upper <= p * (1 + ROUNDING)]
    return float(below[0]) if below.size else 0.0
