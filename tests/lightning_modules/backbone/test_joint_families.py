"""SD3, SD3.5 and FLUX.1 as backbones: what they are told, predict and draw is what their stock
pipelines do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.joint_architectures import build_joint_pipeline, build_joint_transformer, joint_config
from helpers.unet_inputs import draw

from lightning_modules.attention.token_positions import CutOffError
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.backbone.weakened import weakened
from losses.denoising import denoising_loss

SD3 = ("sd3", "sd35_medium")
FLUX = ("flux_dev", "flux_schnell")
PROMPTS = ["a red circle above a white ring", "a green cross"]


@pytest.fixture(scope="module", params=[*SD3, *FLUX])
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name = request.param
    return name, Backbone(build_joint_pipeline(name, tmp_path_factory.mktemp(name)), name)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone(build_joint_pipeline("sd3", tmp_path_factory.mktemp("sd3")), "sd3")


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone(build_joint_pipeline("flux_dev", tmp_path_factory.mktemp("flux")), "flux")


# --- at full size ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published", "exactly"),
    [
        ("sd3", 2.0, 2_084_951_104),
        ("sd35_medium", 2.5, 2_469_663_936),
        ("sd35_large", 8.1, 8_146_280_768),
        ("flux_dev", 12.0, 11_901_408_320),
        ("flux_schnell", 12.0, 11_891_178_560),
    ],
)
def test_full_size_has_the_published_parameters(name: str, published: float, exactly: int):
    """In thousands of millions, as the model cards have it: all that lies in the file, SD3's table
    of positions among it."""
    model = build_joint_transformer(name, "meta", "full")
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    assert count == exactly and round(count / 1e9, 1) == pytest.approx(published, abs=0.11)


# --- as the stock pipelines -----------------------------------------------------------------------


def test_images_are_those_of_the_stock_pipeline(named: Any):
    name, backbone = named
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    expected = backbone.pipeline(
        PROMPTS,
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=generators,
        output_type="pt",
    ).images
    found = sample(backbone, PROMPTS, [3, 4], 3, 4.0, 64)
    assert found.shape == (2, 3, 64, 64)
    assert (found.float() - (expected * 255).round()).abs().max() <= 1
    assert found.float().std() > 5
    alone = sample(backbone, PROMPTS[1:], [4], 3, 4.0, 64)
    assert (alone[0].float() - found[1].float()).abs().max() <= 1


def test_texts_are_encoded_as_the_stock_pipeline_does(named: Any):
    name, backbone = named
    given = backbone.text.encode(PROMPTS)
    if name in SD3:
        hidden, empty, pooled, _ = backbone.pipeline.encode_prompt(PROMPTS, None, None)
        assert torch.equal(backbone.text.encode_empty(2).hidden, empty)
    else:
        hidden, pooled, _ = backbone.pipeline.encode_prompt(PROMPTS, None)
    assert torch.equal(given.hidden, hidden) and torch.equal(given.pooled, pooled)
    assert given.hidden.shape[1] == backbone.text.length == (333 if name in SD3 else 512)


def test_training_is_that_of_the_scripts(named: Any):
    """Noise along the line, the velocity as target, the transformer told as the scripts do."""
    name, backbone = named
    latents, noise = draw(1, 2, 4, 8, 8), draw(2, 2, 4, 8, 8)
    schedule, text = backbone.schedule, backbone.text.encode(PROMPTS)
    timesteps = schedule.timesteps_at(torch.tensor([900, 20]))
    noised, target = schedule.add_noise(latents, noise, timesteps)
    sigmas = (timesteps / 1000).view(-1, 1, 1, 1)
    expected = (1.0 - sigmas) * latents + sigmas * noise
    own = backbone.predict(noised, timesteps, text, 64, 3.5)
    model, pipeline = backbone.denoiser, backbone.pipeline
    if name in SD3:
        stock = model(expected, text.hidden, text.pooled, timesteps).sample
    else:
        guidance = torch.full((2,), 3.5) if name == "flux_dev" else None
        stock = model(
            hidden_states=pipeline._pack_latents(expected, 2, 4, 8, 8),
            timestep=timesteps / 1000,
            guidance=guidance,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.hidden,
            txt_ids=torch.zeros(512, 3),
            img_ids=pipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
        ).sample
        stock = pipeline._unpack_latents(stock, 64, 64, 8)
    assert own.shape == (2, 4, 8, 8) and torch.allclose(own, stock, rtol=1e-4, atol=1e-5)
    loss = ((stock - (noise - latents)) ** 2).reshape(2, -1).mean(1).mean()
    assert torch.allclose(denoising_loss(own, target), loss, rtol=1e-5)


def test_latents_are_scaled_and_shifted_as_the_stock_pipeline_does(sd3: Backbone):
    vae = sd3.vae
    images = draw(0, 1, 3, 64, 64).clamp(-1, 1)
    mode = vae.encode(images).latent_dist.mode()
    scaled = (mode - vae.config.shift_factor) * vae.config.scaling_factor
    latents = sd3.autoencoder.encode(images)
    assert torch.allclose(latents, scaled) and vae.config.shift_factor == 0.0609
    spread = sd3.autoencoder.encode_posterior(images)[:, 4:]
    std = vae.encode(images).latent_dist.std
    assert torch.allclose(spread, std * vae.config.scaling_factor)


def test_guidance_is_told_to_dev_alone(named: Any):
    name, backbone = named
    assert backbone.family.is_guided(4.0) == (name in SD3)
    low, high = (sample(backbone, ["a ring"], [1], 2, scale, 64).float() for scale in (1.0, 9.0))
    assert torch.equal(low, high) == (name == "flux_schnell")


def test_layers_are_left_out_as_skip_layer_guidance_does(tmp_path: Path):
    """Beside the stock pipeline's own, which passes over whole blocks."""
    backbone = Backbone(build_joint_pipeline("sd35_medium", tmp_path), "sd35")
    text, latents = backbone.text.encode(PROMPTS), draw(1, 2, 4, 8, 8)
    timesteps = torch.tensor([900.0, 20.0])
    expected = backbone.denoiser(
        latents, text.hidden, text.pooled, timesteps, skip_layers=[1]
    ).sample
    with torch.no_grad(), weakened(backbone.denoiser, "slg", (8, 8)):
        found = backbone.predict(latents, timesteps, text, 64)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sizes_are_checked(named: Any):
    _, backbone = named
    assert backbone.latent_size(64) == (4, 8, 8) and backbone.vae_scale_factor == 8
    with pytest.raises(ValueError, match=r"backbone.resolution=72: .* a multiple of 16 pixels"):
        backbone.latent_size(72)


