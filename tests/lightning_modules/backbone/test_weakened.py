"""Guidance away from a pass with weakened self-attention: PAG as diffusers' pipeline draws it, SEG
and SLG by their formulas, beside methods that act in the same layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoPipelineForText2Image, HeunDiscreteScheduler
from torch import Tensor

from conf.guiders import GUIDERS, check_guider
from conf.schema import Evaluation
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample, sampling_as
from lightning_modules.backbone.weakened import find_weakened, weakened

PROMPTS, SEEDS = ["a red circle and a blue square", "a white ring"], [3, 4]


def evaluation(name: str, **options: float) -> Evaluation:
    return Evaluation(guider=name, guider_options=options, guidance=4.0, precision="32-true")


def draw(backbone: Backbone, rows: slice = slice(None), batch: int = 2) -> Tensor:
    return sample(backbone, PROMPTS[rows], SEEDS[rows], 4, 4.0, 64, batch)


def test_pag_draws_the_images_of_diffusers_pipeline(sd1: Backbone) -> None:
    with sampling_as(sd1, evaluation("pag", perturbed_guidance_scale=3.0)):
        images = draw(sd1)
        single = torch.cat([draw(sd1, slice(row, row + 1), 1) for row in range(2)])
    assert (images.int() - single.int()).abs().max() <= 1
    stock = AutoPipelineForText2Image.from_pipe(
        sd1.pipeline, enable_pag=True, pag_applied_layers="mid", safety_checker=None
    )
    stock.set_progress_bar_config(disable=True)
    try:
        drawn = stock(
            PROMPTS,
            num_inference_steps=4,
            guidance_scale=4.0,
            pag_scale=3.0,
            height=64,
            width=64,
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            output_type="pt",
        ).images
    finally:
        sd1.denoiser.set_default_attn_processor()
    expected = (drawn * 255).round()
    assert (images.float() - expected).abs().max() <= 1
    assert not torch.equal(images, draw(sd1))


@pytest.mark.parametrize("name", [n for n, spec in GUIDERS.items() if spec.weakening])
def test_a_third_pass_leads_away_within_its_steps_and_leaves_nothing_behind(
    name: str, sd1: Backbone
) -> None:
    plain, (scale, start, stop, _) = draw(sd1), GUIDERS[name].weakening
    with sampling_as(sd1, evaluation(name, **{start[0]: 0.0, stop[0]: 1.0})):
        whole = draw(sd1)
    with sampling_as(sd1, evaluation(name, **{start[0]: 0.0, stop[0]: 0.5})):
        half = draw(sd1)
    with sampling_as(sd1, evaluation(name, **{scale[0]: 0.0})):
        nothing = draw(sd1)
    assert torch.equal(nothing, plain) and torch.equal(draw(sd1), plain)
    assert not torch.equal(whole, plain) and not torch.equal(half, whole)
    assert not torch.equal(half, plain)


def test_a_scheduler_that_looks_twice_in_a_step_is_led_away_in_each_look(
    sd1: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(denoiser: Any, guider: str, *given: Any) -> Any:
        seen.append(guider)
        return weakened(denoiser, guider, *given)

    monkeypatch.setattr(sampling, "weakened", look)
    heun = HeunDiscreteScheduler.from_config(sd1.scheduler.config)
    monkeypatch.setattr(sd1.pipeline, "scheduler", heun)
    with sampling_as(sd1, evaluation("pag")):
        draw(sd1)
    assert seen == ["pag"] * 7  # 4 steps, of which the last has one look


def run(backbone: Backbone, latents: Tensor) -> Tensor:
    text = backbone.text.encode(PROMPTS)
    return backbone.predict(latents, torch.tensor([500, 500]), text, 64)


@pytest.fixture
def latents(sd1: Backbone) -> Tensor:
    shape = sd1.latent_size(64)
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_queries_are_blurred_over_the_plane(sd1: Backbone, latents: Tensor) -> None:
    name = find_weakened(sd1.denoiser, "seg")[0].name
    seen: dict[str, Tensor] = {}
    layer = sd1.denoiser.get_submodule(name).to_q
    handle = layer.register_forward_hook(lambda m, a, out: seen.update(sharp=out))
    with weakened(sd1.denoiser, "seg", latents.shape[2:], 0.5):
        after = layer.register_forward_hook(lambda m, a, out: seen.update(blurred=out))
        run(sd1, latents)
        after.remove()
    handle.remove()
    sharp = seen["sharp"]
    side = round(sharp.shape[1] ** 0.5)
    place = torch.tensor([-1.0, 0.0, 1.0])
    weight = (-0.5 * (place / 0.5) ** 2).exp()
    weight = weight / weight.sum()
    plane = sharp.transpose(1, 2).unflatten(2, (side, side))
    padded = F.pad(plane, (1, 1, 1, 1), mode="reflect")
    kernel = (weight[:, None] * weight[None]).expand(plane.shape[1], 1, 3, 3)
    expected = F.conv2d(padded, kernel, groups=plane.shape[1]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen["blurred"], expected)


@torch.no_grad()
def test_blocks_are_left_out(sd1: Backbone, latents: Tensor) -> None:
    """As if the mid block had no transformer block."""
    with weakened(sd1.denoiser, "slg", latents.shape[2:]):
        found = run(sd1, latents)
    block = sd1.denoiser.mid_block.attentions[0].transformer_blocks[0]
    handle = block.register_forward_hook(lambda module, args, output: args[0])
    expected = run(sd1, latents)
    handle.remove()
    assert torch.equal(found, expected) and not torch.equal(found, run(sd1, latents))


@torch.no_grad()
def test_maps_are_not_read_in_the_third_pass(sd1: Backbone, latents: Tensor) -> None:
    cross = [site for site in sd1.sites(64) if site.kind == "cross"]
    capture = Capture(cross, [[[1]], [[1]]])
    with capture.attached(sd1.denoiser):
        run(sd1, latents)
        before = {name: maps.clone() for name, maps in capture.maps.by_site.items()}
        with weakened(sd1.denoiser, "pag", latents.shape[2:]):
            run(sd1, latents)
    assert before.keys() == capture.maps.by_site.keys() and before
    assert all(torch.equal(capture.maps.by_site[name], maps) for name, maps in before.items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pag", {"start": 0.1}, "has start: 0.1"),
        ("pag", {"perturbed_guidance_stop": 2.0}, "perturbed_guidance_stop <= 1"),
        ("seg", {"seg_blur_sigma": 0.0}, "seg_blur_sigma: 0; expected a number above 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_guider(evaluation(name, **options))


def test_a_model_without_middle_self_attention_is_refused() -> None:
    from types import SimpleNamespace

    model = SimpleNamespace(
        config=SimpleNamespace(sample_size=8, block_out_channels=(4, 8)), attn_processors={}
    )
    with pytest.raises(ValueError, match="guider=pag: SimpleNamespace has no self-attention"):
        find_weakened(model, "pag")
