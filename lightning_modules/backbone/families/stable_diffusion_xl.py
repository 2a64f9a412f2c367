"""Stable Diffusion XL (arXiv 2307.01952): a UNet that takes the image's size, and two CLIPs whose
penultimate states are concatenated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.attention.token_types import TokenTypeCache
from lightning_modules.backbone.families.base import Family
from lightning_modules.backbone.text import TextCondition


class StableDiffusionXL(Family):
    label = "Stable Diffusion XL"

    @classmethod
    def matches(cls, pipeline: Any) -> bool:
        return (
            getattr(pipeline, "unet", None) is not None
            and getattr(pipeline, "text_encoder_2", None) is not None
        )

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        outputs = [
            encoder(given.input_ids.to(encoder.device), output_hidden_states=True)
            for encoder, given in zip(encoders, tokens, strict=True)
        ]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return TextCondition(hidden, outputs[1].text_embeds)

    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
    ) -> Tensor:
        # Original size, corner of the crop, and target size
        sizes = [resolution, resolution, 0, 0, resolution, resolution]
        ids = torch.tensor(sizes, device=latents.device, dtype=text.hidden.dtype)
        added = {"text_embeds": text.pooled, "time_ids": ids.expand(len(latents), -1)}
        return denoiser(
            latents, timesteps, encoder_hidden_states=text.hidden, added_cond_kwargs=added
        ).sample

    def token_types(self) -> TokenTypeCache:
        encoder, tokenizer = self.pipeline.text_encoder, self.pipeline.tokenizer
        return TokenTypeCache(encoder, tokenizer.eos_token_id, penultimate=True)


FAMILY = StableDiffusionXL
