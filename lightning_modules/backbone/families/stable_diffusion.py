"""Stable Diffusion 1.x and 2.x: a UNet and one CLIP."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from torch import Tensor, full

from conf.describe import show_count
from lightning_modules.backbone.families.base import Family
from lightning_modules.backbone.text import TextCondition

NO_LIMIT = 10**20  # transformers has a larger one where nothing says it


class CLIPUNet(Family, ABC):
    """A UNet that is given noise, timestep and CLIP's states: what Stable Diffusion 1.x, 2.x and
    XL share."""

    addition_embed_type: ClassVar[str | None] = None  # Of the UNet's config

    def check(self, source: str) -> None:
        super().check(source)
        config = self.pipeline.unet.config
        for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
            value = config.get(key)
            self.expect(source, f"unet.{key}", value, value is None, "None")
        added, needed = config.get("addition_embed_type"), self.addition_embed_type
        self.expect(source, "unet.addition_embed_type", added, added == needed, str(needed))
        for part in self.text_parts:
            encoder = getattr(self.pipeline, f"text_encoder{part}")
            tokenizer = getattr(self.pipeline, f"tokenizer{part}")
            self.expect(source, f"text_encoder{part}", encoder, encoder is not None, "CLIP")
            self.expect(source, f"tokenizer{part}", tokenizer, tokenizer is not None, "CLIP's")
            length, name = tokenizer.model_max_length, f"tokenizer{part}.model_max_length"
            longest = getattr(encoder.config, "max_position_embeddings", length)
            most = f"at most {show_count(longest, 'token')}"
            said = isinstance(length, int) and length < NO_LIMIT
            where = f"{most}, as tokenizer{part}/tokenizer_config.json says"
            self.expect(source, name, length if said else "none", said, where)
            self.expect(source, name, length, length <= longest, most)
            same = f"as many tokens as the first, {self.text_length}"
            self.expect(source, name, length, length == self.text_length, same)

    def embed_guidance(self, guidance: float, latents: Tensor) -> Tensor | None:
        """What a guidance-distilled UNet is told of the scale, [B, D]; None for any other."""
        width = self.pipeline.unet.config.get("time_cond_proj_dim")
        if width is None:
            return None
        scales = full((len(latents),), guidance - 1)
        return self.pipeline.get_guidance_scale_embedding(scales, embedding_dim=width).to(latents)


class StableDiffusion(CLIPUNet):
    label = "Stable Diffusion 1.x or 2.x"
    pipelines = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        encoder, given = encoders[0], tokens[0].to(encoders[0].device)
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = given.attention_mask if masked else None
        return TextCondition(encoder(given.input_ids, attention_mask=mask).last_hidden_state)

    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
        guidance: float = 1.0,
    ) -> Tensor:
        told = self.embed_guidance(guidance, latents)
        return denoiser(
            latents, timesteps, encoder_hidden_states=text.hidden, timestep_cond=told
        ).sample


FAMILY = StableDiffusion
