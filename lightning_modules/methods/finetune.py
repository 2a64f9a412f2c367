"""Fine-tuning on attention maps: projections of the backbone, trained on a weighted sum of any
objectives (`losses.objectives`), which guide latents elsewhere (`latent_guidance`), beside a
denoising loss and a distillation.

Separate-and-Enhance is the default; its own method has besides what its released code does to the
heads of a batch, and its controls. TokenCompose (arXiv 2312.03626) is a preset on images with
masks.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from conf.method.finetune import list_losses
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Batch
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.attention.sites import Site
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Step, Term
from lightning_modules.methods.objective_inputs import (
    ObjectiveReader,
    PromptWords,
    locate_words,
)
from lightning_modules.methods.projection_training import ProjectionTraining
from losses.denoising import denoising_loss
from losses.objectives.table import OBJECTIVES


class Finetune(ProjectionTraining):
    """As `ProjectionTraining`, on the objectives that ``method.finetune.losses`` weighs. Raises
    ValueError where there are no maps of the kind that one looks at."""

    name = section = "finetune"

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        objectives = {name: OBJECTIVES[name] for name in list_losses(config)}
        # A reader for each level
        self.readers: list[ObjectiveReader] = []
        settings = self.settings
        layers = [site for site in self.cross_sites if self._reads_layer(site)]
        for side in settings.sides if objectives else []:
            reader = ObjectiveReader(
                backbone,
                resolution,
                objectives,
                side,
                settings.heads,
                {"size": settings.kernel, "sigma": settings.sigma},
                layers,
                settings.by_layer,
            )
            if all(reader.cross != other.cross for other in self.readers):
                self.readers.append(reader)

    def _reads_layer(self, site: Site) -> bool:
        return self.settings.placement == "all" or site.placement != "encoder"

    # --- training --------------------------------------------------------------------------------

    def run_denoiser(self, step: Step) -> None:
        """The forward pass, in which maps are read; without a denoising loss up to the last of
        them, and none without maps."""
        settings, denoiser = self.settings, self.backbone.denoiser
        if not self.readers and not settings.denoising_weight:
            return
        words = self.locate_words(step.batch) if self.readers else []
        with ExitStack() as attached:
            step.readings = [
                attached.enter_context(reader.reading(words)) for reader in self.readers
            ]
            if not settings.denoising_weight:
                sites = [site for reader in self.readers for site in reader.sites]
                attached.enter_context(stop_after(denoiser, sites))
            super().run_denoiser(step)

    def locate_words(self, batch: Batch) -> list[PromptWords]:
        """The words of each caption that the encoder reads whole: its objects, where they should
        be, and those that an objective asks for besides."""
        named, _ = self.backbone.text.locate_phrases(batch.captions, self._objects(batch))
        words = locate_words(self.backbone, batch.captions, named, self.settings.tokens, fewest=0)
        for one, phrases in zip(words, named, strict=True):
            one.masks = [phrase.mask for phrase in phrases]
        return words

    def step_terms(self, step: Step) -> dict[str, Term]:
        settings = self.settings
        terms: dict[str, Term] = {}
        if settings.denoising_weight:
            loss = denoising_loss(step.prediction, step.target)
            terms["denoising"] = Term(loss, settings.denoising_weight)
        values = [reading.compute_values() for reading in step.readings]
        for name in list_losses(self.config) if values else []:
            loss = torch.stack([of_level[name] for of_level in values]).sum(0).mean()
            terms[name] = Term(self._with_gradient(loss), settings.losses[name])
        return terms

    def _with_gradient(self, loss: Tensor) -> Tensor:
        """A gradient of zero where no sample gives one, should it be the only term."""
        if loss.requires_grad:
            return loss
        return loss + 0.0 * next(self.weights.parameters()).float().sum()
