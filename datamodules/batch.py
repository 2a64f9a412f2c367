"""What a sample and a batch are, whatever the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instance:
    """One object of an image. ``mask`` is bool [H, W] on the cropped image; ``box`` is (x0, y0, x1, y1) in its pixels."""

    label: str
    mask: Tensor
    box: tuple[float, float, float, float]
    color: str | None = None


@dataclass(frozen=True)
class Caption:
    """A caption and, where the dataset knows it, the spatial relation of its first object to its second."""

    text: str
    relation: str | None = None


class Phrase(NamedTuple):
    """Words of a caption, its characters from ``start`` up to ``end``, and where what they mean is: ``mask`` bool [H, W]."""

    text: str
    start: int
    end: int
    mask: Tensor


@dataclass
class Batch:
    """``images`` [B, 3, H, W] float32 in [-1, 1], or None where ``latents`` [B, C, h, w] stand in for them. ``phrases``, where they were
    asked for, are for each sample those words of its caption whose objects' masks are known."""

    ids: list[int]
    captions: list[str]
    images: Tensor | None = None
    latents: Tensor | None = None
    phrases: list[list[Phrase]] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def collate(samples: list[dict]) -> Batch:
    """Stacks what every sample has: ``id``, ``caption``, one of ``image`` and ``latent``, and perhaps ``phrases``."""

    def stacked(key: str) -> Tensor | None:
        return torch.stack([s[key] for s in samples]) if key in samples[0] else None

    phrases = [s["phrases"] for s in samples] if "phrases" in samples[0] else None
    return Batch([s["id"] for s in samples], [s["caption"] for s in samples], stacked("image"), stacked("latent"), phrases)
