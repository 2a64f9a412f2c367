"""The embedded MM-DiT before training: SD3's wiring at a size that two CPU cores can train.

Two CLIP text encoders, both with pooled embeddings, and no T5, in whose place SD3's pipeline puts
256 tokens of zeros; patches of 2x2 latents, so that its maps are 8x8 at 64 pixels; rectified flow.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from datamodules.shapes.rendering import SIZE
from lightning_modules.backbone.text import TextCondition
from lightning_modules.embedded.pipeline import build_text_encoders, build_tokenizer, build_vae

__all__ = ["LastTokenForMany", "build_mmdit_pipeline", "merge_zeros"]

WIDTHS = (64, 128)  # Of the text encoders, and of their pooled embeddings


def build_transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=SIZE // 4,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=9,
        attention_head_dim=32,
        num_attention_heads=4,
        caption_projection_dim=4 * 32,
        joint_attention_dim=sum(WIDTHS),
        pooled_projection_dim=sum(WIDTHS),
        pos_embed_max_size=SIZE // 8,
        qk_norm="rms_norm",
    )


def build_mmdit_pipeline(folder: Path, seed: int = 0) -> StableDiffusion3Pipeline:
    """The whole untrained pipeline; the tokenizer's files are written below ``folder``."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer")
    first, second = build_text_encoders(tokenizer, CLIPTextModelWithProjection)
    vae = build_vae()
    vae.register_to_config(shift_factor=0.0)
    return StableDiffusion3Pipeline(
        transformer=build_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def merge_zeros(text: TextCondition, zeros: int) -> TextCondition:
    """The text without all but one of the ``zeros`` tokens at its end: what `LastTokenForMany` is
    given."""
    return TextCondition(text.hidden[:, : text.hidden.shape[1] - zeros + 1], text.pooled)


class LastTokenForMany:
    """Joint attention in which the last text token stands for ``copies`` equal ones.

    Tokens of zeros that have no positions stay equal to one another in all layers, so that one with
    log(copies) added to its logits does what all of them do, at a third of the cost here.
    """

    def __init__(self, copies: int) -> None:
        self.copies = copies

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        pixels = hidden_states.shape[1]

        def split(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        image = [split(to(hidden_states)) for to in (attn.to_q, attn.to_k, attn.to_v)]
        text = [
            split(to(encoder_hidden_states))
            for to in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        ]
        for part, norms in ((image, "norm_{}"), (text, "norm_added_{}")):
            for place, name in enumerate("qk"):
                norm = getattr(attn, norms.format(name), None)
                part[place] = part[place] if norm is None else norm(part[place])
        query, key, value = (torch.cat(pair, 2) for pair in zip(image, text, strict=True))
        bias = torch.zeros(key.shape[2], device=key.device, dtype=query.dtype)
        bias[-1] = math.log(self.copies)
        attended = F.scaled_dot_product_attention(query, key, value.to(query), attn_mask=bias[None])
        attended = attended.transpose(1, 2).flatten(2)
        of_image, of_text = attended[:, :pixels], attended[:, pixels:]
        if not attn.context_pre_only:
            of_text = attn.to_add_out(of_text)
        return attn.to_out[1](attn.to_out[0](of_image)), of_text
