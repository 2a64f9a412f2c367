"""What a pipeline's configs say beside its weights: done as the stock pipeline does it, or refused
when the pipeline is opened; caches are keyed by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from helpers.architectures import build_pipeline

from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.backbone.weights import weights_digest
from lightning_modules.embedded.pipeline import CONTEXT

PROMPTS = ["a red circle", "a white ring above a dog"]
SEEDS = [3, 14]


def stock(pipeline: Any, guidance: float, side: int, steps: int = 2) -> torch.Tensor:
    pixart = hasattr(pipeline, "transformer")
    extra = {"clean_caption": False, "use_resolution_binning": False} if pixart else {}
    images = pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=side,
        width=side,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
        **extra,
    ).images
    return (images * 255).round().to(torch.uint8)


def apart(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


def reopened(backbone: Backbone) -> Backbone:
    return Backbone(backbone.pipeline, "given")


def check_alike(backbone: Backbone, guidance: float = 3.0, side: int = 32) -> torch.Tensor:
    images = sample(backbone, PROMPTS, SEEDS, 2, guidance, side)
    assert images.float().std() > 5, "flat images would agree with anything"
    assert apart(images, stock(backbone.pipeline, guidance, side)) <= 1
    return images


# --- latents --------------------------------------------------------------------------------------


# Of the embedded backbone's eight channels
MEANS, DEVIATIONS = (0.0, 1, 2, 3, 4, 5, 6, 7), (1.0, 2, 4, 8, 1, 2, 4, 8)


@pytest.mark.parametrize("name", ["sdxl", "sd1", "pixart"])
def test_mean_and_deviation_of_latents_act_where_the_stock_pipeline_reads_them(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
):
    if name == "sdxl":  # Whose own pipeline knows four channels alone
        backbone = Backbone(build_pipeline(name, tmp_path, scale="tiny"), name)
    else:
        backbone = request.getfixturevalue(name)
    backbone.vae.register_to_config(scaling_factor=0.5)
    before, key = check_alike(reopened(backbone)), backbone.autoencoder.fingerprint()
    backbone.vae.register_to_config(
        latents_mean=[1.0] * 4, latents_std=[2.0] * 4, scaling_factor=0.5
    )
    backbone = reopened(backbone)
    after = check_alike(backbone)
    assert (apart(before, after) > 20) == (name == "sdxl"), "SDXL's alone reads them"
    assert backbone.autoencoder.fingerprint() != key


def test_of_mean_and_deviation_one_alone_does_nothing_as_in_the_stock_pipeline(embedded: Backbone):
    before = check_alike(embedded)
    embedded.vae.register_to_config(latents_mean=[1.0] * embedded.latent_size()[0])
    assert torch.equal(check_alike(reopened(embedded)), before)


def test_encoded_latents_are_those_that_decoding_takes(embedded: Backbone):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mode = embedded.vae.encode(images).latent_dist.mode()
    embedded.vae.register_to_config(
        latents_mean=list(MEANS), latents_std=list(DEVIATIONS), scaling_factor=0.5
    )
    backbone = embedded  # What is set later counts as well
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (MEANS, DEVIATIONS))
    latents = backbone.autoencoder.encode(images)
    assert torch.allclose(latents, (mode - mean) * 0.5 / std, atol=1e-6)
    expected = ((backbone.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1) * 255).round()
    assert apart(backbone.autoencoder.decode(latents), expected) <= 1


@pytest.mark.parametrize(
    "change",
    [
        {"latents_mean": [1.0, *[0.0] * 7]},
        {"latents_std": [2.0, *[1.0] * 7]},
        {"scaling_factor": 0.5},
        {"shift_factor": 0.1},
        {"force_upcast": True},
        {"norm_num_groups": 4},
    ],
    ids=str,
)
def test_cached_latents_are_keyed_by_all_settings_of_the_autoencoder(
    change: dict[str, Any], embedded: Backbone
):
    before = embedded.autoencoder.fingerprint()
    embedded.vae.register_to_config(**change)
    assert reopened(embedded).autoencoder.fingerprint() != before


def test_a_tiny_autoencoder_draws_and_encodes_as_stock_diffusers(sd1: Backbone):
    torch.manual_seed(0)
    blocks = (4, 4, 4, 4)
    sd1.pipeline.vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=blocks, decoder_block_out_channels=blocks
    ).eval()
    torch.nn.init.constant_(sd1.pipeline.vae.decoder.layers[-1].bias, 0.5)  # Else all is black
    backbone = reopened(sd1)
    check_alike(backbone)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = backbone.vae.encode(images).latents
    assert torch.allclose(backbone.autoencoder.encode(images), expected)


def test_numbers_that_are_not_finite_are_no_black_images(embedded: Backbone):
    with pytest.raises(ValueError, match="not finite in torch.float32.*backbone.dtype"):
        embedded.autoencoder.decode(torch.full((1, *embedded.latent_size()), float("nan")))


# --- denoisers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_a_guidance_distilled_unet_is_told_the_scale(name: str, guidance: float, tmp_path: Path):
    pipeline = build_pipeline(name, tmp_path, scale="tiny", time_cond_proj_dim=32)
    backbone = Backbone(pipeline, name)
    images, batches = check_alike(backbone, guidance, 64), []
    backbone.denoiser.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    sample(backbone, PROMPTS, SEEDS, 1, guidance, 64)
    assert batches == [2] and not backbone.family.is_guided(guidance)
    assert apart(images, sample(backbone, PROMPTS, SEEDS, 2, 9.0, 64)) > 1
    # Training is without guidance, which is told as well
    text, latents = backbone.text.encode(PROMPTS), torch.randn(2, 4, 8, 8)
    given = (latents, torch.tensor([500, 20]), text, 64)
    with torch.no_grad():
        plain, told = backbone.predict(*given), backbone.predict(*given, guidance=1.0)
        assert torch.equal(plain, told)
        assert not torch.allclose(plain, backbone.predict(*given, guidance=4.5), atol=1e-4)


def test_a_latent_consistency_pipeline_is_opened_as_itself(tmp_path: Path):
    parts = build_pipeline("sd15", tmp_path, scale="tiny", time_cond_proj_dim=32).components
    parts["scheduler"] = diffusers.LCMScheduler.from_config(parts["scheduler"].config)
    pipeline = diffusers.LatentConsistencyModelPipeline(
        **{k: v for k, v in parts.items() if k != "image_encoder"}, requires_safety_checker=False
    )
    check_alike(Backbone(pipeline, "lcm"), 4.5, 64)


def test_padding_is_masked_where_the_text_encoder_says_so(sd1: Backbone):
    before = check_alike(sd1)
    sd1.pipeline.text_encoder.config.use_attention_mask = True
    assert apart(check_alike(sd1), before) > 1


def test_another_size_of_the_unet_changes_no_image_of_a_given_resolution(sd1: Backbone):
    before = check_alike(sd1)
    sd1.unet.register_to_config(sample_size=4)
    assert torch.equal(check_alike(reopened(sd1)), before)


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["hidden_act", "eos_token_id", "pad_token", "rules"])
def test_cached_texts_are_keyed_by_all_settings_of_encoders_and_tokenizers(
    change: str, embedded: Backbone
):
    before = embedded.text.fingerprint()
    embedded.text.encode(PROMPTS)
    assert embedded.text.fingerprint() == before, "calls change nothing"
    encoder, tokenizer = embedded.text.encoders[0], embedded.text.tokenizers[0]
    if change == "hidden_act":
        encoder.config.hidden_act = "relu"
    elif change == "eos_token_id":
        encoder.config.eos_token_id = 3
    elif change == "pad_token":
        tokenizer.pad_token = "a</w>"
    else:
        from tokenizers.normalizers import Strip

        tokenizer.backend_tokenizer.normalizer = Strip()
    assert embedded.text.fingerprint() != before


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("scheduler/scheduler_config.json", "timestep_spacing", "leading"),
        ("scheduler/scheduler_config.json", "algorithm_type", "sde-dpmsolver++"),
        ("vae/config.json", "latents_mean", [1.0, 1.0, 1.0, 1.0]),
        ("unet/config.json", "sample_size", 32),
        ("text_encoder/config.json", "hidden_act", "gelu"),
        ("model_index.json", "force_zeros_for_empty_prompt", False),
    ],
)
def test_adapters_and_images_are_keyed_by_every_config(
    file: str, key: str, value: Any, tiny_folder: Path, tmp_path: Path
):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    before = weights_digest(str(folder))
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {key: value}))
    assert weights_digest(str(folder)) != before


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "settings", "said"),
    [
        ("unet", {"in_channels": 9}, r"unet.in_channels=9, .*as many as the VAE, 8"),
        ("unet", {"out_channels": 4}, r"unet.out_channels=4, .*as many as the VAE, 8"),
        ("unet", {"class_embed_type": "timestep"}, "unet.class_embed_type=timestep, .*None"),
        ("unet", {"num_class_embeds": 10}, "unet.num_class_embeds=10, .*None"),
        ("unet", {"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type=text_proj"),
        ("unet", {"addition_embed_type": "text"}, "addition_embed_type=text, .*text_time"),
        ("unet", {"addition_time_embed_dim": 7}, "projection_class_embeddings_input_dim="),
        ("unet", {"sample_size": [8, 16]}, r"unet.sample_size=\[8, 16\], .*one number"),
        ("vae", {"latents_std": [1.0, 1.0]}, r"vae.latents_std=\[1.0, 1.0\], .*8 numbers"),
    ],
)
def test_what_the_stock_pipeline_would_use_otherwise_is_refused(
    part: str, settings: dict[str, Any], said: str, embedded: Backbone
):
    getattr(embedded.pipeline, part).register_to_config(**settings)
    with pytest.raises(ValueError, match=said) as caught:
        reopened(embedded)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("'given' has ")


def test_an_autoencoder_that_draws_noise_of_its_own_is_refused(sd1: Backbone):
    sd1.pipeline.vae = type("ConsistencyDecoderVAE", (), {"config": sd1.vae.config})()
    with pytest.raises(ValueError, match="has vae=ConsistencyDecoderVAE, .*AutoencoderKL"):
        reopened(sd1)


def test_a_missing_text_encoder_is_refused(embedded: Backbone):
    embedded.pipeline.text_encoder = None
    with pytest.raises(ValueError, match="has text_encoder=None, .*expected CLIP"):
        reopened(embedded)


@pytest.mark.parametrize(
    ("which", "length", "said"),
    [
        ("tokenizer", 10**30, rf"tokenizer.model_max_length=none, .*at most {CONTEXT} tokens"),
        ("tokenizer_2", 12, rf"tokenizer_2.model_max_length=12, .*as the first, {CONTEXT}"),
    ],
)
def test_texts_longer_than_the_encoder_or_of_two_lengths_are_refused(
    which: str, length: int, said: str, embedded: Backbone
):
    getattr(embedded.pipeline, which).model_max_length = length
    with pytest.raises(ValueError, match=said):
        reopened(embedded)


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionInpaintPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLPAGPipeline",
        "PixArtSigmaPAGPipeline",
        "KolorsPipeline",
    ],
)
def test_a_pipeline_that_draws_in_another_way_is_refused(name: str, sd1: Backbone):
    pipeline = type(name, (SimpleNamespace,), {})(**sd1.pipeline.components)
    with pytest.raises(ValueError, match=f"'it' is a {name}: expected .*StableDiffusionPipeline"):
        Backbone(pipeline, "it")


@pytest.mark.parametrize("name", ["embedded", "sd1"])
def test_a_resolution_that_latents_cannot_cover_is_refused(
    name: str, request: pytest.FixtureRequest
):
    backbone = request.getfixturevalue(name)
    step = backbone.vae_scale_factor
    with pytest.raises(ValueError, match=f"backbone.resolution=62: .*a multiple of {step} pixels"):
        sample(backbone, PROMPTS, SEEDS, 1, 1.0, 62)
