"""Masks of objects at the size of attention maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def cover_pixels(masks: Tensor, size: tuple[int, int], share: float = 0.25) -> Tensor:
    """Masks [..., H', W'] in [0, 1] on maps of ``size`` (H, W): bool [..., H, W], the pixels that
    are covered by at least ``share`` of their area, and in any case the one that is covered most,
    so that nothing small vanishes. With ``share=0`` every pixel that is touched. An empty mask
    stays empty."""
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    if flat.shape[-2:] != size:
        flat = interpolate(flat, size, mode="area")
    most = flat.amax((-2, -1), keepdim=True)
    covered = (flat > 0) & ((flat >= share) | (flat == most))
    return covered.view(*masks.shape[:-2], *size)


def draw_boxes(boxes: Tensor, size: tuple[int, int], edges: str = "round") -> Tensor:
    """Boxes [..., 4], x0 y0 x1 y1 as shares of width and height, as masks of ``size`` (H, W): float
    [..., H, W] of zeros and ones.

    ``edges="round"`` takes an edge to the nearest border between pixels (BoxDiff, bounded
    attention), ``"floor"`` to the one before it (layout guidance). A box may thus come out empty.
    Raises ValueError on another value, and on boxes that are not [..., 4].
    """
    if edges not in ("round", "floor"):
        raise ValueError(f"edges={edges!r} is unknown: expected 'round' or 'floor'")
    if boxes.dim() < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes {tuple(boxes.shape)} do not fit: expected [..., 4], x0 y0 x1 y1")
    height, width = size
    scaled = boxes.float() * boxes.new_tensor([width, height, width, height], dtype=torch.float32)
    left, top, right, bottom = (scaled.round() if edges == "round" else scaled.floor()).unbind(-1)

    def between(first: Tensor, last: Tensor, pixels: int) -> Tensor:
        at = torch.arange(pixels, device=boxes.device)
        return (at >= first[..., None]) & (at < last[..., None])

    rows, columns = between(top, bottom, height), between(left, right, width)
    return (rows[..., :, None] & columns[..., None, :]).float()
