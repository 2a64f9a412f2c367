"""The backbone against the stock pipelines and schedulers of diffusers."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.printed_commands import check_printed
from helpers.token_types import list_token_types

from datamodules.batch import Instance
from datamodules.phrases.link import link
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.backbone import autoencoder
from lightning_modules.backbone import backbone as module
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.quiet import quiet_loading
from lightning_modules.backbone.sampling import initial_noise, sample
from lightning_modules.backbone.text import TextCondition
from lightning_modules.embedded.pipeline import CONTEXT

PROMPTS = [
    "a red circle left of an orange square",
    "a white ring",
    "a blue cross and a cyan diamond",
]
SEEDS = [11, 12, 13]


def stock(pipeline: Any, guidance: float, steps: int = 3) -> torch.Tensor:
    """The same images as uint8 [N, 3, 64, 64] by the pipeline's own call."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=64,
        width=64,
        generator=generators,
        output_type="pt",
    ).images
    return (images * 255).round().to(torch.uint8)


def difference(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.slow
def test_loading_in_a_script_prints_nothing() -> None:
    """In a process of its own: libraries give their notes once."""
    script = "from lightning_modules.backbone import Backbone; Backbone.load('embedded')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_what_is_wrong_is_told_and_a_scripts_own_settings_stay(capsys: Any) -> None:
    from transformers.utils import logging as transformers

    logger = logging.getLogger("transformers")
    filters = [list(handler.filters) for handler in logger.handlers]
    transformers.enable_progress_bar()
    with quiet_loading():
        assert not transformers.is_progress_bar_enabled()
        handled = [h for h in logger.handlers if h.filter(logging.makeLogRecord({"msg": "lost"}))]
        assert handled == logger.handlers
        note = logging.makeLogRecord({"msg": "X requires torchvision (not installed); or else"})
        assert not any(handler.filter(note) for handler in logger.handlers)
    assert transformers.is_progress_bar_enabled()
    assert filters == [list(handler.filters) for handler in logger.handlers]


@pytest.fixture
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(request.param)


both = pytest.mark.parametrize("backbone", ["embedded", "sd1"], indirect=True)


@pytest.mark.parametrize(
    ("backbone", "guidance"),
    [("embedded", 4.0), ("sd1", 1.0), pytest.param("sd1", 4.0, marks=pytest.mark.slow)],
    indirect=["backbone"],
)
def test_sampling_equals_the_stock_pipeline(backbone: Backbone, guidance: float):
    images = sample(backbone, PROMPTS, SEEDS, 2, guidance, 64)
    assert images.dtype == torch.uint8 and images.shape == (3, 3, 64, 64)
    assert images.float().std() > 10, "flat images would agree with anything"
    assert difference(images, stock(backbone.pipeline, guidance, steps=2)) <= 1


def test_a_scheduler_that_scales_its_input_is_served_as_the_stock_pipeline_does(embedded: Backbone):
    from diffusers import EulerDiscreteScheduler

    # SDXL's own; its noise starts at a deviation of 14, and what the UNet sees is scaled down.
    embedded.pipeline.scheduler = EulerDiscreteScheduler.from_config(
        embedded.scheduler.config, timestep_spacing="leading", steps_offset=1
    )
    backbone = Backbone(embedded.pipeline, "euler")
    assert (
        difference(sample(backbone, PROMPTS, SEEDS, 3, 4.0, 64), stock(backbone.pipeline, 4.0)) <= 1
    )


def test_prompt_noise_guidance_and_resolution_each_matter(embedded: Backbone):
    prompts, seeds = [PROMPTS[0], PROMPTS[1], PROMPTS[0]], [SEEDS[0], SEEDS[0], SEEDS[1]]
    images = sample(embedded, prompts, seeds, 1, 9.0, 32)
    assert images.shape == (3, 3, 32, 32)
    assert difference(images[0], images[1]) > 1 and difference(images[0], images[2]) > 1
    assert difference(images, sample(embedded, prompts, seeds, 1, 1.0, 32)) > 1
    with pytest.raises(ValueError, match="3 prompts but 2 seeds"):
        sample(embedded, PROMPTS, SEEDS[:2], 1, 1.0, 64)


def test_batching_changes_no_image(embedded: Backbone):
    whole = sample(embedded, PROMPTS, SEEDS, 2, 3.0, 32)
    parts = sample(embedded, PROMPTS[::-1], SEEDS[::-1], 2, 3.0, 32, batch=2).flip(0)
    assert difference(whole, parts) <= 1


def test_noise_follows_the_seed_alone():
    noise = initial_noise([5, 6], (4, 8, 8))
    assert torch.equal(noise[1], initial_noise([6], (4, 8, 8))[0]) and not torch.equal(
        noise[0], noise[1]
    )
    assert torch.equal(
        noise[:1], torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    )


@both
def test_prompts_are_encoded_as_the_stock_pipeline_encodes_them(backbone: Backbone):
    mine, empty = backbone.text.encode(PROMPTS), backbone.text.encode_empty(3)
    if len(backbone.text.encoders) == 2:
        hidden, negative, pooled, negative_pooled = backbone.pipeline.encode_prompt(PROMPTS)
        assert torch.allclose(mine.pooled, pooled, atol=1e-6) and torch.equal(
            empty.pooled, negative_pooled
        )
    else:
        hidden, negative = backbone.pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
        assert mine.pooled is None and empty.pooled is None
    assert torch.allclose(mine.hidden, hidden, atol=1e-5) and torch.allclose(
        empty.hidden, negative, atol=1e-5
    )


# --- token types --------------------------------------------------------------------------------

UNKNOWN = [BOS] + [WORD] * (CONTEXT - 1)


def types_of(backbone: Backbone, prompts: list[str]) -> torch.Tensor:
    return list_token_types(backbone.text.tokenizers[0], prompts)


@both
def test_token_types_of_encoded_prompts_are_remembered(backbone: Backbone):
    prompts = [*PROMPTS, "", "ring " * 90, PROMPTS[0]]
    kinds = backbone.text.token_types(backbone.text.encode(prompts).hidden)
    expected = types_of(backbone, prompts)
    assert kinds.dtype == torch.uint8 and torch.equal(kinds, expected)
    assert (
        set(expected.flatten().tolist()) == {BOS, WORD, EOS, PADDING} and PADDING not in expected[4]
    )
    if backbone.text.tokenizers[0].pad_token_id == backbone.text.tokenizers[0].eos_token_id:
        ids = backbone.text.tokenize(prompts).input_ids
        assert int((ids[0] == backbone.text.tokenizers[0].eos_token_id).sum()) > 1, (
            "padding has the id of the end"
        )


@both
@pytest.mark.parametrize("guidance", [True, False])
def test_token_types_of_both_halves_of_a_text_that_the_stock_pipeline_encodes(
    backbone: Backbone, guidance: bool
):
    if len(backbone.text.encoders) == 2:
        hidden, negative, *_ = backbone.pipeline.encode_prompt(
            PROMPTS, do_classifier_free_guidance=guidance
        )
    else:
        hidden, negative = backbone.pipeline.encode_prompt(PROMPTS, "cpu", 1, guidance)
    expected = types_of(backbone, PROMPTS)
    assert torch.equal(backbone.text.token_types(hidden), expected)
    if guidance:
        # SDXL's zeros are no text: words behind BOS. Elsewhere the other half is the empty prompt.
        without = (
            torch.tensor([UNKNOWN] * 3)
            if len(backbone.text.encoders) == 2
            else types_of(backbone, [""] * 3)
        )
        assert torch.equal(
            backbone.text.token_types(torch.cat([negative, hidden])),
            torch.cat([without.to(torch.uint8), expected]),
        )


@both
def test_token_types_survive_copies_and_other_precisions_and_follow_each_row(backbone: Backbone):
    hidden, expected = backbone.text.encode(PROMPTS).hidden, types_of(backbone, PROMPTS)
    order = [2, 0, 0, 1]
    for text in (hidden.clone(), hidden.bfloat16(), hidden.double()):
        assert torch.equal(backbone.text.token_types(text), expected)
        assert torch.equal(backbone.text.token_types(text[order]), expected[order])
    assert torch.equal(backbone.text.token_types(hidden), backbone.text.token_types(hidden))


@both
def test_a_text_that_nobody_encoded_is_words_behind_bos(backbone: Backbone):
    hidden = backbone.text.encode(PROMPTS).hidden
    other = hidden.clone()
    other[1, -1] += 1
    kinds = backbone.text.token_types(other)
    assert kinds[1].tolist() == ([BOS] + [WORD] * (hidden.shape[1] - 1)) and torch.equal(
        kinds[::2], types_of(backbone, PROMPTS)[::2]
    )
    longer = torch.cat([hidden, hidden[:, -1:]], dim=1)
    assert set(backbone.text.token_types(longer)[:, 1:].flatten().tolist()) == {WORD}


def test_only_the_latest_texts_are_remembered_and_little_of_them(embedded: Backbone):
    first = embedded.text.encode(PROMPTS[:1]).hidden
    for _ in range(7):
        embedded.text.encode(PROMPTS[1:])
    assert torch.equal(embedded.text.token_types(first.clone()), types_of(embedded, PROMPTS[:1]))
    embedded.text.encode(PROMPTS[1:])
    assert embedded.text.token_types(first.clone()).tolist() == [UNKNOWN]
    assert all(
        len(states.untyped_storage()) <= states.numel() * 4
        for states, _ in embedded.text.token_types.past
    )


def test_padding_is_each_models_own_and_known_whatever_it_looks_like(tmp_path: Path):
    from helpers.architectures import build_pipeline

    backbone = Backbone(build_pipeline("sdxl", tmp_path, scale="tiny"), "sdxl")
    assert [tokenizer.pad_token for tokenizer in backbone.text.tokenizers] == ["<|endoftext|>", "!"]
    prompts = ["a red ring!", "", "ring " * 90]
    expected = types_of(backbone, prompts)
    assert torch.equal(backbone.text.token_types(backbone.text.encode(prompts).hidden), expected)
    hidden, *_ = backbone.pipeline.encode_prompt(prompts)
    assert torch.equal(backbone.text.token_types(hidden), expected)
    assert backbone.text.tokenize(["a ring"], which=1).input_ids[0, -1] == 0  # The id of "!"
    backbone.pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    empty, prompt = backbone.text.encode_empty(2).hidden[1], backbone.text.encode([""]).hidden[0]
    assert torch.equal(empty, prompt)


def test_text_conditions_join_and_split():
    a, b = (
        TextCondition(torch.zeros(2, 3, 4), torch.zeros(2, 5)),
        TextCondition(torch.ones(1, 3, 4), torch.ones(1, 5)),
    )
    joined = a + b
    assert (
        joined.hidden.shape == (3, 3, 4)
        and joined.pooled is not None
        and joined.pooled[:, 0].tolist() == [0, 0, 1]
    )
    assert joined[slice(2, 3)].hidden.flatten()[0] == 1
    assert (
        TextCondition(torch.zeros(1, 3, 4)) + TextCondition(torch.zeros(1, 3, 4))
    ).pooled is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@both
def test_noised_latents_and_targets_are_the_schedulers(backbone: Backbone, dtype: torch.dtype):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(backbone.scheduler.config)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(5, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 5, 250, 700, 999])
    noised, target = backbone.schedule.add_noise(latents.to(dtype), noise.to(dtype), timesteps)
    tolerance = 1e-6 if dtype == torch.float32 else 4e-3
    assert noised.dtype == target.dtype == dtype
    assert torch.allclose(
        noised.float(), scheduler.add_noise(latents, noise, timesteps), atol=tolerance
    )
    expected = (
        scheduler.get_velocity(latents, noise, timesteps)
        if backbone.schedule.prediction_type == "v_prediction"
        else noise
    )
    assert torch.allclose(target.float(), expected, atol=tolerance)


