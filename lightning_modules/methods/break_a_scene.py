"""Break-A-Scene (arXiv 2305.16311): subjects of one image with masks become words; first their
embeddings are trained, then the model.

On a data set with captions instead of a scene there are no placeholders: only the weights are
trained, and words that have masks stand in for the subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import nn

from conf import load as conf
from conf.describe import show_count
from conf.places import as_path
from conf.schema import Method as MethodConfig
from conf.schema import Run
from conf.schema import Trainer as TrainerConfig
from conf.spec import data_kind
from datamodules.batch import Batch
from lightning_modules.attention import Site, nearest, select
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.configs import BackboneConfigs
from lightning_modules.backbone.sampling import check_steps
from lightning_modules.methods.adapter_file import AdapterFile
from lightning_modules.methods.base import Group, Method, Step, StepDraws, Term
from lightning_modules.methods.class_images import draw_class_images
from lightning_modules.methods.guard import without_guard
from lightning_modules.methods.mask_targets import stack_masks
from lightning_modules.methods.optimizers import lr_multiplier
from lightning_modules.networks.placeholder_tokens import Subjects
from lightning_modules.networks.trained_weights import (
    TrainedWeights,
    adaptable_layers,
    parameter_names,
    refuse_others,
    save_stock,
)
from lightning_modules.training import distributed
from losses.attention import mask_attention_loss
from losses.denoising import denoising_loss, prior_loss

MAP_SIDE = 16  # Pixels along a side of the maps that the attention losses look at
WORDS = "token_embedding"  # In the name of a text encoder's table of words
CLASS_IMAGES = 1  # Stream of random numbers


class BreakAScene(Method):
    """Placeholder tokens and weights of the backbone; installed on construction, `remove` gives the
    stock backbone back.

    ``config.subjects.tokens`` names the placeholders; without any the method trains on captioned
    images. Raises ValueError when nothing would be trained, and as `Subjects` and `TrainedWeights`.
    """

    name = "break_a_scene"
    find_unused_parameters = True  # Weights in the first phase
    # A scene's training can start from an adapter that a data set of captions made
    may_lack = ("subjects.",)

    adapter: nn.ModuleDict

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        subjects, weights = config.subjects, config.weights
        self.cross_sites = select(backbone.sites(resolution))
        self.map_sites = nearest(self.cross_sites, MAP_SIDE)
        modules: dict[str, nn.Module] = {}
        if subjects.tokens:
            classes = [word or None for word in subjects.classes] or [None] * len(subjects.tokens)
            modules["subjects"] = Subjects(backbone, subjects.tokens, classes, subjects.wordless)
        for name, chosen in _choose_weights(backbone, config, self.cross_sites).items():
            model, part, sites, without = chosen
            modules[name] = TrainedWeights(model, part, sites, weights.rank, without)
        self.adapter = nn.ModuleDict(modules | self.extra_modules())
        if not any(group.parameters for group in self.parameter_groups()):
            raise ValueError(
                f"{self.name}: nothing to train with weights.trainable={weights.trainable}, "
                f"{show_count(len(subjects.tokens), 'subject')} and "
                f"subjects.schedule={subjects.schedule}; set "
                "another part or schedule"
            )
        self.install()

    @classmethod
    def check_sizes(cls, file: AdapterFile, backbone: Backbone) -> None:
        """As `Method`'s: the rank. Raises ValueError where the backbone holds other weights."""
        if not file.config.weights.rank:
            return
        cross_sites = select(backbone.sites(file.resolution))
        for name, chosen in _choose_weights(backbone, file.config, cross_sites).items():
            refuse_others(chosen[0])
            layers = adaptable_layers(chosen[0], parameter_names(*chosen))
            file.check_rank(f"{name}.{layer}" for layer in layers)

    def extra_modules(self) -> dict[str, nn.Module]:
        """What a method on top of this one trains, too."""
        return {}

    @classmethod
    def check_backbone(cls, config: Run, backbone: BackboneConfigs) -> None:
        """Placeholders and trained text encoders need CLIP, class images as many steps as the
        scheduler takes. Raises ValueError."""
        name = config.backbone.name
        if not backbone.family.clip and data_kind(config) == "scene":
            raise ValueError(
                f"method={cls.name} with data={config.data.name} and backbone={name}: "
                f"placeholders are words of CLIP, which does not read all text of "
                f"{backbone.family.label}; set data to images with captions, or another backbone"
            )
        if not backbone.family.clip and config.method.weights.text_encoder:
            raise ValueError(
                f"method.weights.text_encoder=true with backbone={name}: T5 is not trained here; "
                "set it to false"
            )
        settings = config.method.subjects
        if data_kind(config) == "scene" and settings.prior_weight > 0:
            check_steps(backbone, "method.subjects.prior_steps", settings.prior_steps)

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

    def extend_data(self, config: Run, datamodule: Any, emit: Callable[[str, float], None]) -> None:
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
        part = dict(self.adapter.items()).get("subjects")
        return part if isinstance(part, Subjects) else None

    @property
    def trained_weights(self) -> dict[str, TrainedWeights]:
        """Model in the pipeline -> its trained weights."""
        modules = self.adapter.items()
        return {name: part for name, part in modules if isinstance(part, TrainedWeights)}

    def _installable(self) -> list[Subjects | TrainedWeights]:
        subjects = [self.subjects] if self.subjects is not None else []
        return [*subjects, *self.trained_weights.values()]

    def install(self) -> None:
        self.adapter.to(self.backbone.device)
        try:
            for part in self._installable():
                if not part.is_installed:
                    part.install()
        except ValueError:
            self.remove()
            raise
        super().install()

    def remove(self) -> None:
        for weights in self.trained_weights.values():  # All go, or none
            if weights.is_installed:
                weights.check_removable()
        for part in self._installable():
            if part.is_installed:
                part.remove()
        super().remove()

    # --- training --------------------------------------------------------------------------------

    @property
    def mask_resize(self) -> str:
        """How masks are brought to latents and maps: "area" or "nearest"."""
        return self.config.subjects.mask_resize

    @property
    def first_phase(self) -> int:
        """Steps that train the tokens alone."""
        settings = self.config.subjects
        two = settings.schedule == "two_phase" and self.subjects is not None
        return (
            round(settings.first_phase * self.recipe.steps) if two and self.trained_weights else 0
        )

    def parameter_groups(self) -> list[Group]:
        switch, settings, recipe = self.first_phase, self.config.subjects, self.recipe
        two_phase = settings.schedule == "two_phase" and self.trained_weights
        second_lr = recipe.lr if two_phase else settings.token_lr

        def token_rate(step: int) -> float:
            if step < switch:
                return settings.token_lr * lr_multiplier(recipe, step, 0, switch)
            return second_lr * lr_multiplier(recipe, step, switch)

        def weight_rate(step: int) -> float:
            return 0.0 if step < switch else recipe.lr * lr_multiplier(recipe, step, switch)

        weights = [p for part in self.trained_weights.values() for p in part.parameters()]
        groups = [Group(weights, weight_rate)]
        if self.subjects is not None and settings.schedule != "unet_only":
            # Decay moves the placeholders that a step does not show, too.
            rows = list(self.subjects.parameters())
            groups.append(Group(rows, token_rate, decays=settings.token_decay))
        return groups

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """With ``subjects.new_optimizer`` the first phase leaves no moments to the second."""
        if self.config.subjects.new_optimizer and self.global_step == self.first_phase > 0:
            self.optimizers(use_pl_optimizer=False).state.clear()  # type: ignore[union-attr]

    def prepare(self, batch: Batch, draws: StepDraws) -> Step:
        """As `Method`'s, with the phrases of the captions and their masks."""
        self._freeze_by_phase()
        step = super().prepare(batch, draws)
        if batch.phrases is None:
            raise ValueError(
                "subjects need masks: the batch's samples name no phrases; set the training "
                "set's with_phrases"
            )
        step.phrases, step.token_indices = self.backbone.text.locate_phrases(
            batch.captions, batch.phrases
        )
        step.masks, step.present = stack_masks(
            [[phrase.mask for phrase in sample] for sample in step.phrases],
            self.resolution,
            self.backbone.device,
            self.mask_resize,
        )
        return step

    def _freeze_by_phase(self) -> None:
        """What a phase does not train has no gradient, so that its optimiser state begins with its
        phase. Stock words that the second phase trains have one in the first, at a learning rate of
        zero: it counts for the norm at which gradients are clipped, as in the released code, which
        puts the words back after each step."""
        for part in self.trained_weights.values():
            second = self.global_step >= self.first_phase
            for name, parameter in part.named_parameters():
                parameter.requires_grad_(second or WORDS in name)
        if self.subjects is not None:
            self.subjects.requires_grad_(self.config.subjects.schedule != "unet_only")

    def run_denoiser(self, step: Step) -> None:
        """The forward pass, in which the phrases' maps are read where a loss looks at them."""
        if not self.config.subjects.attention_weight:
            return super().run_denoiser(step)
        capture = Capture(self.map_sites, step.token_indices)
        with capture.attached(self.backbone.denoiser):
            super().run_denoiser(step)
        step.maps = capture.maps

    def losses(self, step: Step) -> dict[str, Term]:
        terms = {"denoising": self._masked_denoising(step)}
        return terms | self._attention_terms(step) | self._prior_terms(step)

    def _masked_denoising(self, step: Step) -> Term:
        """Break-A-Scene eq. 1 on a scene: inside the union of the drawn subjects' masks.

        With the nearest pixel of a mask it is as released: the mask multiplies prediction and
        target, so that grey pixels weigh the squared error with their square."""
        if self.subjects is None or not self.config.subjects.masked_loss:
            return Term(denoising_loss(step.prediction, step.target))
        union = step.masks.amax(1, keepdim=True)  # [B, 1, H, W]
        union = F.interpolate(union, step.prediction.shape[-2:], mode=self.mask_resize)
        union = union.square() if self.mask_resize == "nearest" else union
        normalise = self.config.subjects.normalise
        return Term(denoising_loss(step.prediction, step.target, union, normalise))

    def _attention_terms(self, step: Step) -> dict[str, Term]:
        """Break-A-Scene eq. 2: each phrase's map resembles its mask."""
        if step.maps is None:
            return {}
        loss = mask_attention_loss(
            step.maps.mean(), step.masks, step.present, resize=self.mask_resize
        )
        return {"attention": Term(loss, self.config.subjects.attention_weight)}

    def _prior_terms(self, step: Step) -> dict[str, Term]:
        """The loss on class images, with neither masks nor maps."""
        weight = self.config.subjects.prior_weight
        if step.batch.prior is None or not weight:
            return {}
        prior = self.add_noise(step.batch.prior, step.draws, CLASS_IMAGES)
        prediction = self.predict(prior.noised, prior.timesteps, prior.text)
        return {"prior": Term(prior_loss(prediction, prior.target), weight)}

    # --- use and adapters ------------------------------------------------------------------------

    def to_pipeline(self) -> Any:
        """A stock diffusers pipeline that knows the subjects by their placeholders. It shares the
        denoiser, which holds the trained weights while this method is installed."""
        pipeline = super().to_pipeline()
        if self.subjects is None:
            return pipeline
        return without_guard(self.subjects.materialise(pipeline))

    def save_adapter(self, folder: Path | str) -> None:
        """As `Method`'s, and what stock pipelines load: ``subjects/`` for
        ``load_textual_inversion``, ``stock/`` as `save_stock` says."""
        folder = as_path(folder)
        if self.subjects is not None:
            self.subjects.save(folder / "subjects")
        if self.trained_weights:
            save_stock(folder / "stock", **self.trained_weights)
        super().save_adapter(folder)


def _choose_weights(
    backbone: Backbone, config: MethodConfig, cross_sites: Sequence[Site]
) -> dict[str, tuple[Any, str, Sequence[Site] | None, Sequence[str]]]:
    """Model in the pipeline -> the model, and which of its weights are trained (see
    `TrainedWeights`): part, sites, and words in the names of others."""
    subjects, weights = config.subjects, config.weights
    if weights.trainable == "none" or subjects.schedule == "tokens_only":
        return {}
    name = backbone.family.denoiser_name
    chosen: dict[str, Any] = {name: (backbone.denoiser, weights.trainable, cross_sites, ())}
    frozen = () if subjects.stock_words else (WORDS,)
    for i, encoder in enumerate(backbone.text.encoders if weights.text_encoder else []):
        chosen[f"text_encoder{backbone.family.text_parts[i]}"] = (encoder, "model", None, frozen)
    return chosen
