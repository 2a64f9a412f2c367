"""An encoded text, as far as a model takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class TextCondition:
    """What the denoiser is told: ``hidden`` [B, T, C] for cross-attention, ``pooled`` [B, P] beside
    the timestep (SDXL wiring only), ``mask`` [B, T], 1 where a token is read (PixArt only)."""

    hidden: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def map(self, change: Callable[..., Tensor], *others: TextCondition) -> TextCondition:
        """``change`` of each of the three, as far as all texts have it."""
        columns = zip(
            *((text.hidden, text.pooled, text.mask) for text in (self, *others)), strict=True
        )
        return TextCondition(
            *(None if any(part is None for part in parts) else change(*parts) for parts in columns)
        )

    def __add__(self, other: TextCondition) -> TextCondition:
        """One batch after the other."""
        return self.map(lambda *parts: torch.cat(parts), other)

    def __getitem__(self, rows: slice) -> TextCondition:
        return self.map(lambda part: part[rows])
