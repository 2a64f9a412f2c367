"""Attention maps of chosen tokens: the layer's output stays that of scaled-dot-product attention,
maps cost one q k^T more.

    with Capture(nearest(select(sites(unet))), tokens=[[2, 5], [3]]).attached(unet) as capture:
        unet(...)
    maps = capture.maps.mean()         # [B, objects, H, W], float32, differentiable
    capture.maps.present               # [B, objects]: the second sample has one object
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.attention.hooks import ForwardContext, MapHook
from lightning_modules.attention.sites import Site

Object = int | Sequence[int]  # a token's position, or those of a phrase's tokens


@dataclass
class Maps:
    """The maps of one forward pass. ``by_site`` holds [B, objects, H, W] or, with heads kept, [B,
    objects, heads, H, W] for each site in the order of the network; ``present`` [B, objects] says
    which objects a sample has (the maps of the others are zero)."""

    present: Tensor
    by_site: dict[str, Tensor] = field(default_factory=dict)

    def mean(self, size: int | tuple[int, int] | None = None) -> Tensor:
        """The mean over sites, at ``size`` (height and width of the finest captured map where not
        given); coarser maps are interpolated bilinearly, finer ones averaged over area.

        Raises ValueError when nothing was captured, and when sites with kept heads differ in their
        number of heads.
        """
        if not self.by_site:
            raise ValueError(
                "no map was captured: run the UNet after the capture was attached and given tokens"
            )
        maps = list(self.by_site.values())
        if len({m.shape[:-2] for m in maps}) > 1:
            heads = sorted({m.shape[2] for m in maps})
            raise ValueError(
                f"sites with {' and '.join(map(str, heads))} heads have no mean by head: "
                "capture one level, or heads='mean'"
            )
        if size is None:
            size = max((m.shape[-2:] for m in maps), key=lambda plane: plane[0] * plane[1])
        height, width = (size, size) if isinstance(size, int) else size
        return torch.stack([_resize(m, height, width) for m in maps]).mean(0)


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[-2:] == (height, width):
        return maps
    if maps.numel() == 0:
        return maps.new_zeros(*maps.shape[:-2], height, width)
    flat = maps.flatten(1, -3)
    if maps.shape[-2] > height:
        flat = F.interpolate(flat, (height, width), mode="area")
    else:
        flat = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    return flat.view(*maps.shape[:-2], height, width)


class Capture(MapHook):
    """Captures at ``chosen`` sites while attached.

    ``tokens`` lists, for each sample, the positions of its objects' tokens: an int, or a list of
    ints whose maps are averaged (a phrase of several tokens). Samples may have different numbers of
    objects, none included. It may be set anew before every forward pass; None captures nothing. In
    a batch of twice as many samples the second half is meant: the conditional one of
    classifier-free guidance. ``maps`` are those of the latest forward pass. With ``heads="keep"``
    heads stay apart.
    """

    def __init__(
        self,
        chosen: Sequence[Site],
        tokens: Sequence[Sequence[Object]] | None = None,
        heads: str = "mean",
    ) -> None:
        if heads not in ("mean", "keep"):
            raise ValueError(f"heads={heads!r} is unknown: expected 'mean' or 'keep'")
        self.sites, self.tokens, self.heads = list(chosen), tokens, heads
        self.maps = Maps(torch.zeros(0, 0, dtype=torch.bool))

    def begin(self) -> _Reading | None:
        if self.tokens is None:
            return None
        objects = max((len(sample) for sample in self.tokens), default=0)
        present = torch.tensor(
            [[i < len(sample) for i in range(objects)] for sample in self.tokens], dtype=torch.bool
        )
        self.maps = Maps(present.view(len(self.tokens), objects))
        return _Reading(self.tokens, self.heads == "keep", self.maps)


class _Reading:
    """One forward pass of a capture."""

    def __init__(self, tokens: Sequence[Sequence[Object]], keep_heads: bool, maps: Maps) -> None:
        self.tokens, self.samples, self.keep_heads, self.maps = (
            tokens,
            len(tokens),
            keep_heads,
            maps,
        )
        self._selection: Tensor | None = None

    def selection(self, key: Tensor) -> Tensor:
        """[B, T, objects]: 1/n at the n tokens of an object. Raises ValueError on a position that
        the text does not have."""
        length = key.shape[2]
        if self._selection is None or self._selection.shape[1] != length:
            listed = [
                [[at] if isinstance(at, int) else list(at) for at in sample]
                for sample in self.tokens
            ]
            for b, sample in enumerate(listed):
                for o, each in enumerate(sample):
                    if not each or min(each) < 0 or max(each) >= length:
                        raise ValueError(
                            f"tokens {each} of object {o} in sample {b}: expected positions "
                            f"from 0 to {length - 1}"
                        )
            self._selection = shares(listed, length).to(key.device)
        return self._selection

    def take(self, site: Site, maps: Tensor, now: ForwardContext) -> None:
        if now.replay:  # the backward pass needs the same arithmetic; the map itself has been read
            return
        height, width = now.plane(site, maps.shape[-2])
        maps = maps.movedim(-1, 1)  # [B, objects, N] or [B, objects, heads, N]
        self.maps.present = self.maps.present.to(maps.device)
        self.maps.by_site[site.name] = maps.unflatten(-1, (height, width))


def shares(positions: Sequence[Sequence[Sequence[int]]], length: int) -> Tensor:
    """float32 [B, length, objects]: 1/n at the n tokens at an object's ``positions``, a column of
    zeros where it has none. With it a product gives the mean over an object's tokens."""
    objects = max(map(len, positions), default=0)
    rows = [[[0.0] * length for _ in range(objects)] for _ in positions]
    for sample, row in zip(positions, rows, strict=True):
        for at, column in zip(sample, row, strict=False):
            for position in at:
                column[position] += 1 / len(at)
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), objects, length).transpose(1, 2)
