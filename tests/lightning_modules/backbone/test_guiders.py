"""Guiders: images beside a loop with diffusers' own classes, batches, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conf.guiders import GUIDERS, REFUSED
from conf.schema import Evaluation, Run
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.guiders import Guider
from lightning_modules.backbone.sampling import (
    initial_noise,
    prepare_scheduler,
    sample,
    sampling_as,
)
from lightning_modules.evaluation.images import image_facts
from lightning_modules.training.checks import check

PROMPTS, SEEDS = ["a red circle and a blue square", "a white ring"], [3, 4]
APG = {"eta": 0.0, "adaptive_projected_guidance_momentum": -0.5}
CASES: dict[str, dict[str, float]] = {
    name: {} for name, spec in GUIDERS.items() if not spec.weakening
}
CASES["apg"] = {**APG, "adaptive_projected_guidance_rescale": 2.5}
CASES["apg_mix"] = {"adaptive_projected_guidance_start_step": 1}
CASES["tangential"] = {"start": 0.3, "guidance_rescale": 0.5}


def evaluation(name: str, scale: float = 4.0, **options: float) -> Evaluation:
    return Evaluation(guider=name, guider_options=options, guidance=scale, precision="32-true")


def draw(backbone: Backbone, rows: slice = slice(None), batch: int = 2) -> Tensor:
    return sample(backbone, PROMPTS[rows], SEEDS[rows], 4, 4.0, 64, batch)


def draw_by_diffusers(backbone: Backbone, name: str, options: dict[str, float]) -> Tensor:
    """As its modular pipelines use a guider: the inputs of its passes, a pass each, then itself."""
    from diffusers import guiders

    guider = getattr(guiders, GUIDERS[name].kind)(guidance_scale=4.0, **options)
    scheduler = prepare_scheduler(backbone.scheduler, 4)
    latents = initial_noise(SEEDS, backbone.latent_size(64)) * scheduler.init_noise_sigma
    texts = backbone.text.encode(PROMPTS), backbone.text.encode_empty(2)
    with torch.no_grad():
        for number, t in enumerate(scheduler.timesteps):
            inputs = scheduler.scale_model_input(latents, t)
            guider.set_state(step=number, num_inference_steps=4, timestep=t)
            passes = guider.prepare_inputs({"text": texts})
            for state in passes:
                guider.prepare_models(backbone.denoiser)
                state.noise_pred = backbone.predict(inputs, t.expand(2), state.text, 64, 4.0)
                if name == "magnitude_aware":
                    state.noise_pred = state.noise_pred.flatten(2)
                guider.cleanup_models(backbone.denoiser)
            joined = guider(passes).pred.view_as(latents)
            latents = scheduler.step(joined, t, latents, return_dict=False)[0]
        return backbone.autoencoder.decode(latents)


@pytest.mark.parametrize("name", [*CASES])
def test_images_are_those_of_diffusers_guider(name: str, sd1: Backbone) -> None:
    plain = draw(sd1)
    with sampling_as(sd1, evaluation(name, **CASES[name])):
        images = draw(sd1)
        single = torch.cat([draw(sd1, slice(row, row + 1), 1) for row in range(2)])
    expected = draw_by_diffusers(sd1, name, CASES[name])
    assert (images.int() - expected.int()).abs().max() <= 1
    # A batch changes no image
    assert (images.int() - single.int()).abs().max() <= 1
    # What is drawn afterwards is drawn as before, bit for bit
    assert torch.equal(draw(sd1), plain) and sd1.guider == Guider()
    assert torch.equal(images, plain) == (name == "cfg")


def test_a_plain_guider_is_the_formula_bit_for_bit() -> None:
    halves = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    joined = Guider().start(2.7, 4)(halves[0], halves[1], torch.tensor(1))
    assert torch.equal(joined, halves[0] + 2.7 * (halves[1] - halves[0]))


def test_a_momentum_begins_with_each_batch(sd1: Backbone) -> None:
    with sampling_as(sd1, evaluation("apg", **CASES["apg"])):
        assert torch.equal(draw(sd1), draw(sd1))


# --- the house ------------------------------------------------------------------------------------


def config_of(guider: str, **given: Any) -> Run:
    config = Run()
    config.evaluation.guider = guider
    for key, value in given.items():
        setattr(config.evaluation, key, value)
    return config


@pytest.mark.parametrize("name", [*REFUSED])
def test_a_guider_that_cannot_be_honoured_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"guider={name} cannot be used: .*expected one of") as why:
        check(config_of(name))
    assert "\n" not in str(why.value)


def test_settings_that_guide_nothing_are_refused() -> None:
    check(config_of("apg", guider_options=APG))
    check(config_of("cfg", guidance=1.0))
    for config, message in (
        (config_of("apgg"), "guider=apgg is unknown; .*did you mean apg"),
        (config_of("cfg", guider_options={"eta": 0.0}), "has eta: 0 with evaluation.guider=cfg"),
        (config_of("apg", guider_options={"eta": float("nan")}), "has eta: nan"),
        (config_of("apg", guider_options={"start": 1.0}), "expected 0 <= start < 1"),
        (config_of("apg", guidance=1.0), "guidance=1: nothing is guided up to a scale of 1"),
    ):
        with pytest.raises(ValueError, match=message):
            check(config)


def test_images_depend_on_the_guider_and_older_ones_stay() -> None:
    plain = image_facts(config_of("cfg"), None)
    assert "guider" not in plain["sampling"]  # As before there were any
    for other in (config_of("apg"), config_of("cfg", guider_options={"start": 0.5})):
        assert image_facts(other, None)["sampling"] != plain["sampling"]
