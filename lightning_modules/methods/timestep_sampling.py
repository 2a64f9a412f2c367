"""Which noise levels training sees: the densities that papers train with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Strength of ``mode`` (SD3, arXiv 2403.03206, section 3.1: s = 1.29)
MODE_SCALE = 1.29
SAMPLINGS = ("uniform", "logit_normal", "mode", "high_noise")

__all__ = ["SAMPLINGS", "draw_levels", "levels_at"]


def draw_levels(sampling: str, levels: int, generator: torch.Generator, count: int) -> Tensor:
    """int64 [count] noise levels from 0 up to, and without, ``levels``.

    ``uniform``: each alike. ``high_noise``: each of the noisier half. ``logit_normal``: the sigmoid
    of a standard normal number; ``mode``: heavy in the middle, with tails (SD3, arXiv 2403.03206,
    section 3.1, eq. 19 and 20). Raises ValueError on another ``sampling``.
    """
    if sampling in ("uniform", "high_noise"):
        first = levels // 2 if sampling == "high_noise" else 0
        return torch.randint(first, levels, (count,), generator=generator)
    if sampling == "logit_normal":
        return levels_at(torch.randn(count, generator=generator).sigmoid(), levels)
    if sampling == "mode":
        uniform = torch.rand(count, generator=generator)
        bent = (math.pi / 2 * uniform).cos().square() - 1 + uniform
        return levels_at(1 - uniform - MODE_SCALE * bent, levels)
    raise ValueError(f"sampling={sampling!r} is unknown: expected one of {', '.join(SAMPLINGS)}")


def levels_at(share: Tensor, levels: int) -> Tensor:
    """int64 [n]: the noise levels where ``share`` [n] in [0, 1] of them are passed, counted from
    the noisiest."""
    return levels - 1 - (share * levels).long().clamp(0, levels - 1)
