"""How a training step of any method runs:

    prepare        batch -> Step: latents, timesteps, noised latents, target, text
    run_denoiser   the forward pass -> ``step.prediction``, and ``step.maps`` if a method reads any
    losses         Step -> {name: Term(value, weight)}
    training_step  the sum of weight * value; logs it as train/loss, each value as train/NAME

A method overrides the first three, each of which hands on one and the same `Step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning as L
import torch
from torch import Tensor, nn

from conf.describe import show_count
from datamodules.batch import Batch, Phrase
from datamodules.loading import ranks
from lightning_modules.attention.capture import CapturedMaps
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.text import TextCondition
from lightning_modules.methods.mask_targets import TokenMasks
from lightning_modules.methods.optimizers import Group, build_optimizer, lr_multiplier
from lightning_modules.methods.timestep_sampling import draw_levels
from lightning_modules.training import distributed
from losses.denoising import denoising_loss

if TYPE_CHECKING:
    from conf.schema import Trainer as TrainerConfig
    from conf.seeds import Seeds
    from lightning_modules.methods.objective_inputs import MapReading

POSTERIOR = 10  # First stream of random numbers, one for each stream of noise

__all__ = ["Group", "Step", "StepDraws", "Term", "TrainingStep", "weighted_sum"]


class Term(NamedTuple):
    """One part of the loss, a scalar; one that is not ``logged`` only carries a gradient."""

    value: Tensor
    weight: float = 1.0
    logged: bool = True


def weighted_sum(terms: Mapping[str, Term]) -> Tensor:
    """The sum of weight * value, in the order of the terms. Raises ValueError without a term."""
    if not terms:
        raise ValueError("a training step without a loss: expected at least one term")
    first, *others = (term.weight * term.value for term in terms.values())
    return sum(others, first)


@dataclass(frozen=True)
class StepDraws:
    """The random numbers of one training step, which follow from (seed, number of the step) alone:
    methods with the same seed see the same noise. What of a sample is shown is drawn by
    ``data_seed`` in place of ``seed``, where one is given.

    On several processes they are drawn for the samples of all, of which each takes its own: losses
    and logged values are those of one process with the global batch.
    """

    seed: int
    number: int
    rank_and_world: tuple[int, int] = (0, 1)
    data_seed: int | None = None

    def generator(self, stream: int) -> torch.Generator:
        """Of timesteps and noise. The same in all processes; each ``stream`` is independent of the
        others."""
        return self._generator(self.seed, stream)

    def data_generator(self, stream: int) -> torch.Generator:
        """As `generator`, of choices of what a sample shows: the object that is named, the masks
        that are left out."""
        return self._generator(self.seed if self.data_seed is None else self.data_seed, stream)

    def _generator(self, seed: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(
            (seed * 1_000_003 + self.number) * 1009 + stream * 10**15
        )

    def local_shard(self, draw: Callable[[int], Tensor], count: int) -> Tensor:
        """What ``draw`` gives for the ``count`` samples of each process, and of it this process's
        rows, [count, ...]."""
        rank, world = self.rank_and_world
        return draw(count * world)[rank * count : (rank + 1) * count]

    def normal(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Normal numbers [count, *shape] of this process's samples, float32 on the CPU."""
        return self.local_shard(lambda n: torch.randn(n, *shape, generator=generator), count)

    def uniform(self, count: int, generator: torch.Generator) -> Tensor:
        """Numbers [count] in [0, 1) of this process's samples."""
        return self.local_shard(lambda n: torch.rand(n, generator=generator), count)

    def all_gather_int(self, number: int) -> list[int]:
        """``number`` of each process in this step; all of them have to ask."""
        return distributed.all_gather_int(number) if self.rank_and_world[1] > 1 else [number]

    def ddp_reweight(self, mean: Tensor, counts: Sequence[int]) -> Tensor:
        """A mean over this process's of ``counts`` samples -> a value whose mean over processes is
        the mean over all of these samples."""
        rank, world = self.rank_and_world
        return mean * (counts[rank] * world / max(sum(counts), 1))


@dataclass
class Step:
    """What is known of one training step of B samples; each stage adds to it."""

    batch: Batch
    draws: StepDraws
    latents: Tensor  # [B, C, h, w]
    timesteps: Tensor  # [B]
    noised: Tensor  # [B, C, h, w]
    target: Tensor  # [B, C, h, w]: the noise, or v
    text: TextCondition

    # What the forward pass gives
    prediction: Tensor = field(init=False)  # [B, C, h, w]
    maps: CapturedMaps | None = None  # Attention maps of the phrases
    readings: list[MapReading] = field(default_factory=list)  # What objectives look at, by level

    # Phrases of the captions, up to n in a sample, and where their objects are
    phrases: list[list[Phrase]] = field(default_factory=list)
    token_indices: list[list[list[int]]] = field(default_factory=list)
    masks: Tensor = field(init=False)  # [B, n, H, W] in [0, 1]
    present: Tensor = field(init=False)  # [B, n]: whether a sample has that many

    # Mask tokens
    token_masks: TokenMasks = field(init=False)


