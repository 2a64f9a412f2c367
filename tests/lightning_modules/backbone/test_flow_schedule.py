"""Flow matching: noise, target and shift as the training scripts of diffusers have them, from the
scheduler's own shares."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from helpers.unet_inputs import draw

from lightning_modules.backbone.sampling import check_scheduler, denoise, prepare_scheduler
from lightning_modules.backbone.schedules import FlowSchedule, NoiseSchedule, open_schedule
from lightning_modules.methods.timestep_sampling import draw_levels, levels_at
from losses.denoising import denoising_loss, min_snr_weight

FLUX = {"shift": 3.0, "use_dynamic_shifting": True}
SETTINGS = [{"shift": 3.0}, {"shift": 1.0}, FLUX]


def build(**settings: object) -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


@pytest.mark.parametrize("settings", SETTINGS)
def test_noise_target_and_loss_are_those_of_the_training_scripts(settings: dict):
    scheduler = build(**settings)
    schedule = open_schedule(scheduler)
    latents, noise, predicted = draw(0, 4, 3, 5, 5), draw(1, 4, 3, 5, 5), draw(2, 4, 3, 5, 5)
    torch.manual_seed(0)
    u = compute_density_for_timestep_sampling("logit_normal", 4, 0.0, 1.0)
    # As the scripts have it: indices into timesteps that fall, their sigmas looked up by them
    timesteps = scheduler.timesteps[(u * 1000).long()]
    sigmas = scheduler.sigmas[[int((scheduler.timesteps == t).nonzero()) for t in timesteps]]
    sigmas = sigmas.view(-1, 1, 1, 1)
    expected = (1.0 - sigmas) * latents + sigmas * noise
    own = schedule.timesteps_at(levels_at(u, schedule.num_timesteps))
    noised, target = schedule.add_noise(latents, noise, own)
    assert torch.equal(own, timesteps) and schedule.prediction_type == "flow_prediction"
    assert torch.allclose(noised, expected, rtol=0, atol=1e-6)
    assert torch.equal(target, noise - latents)
    loss = ((predicted - (noise - latents)) ** 2).reshape(4, -1).mean(1).mean()
    assert torch.allclose(denoising_loss(predicted, target), loss, rtol=1e-6)


def test_the_shift_is_applied_once_also_where_the_scheduler_has_drawn():
    scheduler = build(shift=3.0)
    scheduler.set_timesteps(4)
    schedule = FlowSchedule(scheduler)
    share = torch.tensor([1, 500, 1000]) / 1000
    shifted = 3 * share / (1 + 2 * share)
    told = schedule.timesteps_at(torch.tensor([0, 499, 999]))
    assert torch.allclose(told, 1000 * shifted, rtol=1e-6)
    assert float(told[-1]) == 1000 and 2.9 < float(told[0]) < 3.1, "shifted twice: 8.9"
    assert torch.allclose(schedule.snr(told), ((1 - shifted) / shifted) ** 2, rtol=1e-4, atol=1e-9)


def test_half_precision_keeps_the_shares():
    schedule = open_schedule(build(shift=3.0))
    latents, noise = draw(0, 1, 3, 5, 5), draw(1, 1, 3, 5, 5)
    told = schedule.timesteps_at(torch.tensor([2]))
    exact, _ = schedule.add_noise(latents, noise, told)
    half, _ = schedule.add_noise(latents.bfloat16(), noise.bfloat16(), told)
    assert torch.allclose(half.float(), exact, atol=0.02)


def test_diffusion_levels_are_its_timesteps():
    schedule = open_schedule(diffusers.DDIMScheduler())
    levels = torch.tensor([0, 999])
    assert type(schedule) is NoiseSchedule and torch.equal(schedule.timesteps_at(levels), levels)


def test_a_flow_is_drawn_as_the_scheduler_steps():
    scheduler = build(shift=3.0)
    mine = denoise(prepare_scheduler(scheduler, 4), [1, 2], (3, 4, 4), lambda x, t: x / 2)
    scheduler.set_timesteps(4)
    latents = torch.stack(
        [torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    )
    for t in scheduler.timesteps:
        latents = scheduler.step(latents / 2, t, latents, return_dict=False)[0]
    assert torch.equal(mine, latents)


@pytest.mark.parametrize(
    ("scheduler", "flow", "said"),
    [
        (build(), False, "not one of diffusion, but of flows"),
        (diffusers.DDIMScheduler(), True, "not the flow .* such as FlowMatchEuler"),
        (diffusers.FlowMatchHeunDiscreteScheduler(), True, "not the flow"),
        (build(invert_sigmas=True), True, "with invert_sigmas is not the flow"),
        (build(use_dynamic_shifting=True), True, "cannot sample in any number of steps"),
    ],
)
def test_schedulers_of_another_kind_are_refused(scheduler: object, flow: bool, said: str):
    with pytest.raises(ValueError, match=said) as caught:
        check_scheduler(scheduler, flow=flow)
    assert "\n" not in str(caught.value)


# --- which levels training sees -------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["logit_normal", "mode"])
def test_densities_are_those_of_diffusers(sampling: str):
    expected = compute_density_for_timestep_sampling(
        sampling, 64, 0.0, 1.0, 1.29, generator=torch.Generator().manual_seed(5)
    )
    levels = draw_levels(sampling, 1000, torch.Generator().manual_seed(5), 64)
    assert torch.equal(levels, 999 - (expected * 1000).long())
    many = draw_levels(sampling, 1000, torch.Generator().manual_seed(6), 40_000).float()
    low, high = (many < 100).float().mean(), (many > 899).float().mean()
    assert abs(float(many.mean()) - 499.5) < 6, "symmetric"
    # Of a standard normal number 1.4 % are beyond log 9 on either side; mode keeps its tails
    wanted = 0.014 if sampling == "logit_normal" else 0.055
    assert abs(float(low) - wanted) < 0.012 and abs(float(high) - wanted) < 0.012


def test_uniform_and_high_noise_draw_as_ever():
    for sampling, first in (("uniform", 0), ("high_noise", 500)):
        drawn = draw_levels(sampling, 1000, torch.Generator().manual_seed(3), 50)
        again = torch.randint(first, 1000, (50,), generator=torch.Generator().manual_seed(3))
        assert torch.equal(drawn, again)
    with pytest.raises(ValueError, match="sampling='cleaner' is unknown: expected one of uniform"):
        draw_levels("cleaner", 1000, torch.Generator(), 1)


def test_min_snr_of_a_velocity_is_that_of_the_clean_latents():
    share = torch.tensor([0.1, 0.5, 0.9])
    snr = ((1 - share) / share) ** 2
    clean = snr.clamp_max(5.0) * share**2  # An error of v is one of x over the share
    assert torch.allclose(min_snr_weight(snr, 5, "flow_prediction"), clean)
