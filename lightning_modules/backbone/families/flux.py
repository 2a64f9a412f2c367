"""FLUX.1 (Black Forest Labs): T5 in joint attention with packed latents, CLIP's pooled state beside
the timestep; dev is told its guidance, schnell has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.attention.token_types import TokenTypeCache
from lightning_modules.backbone.families.joint import JointTransformer
from lightning_modules.backbone.text import TextCondition

SEQUENCE = 512  # Tokens that T5 is given
SIDE = 128  # Of its latents, which no config says
PACK = 2  # Latents of a patch, along one side
TRAINING_STEPS = 1000  # The transformer is told timesteps over these


class Flux(JointTransformer):
    """Latents are not packed outside of the transformer. There is no unconditional half: a scale of
    guidance is told to dev."""

    label = "FLUX.1"
    pipelines = ("FluxPipeline",)
    text_parts = ("", "_2")
    stretches = ((1,),)
    starts_at_first_sigma = True

    def check_channels(self, source: str, channels: int) -> None:
        config = self.pipeline.transformer.config
        packed, name = PACK**2 * channels, "transformer.in_channels"
        given, expected = config.in_channels, f"{packed}, the VAE's in patches of 2 by 2"
        self.expect(source, name, given, given == packed, expected)
        given, name = config.out_channels, "transformer.out_channels"
        self.expect(source, name, given, given in (None, packed), f"None or {packed}")

    @property
    def own_size(self) -> tuple[int, int]:
        return self.pipeline.transformer.config.in_channels // PACK**2, SIDE

    @property
    def patch_size(self) -> int:
        return PACK

    @property
    def token_lengths(self) -> list[int]:
        """77 of CLIP, 512 of T5, as the stock pipeline has it."""
        return [self.pipeline.tokenizer.model_max_length, SEQUENCE]

    def is_guided(self, guidance: float) -> bool:
        return False

    def step_options(
        self, scheduler: Any, steps: int, latent_size: tuple[int, int, int]
    ) -> dict[str, Any]:
        """Shares of noise from 1 to 1 / steps, and the shift of an image of this size."""
        shares = np.linspace(1.0, 1 / steps, steps)
        return {"sigmas": shares, "mu": self.shift_of(scheduler, latent_size)}

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        clip, long = encoders
        pooled = clip(tokens[0].input_ids.to(clip.device)).pooler_output
        hidden = long(tokens[1].input_ids.to(long.device))[0]
        return TextCondition(hidden.to(long.dtype), pooled)

    def project_text(self, denoiser: Any, text: TextCondition) -> Tensor:
        return denoiser.context_embedder(text.hidden)

    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
        guidance: float = 1.0,
    ) -> Tensor:
        batch, _, height, width = latents.shape
        told = None
        if denoiser.config.guidance_embeds:
            told = torch.full((batch,), guidance, device=latents.device, dtype=torch.float32)
        output = denoiser(
            hidden_states=pack(latents),
            timestep=timesteps.to(latents.dtype) / TRAINING_STEPS,
            guidance=told,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.hidden,
            txt_ids=text.hidden.new_zeros(text.hidden.shape[1], 3),
            img_ids=patch_places(height // PACK, width // PACK).to(text.hidden),
        ).sample
        return unpack(output, height, width)

    def token_types(self) -> TokenTypeCache:
        pipeline = self.pipeline
        return TokenTypeCache(pipeline.text_encoder_2, pipeline.tokenizer_2.eos_token_id, bos=False)


def pack(latents: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h/2 w/2, 4 C]: the four latents of a patch are one token."""
    patches = latents.unfold(2, PACK, PACK).unfold(3, PACK, PACK)  # [B, C, h/2, w/2, 2, 2]
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for latents of this size."""
    rows, columns = height // PACK, width // PACK
    patches = tokens.unflatten(2, (-1, PACK, PACK)).unflatten(1, (rows, columns))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3, 4)


def patch_places(rows: int, columns: int) -> Tensor:
    """[rows columns, 3]: 0, row and column of each patch, as the rotary embedding takes them."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1)


FAMILY = Flux
