"""InitNO's initial noise: the search beside a plain loop with torch's Adam, on a model, in batches,
and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from conf import load as conf
from conf.method.attention_guidance import AttentionGuidance, InitialNoise
from conf.schema import Method, Run, Trainer
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import initial_noise, prepare_scheduler
from lightning_modules.methods.initial_noise import NoiseSearch
from lightning_modules.methods.latent_guidance import Seen
from lightning_modules.methods.registry import method_class
from lightning_modules.training.checks import check
from losses.objectives.initial_noise import noise_divergence
from losses.objectives.table import OBJECTIVES

SHAPE = (2, 3, 3)
PROMPTS = ["a red circle and a blue square", "a white ring", "a red ring left of a blue circle"]
NOISE = {"initno_response": 1.0, "initno_conflict": 1.0, "initno_clean": 1.0}
WANTED = {"initno_response": 0.2, "initno_conflict": 0.3}


# --- the search -----------------------------------------------------------------------------------


def toy_losses(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(response, conflict) of latents [B, C, h, w]: the conflict waits for the response."""
    flat = inputs.flatten(1)
    response = 0.15 + (flat[:, :6] - 1).square().mean(1) / 4
    conflict = flat[:, 6:12].square().mean(1) / 2
    return response, torch.where(response > 0.5, 0.0, conflict)


class ToyBatch:
    """As much of a `GuidedBatch` as the search asks for; the denoiser's input is 1.5 x the
    latents, which begin at a sigma of 2."""

    def __init__(self, count: int, **given: Any) -> None:
        self.settings = SimpleNamespace(noise=InitialNoise(NOISE, WANTED, **given))
        objectives = {name: OBJECTIVES[name] for name in WANTED}
        guidance = SimpleNamespace(noise_weights=NOISE)
        guidance.noise_reader = SimpleNamespace(objectives=objectives)
        self.plan = SimpleNamespace(guidance=guidance)
        self.words, self.failed = [None] * count, torch.zeros(count, dtype=torch.bool)
        self.text = SimpleNamespace(hidden=torch.zeros(()))
        self.broken: int | None = None

    def choose(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows, torch.arange(len(rows))

    def differentiate(self, reader: Any, weights: Any, inputs: Tensor, t: Any, rows: Tensor) -> Any:
        with torch.enable_grad():
            inputs = inputs[rows].detach().requires_grad_()
            response, conflict = toy_losses(inputs)
            losses = response + conflict
            (gradients,) = torch.autograd.grad(losses.sum(), inputs)
        gradients[rows == self.broken] = torch.nan
        values = {"initno_response": response.detach(), "initno_conflict": conflict.detach()}
        return Seen(values, losses.detach(), gradients, [])


SCHEDULER = SimpleNamespace(
    timesteps=torch.tensor([900]),
    init_noise_sigma=2.0,
    scale_model_input=lambda latents, timestep: latents * 0.75,
)


def plain_search(seed: int, settings: InitialNoise) -> tuple[Tensor, bool, list[float]]:
    """The release's loop for one image: (its noise, whether one was found, the losses of looks)."""
    generator = torch.Generator().manual_seed(seed)
    looks: list[float] = []

    def optimise(noise: Tensor, steps: int) -> tuple[Tensor, bool, float]:
        log_variance, mean = (torch.zeros(1, *SHAPE, requires_grad=True) for _ in range(2))
        adam = torch.optim.Adam([log_variance, mean], lr=settings.lr, eps=1e-3)
        found, score = False, 0.0
        for _ in range(steps):
            moved = noise * torch.exp(0.5 * log_variance) + mean
            response, conflict = toy_losses(moved * 1.5)
            looks.append((response + conflict).item())
            score = response.item() + conflict.item() + (conflict.item() <= 1e-6)
            if response.item() < 0.2 and conflict.item() < 0.3:
                found = True
                break
            adam.zero_grad()
            (response + conflict).sum().backward()
            adam.step()
            for _ in range(10_000):
                terms = 1 + log_variance - mean**2 - log_variance.exp()
                divergence = -0.5 * terms.mean()
                if divergence.item() <= settings.divergence:
                    break
                adam.zero_grad()
                divergence.backward()
                adam.step()
        return (noise * torch.exp(0.5 * log_variance) + mean).detach()[0], found, score

    tried = []
    for _ in range(settings.rounds):
        noise = torch.randn(SHAPE, generator=generator)[None]
        moved, found, score = optimise(noise, settings.steps)
        if found:
            return moved, True, looks
        tried.append((score, len(tried), moved, noise))
    _, _, moved, noise = min(tried, key=lambda one: one[:2])
    if settings.last_steps:
        moved, found, _ = optimise(noise, settings.last_steps)
    return moved, found, looks


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 0.05, "divergence": 0.15, "steps": 20, "rounds": 3, "last_steps": 5},
        {"lr": 0.05, "divergence": 0.02, "rounds": 2, "last_steps": 30},
        {"lr": 0.02, "steps": 3, "rounds": 3, "last_steps": 0},
    ],
    ids=["some are found", "held near", "as they came out"],
)
def test_the_search_is_a_plain_loop_with_adam_for_each_image(given: dict[str, Any]) -> None:
    seeds = [*range(8)]
    batch: Any = ToyBatch(len(seeds), **given)
    search = NoiseSearch(batch, SCHEDULER)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    first = torch.stack([torch.randn(SHAPE, generator=one) for one in generators])
    noise = search.find(first, generators)
    expected = [plain_search(seed, batch.settings.noise) for seed in seeds]
    for row, (own, found, looks) in enumerate(expected):
        traced = [float(known[row]) for _, known in search.trace if known[row].isfinite()]
        assert traced == pytest.approx(looks, abs=2e-4), row
        assert torch.allclose(noise[row], own, atol=2e-4) and bool(search.found[row]) == found
    if given.get("steps") == 20:  # Some at once, some late, some never
        noises = {max(n for n, known in search.trace if known[row].isfinite()) for row in seeds}
        assert 0 < int(search.found.sum()) < len(seeds) and len(noises) > 1


