"""Latents that move, while images are drawn, down the gradient of losses on the attention maps of
their prompts' objects.

    plan = LatentGuidance(method, settings, objectives).plan(prompts, seeds, objects, steps)
    sample(..., steering=[plan])

A move takes one forward pass of the conditional half, which ends behind the last map that is read.
Everything is by image: its losses, its thresholds, when it is done and when it is given up; an
image that was given up is not moved any more, and is drawn without guidance in the end.

Moves are made at the denoiser's input, whose scale is the same whatever the scheduler: a scheduler
of large sigmas has its latents scaled there and back, so that a step size means the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from conf.describe import show_count
from datamodules.batch import Phrase
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.attention.hooks import has_hooks
from lightning_modules.backbone.sampling import scale_input
from lightning_modules.methods.guidance_steps import StepPlan, plan_steps
from lightning_modules.methods.initial_noise import NoiseSearch
from lightning_modules.methods.objective_inputs import (
    EarlierMaps,
    ObjectiveReader,
    PromptWords,
    locate_words,
)

if TYPE_CHECKING:
    from lightning_modules.backbone.text import TextCondition
    from lightning_modules.methods.base import Method
    from lightning_modules.methods.steering import ImageStats
    from losses.objectives.inputs import Objective

__all__ = ["GuidancePlan", "LatentGuidance", "Seen"]

# Gradients of float16 are taken of so many times the loss: below 6e-8 they would vanish
HALF_SCALE = 2.0**10
# InitNO's release
NOISE_RESPONSE_LIMIT = 0.5
log = logging.getLogger(__name__)


class ImageOutcome(NamedTuple):
    """What became of one image: whether it was given up, how often its latent moved, the loss
    before the last of these moves, and whether its initial noise met its thresholds (None: it was
    not optimised)."""

    failed: bool
    moves: int
    loss: float
    noise: bool | None = None


class Seen(NamedTuple):
    """What one forward pass says of n images: each objective's losses and their weighted sum [n],
    its gradients by the denoiser's input, float32 [n, C, h, w], and the maps (see
    `objective_inputs`)."""

    values: Mapping[str, Tensor]
    losses: Tensor
    gradients: Tensor
    maps: Sequence[EarlierMaps]


class LatentGuidance:
    """Guidance of what ``method`` draws by the ``objectives`` that ``settings`` weigh. ``name`` is
    what messages call it; ``fewest`` objects of a prompt are needed.

    ``done`` has what was done to each image, in the order in which they are drawn, while somebody
    collects it.
    """

    def __init__(
        self,
        method: Method,
        settings: Any,
        objectives: Mapping[str, Objective],
        fewest: int = 1,
        name: str = "guidance",
    ) -> None:
        self.method, self.settings, self.name = method, settings, name
        self.fewest = fewest
        self.weights = {name: weight for name, weight in settings.losses.items() if weight}
        self.reader = self._read(objectives, self.weights)
        self.noise_weights = {n: weight for n, weight in settings.noise.losses.items() if weight}
        # InitNO's conflict waits, in the noise, until all objects respond
        self.noise_reader = self._read(
            objectives, self.noise_weights, response_limit=NOISE_RESPONSE_LIMIT
        )
        self.done: list[ImageOutcome] | None = None

    def _read(
        self, objectives: Mapping[str, Objective], weights: Mapping[str, float], **options: float
    ) -> ObjectiveReader:
        settings = self.settings
        return ObjectiveReader(
            self.method.backbone,
            self.method.resolution,
            {name: objectives[name] for name in weights},
            settings.side,
            settings.heads,
            {"size": settings.kernel, "sigma": settings.sigma, **options},
        )

    def plan(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        objects: Sequence[Sequence[Phrase | str | tuple[int, int]]] | None,
        steps: int,
        masks: Sequence[Sequence[Tensor]] | None = None,
    ) -> GuidancePlan:
        """How these images are steered in ``steps`` steps; ``masks`` [H, W] say where the
        ``objects`` should be. Raises ValueError as `locate_words`, before anything is drawn."""
        backbone, tokens = self.method.backbone, self.settings.tokens
        fewest = self.fewest if masks is None else 0
        words = locate_words(backbone, prompts, objects, tokens, fewest)
        for one, own in zip(words, masks or (), strict=False):
            one.masks = list(own)
        return GuidancePlan(self, words, list(seeds), plan_steps(self.settings, steps))

    @contextmanager
    def passing(self) -> Iterator[None]:
        """What holds during a forward pass for the gradient: nothing of it is measured, no weight
        gets a gradient, and blocks are run again where the settings say so."""
        denoiser = self.method.backbone.denoiser
        trained = [p for p in self.method.adapter.parameters() if p.requires_grad]
        checkpoints = self.settings.gradient_checkpointing
        for parameter in trained:
            parameter.requires_grad_(False)
        if checkpoints:
            denoiser.enable_gradient_checkpointing()
        try:
            with torch.enable_grad(), self.method.unmeasured():
                yield
        finally:
            if checkpoints:
                denoiser.disable_gradient_checkpointing()
            for parameter in trained:
                parameter.requires_grad_(True)

    @contextmanager
    def collecting(self, stats: ImageStats) -> Iterator[None]:
        """Fills ``stats`` with what is done to the images of the block, as `Method.collect_stats`
        gives it."""
        done = self.done = []
        try:
            yield
        finally:
            self.done = None
        stats["guidance_fallback"] = [(float(image.failed), 1) for image in done]
        stats["guidance_moves"] = [(float(image.moves), 1) for image in done]
        losses = [image.loss for image in done]
        stats["guidance_loss"] = [(loss, 1) if math.isfinite(loss) else (0, 0) for loss in losses]
        if self.noise_weights:
            stats["guidance_noise"] = [
                (0, 0) if image.noise is None else (float(image.noise), 1) for image in done
            ]

    def reorder(self, rows: Sequence[int]) -> None:
        """Says of which ``rows`` the latest images were, in the order in which they were drawn."""
        if self.done is not None:
            latest = self.done[-len(rows) :]
            ordered = sorted(zip(rows, latest, strict=True), key=lambda pair: pair[0])
            self.done[-len(rows) :] = [image for _, image in ordered]


class GuidancePlan:
    """How some images are steered: by the ``words`` of each one's prompt, in ``steps``."""

    def __init__(
        self,
        guidance: LatentGuidance,
        words: list[PromptWords],
        seeds: list[int],
        steps: list[StepPlan],
    ) -> None:
        self.guidance, self.words, self.seeds, self.steps = guidance, words, seeds, steps

    def __call__(self, rows: slice, text: TextCondition, guidance: float) -> GuidedBatch:
        """A `sampling.Steering`."""
        return GuidedBatch(self, self.words[rows], self.seeds[rows], text, guidance)


