"""PixArt (alpha: arXiv 2310.00426, Sigma: 2403.04692): a transformer that predicts a variance
beside the noise, and T5, whose padding the cross-attention never reads."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from lightning_modules.backbone.families.base import Family
from lightning_modules.backbone.text import TextCondition


class PixArt(Family):
    """As with the stock pipelines' ``clean_caption=False`` and ``use_resolution_binning=False``:
    captions stay as the phrases' places count them, images are drawn at their own size."""

    label = "PixArt"
    denoiser_name = "transformer"
    clip = False
    lower_case = True
    learns_variance = True
    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        # Alpha's stock pipeline does both, Sigma's neither
        alpha = any(kind.__name__ == "PixArtAlphaPipeline" for kind in type(pipeline).__mro__)
        self.starts_at_first_sigma = self.keeps_single_estimate = alpha

    @property
    def token_lengths(self) -> list[int]:
        """As many tokens as the stock pipeline gives T5: 120 (alpha) or 300 (Sigma)."""
        arguments = inspect.signature(type(self.pipeline).encode_prompt).parameters
        return [arguments["max_sequence_length"].default]

    def prepare(self, prompt: str) -> str:
        """In lower case, without blanks around it."""
        return prompt.lower().strip()

    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        encoder, given = encoders[0], tokens[0].to(encoders[0].device)
        hidden = encoder(given.input_ids, attention_mask=given.attention_mask).last_hidden_state
        return TextCondition(hidden.to(encoder.dtype), mask=given.attention_mask)

    def project_text(self, denoiser: Any, text: TextCondition) -> Tensor:
        return denoiser.caption_projection(text.hidden)

    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
        guidance: float = 1.0,
    ) -> Tensor:
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if denoiser.use_additional_conditions:  # Alpha at 1024 pixels
            like = {"device": text.hidden.device, "dtype": text.hidden.dtype}
            sides = torch.full((len(latents), 2), float(resolution), **like)
            sizes = {"resolution": sides, "aspect_ratio": torch.ones_like(sides[:, :1])}
        output = denoiser(
            latents, text.hidden, timesteps, sizes, encoder_attention_mask=text.mask
        ).sample
        # The second half is the learned variance, which no scheduler here takes.
        channels = latents.shape[1]
        return output.chunk(2, dim=1)[0] if output.shape[1] == 2 * channels else output

    def token_types(self) -> None:
        return None


FAMILY = PixArt
