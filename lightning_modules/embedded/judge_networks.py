"""The networks of the judges of the embedded world: centre-point detectors (after CenterNet,
arXiv:1904.07850) on a 16x16 grid over 64x64 pixels. They share their answer, `Maps`, and little
else, so that an image which deceives one does not deceive the other.

None looks at other images of a batch: an image's answer never depends on its neighbours there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.shapes.rendering import SIZE
from datamodules.shapes.vocabulary import COLORS, PATTERNS, SHAPES

STRIDE = 4  # Pixels per cell
GRID = SIZE // STRIDE
UNIT_RADIUS = 10.0  # Pixels; a log radius of zero
# Presence, shape, colour, pattern, and x, y and radius
OUTPUTS = (1, len(SHAPES), len(COLORS), len(PATTERNS), 3)


class Maps(NamedTuple):
    """What a network says per cell; logits except for x, y and radius."""

    presence: Tensor  # [B, 16, 16]
    shape: Tensor  # [B, 6, 16, 16]
    color: Tensor  # [B, 8, 16, 16]
    pattern: Tensor  # [B, 3, 16, 16]
    x: Tensor  # [B, 16, 16] pixels
    y: Tensor  # [B, 16, 16] pixels
    radius: Tensor  # [B, 16, 16] pixels
    # [B, width, 16, 16] what the first layers see in about 22 pixels around each cell
    local: Tensor


class Head(nn.Module):
    """From ``width`` channels per cell to `Maps`."""

    centre: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width, sum(OUTPUTS), 1)
        # Objects are rare (1 to 5 of 256 cells): start from that prior, so that the first steps are
        # not spent on learning it.
        nn.init.constant_(self.layer.bias[:1], -4.0)
        centres = (torch.arange(GRID) + 0.5) * STRIDE
        self.register_buffer("centre", centres, persistent=False)

    def forward(self, trunk: Tensor, local: Tensor) -> Maps:
        presence, shape, color, pattern, place = self.layer(trunk).split(OUTPUTS, dim=1)
        return Maps(
            presence=presence[:, 0],
            shape=shape,
            color=color,
            pattern=pattern,
            x=self.centre[None, None, :] + STRIDE * place[:, 0],
            y=self.centre[None, :, None] + STRIDE * place[:, 1],
            radius=UNIT_RADIUS * place[:, 2].clamp(-3, 3).exp(),
            local=local,
        )


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, width), nn.GroupNorm(8, width)])

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norms[0](self.first(x)))
        return F.silu(x + self.norms[1](self.second(h)))


class FineCoarse(nn.Module):
    """A fine path of ``width`` channels on the grid and a coarse one of ``deep`` on half of it,
    added; group normalisation behind each convolution."""

    def __init__(self, width: int, deep: int) -> None:
        super().__init__()
        self.local_width = width
        self.unshuffle = nn.PixelUnshuffle(2)
        self.stem = self._layer(12, width, stride=2)
        self.fine = Block(width)
        self.down = self._layer(width, deep, stride=2)
        self.coarse = Block(deep)
        self.up = nn.Conv2d(deep, width, 1)
        self.merge = self._layer(width, width)
        self.refine = Block(width)
        self.head = Head(width)

    @staticmethod
    def _layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
        convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.GroupNorm(8, after), nn.SiLU())

    def forward(self, images: Tensor) -> Maps:
        """``images``: float [B, 3, 64, 64] in [-1, 1]."""
        fine = self.fine(self.stem(self.unshuffle(images)))  # [B, width, 16, 16]
        coarse = self.coarse(self.down(fine))  # [B, deep, 8, 8]
        # [B, width, 16, 16]
        trunk = self.merge(fine + F.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest"))
        return self.head(self.refine(trunk), fine)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each cell, [B, width, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DilatedBlock(nn.Module):
    """Normalises first, looks ``dilation`` cells far, and adds."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.look = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.look(self.norm(x))))


class AttentionBlock(nn.Module):
    """Each cell looks at all parts of the image, cells in squares of four, then a layer of its
    own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([ChannelNorm(width), ChannelNorm(width)])
        self.position = nn.Parameter(torch.randn(width, GRID, GRID) * 0.1)
        self.ask = nn.Conv2d(width, width, 1)
        self.answer = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.out = nn.Conv2d(width, width, 1)
        self.own = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        placed = self.norms[0](x) + self.position
        query = self._split(self.ask(placed))  # [B, heads, 256, width / heads]
        keys, values = map(self._split, self.answer(placed).chunk(2, dim=1))
        seen = F.scaled_dot_product_attention(query, keys, values)
        x = x + self.out(seen.transpose(2, 3).reshape(x.shape))
        return x + self.own(self.norms[1](x))

    def _split(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> [B, heads, H * W, width / heads]."""
        return x.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3).contiguous()


class DilatedAttention(nn.Module):
    """``width`` channels on one grid throughout: convolutions that look ever farther, then
    attention over all cells; layer normalisation before each of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.local_width = width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.near = nn.Sequential(DilatedBlock(width, 1), DilatedBlock(width, 1))
        self.far = nn.Sequential(DilatedBlock(width, 2), DilatedBlock(width, 4))
        self.attend = AttentionBlock(width, heads)
        self.norm = ChannelNorm(width)
        self.head = Head(width)

    def forward(self, images: Tensor) -> Maps:
        """``images``: float [B, 3, 64, 64] in [-1, 1]."""
        local = self.near(self.stem(images))  # [B, width, 16, 16]
        return self.head(self.norm(self.attend(self.far(local))), local)


NETWORKS: dict[str, type[FineCoarse] | type[DilatedAttention]] = {
    "fine_coarse": FineCoarse,
    "dilated_attention": DilatedAttention,
}
# What new judges are trained with
SETTINGS = {
    "fine_coarse": {"width": 48, "deep": 96},
    "dilated_attention": {"width": 48, "heads": 4},
}


def build_network(config: dict[str, Any]) -> FineCoarse | DilatedAttention:
    """The network of a judge's ``config.json``: its ``architecture`` and that network's settings.
    Raises ValueError on an unknown architecture."""
    name = config.get("architecture")
    if name not in NETWORKS:
        raise ValueError(
            f"architecture {name!r} of a judge is unknown: expected one of {', '.join(NETWORKS)} "
            "in its config.json; a judge without one is of an older version, train it again"
        )
    settings = {k: v for k, v in config.items() if k not in ("architecture", "threshold")}
    return NETWORKS[name](**settings)
