"""Sweeps of made-up images, whose variances are known, as a look reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reports.statistics import compare_cells, decision
from sweeps.engine.designs import Design, Reading


@dataclass(frozen=True)
class ImageWorld:
    """``y`` [cells, seeds, prompts]; the first cell is the control."""

    cells: tuple[str, ...]
    y: np.ndarray
    splits: int = 1
    delta: float | None = 0.05
    binary: bool = False

    @classmethod
    def draw(
        cls,
        seed: int,
        effects: Sequence[float],
        trainings: float = 0.0,
        prompts: float = 0.1,
        images: float = 0.5,
        cells: Sequence[str] = (),
        size: tuple[int, int] = (21, 512),
        splits: int = 1,
    ) -> ImageWorld:
        """Standard deviations of a cell's trainings, of its prompts, and of images."""
        rng, count, (seeds, number) = np.random.default_rng(seed), len(effects) + 1, size
        y = rng.normal(0, trainings, (count, seeds, 1)) + rng.normal(0, images, (count, *size))
        y += rng.normal(0, prompts, (count, 1, number)) + rng.normal(0, 0.3, (1, 1, number))
        y += np.array([0.0, *effects])[:, None, None]
        return cls(tuple(cells) or tuple(f"c{i}" for i in range(count)), y, splits)

    def read(self, design: Design, level: float) -> list[Reading]:
        """What the comparisons say on the first seeds and prompts of the design."""
        return self.read_seeds(design.seeds, design.prompts * self.splits, level)

    def read_seeds(self, seeds: Mapping[str, int], prompts: int, level: float) -> list[Reading]:
        table = {
            cell: {seed: self.y[i, seed, :prompts] for seed in range(seeds[cell])}
            for i, cell in enumerate(self.cells)
        }
        found = compare_cells(table, self.cells[0], level, self.binary).comparisons
        return [
            Reading(
                str(c.cell),
                str(c.control),
                c.mean,
                c.low,
                c.high,
                decision(c.low, c.high, self.delta, mean=c.mean, scale=c.scale),
                self.delta,
                c,
                self.binary,
            )
            for c in found
        ]
