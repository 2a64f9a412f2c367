"""Latents drawn from the autoencoder's posterior, as released training codes do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conf import load as conf
from conf.schema import Run
from conf.seeds import Seeds
from datamodules.batch import Batch
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.training_step import StepDraws, TrainingStep
from lightning_modules.training import run as train


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_mode_and_spread_are_those_of_diffusers(sd1: Backbone):
    latents = sd1.autoencoder.encode_posterior(images())
    mode, spread = latents.chunk(2, dim=1)
    assert torch.equal(mode, sd1.autoencoder.encode(images()))
    posterior = sd1.vae.encode(images()).latent_dist
    drawn = posterior.sample(torch.Generator().manual_seed(1)) * sd1.vae.config.scaling_factor
    noise = torch.randn(mode.shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(mode + spread * noise, drawn, atol=1e-6) and float(spread.min()) > 0


def step_of(backbone: Backbone, samples: bool) -> TrainingStep:
    step = TrainingStep()
    step.__dict__["backbone"] = backbone
    step.samples_posterior, step.seeds, step.resolution = samples, Seeds.same(0), 64
    return step


def test_each_step_draws_its_own_and_processes_those_of_one(sd1: Backbone):
    step, posterior = step_of(sd1, True), sd1.autoencoder.encode_posterior(images(4))
    one = step.latents(Batch([0] * 4, [""] * 4, images=images(4)), StepDraws(0, 0))
    cached = Batch([0] * 4, [""] * 4, latents=posterior)
    assert torch.equal(step.latents(cached, StepDraws(0, 0)), one)
    parts = [
        step.latents(
            Batch([0] * 2, [""] * 2, latents=posterior[2 * rank :][:2]), StepDraws(0, 0, (rank, 2))
        )
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(parts), one)
    others = [step.latents(cached, StepDraws(0, 1)), step.latents(cached, StepDraws(0, 0), 1)]
    mode = step_of(sd1, False).latents(Batch([0] * 4, [""] * 4, images=images(4)), StepDraws(0, 0))
    assert not any(torch.equal(one, other) for other in [*others, mode])


@pytest.mark.parametrize("flip", [False, True])
def test_a_training_on_samples_is_the_same_from_the_cache(base: Run, tmp_path: Path, flip: bool):
    config = replace(base, output=str(tmp_path), evaluation=replace(base.evaluation, prompts=0))
    adapters = []
    for latents, cache in (("sample", "latents"), ("sample", "none"), ("mode", "latents")):
        settings = {"method.latents": latents, "data.cache": cache, "data.flip": flip}
        changed = conf.replace(config, settings | {"trainer.steps": 1})
        train.run(changed, tmp_path / f"{latents}-{cache}")
        folder = tmp_path / "adapters" / train.training_key(changed)
        adapters.append(
            torch.cat([t.flatten() for t in load_file(folder / "adapter.safetensors").values()])
        )
    assert torch.allclose(adapters[0], adapters[1], atol=1e-5)
    assert not torch.allclose(adapters[0], adapters[2], atol=1e-5)
    kinds = {path.name for path in (tmp_path / "cache" / "latents").iterdir()}
    assert len(kinds) == 2, "modes and posteriors are kept apart"