def test_the_first_step_keeps_its_noise_in_half_precision(embedded: Backbone):
    noised, _ = embedded.schedule.add_noise(
        torch.zeros(1, 4, 1, 1).half(), torch.ones(1, 4, 1, 1).half(), torch.tensor([0])
    )
    assert float(noised.flatten()[0]) == pytest.approx(0.00085**0.5, rel=1e-3)


def test_other_predictions_are_refused(embedded: Backbone):
    embedded.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="predicts 'sample': expected 'epsilon' or 'v_prediction'"):
        embedded.schedule.add_noise(
            torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1), torch.tensor([0])
        )


@both
def test_signal_to_noise_of_the_scaled_linear_schedule(backbone: Backbone):
    snr = backbone.schedule.snr(torch.tensor([5, 250, 999]))
    assert (
        snr.tolist() == pytest.approx([192.8128, 2.065532, 0.004681912], rel=1e-4)
        and snr.dtype == torch.float32
    )


def test_images_go_to_scaled_latents_and_back(embedded: Backbone, monkeypatch: pytest.MonkeyPatch):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = embedded.autoencoder.encode(images)
    assert latents.shape == (3, *embedded.latent_size()) == (3, 8, 16, 16)
    assert torch.allclose(
        latents, embedded.vae.encode(images).latent_dist.mean * embedded.vae.config.scaling_factor
    )
    monkeypatch.setattr(autoencoder, "_batch_size", lambda pixels: 2)
    decoded = embedded.autoencoder.decode(latents)
    assert torch.allclose(embedded.autoencoder.encode(images), latents, atol=1e-5)
    expected = embedded.vae.decode(latents / embedded.vae.config.scaling_factor).sample
    assert (
        decoded.dtype == torch.uint8
        and difference(decoded, ((expected / 2 + 0.5).clamp(0, 1) * 255).round()) <= 1
    )


