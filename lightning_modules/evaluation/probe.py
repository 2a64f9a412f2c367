"""A fixed set of images, noised as in training: what a method does with it in one forward pass,
without sampling."""

from __future__ import annotations

import torch

from datamodules.coco import CocoDataset
from lightning_modules.methods.base import Method


class Probe:
    """The first ``images`` of ``dataset`` at evenly spread timesteps, with noise that depends on
    ``seed`` alone.

    ``captions``, ``phrases`` (those with masks), ``noised`` [n, C, h, w] and ``timesteps`` [n] are
    in the order of the dataset.
    """

    def __init__(self, method: Method, dataset: CocoDataset, seed: int, images: int) -> None:
        self.method, backbone = method, method.backbone
        count = min(images, len(dataset))
        self.captions = [dataset.caption(i).text for i in range(count)]
        self.phrases = [dataset.phrases(i) for i in range(count)]
        latents = backbone.encode_images(torch.stack([dataset.image(i) for i in range(count)]))
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(
            latents
        )
        # Even steps through all timesteps, interleaved so that neighbouring images do not have
        # neighbouring ones.
        spread = torch.arange(count) * 7 % count if count % 7 else torch.arange(count)
        self.timesteps = ((spread + 0.5) * backbone.timesteps / count).long().to(latents.device)
        self.noised, _ = backbone.add_noise(latents, noise, self.timesteps)
