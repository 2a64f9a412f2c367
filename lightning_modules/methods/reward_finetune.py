"""Fine-tuning on a reward: projections of the backbone, trained on its own images, by how well each
fits its caption (GORS, arXiv 2307.06350; diffusion DPO, arXiv 2311.12908)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from conf.describe import show_count
from conf.method.reward_finetune import SECTION
from conf.schema import Run
from datamodules.loading import count_batches
from datamodules.rewarded import RewardedDataset, keep_above, pair_by_margin
from lightning_modules.backbone.configs import BackboneConfigs
from lightning_modules.backbone.sampling import check_steps
from lightning_modules.methods.base import Step, Term
from lightning_modules.methods.projections import TrainedProjections
from lightning_modules.methods.reward_images import (
    RewardedImages,
    make_rewarded_images,
    select_captions,
)
from lightning_modules.methods.rewards import build_reward
from lightning_modules.training import distributed
from losses.rewards import denoising_errors, preference_loss, reward_weighted_loss

__all__ = ["RewardFinetune"]


class RewardFinetune(TrainedProjections):
    """As `TrainedProjections`, on the images that `extend_data` puts in the place of the training
    set's own. Their batches have ``rewards``, and with ``objective=preference`` ``worse``."""

    name = "reward_finetune"

    @classmethod
    def check_backbone(cls, config: Run, backbone: BackboneConfigs) -> None:
        """As `Method`'s: the sampler's steps of the images that are scored."""
        check_steps(backbone, f"{SECTION}.steps", config.method.reward_finetune.steps)

    def extend_data(self, config: Run, datamodule: Any, emit: Callable[[str, float], None]) -> None:
        """Draws and scores images of the training captions, and trains on those that the objective
        takes. Raises ValueError where they are too few."""
        source = datamodule.train_set
        made = distributed.once(lambda: _make(config, self, source, emit))
        images = RewardedImages([*map(Path, made["paths"])], made["captions"], made["rewards"])
        settings = config.method.reward_finetune
        if settings.objective == "preference":
            samples = pair_by_margin(images.captions, images.rewards, settings.margin)
        else:
            samples = keep_above(images.rewards, settings.threshold)
        datamodule.train_set = RewardedDataset(
            source,
            images.paths,
            images.captions,
            images.rewards,
            samples,
            config.backbone.resolution,
        )
        _check_count(config, len(samples), images)
        if distributed.is_first():
            emit(_describe(config, len(samples), images), 0.0)

    def losses(self, step: Step) -> dict[str, Term]:
        """The one term of the objective."""
        settings = self.config.reward_finetune
        if settings.objective == "preference":
            return {"preference": Term(self._compare_pairs(step, settings.beta))}
        assert step.batch.rewards is not None, "batches come from a RewardedDataset"
        rewards = step.batch.rewards.to(step.prediction.device)
        loss = reward_weighted_loss(step.prediction, step.target, rewards)
        return {"reward_weighted": Term(loss)}

    def _compare_pairs(self, step: Step, beta: float) -> torch.Tensor:
        """The step's images against the worse ones of the same captions, on the same noise and
        timesteps."""
        assert step.batch.worse is not None, "batches come from a RewardedDataset of pairs"
        latents = self.latents(step.batch.worse, step.draws)
        noise, timesteps = self.draw(latents, step.draws)  # As of the better ones
        noised, target = self.backbone.schedule.add_noise(latents, noise, timesteps)
        with torch.no_grad(), self.weights.swapped_out():
            frozen_better, frozen_worse = (
                denoising_errors(self.predict(inputs, timesteps, step.text), wanted)
                for inputs, wanted in ((step.noised, step.target), (noised, target))
            )
        return preference_loss(
            denoising_errors(step.prediction, step.target),
            denoising_errors(self.predict(noised, timesteps, step.text), target),
            frozen_better,
            frozen_worse,
            beta,
        )


def _make(
    config: Run, method: RewardFinetune, source: Any, emit: Callable[[str, float], None]
) -> dict[str, Any]:
    """`RewardedImages`, as JSON holds them."""
    settings = config.method.reward_finetune
    reward = build_reward(settings.reward)
    captions = select_captions(source, settings.captions, reward)
    if len(captions) < settings.captions:
        few = show_count(len(captions), "training caption")
        emit(f"{SECTION}.captions={settings.captions}: the reward reads {few}, no more", 0.0)
    images = make_rewarded_images(config, settings, method.backbone, captions, reward, emit)
    paths = [str(path) for path in images.paths]
    return {"paths": paths, "captions": images.captions, "rewards": images.rewards}


def _check_count(config: Run, samples: int, images: RewardedImages) -> None:
    """Raises ValueError where the objective leaves too few samples for an optimiser step."""
    settings, trainer = config.method.reward_finetune, config.trainer
    if count_batches(samples, trainer.batch * trainer.devices, trainer.accumulate):
        return
    name, what = (
        ("margin", "pair") if settings.objective == "preference" else ("threshold", "image")
    )
    highest = max(images.rewards)
    raise ValueError(
        f"{SECTION}.{name}={getattr(settings, name):g} leaves {show_count(samples, what)} of "
        f"{show_count(len(images.paths), 'drawn image')} (mean reward {images.mean:.3f}, highest "
        f"{highest:.3f}), which make no batch of trainer.batch={trainer.batch}: lower it, or draw "
        f"more ({SECTION}.captions, noises)"
    )


def _describe(config: Run, samples: int, images: RewardedImages) -> str:
    kind = "pair" if config.method.reward_finetune.objective == "preference" else "image"
    return (
        f"rewards: mean {images.mean:.3f} of {show_count(len(images.paths), 'image')}; training on "
        f"{show_count(samples, kind)}"
    )
