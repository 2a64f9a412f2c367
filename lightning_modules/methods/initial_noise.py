"""The initial noise of images, optimised on the attention maps of the first step before they are
drawn (InitNO, `losses.objectives.initial_noise`).

A noise ε becomes μ + σ ε: Adam's steps on μ and log σ² go down the losses, each followed by steps
on the divergence from standard normal noise alone until it is small enough. Noises are drawn one
after another until one is below all thresholds; where none is, the best is optimised for longer. A
noise is judged before each step. Everything is by image: its noises come from its own generator,
and it is done when its own losses are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_modules.backbone.sampling import initial_spread, scale_input
from losses.objectives.initial_noise import move_noise, noise_divergence

if TYPE_CHECKING:
    from lightning_modules.methods.latent_guidance import GuidedBatch

__all__ = ["NoiseSearch"]

# Adam's; the last is the release's
BETAS, EPSILON = (0.9, 0.999), 1e-3
# Steps on the divergence alone after which an image goes on whatever it is
MOST_RETURNS = 10_000
# A conflict that is not looked at yet
UNSEEN = 1e-6


class NoiseSearch:
    """What is known of the noises of a ``batch``. ``found`` [B]: whether an image's noise met its
    thresholds; ``trace`` as the batch's, by number of the noise."""

    def __init__(self, batch: GuidedBatch, scheduler: Any) -> None:
        self.batch, self.scheduler = batch, scheduler
        self.settings = batch.settings.noise
        self.found = torch.zeros(len(batch.words), dtype=torch.bool)
        self.trace: list[tuple[int, Tensor]] = []
        self.timestep = scheduler.timesteps[0]

    def find(self, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The noise that each image begins with, of the dtype of ``noise`` [B, C, h, w], the first
        one. Images that have losses or gradients that are not finite are given up."""
        failed, settings = self.batch.failed, self.settings
        drawn, result, best = noise.float(), noise.float(), noise.float()
        lowest = torch.full((len(failed),), torch.inf)
        for number in range(settings.rounds):
            rows = ~(self.found | failed)
            if not rows.any():
                break
            if number:
                drawn = _draw_again(drawn, rows, generators)
            moved, scores = self._optimise(drawn, rows, settings.steps, number)
            better = rows & (self.found | (scores < lowest))
            result = _where(better, moved, result)
            best = _where(better, drawn, best)
            lowest = torch.where(better, scores, lowest)
        rows = ~(self.found | failed)
        if settings.last_steps and rows.any():
            moved, _ = self._optimise(best, rows, settings.last_steps, settings.rounds)
            result = _where(rows, moved, result)
        return result.to(noise.dtype)

    def _optimise(
        self, noise: Tensor, rows: Tensor, steps: int, number: int
    ) -> tuple[Tensor, Tensor]:
        """(the noise of the images ``rows`` [B] after at most that many steps, their scores [B]
        where they were last looked at, lower ones better); marks those that were found."""
        batch = self.batch
        moments = torch.zeros(len(noise), 2, *noise.shape[1:], device=noise.device)
        adam = _Adam(moments, self.settings.lr)
        scores = torch.full((len(noise),), torch.inf)
        active = rows.clone()
        for _ in range(steps):
            active &= ~(self.found | batch.failed)
            if not active.any():
                break
            gradients = self._look(noise, moments, active, scores, number)
            active &= ~(self.found | batch.failed)
            moments = adam.step(moments, gradients, active)
            moments = self._return(moments, adam, active)
        return _apply(noise, moments), scores

    def _look(
        self, noise: Tensor, moments: Tensor, active: Tensor, scores: Tensor, number: int
    ) -> Tensor:
        """Gradients by the ``moments`` [B, 2, C, h, w]; fills ``scores`` of the images ``active``
        and marks those that are found or given up."""
        batch, guidance = self.batch, self.batch.plan.guidance
        rows = active.nonzero().flatten()
        looked, picked = batch.choose(rows)
        like = batch.text.hidden
        latents = _apply(noise, moments).to(like.dtype) * initial_spread(self.scheduler)
        inputs = scale_input(self.scheduler, latents, self.timestep)
        one = torch.ones(1, 1, 1, 1, device=noise.device)
        scale = float(scale_input(self.scheduler, one, self.timestep))
        scale *= float(initial_spread(self.scheduler))
        seen = batch.differentiate(
            guidance.noise_reader, guidance.noise_weights, inputs, self.timestep, looked
        )
        values = {name: value.float().cpu()[picked] for name, value in seen.values.items()}
        thresholds = self.settings.thresholds
        met = torch.stack([values[name] < limit for name, limit in thresholds.items()]).all(0)
        scores[rows] = sum(self._score(name, values[name]) for name in thresholds)
        by_noise = torch.zeros_like(noise)
        by_noise[rows.to(noise.device)] = seen.gradients[picked.to(noise.device)] * scale
        losses = torch.full_like(scores, torch.nan)
        losses[rows] = seen.losses.float().cpu()[picked]
        self.trace.append((number, losses))
        finite = losses.isfinite() & by_noise.flatten(1).isfinite().all(1).cpu()
        batch.failed |= active & ~finite
        self.found[rows] = met & finite[rows]
        spread = (moments[:, 1] / 2).exp()
        return torch.stack([by_noise, by_noise * noise * spread / 2], 1)

    def _score(self, name: str, values: Tensor) -> Tensor:
        """As released: what waits for a response counts as 1 while it does."""
        objective = self.batch.plan.guidance.noise_reader.objectives[name]
        waits = "response_limit" in objective.settings
        return values + (values <= UNSEEN).float() if waits else values

    def _return(self, moments: Tensor, adam: _Adam, active: Tensor) -> Tensor:
        """Back to noise that is like enough to the standard normal one."""
        count = moments[0, 0].numel()
        for _ in range(MOST_RETURNS):
            mean, log_variance = moments.unbind(1)
            far = noise_divergence(mean, log_variance) > self.settings.divergence
            far = active & far.cpu()
            if not far.any():
                break
            gradients = torch.stack([mean, (log_variance.exp() - 1) / 2], 1) / count
            moments = adam.step(moments, gradients, far)
        return moments


class _Adam:
    """Adam with a number of steps for each row of ``like`` [B, ...]."""

    def __init__(self, like: Tensor, lr: float) -> None:
        self.lr = lr
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)
        self.count = torch.zeros(len(like), dtype=torch.float64)

    def step(self, values: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
        """``values`` after a step of the ``rows`` [B]."""
        if not rows.all():
            there = rows.nonzero().flatten().to(values.device)
            own = _Adam(values[there], self.lr)
            own.first, own.second = self.first[there], self.second[there]
            own.count = self.count[rows]
            moved = own.step(values[there], gradients[there], rows[rows])
            self.first, self.second = self.first.clone(), self.second.clone()
            self.first[there], self.second[there] = own.first, own.second
            self.count[rows] = own.count
            return values.index_copy(0, there, moved)
        self.count += 1
        self.first = self.first.lerp(gradients, 1 - BETAS[0])
        self.second = (self.second * BETAS[1]).addcmul(gradients, gradients, value=1 - BETAS[1])
        one, two = (
            (1 - beta**self.count).to(values)[(...,) + (None,) * (values.dim() - 1)]
            for beta in BETAS
        )
        return values - self.lr * (self.first / one) / ((self.second / two).sqrt() + EPSILON)


def _apply(noise: Tensor, moments: Tensor) -> Tensor:
    return move_noise(noise, moments[:, 0], moments[:, 1])


def _draw_again(noise: Tensor, rows: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """The next noise of the ``rows`` [B], from each one's generator."""
    drawn = noise.clone()
    for row in rows.nonzero().flatten().tolist():
        drawn[row] = torch.randn(noise.shape[1:], generator=generators[row]).to(noise)
    return drawn


def _where(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    there = rows.to(first.device)[(...,) + (None,) * (first.dim() - 1)]
    return torch.where(there, first, second)
