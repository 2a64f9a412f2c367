"""Separate-and-Enhance (arXiv 2312.06712): projections of the cross-attention that give each object
of a prompt a place of its own.

No image is needed: the prompts are the data. The maps of an object's tokens should not overlap
another's (separate), and the weakest of them should be strong somewhere (enhance); a regulariser
holds the prediction on prompts of one object near that of the frozen backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conf.schema import Method as MethodConfig
from conf.schema import Run, Separate
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Batch
from lightning_modules.attention import nearest
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.configs import BackboneConfigs
from lightning_modules.methods.base import Method, Step, StepDraws, Term
from lightning_modules.methods.projection_training import ProjectionTraining
from losses.attention import check_heads, enhance_loss, second_half_store, separate_loss

# The token indices that the released code takes for two objects: "and" and EOS in its own prompts
RELEASED_INDICES = (6, 9)


class SeparateEnhance(ProjectionTraining):
    """As `ProjectionTraining`, on overlap and weakness of the objects' maps."""

    name = "separate_enhance"
    section, purpose = "separate", "separate or enhance"

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        self.map_sites = nearest(self.cross_sites, config.separate.side)

    @classmethod
    def check_backbone(cls, config: Run, backbone: BackboneConfigs) -> None:
        """The released code's token indices are those of CLIP. Raises ValueError."""
        tokens = config.method.separate.tokens
        if not backbone.family.clip and tokens in ("word", "released"):
            raise ValueError(
                f"method.separate.tokens={tokens} with backbone={config.backbone.name}: the "
                "token indices are those of CLIP; set phrase or last"
            )

    def check_data(self, dataset: Any) -> None:
        """Halves cannot be made of an odd number of heads. Raises ValueError."""
        if self.config.separate.store == "second_half":
            for site in self.map_sites:
                check_heads(site.heads, site.name)
        self.check_texts(self.backbone.text, dataset)

    # --- training --------------------------------------------------------------------------------

    @property
    def trains_on_noise(self) -> bool:
        return super().trains_on_noise and self.config.separate.control != "denoising"

    @property
    def distils(self) -> bool:
        return super().distils and self.config.separate.control != "denoising"

    def run_denoiser(self, step: Step) -> None:
        """The forward pass, up to the last of the objects' maps; without losses on maps, none."""
        settings = self.config.separate
        if settings.control == "denoising":
            return super().run_denoiser(step)
        # A step of its own is taken without weights, too
        if settings.separate_weight or settings.enhance_weight or self.has_second_step:
            heads = "keep" if settings.heads == "each" else "mean"
            capture = Capture(self.map_sites, self._object_tokens(step.batch), heads)
            denoiser = self.backbone.denoiser
            with capture.attached(denoiser), stop_after(denoiser, self.map_sites):
                super().run_denoiser(step)
            step.maps = capture.maps

    def step_terms(self, step: Step) -> dict[str, Term]:
        if self.config.separate.control == "denoising":
            return Method.losses(self, step)
        if step.maps is None:
            return {}
        return self._map_terms(step.maps.mean(), step.maps.present, step.draws)

    def _map_terms(self, maps: Tensor, present: Tensor, draws: StepDraws) -> dict[str, Term]:
        """The losses on the maps of this process's samples."""
        settings = self.config.separate
        if settings.store == "all":
            return separate_enhance_terms(maps, present, settings)
        (rank, world), batch = draws.rank_and_world, len(maps)
        total = batch * world
        kept, there = second_half_store(maps, present, rank * batch, total)
        # Of the groups of all processes those before the middle are not kept
        shares = [min(max(2 * batch * (i + 1) - total, 0), 2 * batch) for i in range(world)]
        if not len(kept):  # A gradient of zero, for the sum over processes
            kept, there = maps, torch.zeros_like(present)
        terms = separate_enhance_terms(kept, there, settings)
        return {
            name: term._replace(value=draws.ddp_reweight(term.value, shares))
            for name, term in terms.items()
        }

    def _object_tokens(self, batch: Batch) -> list[list[list[int]]]:
        """For each sample, for each of its objects, the indices of the tokens that stand for it."""
        found, indices = self.backbone.text.locate_phrases(batch.captions, self._objects(batch))
        tokens = self.config.separate.tokens
        if tokens == "word":
            return [
                [[len(caption[: phrase.start].split()) + 1] for phrase in phrases]
                for caption, phrases in zip(batch.captions, found, strict=True)
            ]
        if tokens == "released":
            return [
                [[at] for at, _ in zip(RELEASED_INDICES, sample, strict=False)]
                for sample in indices
            ]
        if tokens == "last":
            return [[phrase[-1:] for phrase in sample] for sample in indices]
        return indices

    # --- adapters --------------------------------------------------------------------------------

    def load_weights(self, folder: Path | str) -> None:
        """As `Method`'s; what was trained is then scaled or permuted where the settings say so."""
        super().load_weights(folder)
        settings = self.config.separate
        if settings.scale != 1 or settings.control == "permuted":
            self.scale_change(settings.scale, settings.control == "permuted")

    @torch.no_grad()
    def scale_change(self, scale: float, permuted: bool = False) -> None:
        """Multiplies the trained change by ``scale``; ``permuted`` gives each tensor the entries of
        its change in another order first: a change of the same size that was not learnt. Raises
        ValueError on low-rank weights."""
        if rank := self.config.weights.rank:
            raise ValueError(
                f"weights.rank={rank}: only the change of whole weights can be scaled or permuted"
            )
        generator = torch.Generator().manual_seed(self.seeds.init)
        with self.weights.swapped_out():
            stock = {
                name: self.backbone.denoiser.get_parameter(name).detach().clone()
                for name, _ in self.weights.named_parameters()
            }
        for name, trained in self.weights.named_parameters():
            start = stock[name].to(trained)
            change = (trained - start).flatten()
            if permuted:
                order = torch.randperm(change.numel(), generator=generator)
                change = change[order.to(change.device)]
            trained.copy_(start + scale * change.view_as(trained))


def separate_enhance_terms(maps: Tensor, present: Tensor, settings: Separate) -> dict[str, Term]:
    """L_Sep and L_En with their weights, of the objects' ``maps`` [B, objects, heads, H, W] (or
    without heads) and which of them exist, ``present`` [B, objects]."""
    separate = separate_loss(maps, present)
    enhance = enhance_loss(maps, present, settings.kernel, settings.sigma)
    return {
        "separate": Term(separate, settings.separate_weight),
        "enhance": Term(enhance, settings.enhance_weight),
    }