# --- tokens ---------------------------------------------------------------------------------------


def test_tokens_of_a_phrase_stand_in_each_stretch(sd3: Backbone, flux: Backbone):
    caption = "a red circle above a white ring"
    (own,) = sd3.text.token_indices(caption, ["red circle"])
    clip, long = own[:2], own[2:]
    assert clip == [2, 3] and long == [77 + 1, 77 + 2]
    names = sd3.text.token_names(caption)
    assert [names[i] for i in own] == ["red", "circle"] * 2
    assert names[0] == "BOS" and names[77] == "a" and names[-1] == "EOS"
    (own,) = flux.text.token_indices(caption, ["white ring"])
    assert own == [5, 6] and flux.text.token_names(caption)[5:] == ["white", "ring", "EOS"]


def test_a_phrase_that_clip_cuts_off_has_its_tokens_of_t5(sd3: Backbone):
    caption = "ring " * 80 + "a red circle"
    (own,) = sd3.text.token_indices(caption, ["red circle"])
    assert own == [77 + 81, 77 + 82] and not sd3.text.find_cut([caption])
    longer = "ring " * 300 + "a red circle"
    with pytest.raises(CutOffError, match="red circle.*is cut off"):
        sd3.text.token_indices(longer, ["red circle"])
    kept, indices = sd3.text.locate_phrases([longer, caption], [[], []])
    assert kept == [[], []] and sd3.text.find_cut([caption, longer]) == [longer]


def test_token_types_tell_words_from_padding(sd3: Backbone, flux: Backbone):
    text = sd3.text.encode(["a ring", ""])
    types = sd3.text.token_types(text.hidden)
    assert types[0, :5].tolist() == [BOS, WORD, WORD, EOS, PADDING]
    assert types[0, 77:81].tolist() == [WORD, WORD, EOS, PADDING]
    assert types[1, :3].tolist() == [BOS, EOS, PADDING] and types[1, 77] == EOS
    types = flux.text.token_types(flux.text.encode(["a ring"]).hidden)
    assert types[0, :4].tolist() == [WORD, WORD, EOS, PADDING]


def test_cached_texts_are_those_that_are_encoded(named: Any, tmp_path: Path):
    _, backbone = named
    encoded = backbone.text.encode(PROMPTS)
    types = backbone.text.token_types(encoded.hidden).clone()
    entry = backbone.text.encode_for_cache(PROMPTS)
    caches = getattr(backbone.text.token_types, "caches", [backbone.text.token_types])
    for cache in caches:
        cache.past.clear()
        cache.latest = None
    again = backbone.text._from_cache(entry)
    assert torch.equal(again.hidden, encoded.hidden) and torch.equal(again.pooled, encoded.pooled)
    assert torch.equal(backbone.text.token_types(again.hidden), types)
    assert backbone.text.fingerprint()


def test_without_t5_zeros_stand_in_its_place(tmp_path: Path):
    pipeline = build_joint_pipeline("sd3", tmp_path)
    pipeline.text_encoder_3 = pipeline.tokenizer_3 = None
    backbone = Backbone(pipeline, "sd3")
    hidden, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, None)
    text = backbone.text.encode(PROMPTS)
    assert torch.equal(text.hidden, hidden) and torch.equal(text.pooled, pooled)
    assert backbone.text.token_indices(PROMPTS[0], ["red circle"]) == [[2, 3]]
    assert bool((backbone.text.token_types(text.hidden)[:, 77:] == PADDING).all())


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("transformer", "in_channels", 8, "in_channels=8.* 4"),
        ("vae", "shift_factor", None, "shift_factor=None.*a number"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, part: str, key: str, value: Any, said: str
):
    pipeline = build_joint_pipeline("sd3", tmp_path)
    getattr(pipeline, part).register_to_config(**{key: value})
    with pytest.raises(ValueError, match=said) as caught:
        Backbone(pipeline, "mine")
    assert "\n" not in str(caught.value)


def test_configs_alone_say_what_the_backbone_is(named: Any, tmp_path: Path):
    from lightning_modules.backbone.configs import read_configs

    name, backbone = named
    backbone.pipeline.save_pretrained(tmp_path / name)
    known = read_configs(str(tmp_path / name))
    assert known is not None and type(known.family) is type(backbone.family)
    assert known.latent_size(64) == (4, 8, 8) and known.schedule.prediction_type.startswith("flow")
    loaded = Backbone.load(str(tmp_path / name))
    assert loaded.text.length == backbone.text.length
    assert joint_config(name)["scheduler"]["shift"] == loaded.scheduler.config.shift
