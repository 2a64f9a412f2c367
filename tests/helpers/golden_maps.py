"""Attention maps in closed form, for which values of released codes were recorded."""

from __future__ import annotations

import torch
from torch import Tensor


def golden_layer(phase: float, tokens: int = 8) -> Tensor:
    """A layer's softmax over the tokens, [tokens, 4 heads, 16, 16]."""
    y, x = torch.meshgrid(*[torch.arange(16.0, dtype=torch.float64)] * 2, indexing="ij")
    k = torch.arange(float(tokens), dtype=torch.float64)[:, None, None, None]
    h = torch.arange(4.0, dtype=torch.float64)[:, None, None]
    rows = 2 * torch.sin(0.37 * (y + 1) * (k + 1) / 4 + 0.53 * h + phase)
    columns = 1.5 * torch.cos(0.29 * (x + 1) * (k + 2) / 3 - 0.41 * h)
    return (rows + columns).softmax(0).float()


def golden_self_maps() -> Tensor:
    """Attention of each of 16 x 16 pixels to all of them, [256, 256]."""
    p = torch.arange(256.0, dtype=torch.float64)
    y, x = p // 16, p % 16
    distance = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    waves = torch.sin(0.21 * p) + 0.3 * torch.cos(0.13 * p)[:, None] * torch.sin(0.05 * p)
    return (waves - distance / 9).softmax(-1).float()