def test_golden_numbers_of_the_search() -> None:
    """Of `plain_search` with torch 2.13, seed 0."""
    settings = InitialNoise(NOISE, WANTED, lr=0.05, divergence=0.02, rounds=2, last_steps=30)
    batch: Any = ToyBatch(1)
    batch.settings.noise = settings
    generator = torch.Generator().manual_seed(0)
    search = NoiseSearch(batch, SCHEDULER)
    noise = search.find(torch.randn(1, *SHAPE, generator=generator), [generator])
    losses = [float(known[0]) for _, known in search.trace]
    assert losses[:3] == pytest.approx([1.227080, 1.137147, 1.053848], abs=1e-5)
    assert float(noise.square().mean()) == pytest.approx(0.424121, abs=1e-4)


def test_an_image_that_is_not_finite_is_given_up_and_the_others_go_on() -> None:
    batch: Any = ToyBatch(3, rounds=1, last_steps=0)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    first = torch.stack([torch.randn(SHAPE, generator=one) for one in generators])
    usual = NoiseSearch(batch, SCHEDULER).find(first, generators)
    broken: Any = ToyBatch(3, rounds=1, last_steps=0)
    broken.broken = 1
    noise = NoiseSearch(broken, SCHEDULER).find(first, generators)
    assert broken.failed.tolist() == [False, True, False] and noise.isfinite().all()
    assert torch.equal(noise[[0, 2]], usual[[0, 2]])


# --- a model --------------------------------------------------------------------------------------


def guided(backbone: Backbone, **given: Any) -> Any:
    noise = {"losses": dict(NOISE), "thresholds": WANTED, "rounds": 2, "steps": 2, "last_steps": 3}
    settings = AttentionGuidance(
        {"initno_response": 1.0}, stop=0.0, side=4, tokens="noun", noise=InitialNoise(**noise)
    )
    for key, value in given.items():
        setattr(settings.noise, key, value)
    method = Method("attention_guidance", attention_guidance=settings)
    return method_class("attention_guidance")(backbone, method, Trainer(), 64)


def search(method: Any, rows: list[int], sigma: bool = False) -> tuple[Any, Tensor, Tensor]:
    """(the search of a batch, the first noises, those that it found)."""
    backbone, (guide,) = method.backbone, method.guides
    prompts = [PROMPTS[row] for row in rows]
    mover = guide.plan(prompts, rows, None, 4)(slice(None), backbone.text.encode(prompts), 3.0)
    generators = [torch.Generator().manual_seed(seed) for seed in rows]
    shape = backbone.latent_size(64)
    first = torch.stack([torch.randn(shape, generator=one) for one in generators])
    assert torch.equal(first, initial_noise(rows, shape))
    noise = mover.begin(first, generators, prepare_scheduler(backbone.scheduler, 4))
    return mover.noise, first, noise


