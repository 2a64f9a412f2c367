"""Stable Diffusion 1.x and 2.x: a UNet and one CLIP."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_modules.backbone.families.base import Family
from lightning_modules.backbone.text import TextCondition


class StableDiffusion(Family):
    label = "Stable Diffusion 1.x or 2.x"

    @classmethod
    def matches(cls, pipeline: Any) -> bool:
        return (
            getattr(pipeline, "unet", None) is not None
            and getattr(pipeline, "text_encoder_2", None) is None
        )

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        ids = tokens[0].input_ids.to(encoders[0].device)
        return TextCondition(encoders[0](ids).last_hidden_state)

    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
    ) -> Tensor:
        return denoiser(latents, timesteps, encoder_hidden_states=text.hidden).sample


FAMILY = StableDiffusion
