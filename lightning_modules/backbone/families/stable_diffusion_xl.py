"""Stable Diffusion XL (arXiv 2307.01952): a UNet that takes the image's size, and two CLIPs whose
penultimate states are concatenated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.attention.token_types import TokenTypeCache
from lightning_modules.backbone.families.stable_diffusion import CLIPUNet
from lightning_modules.backbone.text import TextCondition

SIZES = 6  # Original height and width, corner of the crop, target height and width


class StableDiffusionXL(CLIPUNet):
    label = "Stable Diffusion XL"
    pipelines = ("StableDiffusionXLPipeline",)
    text_parts = ("", "_2")
    stretches = ((0, 1),)
    addition_embed_type = "text_time"
    standardizes_latents = True
    starts_at_first_sigma = True

    def check(self, source: str) -> None:
        """As `Family`'s: the refiner, and others that are told other sizes, are refused."""
        super().check(source)
        unet, pooled = self.pipeline.unet, self.pipeline.text_encoder_2.config.projection_dim
        width = unet.config.addition_time_embed_dim * SIZES + pooled
        given = unet.config.projection_class_embeddings_input_dim
        name = "unet.projection_class_embeddings_input_dim"
        self.expect(source, name, given, given == width, f"{width}, of {SIZES} sizes")

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        outputs = [
            encoder(given.input_ids.to(encoder.device), output_hidden_states=True)
            for encoder, given in zip(encoders, tokens, strict=True)
        ]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        # The first encoder that projects has the pooled text: the second, in all that are known
        pooled = next(output[0] for output in outputs if output[0].ndim == 2)
        return TextCondition(hidden, pooled)

    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
        guidance: float = 1.0,
    ) -> Tensor:
        # Original size, corner of the crop, and target size
        sizes = [resolution, resolution, 0, 0, resolution, resolution]
        ids = torch.tensor(sizes, device=latents.device, dtype=text.hidden.dtype)
        added = {"text_embeds": text.pooled, "time_ids": ids.expand(len(latents), -1)}
        return denoiser(
            latents,
            timesteps,
            encoder_hidden_states=text.hidden,
            timestep_cond=self.embed_guidance(guidance, latents),
            added_cond_kwargs=added,
        ).sample

    def token_types(self) -> TokenTypeCache:
        encoder, tokenizer = self.pipeline.text_encoder, self.pipeline.tokenizer
        return TokenTypeCache(encoder, tokenizer.eos_token_id, penultimate=True)


FAMILY = StableDiffusionXL
