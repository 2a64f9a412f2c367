"""What a sample and a batch are, for every data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instance:
    """One object of an image. ``mask`` is bool [H, W] on the cropped image; ``box`` is (x0, y0, x1,
    y1) in its pixels."""

    label: str
    mask: Tensor
    box: tuple[float, float, float, float]
    color: str | None = None


@dataclass(frozen=True)
class Caption:
    """A caption and, where the dataset knows it, the spatial relation of its first object to its
    second, and its ``phrases``: which words, characters (start, end), name which objects, by the
    ids of their annotations."""

    text: str
    relation: str | None = None
    phrases: tuple[tuple[int, int, tuple[int, ...]], ...] = ()


class Phrase(NamedTuple):
    """Words of a caption, its characters from ``start`` up to ``end``, and where what they mean is.

    ``mask`` [H, W] is bool, or float in [0, 1]."""

    text: str
    start: int
    end: int
    mask: Tensor


@dataclass
class Batch:
    """``images`` [B, 3, H, W] float32 in [-1, 1], or None where ``latents`` [B, C, h, w] stand in
    for them. ``phrases``, where they were asked for, are for each sample those words of its caption
    whose objects' masks are known. ``prior``, where the dataset has images of the class to keep, is
    one of them for each sample (prior preservation). ``rewards`` [B], where images were scored, say
    how well each fits its caption; ``worse``, where pairs are compared, are other images of the
    same captions with lower rewards."""

    ids: list[int]
    captions: list[str]
    images: Tensor | None = None
    latents: Tensor | None = None
    phrases: list[list[Phrase]] | None = None
    prior: Batch | None = None
    rewards: Tensor | None = None
    worse: Batch | None = None

    def __len__(self) -> int:
        return len(self.ids)


def collate(samples: list[dict]) -> Batch:
    """Stacks what all samples have: ``id``, ``caption``, one of ``image`` and ``latent``, perhaps
    ``phrases``, a ``reward``, and a ``prior`` or a ``worse`` sample."""

    def stacked(key: str) -> Tensor | None:
        return torch.stack([s[key] for s in samples]) if key in samples[0] else None

    phrases = [s["phrases"] for s in samples] if "phrases" in samples[0] else None
    prior, worse = (
        collate([s[key] for s in samples]) if key in samples[0] else None
        for key in ("prior", "worse")
    )
    rewards = torch.tensor([s["reward"] for s in samples]) if "reward" in samples[0] else None
    return Batch(
        [s["id"] for s in samples],
        [s["caption"] for s in samples],
        stacked("image"),
        stacked("latent"),
        phrases,
        prior,
        rewards,
        worse,
    )
