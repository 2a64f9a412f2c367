"""What a comparison of cells by their images found."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CellComparisons", "Comparison"]


@dataclass(frozen=True)
class Comparison:
    """A cell less its control (or another contrast) over the seeds that both have.

    ``half_prompts_like_these`` is the default, for other prompts drawn alike and other seeds;
    ``half_these_prompts`` is for other seeds alone; ``half_paired_t_bonferroni`` the older rule, of
    the differences of seeds alone (NaN with one seed). All hold at once for ``family`` comparisons.

    ``ms_residual`` is E as it is, ``residual`` with the floor of step 3; ``design_effect`` F*_i and
    ``own_design_effect`` F_i. ``identical``: no image differs. ``unstable``: F_i > 3 F (C/2.2 · F
    in a pool of four to six cells C). ``images_alone``: one seed, the interval is of one training's
    images and says nothing of other trainings. ``untrained``: no cell of it was trained, and the
    interval is of images alone, prompts with their noises, whatever the seeds. ``missing_seeds``:
    seeds of the table that one side lacks. ``scale``: the largest value behind the differences.
    ``degrees_a_seed``: ν is that times seeds less one.
    """

    cell: Hashable
    control: Hashable
    mean: float
    ms_seed: float
    ms_prompt: float
    ms_residual: float
    design_effect: float
    half_these_prompts: float
    df: float
    half_prompts_like_these: float
    half_paired_t_bonferroni: float
    own_design_effect: float
    residual: float
    seeds: tuple[Any, ...]
    missing_seeds: tuple[Hashable, ...]
    prompts: int
    identical: bool
    unstable: bool
    images_alone: bool
    scale: float
    family: int
    level: float
    rho: float
    degrees_a_seed: float
    untrained: bool = False

    @property
    def low(self) -> float:
        return self.mean - self.half_prompts_like_these

    @property
    def high(self) -> float:
        return self.mean + self.half_prompts_like_these


@dataclass(frozen=True)
class CellComparisons:
    """Comparisons of cells, and what they share.

    ``ms_...`` and ``df`` are those of ``components`` over the ``pool``, the cells that differ from
    their control, on ``seeds``, those that all of them have; NaN and 0 without a pool.
    ``untouched``: each control less the untouched cell, a family of its own.
    """

    ms_cell_seed: float
    ms_cell_prompt: float
    ms_residual: float
    df: tuple[int, int, int]
    F_all: float
    F_base: float
    comparisons: tuple[Comparison, ...]
    untouched: tuple[Comparison, ...]
    pool: tuple[Hashable, ...]
    seeds: tuple[Any, ...]

    @property
    def design_effect(self) -> float:
        """F, the larger of ``F_all`` and ``F_base``; NaN where no cell has two seeds."""
        return float(np.fmax(self.F_all, self.F_base))

    @property
    def unstable_control(self) -> bool:
        """Whether the control seems to scatter in its own way, as ``unstable`` says of a cell.

        Were it alone to scatter, F_base would be C / 2 times F_all; it is called so from .6 of the
        way on, with three or more comparisons. Where the control scatters eight times as far as
        others this is seen in half of sweeps with three seeds, and said of 3 % where it does not.
        """
        cells = len(self.pool)
        return cells > 3 and self.F_base > (1 + 0.6 * (cells / 2 - 1)) * self.F_all
