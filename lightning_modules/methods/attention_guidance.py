"""Guidance by attention maps, without training (`latent_guidance`): a method of its own, and what
steers the drawing of another one where its settings say so."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from conf.method.attention_guidance import fewest_objects, looks_at_masks
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Phrase
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.base import Method
from lightning_modules.methods.latent_guidance import LatentGuidance
from lightning_modules.methods.mask_targets import PromptMasks, read_masks
from losses.objectives.table import OBJECTIVES


class AttentionGuidance(Method):
    """Trains nothing; images are drawn under guidance while it is installed."""

    name = "attention_guidance"

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        self.install()

    @property
    def takes_masks(self) -> bool:  # type: ignore[override]
        """Where a loss looks at them."""
        return looks_at_masks(self.config)

    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Sequence[PromptMasks] | None = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
        objects: Sequence[Sequence[Phrase | str]] | None = None,
    ) -> Tensor:
        """As `Method`'s. Where a loss looks at ``masks``, they are given for each prompt as
        `read_masks` takes them, and the phrases that they are of are its objects; a prompt without
        any is drawn unguided. Raises ValueError where there are none, and as `read_masks`."""
        if not self.takes_masks:
            return super().generate(prompts, seeds, masks, steps, guidance, batch, objects)
        if masks is None:
            raise ValueError(
                f"{self.name} with losses that look at masks, and masks=None: give for each prompt "
                "which of its phrases should fill which mask"
            )
        named, planes = [], []
        for targets in read_masks(masks, prompts, self.resolution):
            pairs = [(phrase, one.mask) for one in targets for phrase in one.phrases]
            named.append([phrase for phrase, _ in pairs])
            planes.append([mask for _, mask in pairs])
        moving = self.plan_steering(prompts, seeds, named, steps, planes)
        given = prompts, seeds, steps, guidance, self.resolution, batch
        return sample(self.backbone, *given, moving)

    @classmethod
    def guide(cls, method: Method) -> LatentGuidance:
        settings = method.config.attention_guidance
        return LatentGuidance(method, settings, OBJECTIVES, fewest_objects(method.config), cls.name)
