"""The published sizes on the meta device, and small random pipelines of the same wiring that really
run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import build_pipeline, config

from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample

NAMES = ("sd15", "sd21", "sdxl")
PROMPT = "a red circle above a dog!"


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def cross_attention_blocks(unet: Any) -> set[str]:
    return {name.split(".attentions")[0] for name, _ in unet.named_modules() if "attn2" in name}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("full")
    return {name: build_pipeline(name, folder / name, device="meta") for name in NAMES}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    folder = tmp_path_factory.mktemp("tiny")
    return cache(lambda name: build_pipeline(name, folder / name, scale="tiny"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unet", "encoders"),
    [
        ("sd15", 859_520_964, [123_060_480]),
        ("sd21", 865_910_724, [340_387_840]),
        ("sdxl", 2_567_463_684, [123_060_480, 694_659_840]),
    ],
)
def test_full_size_has_the_published_parameters(
    full: dict[str, Any], name: str, unet: int, encoders: list[int]
):
    backbone = Backbone(full[name], name)
    assert parameters(backbone.unet) == unet and parameters(backbone.vae) == 83_653_863
    assert [parameters(encoder) for encoder in backbone.text.encoders] == encoders
    assert all(
        p.is_meta
        for m in (backbone.unet, backbone.vae, *backbone.text.encoders)
        for p in m.parameters()
    ), "nothing has memory"
    assert (
        backbone.latent_size()[1] * full[name].vae_scale_factor
        == config(name)["image"]
        == (1024 if name == "sdxl" else 512)
    )
    for tokenizer, encoder in zip(backbone.text.tokenizers, backbone.text.encoders, strict=True):
        assert len(tokenizer) == encoder.config.vocab_size == 49408
        assert tokenizer.eos_token_id == 49407 and tokenizer.bos_token_id == 49406


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tiny_has_the_wiring_of_full(full: dict[str, Any], tiny: Callable[[str], Any], name: str):
    small, large = tiny(name), full[name]
    assert type(small) is type(large) and small.config.keys() == large.config.keys()
    for key in (
        "down_block_types",
        "up_block_types",
        "mid_block_type",
        "use_linear_projection",
        "addition_embed_type",
        "in_channels",
    ):
        assert small.unet.config[key] == large.unet.config[key], key
    assert cross_attention_blocks(small.unet) == cross_attention_blocks(large.unet)
    assert (
        dict(small.scheduler.config) == dict(large.scheduler.config)
        and small.scheduler.config.prediction_type == "epsilon"
    )
    assert small.vae_scale_factor == large.vae_scale_factor == 8
    assert small.vae.config.scaling_factor == large.vae.config.scaling_factor
    assert small.unet.config.sample_size * 8 == config(name, "tiny")["image"]
    one, other = Backbone(small, name), Backbone(large, name)
    assert len(one.text.encoders) == len(other.text.encoders) == (2 if name == "sdxl" else 1)
    for a, b in zip(one.text.encoders, other.text.encoders, strict=True):
        assert type(a) is type(b) and a.config.hidden_act == b.config.hidden_act
        assert (a.config.eos_token_id, a.config.bos_token_id, a.config.pad_token_id) == (2, 0, 1)
        assert a.config.max_position_embeddings == b.config.max_position_embeddings == 77
    assert small.unet.config.cross_attention_dim == sum(
        encoder.config.hidden_size for encoder in one.text.encoders
    )
    assert sum(parameters(module) for module in (one.unet, one.vae, *one.text.encoders)) < 2e6


@pytest.mark.parametrize(
    "name", ["sdxl", *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES[:2])]
)
def test_a_tiny_pipeline_draws_as_its_own_call_does_and_opens_again(
    tiny: Callable[[str], Any], name: str, tmp_path: Path
):
    pipeline = tiny(name)
    backbone = Backbone(pipeline, name)
    mine = sample(backbone, [PROMPT], [5], 2, 4.0, 128)
    generator = torch.Generator().manual_seed(5)
    stock = pipeline(
        PROMPT,
        num_inference_steps=2,
        guidance_scale=4.0,
        height=128,
        width=128,
        generator=generator,
        output_type="pt",
    ).images
    assert mine.shape == (1, 3, 128, 128) and mine.float().std() > 10
    assert int((mine.int() - (stock * 255).round().int()).abs().max()) <= 1
    pipeline.save_pretrained(tmp_path)
    opened = Backbone.load(str(tmp_path))
    assert int((sample(opened, [PROMPT], [5], 2, 4.0, 128).int() - mine.int()).abs().max()) <= 1
    assert torch.equal(
        opened.text.tokenize([PROMPT], -1).input_ids, backbone.text.tokenize([PROMPT], -1).input_ids
    )