def test_a_noise_goes_down_its_losses_and_stays_normal(sd1: Backbone) -> None:
    method = guided(sd1, rounds=1, steps=8, last_steps=0, divergence=0.05)
    found, first, noise = search(method, [0, 2])
    losses = torch.stack([known for _, known in found.trace])
    assert len(losses) == 8 and (losses[-1] < losses[0]).all()
    assert not torch.equal(first, noise) and abs(float(noise.std()) - float(first.std())) < 0.1
    # The ring has no second object that it could be in conflict with
    alone, *_ = search(method, [1])
    assert alone.trace[0][1].isfinite().all()


def look(found: Any, first: Tensor, moments: Tensor) -> tuple[Tensor, float]:
    """(gradients by the moments, the loss there)."""
    gradients = found._look(first, moments, torch.ones(1, dtype=torch.bool), torch.zeros(1), 0)
    return gradients, float(found.trace[-1][1][0])


def test_gradients_are_those_of_mean_and_spread_at_any_sigma(sd1: Backbone) -> None:
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    for kind in (DDIMScheduler, EulerDiscreteScheduler):
        sd1.pipeline.scheduler = kind.from_config(sd1.scheduler.config)
        method = guided(sd1, losses={"initno_response": 1.0}, thresholds={"initno_response": 0.0})
        found, first, _ = search(method, [0])
        moments = torch.zeros(1, 2, *first.shape[1:])
        gradients, _ = look(found, first, moments)
        move = 0.05 * gradients / gradients.norm()
        ahead, behind = (look(found, first, moments + sign * move)[1] for sign in (1, -1))
        slope = (ahead - behind) / 0.1
        assert slope == pytest.approx(float(gradients.norm()), rel=0.05), kind
        method.remove()


@pytest.mark.parametrize("name", ["sd1", "pixart"])
def test_an_image_depends_on_its_own_prompt_and_seed_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    method = guided(request.getfixturevalue(name))
    seeds = [1, 2, 3]
    together = method.generate(PROMPTS, seeds, None, 2, 3.0, 3).int()
    singles = torch.cat(
        [method.generate(PROMPTS[i : i + 1], seeds[i : i + 1], None, 2, 3.0, 1) for i in range(3)]
    )
    assert (together - singles.int()).abs().max() <= 1
    with method.collect_stats(3.0) as stats:
        method.generate(PROMPTS, seeds, None, 2, 3.0, 3)
    assert [count for _, count in stats["guidance_noise"]] == [1, 1, 1]
    method.config.attention_guidance.noise.losses.clear()
    method.__dict__.pop("_guides")
    plain = method.generate(PROMPTS, seeds, None, 2, 3.0, 3).int()
    changed = (plain != together).flatten(1).any(1).tolist()
    assert changed[0] and changed[2]  # A noise of the ring may do as it is
    with method.collect_stats(3.0) as stats:
        method.generate(PROMPTS, seeds, None, 2, 3.0, 3)
    assert "guidance_noise" not in stats


# --- the house ------------------------------------------------------------------------------------


def test_the_preset_is_the_release() -> None:
    settings = conf.load(["method=initno"], schema=Run).method.attention_guidance
    noise = settings.noise
    assert (noise.lr, noise.steps, noise.rounds, noise.last_steps) == (0.01, 10, 5, 50)
    assert (noise.losses, noise.thresholds, noise.divergence) == (NOISE, WANTED, 1e-3)
    check(Run(method=Method("attention_guidance", attention_guidance=settings)))


def test_settings_that_judge_no_noise_are_refused() -> None:
    for given, message in (
        ({"losses": NOISE}, r"noise.thresholds=\{\}: expected .*initno_response: 0.2"),
        ({"losses": {"initno": 1.0}}, "no loss 'initno'"),
        ({"losses": {"a_star_retention": 1.0}}, "no loss 'a_star_retention'"),
        ({"losses": NOISE, "thresholds": {"iou": 0.2}}, "has iou: 0.2; expected a number for some"),
    ):
        settings = AttentionGuidance({"initno_response": 1.0}, noise=InitialNoise(**given))
        with pytest.raises(ValueError, match=message):
            check(Run(method=Method("attention_guidance", attention_guidance=settings)))


def test_divergence_is_that_of_normal_distributions() -> None:
    mean, log_variance = torch.full((1, 4), 0.3), torch.full((1, 4), 0.2)
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).mean()
    assert torch.allclose(noise_divergence(mean, log_variance), expected)
