"""Attention maps of some tokens: the layer's output stays that of scaled-dot-product attention,
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
from lightning_modules.attention.memory import map_bytes
from lightning_modules.attention.sites import Site

Object = int | Sequence[int]  # A token's index, or those of a phrase's tokens


@dataclass
class CapturedMaps:
    """The maps of one forward pass. ``by_site`` holds [B, objects, H, W] or, with heads kept, [B,
    objects, heads, H, W] for each site in the order of the network; ``present`` [B, objects] says
    which objects a sample has (the maps of the others are zero)."""

    present: Tensor
    by_site: dict[str, Tensor] = field(default_factory=dict)

    def mean(self, size: int | tuple[int, int] | None = None) -> Tensor:
        """The mean over sites, [B, objects, H, W] or [B, objects, heads, H, W], at ``size`` (by
        default height and width of the finest captured map); coarser maps are interpolated
        bilinearly, finer ones averaged over area.

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
            size = max((m.shape[-2:] for m in maps), key=lambda size: size[0] * size[1])
        height, width = (size, size) if isinstance(size, int) else size
        return torch.stack([_resize(m, height, width) for m in maps]).mean(0)


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    """[B, objects, (heads,) H, W] to ``height`` and ``width``."""
    if maps.shape[-2:] == (height, width):
        return maps
    if maps.numel() == 0:
        return maps.new_zeros(*maps.shape[:-2], height, width)
    finer = maps.shape[-2] > height
    ways: dict = {"mode": "area"} if finer else {"mode": "bilinear", "align_corners": False}
    flat = F.interpolate(maps.flatten(1, -3), (height, width), **ways)
    return flat.view(*maps.shape[:-2], height, width)


class Capture(MapHook):
    """Captures maps at ``sites`` while attached.

    ``tokens`` lists, for each sample, the token indices of its objects: an int, or a list of ints
    whose maps are averaged (a phrase of several tokens). Samples may have different numbers of
    objects, none included. It may be set before every forward pass; None captures nothing. In a
    batch of twice as many samples the second half is read: the conditional one of classifier-free
    guidance. ``maps`` are those of the latest forward pass. With ``heads="keep"`` heads stay apart.
    Raises ValueError on another value of ``heads``.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        tokens: Sequence[Sequence[Object]] | None = None,
        heads: str = "mean",
    ) -> None:
        if heads not in ("mean", "keep"):
            raise ValueError(f"heads={heads!r} is unknown: expected 'mean' or 'keep'")
        self.sites, self.tokens, self.heads = list(sites), tokens, heads
        self.maps = CapturedMaps(torch.zeros(0, 0, dtype=torch.bool))

    def count_bytes(self) -> int:
        tokens = self.tokens or []
        return map_bytes(
            self.sites, len(tokens), max(map(len, tokens), default=0), self.heads == "keep"
        )

    def begin(self) -> _CaptureReader | None:
        if self.tokens is None:
            return None
        tokens = [[[o] if isinstance(o, int) else list(o) for o in row] for row in self.tokens]
        objects = max(map(len, tokens), default=0)
        present = torch.tensor(
            [[i < len(row) for i in range(objects)] for row in tokens], dtype=torch.bool
        )
        self.maps = CapturedMaps(present.view(len(tokens), objects))
        return _CaptureReader(tokens, self.heads == "keep", self.maps)


class _CaptureReader:
    """One forward pass of a capture."""

    def __init__(self, tokens: list[list[list[int]]], keep_heads: bool, maps: CapturedMaps) -> None:
        self.tokens, self.keep_heads, self.maps = tokens, keep_heads, maps
        self.samples = len(tokens)
        self._weights: Tensor | None = None  # Layers share them

    def token_weights(self, key: Tensor) -> Tensor:
        """[B, T, objects]: 1/n at the n tokens of an object. Raises ValueError on an index that the
        text does not have."""
        length = key.shape[2]
        if self._weights is None or self._weights.shape[1] != length:
            for b, sample in enumerate(self.tokens):
                for o, indices in enumerate(sample):
                    if not indices or min(indices) < 0 or max(indices) >= length:
                        raise ValueError(
                            f"tokens {indices} of object {o} in sample {b}: expected indices "
                            f"from 0 to {length - 1}"
                        )
            self._weights = token_weights(self.tokens, length).to(key.device)
        return self._weights

    def store(self, site: Site, maps: Tensor, forward: ForwardContext) -> None:
        # The second run of a checkpointed layer needs the same arithmetic; its map has been read.
        if forward.replay:
            return
        size = forward.map_size(site, maps.shape[-2])
        maps = maps.movedim(-1, 1)  # [B, objects, N] or [B, objects, heads, N]
        self.maps.present = self.maps.present.to(maps.device)
        self.maps.by_site[site.name] = maps.unflatten(-1, size)


class PixelCapture(MapHook):
    """Captures at self-attention ``sites``, or at those of joint attention, what pixels attend to,
    the mean over heads, while attached; of ``samples`` samples, read as by `Capture`. In joint
    attention the rows of a map sum to what does not go to words."""

    def __init__(self, sites: Sequence[Site], samples: int) -> None:
        self.sites, self.samples = list(sites), samples
        self.by_site: dict[str, Tensor] = {}

    def count_bytes(self) -> int:
        return map_bytes(self.sites, self.samples)

    def begin(self) -> _PixelReader:
        self.by_site = {}
        return _PixelReader(self.samples, self.by_site)

    def mean(self) -> Tensor:
        """The mean over sites, [B, pixels, pixels]: the row of a pixel holds its attention to all
        pixels. The sites have to be of one level."""
        return torch.stack(list(self.by_site.values())).mean(0)


class _PixelReader:
    """One forward pass of a `PixelCapture`."""

    keep_heads = False
    relation = "image_image"

    def __init__(self, samples: int, by_site: dict[str, Tensor]) -> None:
        self.samples, self.by_site = samples, by_site

    def token_weights(self, key: Tensor) -> Tensor:
        """[samples, pixels, pixels]: each pixel is an object of its own."""
        pixels = key.shape[2]
        return torch.eye(pixels, device=key.device).expand(self.samples, pixels, pixels)

    def store(self, site: Site, maps: Tensor, forward: ForwardContext) -> None:
        if not forward.replay:
            self.by_site[site.name] = maps


def token_weights(token_indices: Sequence[Sequence[Sequence[int]]], length: int) -> Tensor:
    """float32 [B, length, objects]: 1/n at an object's n ``token_indices``, a column of zeros where
    it has none. With it a product gives the mean over an object's tokens."""
    objects = max(map(len, token_indices), default=0)
    weights = [[[0.0] * length for _ in range(objects)] for _ in token_indices]
    for sample, columns in zip(token_indices, weights, strict=True):
        for indices, column in zip(sample, columns, strict=False):
            for index in indices:
                column[index] += 1 / len(indices)
    stacked = torch.tensor(weights, dtype=torch.float32)
    return stacked.view(len(weights), objects, length).transpose(1, 2)
