"""The random numbers of a step: what several processes draw is what one draws for all of them."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler

from conf import load as conf
from lightning_modules.methods.optimizers import Group, build_optimizer, lr_multiplier
from lightning_modules.methods.training_step import StepDraws


def test_processes_draw_the_rows_of_the_global_batch():
    one, several = StepDraws(3, 7), [StepDraws(3, 7, (rank, 3)) for rank in range(3)]
    drawn = [draws.normal(2, (4,), draws.generator(0)) for draws in several]
    assert torch.equal(torch.cat(drawn), one.normal(6, (4,), one.generator(0)))
    drawn = [draws.uniform(2, draws.generator(1)) for draws in several]
    assert torch.equal(torch.cat(drawn), one.uniform(6, one.generator(1)))


def test_steps_seeds_and_streams_draw_apart():
    def drawn(seed: int, number: int, stream: int) -> torch.Tensor:
        draws = StepDraws(seed, number)
        return draws.uniform(8, draws.generator(stream))

    values = [drawn(3, 7, 0), drawn(3, 8, 0), drawn(4, 7, 0), drawn(3, 7, 1)]
    assert torch.equal(values[0], drawn(3, 7, 0))
    assert len({tuple(value.tolist()) for value in values}) == 4


def test_a_mean_over_processes_weighs_every_sample_alike():
    counts, means = [1, 3, 0], [torch.tensor(8.0), torch.tensor(2.0), torch.tensor(0.0)]
    weighted = [
        StepDraws(0, 0, (rank, 3)).ddp_reweight(mean, counts) for rank, mean in enumerate(means)
    ]
    assert torch.stack(weighted).mean() == (1 * 8 + 3 * 2) / 4


@pytest.mark.parametrize("preset", ["paper512", "paper1024"])
def test_the_paper_presets_have_the_rates_of_diffusers_schedule(preset: str):
    recipe = conf.load([f"trainer={preset}"]).trainer
    assert recipe.warmup == 1000
    recipe.steps, recipe.warmup = 40, 7
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    group = Group(parameters, lambda step: recipe.lr * lr_multiplier(recipe, step))
    ours, schedule = build_optimizer([group], 0.01)
    theirs = torch.optim.AdamW(parameters, lr=recipe.lr)
    wanted = get_scheduler("cosine", theirs, num_warmup_steps=7, num_training_steps=40)
    for _ in range(40):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        for optimizer, rates in ((ours, schedule), (theirs, wanted)):
            optimizer.step()
            rates.step()
