"""The published sizes on the meta device, and small random pipelines of the same wiring that really
run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import NAMES, _build, build_pipeline, build_unet, config

from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample

PROMPT = "a red circle above a dog!"


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def cross_attention(unet: Any) -> dict[str, Any]:
    return {name: module for name, module in unet.named_modules() if name.endswith(".attn2")}


def by_block(unet: Any) -> dict[str, int]:
    blocks = [name.split(".attentions")[0] for name in cross_attention(unet)]
    return {block: blocks.count(block) for block in blocks}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        name: build_pipeline(name, tmp_path_factory.mktemp(name), device="meta") for name in NAMES
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        name: build_pipeline(name, tmp_path_factory.mktemp(name), scale="tiny") for name in NAMES
    }


@pytest.mark.parametrize(
    ("name", "unet", "encoders"),
    [
        ("sd14", 859_520_964, [123_060_480]),
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


def test_cross_attention_of_the_full_unets(full: dict[str, Any]):
    assert by_block(full["sdxl"].unet) == {
        "down_blocks.1": 4,
        "down_blocks.2": 20,
        "mid_block": 10,
        "up_blocks.0": 30,
        "up_blocks.1": 6,
    }
    fours = (
        {f"down_blocks.{i}": 2 for i in range(3)}
        | {"mid_block": 1}
        | {f"up_blocks.{i}": 3 for i in (1, 2, 3)}
    )
    for name in ("sd14", "sd15", "sd21"):
        assert by_block(full[name].unet) == fours and sum(fours.values()) == 16
    keys = {
        name: sum(layer.to_k.weight.numel() for layer in cross_attention(full[name].unet).values())
        for name in NAMES
    }
    assert keys["sd14"] == keys["sd15"] == 9_584_640
    # Heads are 64 wide from SD2 on; in SD1 there are eight whatever the width.
    widths = {
        n: {m.to_q.out_features // m.heads for m in cross_attention(full[n].unet).values()}
        for n in NAMES
    }
    assert widths["sd21"] == widths["sdxl"] == {64} and widths["sd15"] == {40, 80, 160}


@pytest.mark.parametrize("name", NAMES)
def test_tiny_has_the_wiring_of_full(full: dict[str, Any], tiny: dict[str, Any], name: str):
    small, large = tiny[name], full[name]
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
    assert by_block(small.unet).keys() == by_block(large.unet).keys()
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


def test_padding_is_each_models_own(tiny: dict[str, Any]):
    tokenizers = {name: Backbone(tiny[name], name).text.tokenizers for name in NAMES}
    pads = {
        name: [tokenizer.pad_token for tokenizer in found] for name, found in tokenizers.items()
    }
    end = "<|endoftext|>"
    assert pads == {"sd14": [end], "sd15": [end], "sd21": ["!"], "sdxl": [end, "!"]}
    assert tokenizers["sdxl"][1].pad_token_id == 0
    ids = Backbone(tiny["sdxl"], "sdxl").text.tokenize([PROMPT], which=1).input_ids
    assert ids.shape == (1, 77) and ids[0, -1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_pipeline_draws_as_its_own_call_does_and_opens_again(
    tiny: dict[str, Any], name: str, tmp_path: Path
):
    pipeline = tiny[name]
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


def test_the_pooled_state_is_taken_at_the_largest_id(tiny: dict[str, Any]):
    """The trap of the real configs: a placeholder that is added behind EOS is where CLIP pools."""
    encoder, tokenizer = tiny["sdxl"].text_encoder_2, tiny["sdxl"].tokenizer_2
    ids = tokenizer("a red circle", return_tensors="pt").input_ids
    pooled = encoder(ids).text_embeds
    state = encoder(ids).last_hidden_state
    assert torch.allclose(pooled, encoder.text_projection(state[:, -1]), atol=1e-6)
    ids[0, 2] = tokenizer.eos_token_id  # the largest id is its first place now
    changed = encoder(ids)
    assert torch.allclose(
        changed.text_embeds, encoder.text_projection(changed.last_hidden_state[:, 2]), atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_random_weights(dtype: torch.dtype, tmp_path: Path):
    pipeline = build_pipeline("sdxl", tmp_path, dtype=dtype, scale="tiny")
    modules = [pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2]
    for module in modules:
        assert not module.training
        for name, parameter in module.requires_grad_(False).named_parameters():
            assert (
                parameter.dtype == dtype
                and parameter.device.type == "cpu"
                and parameter.isfinite().all()
            ), name
            if parameter.dim() == 1:
                assert parameter.unique().tolist() == [float(name.endswith("weight"))], name
            elif parameter.numel() >= 4096:
                inputs = parameter.numel() / len(parameter)
                assert float(parameter.float().std()) == pytest.approx(inputs**-0.5, rel=0.1), name
                assert abs(float(parameter.float().mean())) < 0.1 * inputs**-0.5, name
    for encoder in modules[2:]:
        ((name, positions),) = encoder.named_buffers()
        assert name.endswith("position_ids") and positions.tolist() == [list(range(77))]


def test_activations_neither_vanish_nor_grow(tiny: dict[str, Any]):
    backbone = Backbone(tiny["sdxl"], "sdxl")
    text = backbone.text.encode([PROMPT, "a ring"])
    noise = torch.randn(2, *backbone.latent_size(), generator=torch.Generator().manual_seed(0))
    prediction = backbone.predict(noise, torch.tensor([10, 900]), text, 128)
    assert 0.1 < prediction.std() < 10 and 0.1 < text.hidden.std() < 10


def test_the_seed_and_nothing_else_gives_the_weights():
    torch.manual_seed(0)
    one = build_unet("sd15", "cpu", scale="tiny").state_dict()
    torch.manual_seed(1)
    again, other = (
        build_unet("sd15", "cpu", seed=seed, scale="tiny").state_dict() for seed in (0, 1)
    )
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["conv_in.weight"], other["conv_in.weight"])


def test_changes_replace_values_of_the_unets_config(tmp_path: Path):
    unet = build_unet("sdxl", sample_size=64, transformer_layers_per_block=(1, 1, 2))
    assert (
        unet.config.sample_size == 64
        and len(cross_attention(unet)) == 17
        and next(unet.parameters()).is_meta
    )
    assert build_unet("sdxl", dtype=torch.float16).dtype == torch.float16
    assert (
        build_pipeline("sd21", tmp_path, scale="tiny", sample_size=8).unet.config.sample_size == 8
    )
    assert config("sdxl")["unet"]["sample_size"] == 128, "every call gives a config of its own"


def test_the_mistakes_of_a_caller_are_named():
    with pytest.raises(
        ValueError, match=("architecture 'sd3' is unknown: expected one of sd14, sd15, sd21, sdxl")
    ):
        config("sd3")
    with pytest.raises(ValueError, match="scale 'small' is unknown: expected one of full, tiny"):
        build_unet("sdxl", scale="small")


def test_a_buffer_that_would_stay_unfilled_is_refused():
    with pytest.raises(
        RuntimeError, match=("BatchNorm2d has a buffer running_mean that this module cannot fill")
    ):
        _build(torch.nn.BatchNorm2d, {"num_features": 4}, "cpu", torch.float32, torch.Generator())


def test_the_facts_that_callers_read():
    for name in NAMES:
        parts = config(name)
        assert (
            parts["tokenizer"]["length"] == parts["text_encoder"]["max_position_embeddings"] == 77
        )
        assert parts["force_zeros_for_empty_prompt"] == (name == "sdxl") and "tiny" not in parts
        assert parts["scheduler"]["class"] == (
            "EulerDiscreteScheduler" if name == "sdxl" else "PNDMScheduler"
        )
