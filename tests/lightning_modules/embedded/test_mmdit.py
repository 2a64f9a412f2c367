"""The embedded MM-DiT: its size, and one token of zeros in the place of many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.families.stable_diffusion_3 import SEQUENCE
from lightning_modules.backbone.sampling import sample
from lightning_modules.embedded.mmdit import (
    LastTokenForMany,
    build_mmdit_pipeline,
    build_transformer,
    merge_zeros,
)

PROMPTS = ["a red circle and a blue square", "a white ring"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """With weights that all matter: untrained, its layers begin as nothing."""
    pipeline = build_mmdit_pipeline(tmp_path_factory.mktemp("mmdit"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipeline.transformer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return Backbone(pipeline, "mmdit")


@torch.no_grad()
def test_one_token_of_zeros_does_what_all_do(backbone: Backbone) -> None:
    latents = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    text, timesteps = backbone.text.encode(PROMPTS), torch.tensor([900.0, 100.0])
    assert not text.hidden[:, -SEQUENCE:].any()
    expected = backbone.predict(latents, timesteps, text, 64)
    stock = backbone.denoiser.attn_processors
    backbone.denoiser.set_attn_processor(LastTokenForMany(SEQUENCE))
    try:
        found = backbone.predict(latents, timesteps, merge_zeros(text, SEQUENCE), 64)
        single = LastTokenForMany(1)
        backbone.denoiser.set_attn_processor(single)
        as_one = backbone.predict(latents, timesteps, merge_zeros(text, SEQUENCE), 64)
    finally:
        backbone.denoiser.set_attn_processor(stock)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (as_one - expected).abs().max() > 1e-2  # What they weigh matters


def test_it_is_a_stock_pipeline_of_a_small_file(backbone: Backbone, tmp_path: Path) -> None:
    count = sum(p.numel() for p in build_transformer().parameters())
    others = [*backbone.text.encoders, backbone.vae]
    total = count + sum(p.numel() for module in others for p in module.parameters())
    assert 2 * total < 15e6, f"{count} and {total} parameters"
    backbone.restored_pipeline().save_pretrained(tmp_path / "made", safe_serialization=True)
    again = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "made", text_encoder_3=None, tokenizer_3=None
    )
    again.set_progress_bar_config(disable=True)
    drawn = again(
        PROMPTS[0],
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    ).images
    # Which the project's own loading knows
    ours = sample(Backbone.load(str(tmp_path / "made")), PROMPTS[:1], [3], 2, 3.0, 64)
    assert (ours.float() - (drawn * 255).round()).abs().max() <= 1