class GuidedBatch:
    """The images of one batch (`sampling.Mover`).

    ``trace`` has, for each time that losses were computed, the number of the sampler's step and the
    losses [B], NaN for images that were not looked at.
    """

    def __init__(
        self,
        plan: GuidancePlan,
        words: list[PromptWords],
        seeds: list[int],
        text: TextCondition,
        guidance: float,
    ) -> None:
        self.plan, self.settings = plan, plan.guidance.settings
        self.words, self.text, self.guidance = words, text, guidance
        self.failed = torch.zeros(len(words), dtype=torch.bool)
        self.moves = torch.zeros(len(words), dtype=torch.long)
        # The maps of the guided step before, by image
        self.earlier: list[EarlierMaps] = [{} for _ in words]
        self.trace: list[tuple[int, Tensor]] = []
        self.noise: NoiseSearch | None = None
        # Of the random direction; another stream than that of the noise
        self.generators = [torch.Generator().manual_seed(seed ^ 0x5EED_D13C) for seed in seeds]

    def begin(self, noise: Tensor, generators: Sequence[torch.Generator], scheduler: Any) -> Tensor:
        if not self.plan.guidance.noise_weights:
            return noise
        self.noise = NoiseSearch(self, scheduler)
        return self.noise.find(noise, generators)

    def move(self, latents: Tensor, number: int, timestep: Tensor, scheduler: Any) -> Tensor:
        order = getattr(scheduler, "order", 1)
        if number % order:  # A second look within a step: its first state is the scheduler's
            return latents
        # PLMS calls more often than there are steps
        step = min(number // order, len(self.plan.steps) - 1)
        plan = self.plan.steps[step]
        if not plan.acts or bool(self.failed.all()):
            return latents
        here = _Point(self, step, timestep, scheduler, plan.size, latents)
        if plan.threshold is not None:
            for _ in range(self.settings.refinements):
                here.evaluate(~self.failed)
                above = ~self.failed & (here.losses > plan.threshold)
                if not above.any():
                    break
                here.advance(above)
        for _ in range(plan.moves):
            here.evaluate(~self.failed)
            here.advance(~self.failed)
        self.earlier = here.maps
        return here.latents

    def choose(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(the images that a forward pass is made of so that the images ``rows`` are seen; where
        these are among them)."""
        if has_hooks(self.plan.guidance.method.backbone.denoiser):
            # What else acts in the denoiser may count on the whole batch
            return torch.arange(len(self.failed)), rows
        return rows, torch.arange(len(rows))

    def differentiate(
        self,
        reader: ObjectiveReader,
        weights: Mapping[str, float],
        inputs: Tensor,
        timestep: Tensor,
        rows: Tensor,
    ) -> Seen:
        """What ``reader`` sees of the images ``rows``, n of the batch, whose denoiser's input is
        their row of ``inputs`` [B, C, h, w]."""
        guidance, method = self.plan.guidance, self.plan.guidance.method
        inputs = inputs[rows.to(inputs.device)].detach().requires_grad_()
        text = self.text.map(lambda part: part[rows.to(part.device)])
        chosen = rows.tolist()
        with guidance.passing():
            with (
                reader.reading([self.words[row] for row in chosen]) as reading,
                stop_after(method.backbone.denoiser, reader.sites),
            ):
                method.backbone.predict(
                    inputs, timestep.expand(len(inputs)), text, method.resolution, self.guidance
                )
            earlier = [self.earlier[row] for row in chosen]
            losses, maps = reading.compute_losses(weights, earlier)
            gradients = torch.zeros_like(inputs, dtype=torch.float32)
            if losses.requires_grad:
                # No image's losses depend on another's latents
                scale = HALF_SCALE if inputs.dtype == torch.float16 else 1.0
                (gradients,) = torch.autograd.grad(losses.sum() * scale, inputs)
                gradients = gradients.float() / scale
        values = {name: value.detach() for name, value in reading.values.items()}
        return Seen(values, losses.detach(), gradients, maps)

    def finish(self, finite: Tensor) -> Tensor:
        self.failed |= ~finite.cpu()
        losses = torch.full((len(self.failed),), torch.nan)
        for _, known in self.trace:
            losses = torch.where(known.isfinite(), known, losses)
        losses[self.failed] = torch.nan
        guidance = self.plan.guidance
        if guidance.done is not None:
            columns = self.failed.tolist(), self.moves.tolist(), losses.tolist()
            met = self.noise.found.tolist() if self.noise else [None] * len(losses)
            noise = [None if failed else one for failed, one in zip(columns[0], met, strict=True)]
            guidance.done += map(ImageOutcome, *columns, noise)
        if count := int(self.failed.sum()):
            log.warning(
                "%s: the latents of %s of %d were no longer finite: drawn without guidance; a "
                "smaller step_size keeps them",
                guidance.name,
                show_count(count, "image"),
                len(self.failed),
            )
        return self.failed.to(finite.device)


class _Point:
    """Latents before one step of the sampler, with the losses and gradients that are known of
    them."""

    def __init__(
        self,
        batch: GuidedBatch,
        step: int,
        timestep: Tensor,
        scheduler: Any,
        size: float,
        latents: Tensor,
    ) -> None:
        self.batch, self.step, self.timestep, self.scheduler = batch, step, timestep, scheduler
        self.size, self.latents = size, latents
        count = len(latents)
        self.fresh = torch.zeros(count, dtype=torch.bool)
        self.losses = torch.full((count,), torch.nan)
        self.gradients = torch.zeros_like(latents, dtype=torch.float32)
        self.maps = list(batch.earlier)
        one = torch.ones(1, 1, 1, 1, device=latents.device)
        self.scale = float(scale_input(scheduler, one, timestep))

    def evaluate(self, wanted: Tensor) -> None:
        """Losses and gradients of the images ``wanted`` [B] where they are not known. An image that
        has none is given up."""
        rows = (wanted & ~self.fresh).nonzero().flatten()
        if not len(rows):
            return
        looked, picked = self.batch.choose(rows)
        inputs = scale_input(self.scheduler, self.latents, self.timestep)
        reader, weights = self.batch.plan.guidance.reader, self.batch.plan.guidance.weights
        seen = self.batch.differentiate(reader, weights, inputs, self.timestep, looked)
        for row, own in zip(looked.tolist(), seen.maps, strict=True):
            self.maps[row] = own
        device = self.latents.device
        self.losses[rows] = seen.losses[picked.to(device)].float().cpu()
        self.gradients[rows.to(device)] = seen.gradients[picked.to(device)]
        self.fresh[rows] = True
        losses = torch.full_like(self.losses, torch.nan)
        losses[rows] = self.losses[rows]
        self.batch.trace.append((self.step, losses))
        finite = self.losses.isfinite() & self.gradients.flatten(1).isfinite().all(1).cpu()
        self.batch.failed[rows] |= ~finite[rows]

    def advance(self, rows: Tensor) -> None:
        """Moves the images ``rows`` [B], except those that would not be finite: these are given up
        where they are."""
        rows = rows & ~self.batch.failed
        directions = self.gradients
        if self.batch.settings.direction == "random":
            directions = self._random_like(self.gradients, rows)
        moved = self.latents.float() - self.size / self.scale * directions
        moved = moved.to(self.latents.dtype)
        finite = moved.flatten(1).isfinite().all(1).cpu()
        self.batch.failed |= rows & ~finite
        rows = rows & finite
        moving = rows.to(self.latents.device)
        self.latents = torch.where(moving[:, None, None, None], moved, self.latents)
        self.fresh &= ~rows
        self.batch.moves += rows

    def _random_like(self, gradients: Tensor, rows: Tensor) -> Tensor:
        """A random direction of each gradient's length for the images ``rows``."""
        directions = torch.zeros_like(gradients)
        for row in rows.nonzero().flatten().tolist():
            drawn = torch.randn(gradients.shape[1:], generator=self.batch.generators[row])
            drawn = drawn.to(gradients)
            directions[row] = drawn * (gradients[row].norm() / drawn.norm())
        return directions