class TrainingStep(L.LightningModule):
    """The training of the parameters in ``adapter``; the frozen ``backbone`` is no submodule, so
    that it is neither optimised nor checkpointed."""

    backbone: Backbone
    recipe: TrainerConfig
    resolution: int
    seeds: Seeds
    adapter: nn.Module
    # Whether a step may leave trained parameters without a gradient
    find_unused_parameters = False
    # Whether latents are drawn from the autoencoder's posterior, or its mode
    samples_posterior = False

    def on_fit_start(self) -> None:
        """Raises RuntimeError when frozen weights would be trained, or nothing."""
        self.backbone.to(self.device)
        own = set(self.parameters())  # Some methods put theirs into the backbone's layers
        models = [self.backbone.denoiser, self.backbone.vae, *self.backbone.text.encoders]
        frozen = [p for model in models for p in model.parameters() if p not in own]
        thawed = sum(p.requires_grad for p in frozen)
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        if thawed or not trained:
            raise RuntimeError(
                f"{show_count(thawed, 'tensor')} of the backbone and "
                f"{show_count(trained, 'parameter')} of the "
                "adapter would "
                "be trained: expected 0 and some"
            )

    def log(self, *args: Any, **kwargs: Any) -> None:
        """As Lightning's; the mean over all processes, which all have to log it."""
        super().log(*args, **{**kwargs, "sync_dist": True})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.log_terms(self.compute_terms(batch, self.step_draws()))
        self.log("train/loss", loss.detach())
        return loss

    def step_draws(self) -> StepDraws:
        """The random numbers of the step that the Trainer is at."""
        if self._trainer is None:
            return self.draws_of(0)
        return self.draws_of(self.trainer.fit_loop.total_batch_idx, ranks())

    def draws_of(self, number: int, rank_and_world: tuple[int, int] = (0, 1)) -> StepDraws:
        """The random numbers of the step ``number``."""
        return StepDraws(self.seeds.timestep, number, rank_and_world, self.seeds.data)

    def log_terms(self, terms: Mapping[str, Term]) -> Tensor:
        """The sum of the terms; each is logged."""
        for name, term in terms.items():
            if term.logged:
                self.log(f"train/{name}", term.value.detach())
        return weighted_sum(terms)

    def compute_terms(self, batch: Batch, draws: StepDraws) -> dict[str, Term]:
        """All stages but the sum."""
        step = self.prepare(batch, draws)
        self.run_denoiser(step)
        return self.losses(step)

    # --- stages ----------------------------------------------------------------------------------

    def prepare(self, batch: Batch, draws: StepDraws) -> Step:
        """What the step knows before the forward pass."""
        return self.add_noise(batch, draws)

    def add_noise(self, batch: Batch, draws: StepDraws, stream: int = 0) -> Step:
        """The batch's images, or their latents, with the noise and timesteps of ``stream``, and its
        captions encoded."""
        latents = self.latents(batch, draws, stream)
        noise, timesteps = self.draw(latents, draws, stream)
        noised, target = self.backbone.schedule.add_noise(latents, noise, timesteps)
        return Step(batch, draws, latents, timesteps, noised, target, self._encode(batch))

    def latents(self, batch: Batch, draws: StepDraws, stream: int = 0) -> Tensor:
        """What noise is added to, [B, C, h, w]: of the batch's images or, where they are cached,
        its ``latents``."""
        if not self.samples_posterior:
            if batch.latents is not None:
                return batch.latents
            return self.backbone.autoencoder.encode(batch.images)
        posterior = batch.latents
        if posterior is None:
            posterior = self.backbone.autoencoder.encode_posterior(batch.images)
        mode, spread = posterior.chunk(2, dim=1)
        noise = draws.normal(len(mode), mode.shape[1:], draws.generator(POSTERIOR + stream))
        return mode + spread * noise.to(mode)

    def draw(self, latents: Tensor, draws: StepDraws, stream: int = 0) -> tuple[Tensor, Tensor]:
        """(noise like ``latents``, timesteps [B], drawn as ``trainer.timesteps`` says)."""
        generator = draws.generator(stream)
        noise = draws.normal(len(latents), latents.shape[1:], generator)
        timesteps = self.draw_timesteps(self.recipe.timesteps, len(latents), draws, generator)
        return noise.to(latents), timesteps.to(latents.device)

    def draw_timesteps(
        self, sampling: str, count: int, draws: StepDraws, generator: torch.Generator
    ) -> Tensor:
        """Timesteps [count] of this process's samples, by ``sampling``, one of
        `timestep_sampling.SAMPLINGS`."""
        schedule = self.backbone.schedule
        draw = partial(draw_levels, sampling, schedule.num_timesteps, generator)
        return schedule.timesteps_at(draws.local_shard(draw, count))

    def _encode(self, batch: Batch) -> TextCondition:
        """The encoded captions. A dropped one is what guidance takes for no prompt."""
        text = self.backbone.text.encode(batch.captions)
        dropped = torch.tensor([not caption for caption in batch.captions])
        if not dropped.any():
            return text
        dropped = dropped.to(text.hidden.device)
        return text.map(
            lambda part, empty: torch.where(dropped.view(-1, *[1] * (part.dim() - 1)), empty, part),
            self.backbone.text.encode_empty(len(batch)),
        )

    def run_denoiser(self, step: Step) -> None:
        """The forward pass, with what captures maps or adds tokens at work in it."""
        step.prediction = self.predict(step.noised, step.timesteps, step.text)

    def predict(self, noised: Tensor, timesteps: Tensor, text: TextCondition) -> Tensor:
        """The denoiser's prediction, [B, C, h, w]."""
        return self.backbone.predict(noised, timesteps, text, self.resolution)

    def losses(self, step: Step) -> dict[str, Term]:
        """The terms of the loss by name."""
        return {"denoising": Term(denoising_loss(step.prediction, step.target))}

    # --- optimiser -------------------------------------------------------------------------------

    def parameter_groups(self) -> list[Group]:
        """What is trained, and at which learning rate in which step."""
        recipe = self.recipe
        return [
            Group(
                list(self.adapter.parameters()),
                lambda step: recipe.lr * lr_multiplier(recipe, step),
            )
        ]

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_optimizer(self.parameter_groups(), self.recipe.weight_decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
