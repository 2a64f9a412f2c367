"""Projections of the frozen denoiser with trained values (``method.weights``)."""

from __future__ import annotations

from pathlib import Path

from conf.places import as_path
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from lightning_modules.attention import select
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.adapter_file import AdapterFile
from lightning_modules.methods.base import Method
from lightning_modules.networks.trained_weights import (
    TrainedWeights,
    adaptable_layers,
    parameter_names,
    refuse_others,
)

__all__ = ["TrainedProjections"]


class TrainedProjections(Method):
    """Trained projections (``method.weights``); installed on construction, `remove` gives the stock
    backbone back. Raises ValueError as `TrainedWeights`."""

    adapter: TrainedWeights

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        self.cross_sites = select(backbone.sites(resolution))
        self.adapter = TrainedWeights(
            backbone.denoiser, config.weights.trainable, self.cross_sites, config.weights.rank
        )
        self.install()

    @classmethod
    def check_sizes(cls, file: AdapterFile, backbone: Backbone) -> None:
        """As `Method`'s: the rank. Raises ValueError where the backbone holds other weights."""
        refuse_others(backbone.denoiser)
        weights, cross_sites = file.config.weights, select(backbone.sites(file.resolution))
        if weights.rank:
            names = parameter_names(backbone.denoiser, weights.trainable, cross_sites)
            file.check_rank(adaptable_layers(backbone.denoiser, names))

    @property
    def weights(self) -> TrainedWeights:
        return self.adapter

    def install(self) -> None:
        if not self.weights.is_installed:
            self.weights.to(self.backbone.device)
            self.weights.install()
        super().install()

    def remove(self) -> None:
        if self.weights.is_installed:
            self.weights.remove()
        super().remove()

    def save_adapter(self, folder: Path | str) -> None:
        """As `Method`'s, and in ``stock/`` what a stock pipeline loads
        (`TrainedWeights.save_stock`)."""
        self.weights.save_stock(as_path(folder) / "stock", self.backbone.family.denoiser_name)
        super().save_adapter(folder)
