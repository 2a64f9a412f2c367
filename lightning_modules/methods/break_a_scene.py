"""Break-A-Scene (arXiv 2305.16311): subjects of one image with masks become words; first their
embeddings are trained, then the model.

On a dataset with captions instead of a scene there are no placeholders: only the weights are
trained then, and words that have masks take the subjects' place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conf import load as conf
from conf.schema import Method as MethodConfig
from conf.schema import Run, Weights
from conf.schema import Subjects as SubjectsConfig
from conf.schema import Trainer as TrainerConfig
from conf.spec import data_kind
from datamodules.batch import Batch
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Group, Method
from lightning_modules.methods.class_images import draw_class_images
from lightning_modules.networks.placeholder_tokens import Subjects
from lightning_modules.networks.trained_weights import TrainedWeights, save_stock
from lightning_modules.training import distributed
from losses.attention import mask_attention_loss
from losses.denoising import denoising_loss
from losses.regularisation import prior_loss

SIDE = 16  # places along a side of the maps that the attention losses look at


class BreakAScene(Method):
    """Placeholder tokens and weights of the backbone; installed on construction, `remove` gives the
    stock backbone back.

    ``config.subjects.tokens`` names the placeholders; without any the method trains on captioned
    images. Raises ValueError when nothing would be trained, and as `Subjects` and `TrainedWeights`.
    """

    name = "break_a_scene"
    leaves_out = True  # weights in the first phase

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        chosen = config.subjects
        self.cross = select(backbone.sites(resolution))
        parts: dict[str, nn.Module] = {}
        if chosen.tokens:
            classes = [word or None for word in chosen.classes] or [None] * len(chosen.tokens)
            parts["subjects"] = Subjects(backbone, chosen.tokens, classes)
        if config.weights.trainable != "none" and chosen.schedule != "tokens_only":
            parts[backbone.family.denoiser_name] = TrainedWeights(
                backbone.denoiser, config.weights.trainable, self.cross, config.weights.rank
            )
            if config.weights.text_encoder:
                for i, encoder in enumerate(backbone.text.encoders):
                    parts[f"text_encoder{'_2' * i}"] = TrainedWeights(
                        encoder, "model", None, config.weights.rank, ["token_embedding"]
                    )
        self.adapter = nn.ModuleDict(parts | self.more_parts())
        if not any(group.parameters for group in self.parameter_groups()):
            given = (
                f"weights.trainable={config.weights.trainable}, {len(chosen.tokens)} "
                f"subjects and subjects.schedule={chosen.schedule}"
            )
            raise ValueError(
                f"{self.name}: nothing to train with {given}; set another part or schedule"
            )
        self.capture = Capture(nearest(self.cross, SIDE))
        self.install()

    def more_parts(self) -> dict[str, nn.Module]:
        """What a method on top of this one trains besides."""
        return {}

    @classmethod
    def check_backbone(cls, config: Run, backbone: Backbone) -> None:
        if not backbone.family.clip and data_kind(config) == "scene":
            raise ValueError(
                f"method={cls.name} with data={config.data.name} and "
                f"backbone={config.backbone.name}: placeholders are words of CLIP, which PixArt "
                "does not have; set data to images with captions, or another backbone"
            )
        if not backbone.family.clip and config.method.weights.text_encoder:
            raise ValueError(
                f"method.weights.text_encoder=true with backbone={config.backbone.name}: T5 is "
                "not trained here; set it to false"
            )

    @classmethod
    def complete(cls, config: Run, datamodule: Any) -> Run:
        """Placeholders and class words are those of the scene where the settings name none."""
        if data_kind(config) != "scene":
            return config
        subjects, settings = datamodule.train_set.subjects, config.method.subjects
        tokens = settings.tokens or [subject.token for subject in subjects]
        classes = settings.classes or [subject.class_word or "" for subject in subjects]
        return conf.replace(
            config, {"method.subjects.tokens": tokens, "method.subjects.classes": classes}
        )

    def extend_data(
        self, config: Run, datamodule: Any, emit: Callable[[str, float], None]
    ) -> None:
        """Draws the class images of prior preservation and adds them to the scene's samples."""
        settings = config.method.subjects
        if data_kind(config) == "scene" and settings.prior_weight > 0:
            # It takes minutes on a large backbone.
            files = distributed.once(
                lambda: [str(path) for path in draw_class_images(config, self.backbone, emit)]
            )
            datamodule.train_set.attach_prior([*map(Path, files)], settings.prior_prompt)

    @property
    def subjects(self) -> Subjects | None:
        return dict(self.adapter.items()).get("subjects")  # type: ignore[return-value]

    @property
    def trained_weights(self) -> list[TrainedWeights]:
        return [part for part in self.adapter.values() if isinstance(part, TrainedWeights)]

    def install(self) -> None:
        self.adapter.to(self.backbone.device)
        for part in self.adapter.values():
            if isinstance(part, Subjects | TrainedWeights) and not part.is_installed:
                part.install()

    def remove(self) -> None:
        for part in self.adapter.values():
            if isinstance(part, Subjects | TrainedWeights) and part.is_installed:
                part.remove()

    # --- training --------------------------------------------------------------------------------

    @property
    def first_phase(self) -> int:
        """Steps that train the tokens alone."""
        both = (
            self.subjects is not None
            and self.trained_weights
            and self.config.subjects.schedule == "two_phase"
        )
        return round(self.config.subjects.first_phase * self.recipe.steps) if both else 0

    def parameter_groups(self) -> list[Group]:
        switch, schedule, peak = self.first_phase, self.config.subjects.schedule, self.recipe.lr
        second = (
            peak
            if schedule == "two_phase" and self.trained_weights
            else self.config.subjects.token_lr
        )

        def tokens(step: int) -> float:
            if step < switch:
                return self.config.subjects.token_lr * self.factor(step, 0, switch)
            return second * self.factor(step, switch)

        def weights(step: int) -> float:
            return 0.0 if step < switch else peak * self.factor(step, switch)

        groups = [Group([p for part in self.trained_weights for p in part.parameters()], weights)]
        if self.subjects is not None and schedule != "unet_only":
            # Decay would move the placeholders that a step does not show, too.
            groups.append(Group(list(self.subjects.parameters()), tokens, decays=False))
        return groups

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # What a phase does not train has no gradient, so that its optimiser state begins with its
        # phase.
        for part in self.trained_weights:
            part.requires_grad_(self.global_step >= self.first_phase)
        if self.subjects is not None:
            self.subjects.requires_grad_(self.config.subjects.schedule != "unet_only")
        self.capture.tokens = self.watched(batch)
        with self.capture.attached(self.backbone.denoiser):
            return super().training_step(batch, batch_idx)

    def watched(self, batch: Batch) -> list[list[list[int]]] | None:
        """For each sample the positions of the tokens whose maps a loss looks at; None when none
        does."""
        self.kept, self.positions = self.backbone.text.locate_phrases(
            batch.captions, _phrases(batch)
        )
        return self.positions if self.config.subjects.attention_weight else None

    def masks(self) -> tuple[Tensor, Tensor]:
        """The masks of the batch's phrases, float32 [B, n, H, W] in [0, 1], and which there are,
        bool [B, n]."""
        return stacked(
            [[phrase.mask for phrase in kept] for kept in self.kept],
            self.resolution,
            self.backbone.device,
        )

    def loss(self, prediction: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Break-A-Scene eq. 1 on a scene: inside the union of the drawn subjects' masks."""
        if self.subjects is None or not self.config.subjects.masked_loss:
            return denoising_loss(prediction, target)
        union = self.masks()[0].amax(1, keepdim=True)  # [B, 1, H, W]
        union = F.interpolate(union, prediction.shape[-2:], mode="area")
        return denoising_loss(prediction, target, union, self.config.subjects.normalise)

    def with_extra(self, loss: Tensor, batch: Batch, timesteps: Tensor) -> Tensor:
        chosen = self.config.subjects
        if self.capture.tokens is not None:
            masks, present = self.masks()
            attention = mask_attention_loss(self.capture.maps.mean(), masks, present, resize="area")
            self.log("train/attention", attention)
            loss = loss + chosen.attention_weight * attention
        if batch.prior is not None and chosen.prior_weight:
            prior = self.prior(batch.prior)
            self.log("train/prior", prior)
            loss = loss + chosen.prior_weight * prior
        return loss

    def prior(self, batch: Batch) -> Tensor:
        """The loss on class images, under neither masks nor maps."""
        self.capture.tokens = None
        latents = self.latents(batch)
        noise, timesteps = self.draw(latents, stream=1)
        noised, target = self.backbone.schedule.add_noise(latents, noise, timesteps)
        return prior_loss(
            self.predict(noised, timesteps, self.backbone.text.encode(batch.captions)), target
        )

    def to_pipeline(self) -> Any:
        """A stock diffusers pipeline that knows the subjects by their placeholders. It shares the
        denoiser, which holds the trained weights while this method is installed."""
        pipeline = super().to_pipeline()
        return pipeline if self.subjects is None else self.subjects.materialise(pipeline)

    # --- adapters --------------------------------------------------------------------------------

    def save_adapter(self, folder: Path | str) -> None:
        """`Method.save_adapter`, and what stock pipelines load: ``subjects/`` for
        `load_textual_inversion`, ``stock/`` as `save_stock`."""
        folder = Path(folder)
        if self.subjects is not None:
            self.subjects.save(folder / "subjects")
        if trained := {
            name: part for name, part in self.adapter.items() if isinstance(part, TrainedWeights)
        }:
            save_stock(folder / "stock", **trained)
        super().save_adapter(folder)

    def own_tensors(self) -> dict[str, Tensor]:
        """A scene's subjects, so that its training can start from an adapter that a dataset
        made."""
        return {
            key: value
            for key, value in self.adapter.state_dict().items()
            if key.startswith("subjects.")
        }

    def adapter_config(self) -> dict[str, Any]:
        return {"weights": asdict(self.config.weights), "subjects": asdict(self.config.subjects)}

    @classmethod
    def from_card(cls, card: dict[str, Any], backbone: Backbone) -> Method:
        return cls(backbone, cls.method_config(card["config"]), TrainerConfig(), card["resolution"])

    @classmethod
    def method_config(cls, saved: dict[str, Any]) -> MethodConfig:
        """The settings that an adapter was saved with."""
        return MethodConfig(
            name=cls.name,
            weights=Weights(**saved["weights"]),
            subjects=SubjectsConfig(**saved["subjects"]),
        )


def _phrases(batch: Batch) -> list[list]:
    if batch.phrases is None:
        raise ValueError(
            "subjects need masks: the batch's samples name no phrases; set the training "
            "set's with_phrases"
        )
    return batch.phrases


def stacked(masks: list[list[Tensor]], side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ragged lists of masks [H, W] -> float32 [B, n, side, side], blank where a sample has fewer,
    and bool [B, n] which there are."""
    most = max((len(sample) for sample in masks), default=0)
    present = torch.tensor(
        [[j < len(sample) for j in range(most)] for sample in masks], dtype=torch.bool
    ).view(len(masks), most)
    result = torch.zeros(*present.shape, side, side, device=device)
    planes = [mask.float() for sample in masks for mask in sample]
    if planes:
        brought = [
            x
            if x.shape == (side, side)
            else F.interpolate(x[None, None], (side, side), mode="area")[0, 0]
            for x in planes
        ]
        # Masks come with the batch, wherever that is
        result[present] = torch.stack(brought).to(device)
    return result, present.to(device)
