"""Random inputs of any UNet, and of PixArt's transformer, drawn from their own seeds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def draw(seed: int, *shape: int) -> Tensor:
    """Normal numbers that depend on seed and shape alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(
    unet: Any,
    batch: int = 2,
    latents: tuple[int, int] = (16, 16),
    text: Tensor | None = None,
    **extra: Any,
) -> Tensor:
    """The prediction for random latents, timesteps and a text of 12 tokens."""
    config = unet.config
    added = None
    if "patch_size" in config:
        added = {"resolution": None, "aspect_ratio": None}
    elif config.addition_embed_type:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {
            "text_embeds": draw(2, batch, pooled),
            "time_ids": torch.tensor([64.0, 64, 0, 0, 64, 64]).expand(batch, -1),
        }
    text = draw(1, batch, 12, config.cross_attention_dim) if text is None else text
    timesteps = torch.tensor([900, 20, 400, 7][:batch])
    return unet(
        draw(0, batch, config.in_channels, *latents),
        timestep=timesteps,
        encoder_hidden_states=text,
        added_cond_kwargs=added,
        **extra,
    ).sample
