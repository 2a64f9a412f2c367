"""What a method is: a way to change a frozen backbone, how it is trained, used and saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from conf.schema import Method as MethodConfig
from conf.schema import Run
from conf.schema import Trainer as TrainerConfig
from conf.seeds import Seeds
from conf.spec import methods
from datamodules.batch import Phrase
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.configs import BackboneConfigs
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.adapter import AdapterFolder
from lightning_modules.methods.guard import explain_steering, guard_pipeline
from lightning_modules.methods.steering import ImageStats, Steered
from lightning_modules.methods.training_step import (
    Group,
    Step,
    StepDraws,
    Term,
    TrainingStep,
    weighted_sum,
)

if TYPE_CHECKING:
    from lightning_modules.backbone.text import TextEncoders
    from lightning_modules.tracking.mlflow import SeedRun

__all__ = ["Group", "ImageStats", "Method", "Step", "StepDraws", "Term", "weighted_sum"]


class Method(Steered, TrainingStep, AdapterFolder):
    """A way to change a frozen backbone.

    A method is ``methods/NAME.py`` with ``name = "NAME"``, its settings ``conf/method/NAME.py``.
    It puts its trained parameters into ``self.adapter``, installs itself on construction, and says
    in `prepare`, `run_denoiser` and `losses` how it is trained.
    """

    # Whether `generate` can be given target masks
    takes_masks: ClassVar[bool] = False

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # An object attribute, which must not become a submodule
        self.__dict__["backbone"] = backbone
        self.config, self.recipe, self.resolution = config, trainer, resolution
        self.seeds = Seeds.same(seed)
        self.samples_posterior = config.latents == "sample"
        self.adapter = nn.Module()
        self.release: Callable[[], None] | None = None

    @property
    def trains(self) -> bool:
        """Whether there is anything to train before the evaluation."""
        return methods()[self.name].trains(self.config)

    @classmethod
    def check_backbone(cls, config: Run, backbone: BackboneConfigs) -> None:
        """Refuses a backbone that the method cannot act on with these settings, before data are
        read. Raises ValueError."""

    @classmethod
    def complete(cls, config: Run, datamodule: Any) -> Run:
        """The settings, completed by what only the data can tell."""
        return config

    def check_data(self, dataset: Any) -> None:
        """Refuses training data that the method cannot learn from, before any long work. Raises
        ValueError."""

    @staticmethod
    def check_texts(text: TextEncoders, dataset: Any) -> None:
        """Refuses training data whose words the tokenizers of ``text`` would cut off where the
        method needs them whole; asked before any weight is read. Raises ValueError."""

    def extend_data(self, config: Run, datamodule: Any, emit: Callable[[str, float], None]) -> None:
        """Long work on the data before training, once nothing is left to refuse; ``emit`` gets a
        line and the share done."""

    def callbacks(self, dataset: Any, every: int, tracker: SeedRun | None) -> list[L.Callback]:
        """The method's own callbacks of a training on ``dataset`` that is tracked; they look every
        ``every`` optimiser steps. Of several processes all have them, the first alone has a
        ``tracker``, which gets the numbers and pictures."""
        return []

    # --- use -------------------------------------------------------------------------------------

    def install(self) -> None:
        """Puts the adapter into the backbone; nothing happens where it is in it.

        To be extended: from here on the pipeline is not drawn from without the method, nor saved
        (`guard_pipeline`).
        """
        if self.release is not None:
            return
        if self.guides or next(self.adapter.parameters(), None) is not None:
            steered = self.guides[0].name if self.guides else ""
            self.release = guard_pipeline(self.backbone, self.name, steered)

    def remove(self) -> None:
        """Takes it out again: the backbone is the stock one afterwards. To be extended, too."""
        if self.release is not None:
            self.release()
            self.release = None

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Any = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
        objects: Sequence[Sequence[Phrase | str]] | None = None,
    ) -> Tensor:
        """uint8 images [N, 3, H, W] on the CPU, one for each prompt; image i depends on prompt i
        and seed i alone. Where something moves the latents, ``objects`` are the words of each
        prompt that name its objects; left out, they are its noun phrases.

        Raises ValueError when ``masks`` are given to a method that takes none, and for objects that
        their prompts do not name.
        """
        if masks is not None:
            raise ValueError(f"{self.name} takes no masks: leave masks=None")
        moving = self.plan_steering(prompts, seeds, objects, steps)
        given = prompts, seeds, steps, guidance, self.resolution, batch
        return sample(self.backbone, *given, moving)

    def diagnostics(self, datamodule: Any, config: Run, folder: Path) -> dict[str, float]:
        """What is measured of the method itself after its images were scored, under ``eval/``;
        ``config`` is that of the evaluation, pictures land in ``folder``."""
        return {}

    def to_pipeline(self) -> Any:
        """A stock diffusers pipeline with the adapter in it. Raises ValueError where latents are
        moved while it draws."""
        if self.guides:
            raise ValueError(explain_steering(self.guides[0].name))
        return self.backbone.restored_pipeline()
