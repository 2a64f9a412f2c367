"""Images that were drawn of captions and scored: what training on a reward shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from conf.contents import digest_contents
from datamodules.formats.scene_folder import load_image

__all__ = ["RewardedDataset", "Sample", "keep_above", "pair_by_margin"]


class Sample(NamedTuple):
    """The numbers of an image and, in a pair, of another one of its caption with a lower reward."""

    image: int
    worse: int | None = None


def keep_above(rewards: Sequence[float], threshold: float) -> list[Sample]:
    """The images whose reward is higher than ``threshold``."""
    return [Sample(row) for row, reward in enumerate(rewards) if reward > threshold]


def pair_by_margin(
    captions: Sequence[str], rewards: Sequence[float], margin: float
) -> list[Sample]:
    """All pairs of images of one caption whose rewards differ by more than ``margin``."""
    rows: dict[str, list[int]] = {}
    for row, caption in enumerate(captions):
        rows.setdefault(caption, []).append(row)
    return [
        Sample(better, worse)
        for own in rows.values()
        for better in own
        for worse in own
        if rewards[better] - rewards[worse] > margin
    ]


class RewardedDataset(Dataset):
    """The ``samples`` of image files, with the caption and the reward of each; ``source`` is the
    data set whose captions they were drawn of, and stands for this one where a user's own data are
    meant (`content_digest`).

    All ``encodable`` images can be encoded; ``image`` and the rows of ``latents`` go by the numbers
    of ``images``. Nothing depends on the epoch.
    """

    with_phrases = False

    def __init__(
        self,
        source: Any,
        images: Sequence[Path],
        captions: Sequence[str],
        rewards: Sequence[float],
        samples: Sequence[Sample],
        resolution: int,
    ) -> None:
        self.source, self.images, self.samples = source, list(images), list(samples)
        self.captions, self.rewards = list(captions), list(rewards)
        self.resolution, self.epoch = resolution, 0
        self.latents: Any = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def encodable(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        better, worse = self.samples[index]
        sample = self._show(index, better)
        return sample if worse is None else sample | {"worse": self._show(index, worse)}

    def _show(self, index: int, row: int) -> dict[str, Any]:
        shown = {"id": index, "caption": self.captions[row], "reward": self.rewards[row]}
        if self.latents is not None:
            return shown | {"latent": self.latents[row]}
        return shown | {"image": self.image(row)}

    def image(self, row: int) -> Tensor:
        """float32 [3, H, W] in [-1, 1]."""
        return load_image(self.images[row], self.resolution).float() / 127.5 - 1

    def texts(self) -> Iterator[str]:
        """Every caption."""
        yield from dict.fromkeys(self.captions)

    @property
    def manifest(self) -> dict[str, Any]:
        """What was drawn, what of it is trained on, and of which data. Fits into JSON."""
        return {
            "captions": len(set(self.captions)),
            "images": len(self.images),
            "samples": len(self.samples),
            "pairs": any(sample.worse is not None for sample in self.samples),
            "mean_reward": float(torch.tensor(self.rewards).mean()),
            "of": getattr(self.source, "manifest", {}),
        }

    def digest(self) -> str:
        """Changes with the images."""
        return digest_contents({path.name: path for path in self.images})

    def content_digest(self, emit: Any = None) -> str:
        """That of the data whose captions these are."""
        of_all = getattr(self.source, "content_digest", None)
        return of_all(emit) if of_all else self.source.digest()