@both
def test_everything_is_frozen(backbone: Backbone):
    modules = [backbone.unet, backbone.vae, *backbone.text.encoders]
    assert len(modules) == (4 if len(backbone.text.encoders) == 2 else 3)
    assert not any(p.requires_grad for m in modules for p in m.parameters()) and not any(
        m.training for m in modules
    )


def test_a_folder_is_loaded_in_the_dtype_asked_for_and_fingerprints_follow_what_they_name(
    embedded: Backbone, tiny_folder: Path
):
    before, texts = embedded.autoencoder.fingerprint(), embedded.text.fingerprint()
    loaded = Backbone.load(str(tiny_folder), "bfloat16")
    parts = (loaded, loaded.vae, *loaded.text.encoders)
    assert {part.dtype for part in parts} == {torch.bfloat16}
    assert loaded.device == torch.device("cpu") and loaded.schedule.num_timesteps == 1000
    assert loaded.autoencoder.fingerprint() != before, "rounded weights"
    assert Backbone.load(str(tiny_folder)).autoencoder.fingerprint() == before
    with torch.no_grad():
        embedded.unet.conv_in.weight += 1
    assert (embedded.autoencoder.fingerprint(), embedded.text.fingerprint()) == (before, texts)
    embedded.vae.register_to_config(scaling_factor=0.5)
    scaled = embedded.autoencoder.fingerprint()
    with torch.no_grad():
        embedded.vae.decoder.conv_out.bias[0] += 1e-3
    assert len({before, scaled, embedded.autoencoder.fingerprint()}) == 3
    assert embedded.text.fingerprint() == texts


