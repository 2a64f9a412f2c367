"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two CLIPs and T5, one behind the other, in joint
attention with the image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.attention.token_types import JoinedTokenTypes, TokenTypeCache
from lightning_modules.backbone.families.joint import JointTransformer
from lightning_modules.backbone.text import TextCondition

SEQUENCE = 256  # Tokens that T5 is given


class StableDiffusion3(JointTransformer):
    """T5 may be left out (``text_encoder_3=None``): zeros stand in its place then."""

    label = "Stable Diffusion 3 or 3.5"
    pipelines = ("StableDiffusion3Pipeline",)
    text_parts = ("", "_2", "_3")
    stretches = ((0, 1), (2,))
    most_shift = 1.16

    @property
    def token_lengths(self) -> list[int]:
        """77 of each CLIP, 256 of T5, as the stock pipeline has it."""
        clip = self.pipeline.tokenizer.model_max_length
        return [clip, clip, SEQUENCE]

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        outputs = [
            encoder(given.input_ids.to(encoder.device), output_hidden_states=True)
            for encoder, given in zip(encoders[:2], tokens[:2], strict=True)
        ]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output[0] for output in outputs], dim=-1)
        if len(encoders) > 2:
            long = encoders[2](tokens[2].input_ids.to(encoders[2].device))[0].to(clip)
        else:
            width = self.pipeline.transformer.config.joint_attention_dim
            long = clip.new_zeros(len(clip), self.token_lengths[2], width)
        clip = F.pad(clip, (0, long.shape[-1] - clip.shape[-1]))
        return TextCondition(torch.cat([clip, long], dim=1), pooled)

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
        return denoiser(
            hidden_states=latents,
            timestep=timesteps,
            encoder_hidden_states=text.hidden,
            pooled_projections=text.pooled,
        ).sample

    def token_types(self) -> JoinedTokenTypes:
        pipeline = self.pipeline
        clip = TokenTypeCache(
            pipeline.text_encoder, pipeline.tokenizer.eos_token_id, penultimate=True
        )
        long = None
        if getattr(pipeline, "text_encoder_3", None) is not None:
            eos = pipeline.tokenizer_3.eos_token_id
            long = TokenTypeCache(pipeline.text_encoder_3, eos, bos=False)
        return JoinedTokenTypes([clip, long], self.token_lengths[1:])


FAMILY = StableDiffusion3