@pytest.mark.parametrize("path", ["somebody/not-downloaded", "empty", "torn"])
def test_what_cannot_be_loaded_is_said_in_one_line(path: str, tmp_path: Path, tiny_folder: Path):
    if path == "empty":
        path = str(tmp_path)
    elif path == "torn":
        path = str(tmp_path / "torn")
        shutil.copytree(tiny_folder, path)
        weights = tmp_path / "torn" / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(b"half a file")
    with pytest.raises(FileNotFoundError, match="cannot be loaded") as caught:
        Backbone.load(path)
    assert f"backbone.path={path!r}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_embedded_backbone_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "shipped_folder", lambda path: tmp_path / path)
    with pytest.raises(FileNotFoundError, match=r"pretrain --target .*embedded_strong") as caught:
        Backbone.load("embedded_strong")
    check_printed(str(caught.value))


def test_an_autoencoder_that_overflows_in_half_precision_computes_in_full(embedded: Backbone):
    embedded.vae.register_to_config(force_upcast=True)
    embedded.pipeline.to(dtype=torch.float16)
    latents = embedded.autoencoder.encode(torch.zeros(1, 3, 64, 64))
    assert (
        embedded.vae.dtype == torch.float32
        and latents.dtype == torch.float16
        and latents.isfinite().all()
    )
    assert embedded.autoencoder.decode(latents).shape == (1, 3, 64, 64)
    # As stock diffusers expects it, which upcasts by itself
    assert embedded.restored_pipeline().vae.dtype == torch.float16
    embedded.vae.register_to_config(force_upcast=False)
    embedded.autoencoder.encode(torch.zeros(1, 3, 64, 64))
    assert embedded.vae.dtype == torch.float16


def test_phrases_beyond_the_encoder_are_left_out(embedded: Backbone):
    caption = "a red circle, a blue square, " + "a " * CONTEXT + "white ring"
    objects = (("red", "circle"), ("blue", "square"), ("white", "ring"))
    mask = torch.ones(4, 4, dtype=torch.bool)
    phrases = link(
        caption, [Instance(shape, mask, (0, 0, 4, 4), color) for color, shape in objects]
    )
    other = "a blue square"
    kept, positions = embedded.text.locate_phrases(
        [caption, "", other],
        [phrases, [], link(other, [Instance("square", mask, (0, 0, 4, 4), "blue")])],
    )
    assert [[p.text for p in found] for found in kept] == [
        ["red circle", "blue square"],
        [],
        ["blue square"],
    ]
    assert positions == [
        embedded.text.token_indices(caption, ["red circle", "blue square"]),
        [],
        [[2, 3]],
    ]
    assert embedded.text.locate_phrases([], []) == ([], [])
    with pytest.raises(ValueError, match="phrase .* is cut off"):
        embedded.text.token_indices(caption, ["white ring"])
