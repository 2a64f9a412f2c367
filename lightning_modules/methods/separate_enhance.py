"""Separate-and-Enhance (arXiv 2312.06712): projections of the cross-attention that give each object
of a prompt a place of its own.

No image is needed: the prompts are the data. The maps of an object's tokens shall not overlap
another's (separate), and the weakest of them shall be strong somewhere (enhance); a regulariser
holds the prediction on prompts of one object near that of the frozen backbone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conf.schema import Method as MethodConfig
from conf.schema import Run, Separate, Weights
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Batch, Phrase
from datamodules.concepts import ConceptDataset, with_article
from datamodules.phrases.nouns import noun_spans
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Method
from lightning_modules.networks.trained_weights import TrainedWeights
from losses.attention import enhance_loss, separate_loss
from losses.denoising import denoising_loss
from losses.regularisation import distillation_loss

# The positions that the released code takes for the two objects: "and" and EOS in its own prompts
RELEASED = (6, 9)


class SeparateEnhance(Method):
    """Trained projections of the cross-attention; installed on construction, `remove` gives the
    stock backbone back.

    Batches name their objects by ``phrases``; samples may have different numbers of them. Raises
    ValueError as `TrainedWeights`.
    """

    name = "separate_enhance"
    leaves_out = True  # layers behind the last map that is looked at

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        chosen, self.cross = config.separate, select(backbone.sites(resolution))
        self.adapter = TrainedWeights(
            backbone.denoiser, config.weights.trainable, self.cross, config.weights.rank
        )
        self.noisier = config.separate.timesteps == "noisier"
        self.own_step = 0  # of an adaptation to one prompt
        self.capture = Capture(
            nearest(self.cross, chosen.side), heads="keep" if chosen.heads == "each" else "mean"
        )
        self.install()

    @classmethod
    def check_backbone(cls, config: Run, backbone: Backbone) -> None:
        if not backbone.family.clip and config.method.separate.tokens == "released":
            raise ValueError(
                f"method.separate.tokens=released with backbone={config.backbone.name}: the "
                "positions are those of CLIP; set phrase or last"
            )

    @property
    def weights(self) -> TrainedWeights:
        assert isinstance(self.adapter, TrainedWeights)
        return self.adapter

    def install(self) -> None:
        if not self.weights.is_installed:
            self.weights.to(self.backbone.device)
            self.weights.install()

    def remove(self) -> None:
        if self.weights.is_installed:
            self.weights.remove()

    def check_data(self, dataset: Any) -> None:
        """Concepts that a prompt cannot hold whole would never be trained. Raises ValueError naming
        the longest prompt's concept."""
        if not isinstance(dataset, ConceptDataset):
            return
        for text, named in dataset.longest(
            lambda concept: len(self.backbone.text.tokenizers[0](concept).input_ids)
        ):
            try:
                self.backbone.text.token_indices(
                    text, [(phrase.start, phrase.end) for phrase in named]
                )
            except ValueError as error:
                raise ValueError(
                    f"data.concepts with data.objects={dataset.objects}: {error}"
                ) from error

    # --- training --------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        return super().step if self.trains else self.own_step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        found, total = self.losses(batch)
        self.log_dict(
            {f"train/{name}": loss for name, loss in found.items()} | {"train/loss": total}
        )
        return total

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """(name -> value, their weighted sum with its gradient) of all losses that a step
        minimises."""
        chosen = self.config.separate
        latents = self.latents(batch)
        noise, timesteps = self.draw(latents)
        noised, target = self.backbone.schedule.add_noise(latents, noise, timesteps)
        text = self.text(batch)
        if chosen.control == "denoising":
            loss = denoising_loss(self.predict(noised, timesteps, text), target)
            return {"denoising": loss.detach()}, loss
        found: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.backbone.device)
        if chosen.separate_weight or chosen.enhance_weight:
            self.capture.tokens = self.positions(batch)
            with (
                self.capture.attached(self.backbone.denoiser),
                stop_after(self.backbone.denoiser, self.capture.sites),
            ):
                self.predict(noised, timesteps, text)
            maps, present = self.capture.maps.mean(), self.capture.maps.present
            found["separate"] = separate_loss(maps, present)
            found["enhance"] = enhance_loss(maps, present, chosen.kernel, chosen.sigma)
            total = (
                chosen.separate_weight * found["separate"]
                + chosen.enhance_weight * found["enhance"]
            )
        if chosen.distillation_weight:
            # The pass of the maps is done with before the drift's begins: both at once take twice
            # the memory. Float16's scaler scales only what goes backwards later, and small
            # gradients would vanish without it: there both are kept.
            total = (
                total
                if self.recipe.precision == "16-mixed"
                else with_gradient_taken(total, list(self.weights.parameters()))
            )
            found["drift"] = self.drift(batch, noised, timesteps)
            total = total + chosen.distillation_weight * found["drift"]
        return {name: loss.detach() for name, loss in found.items()}, total

    def latents(self, batch: Batch) -> Tensor:
        """What noise is added to [B, C, h, w]: scaled noise, as the released code does, or the
        batch's images.

        Raises ValueError when images are wanted and the batch has none.
        """
        if self.config.separate.inputs == "noise" and self.config.separate.control != "denoising":
            shape = self.backbone.latent_size(self.resolution)
            generator = self.generator(4)
            drawn = self.own(
                lambda samples: torch.randn(samples, *shape, generator=generator), len(batch)
            )
            return (drawn * self.backbone.vae.config.scaling_factor).to(
                self.backbone.device, self.backbone.dtype
            )
        if batch.latents is None and batch.images is None:
            raise ValueError(
                "images are wanted but the prompts have none: leave data.concepts out, or "
                "set method.separate.inputs=noise"
            )
        return super().latents(batch)

    def objects(self, batch: Batch) -> list[list[Phrase]]:
        """For each sample the words that name its objects: those that the dataset links, or all
        noun phrases of its caption."""
        if self.config.separate.objects == "nouns":
            return [_nouns(caption) for caption in batch.captions]
        if batch.phrases is None:
            raise ValueError(
                "objects need names: the batch's samples name no phrases; set the training "
                "set's with_phrases"
            )
        return batch.phrases

    def positions(self, batch: Batch) -> list[list[list[int]]]:
        """For each sample, for each of its objects, the positions of the tokens that stand for
        it."""
        which = self.config.separate.tokens
        _, placed = self.backbone.text.locate_phrases(batch.captions, self.objects(batch))
        if which == "released":
            return [[[at] for at, _ in zip(RELEASED, objects, strict=False)] for objects in placed]
        return [[at[-1:] if which == "last" else at for at in objects] for objects in placed]

    def drift(self, batch: Batch, noised: Tensor, timesteps: Tensor) -> Tensor:
        """How far the prediction on a prompt of one of each sample's objects is from the untouched
        backbone's (L_norm)."""
        named = self.objects(batch)
        counts = self.counts(sum(map(bool, named)))
        generator = self.generator(5)
        for _ in range(sum(counts[: self.place[0]])):  # the draws of the processes before
            torch.randint(1, (), generator=generator)
        rows, singles = [], []
        for i, phrases in enumerate(named):
            if phrases:
                chosen = phrases[int(torch.randint(len(phrases), (), generator=generator))]
                rows.append(i)
                singles.append(f"a photo of {with_article(chosen.text)}")
        if not rows:
            # a gradient, should it be the only term
            return 0.0 * next(self.weights.parameters()).float().sum()
        text = self.backbone.text.encode(singles)
        with torch.no_grad(), self.weights.swapped_out():  # first, while no graph takes memory
            frozen = self.predict(noised[rows], timesteps[rows], text)
        prediction = self.predict(noised[rows], timesteps[rows], text)
        return self.weighed(distillation_loss(prediction, frozen), counts)

    # --- use --------------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        return self.config.separate.test_time == 0

    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Any = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
    ) -> Tensor:
        """As `Method.generate`; with ``test_time`` the weights are trained on each prompt alone
        before it is drawn, and put back."""
        if self.trains:
            return super().generate(prompts, seeds, masks, steps, guidance, batch)
        drawn: dict[str, list[int]] = {}
        for i, prompt in enumerate(prompts):
            drawn.setdefault(prompt, []).append(i)
        images: dict[int, Tensor] = {}
        for prompt, rows in drawn.items():
            with self.adapted(prompt):
                found = super().generate(
                    [prompt] * len(rows),
                    [seeds[row] for row in rows],
                    masks,
                    steps,
                    guidance,
                    batch,
                )
            images |= dict(zip(rows, found, strict=True))
        return torch.stack([images[i] for i in range(len(prompts))])

    @contextmanager
    def adapted(self, prompt: str) -> Iterator[None]:
        """Inside the block the weights are those after ``test_time`` steps on the objects that the
        prompt names (`noun_phrases`).

        Raises ValueError when it names none.
        """
        ((found,), _) = self.backbone.text.locate_phrases([prompt], [_nouns(prompt)])
        if not found:
            raise ValueError(
                f"prompt {prompt!r} names nothing to separate or enhance: expected a noun "
                "that the text encoder reads"
            )
        count = self.recipe.batch
        batch = Batch(list(range(count)), [prompt] * count, phrases=[found] * count)
        start = self.weights.tensors()
        optimizer = torch.optim.AdamW(
            self.weights.parameters(), lr=self.recipe.lr, weight_decay=self.recipe.weight_decay
        )
        try:
            with torch.enable_grad():
                for step in range(self.config.separate.test_time):
                    self.own_step = step
                    _, loss = self.losses(batch)
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(self.weights.parameters(), self.recipe.clip)
                    optimizer.step()
            yield
        finally:
            self.own_step = 0
            self.weights.load_state_dict(start)

    # --- adapters --------------------------------------------------------------------------------

    def save_adapter(self, folder: Path | str) -> None:
        """`Method.save_adapter`, and in ``stock/`` what a stock pipeline loads
        (`TrainedWeights.save_stock`)."""
        self.weights.save_stock(Path(folder) / "stock", self.backbone.family.denoiser_name)
        super().save_adapter(folder)

    def load_weights(self, folder: Path | str) -> None:
        super().load_weights(folder)
        chosen = self.config.separate
        if chosen.scale != 1 or chosen.control == "permuted":
            self.change(chosen.scale, chosen.control == "permuted")

    @torch.no_grad()
    def change(self, scale: float, permuted: bool = False) -> None:
        """Multiplies the trained change by ``scale``; ``permuted`` gives each tensor the entries of
        its change in another order first: a change of the same size that was not learnt. Raises
        ValueError on low-rank weights."""
        if self.config.weights.rank:
            raise ValueError(
                f"weights.rank={self.config.weights.rank}: only the change of whole weights "
                "can be scaled or permuted"
            )
        generator = torch.Generator().manual_seed(self.seed)
        with self.weights.swapped_out():
            stock = {
                name: self.backbone.denoiser.get_parameter(name).detach().clone()
                for name, _ in self.weights.named_parameters()
            }
        for name, trained in self.weights.named_parameters():
            start = stock[name].to(trained)
            change = (trained - start).flatten()
            if permuted:
                change = change[
                    torch.randperm(change.numel(), generator=generator).to(change.device)
                ]
            trained.copy_(start + scale * change.view_as(trained))

    def adapter_config(self) -> dict[str, Any]:
        return {"weights": asdict(self.config.weights), "separate": asdict(self.config.separate)}

    @classmethod
    def from_card(cls, card: dict[str, Any], backbone: Backbone) -> Method:
        saved = card["config"]
        config = MethodConfig(
            name=cls.name,
            weights=Weights(**saved["weights"]),
            separate=Separate(**saved["separate"]),
        )
        return cls(backbone, config, TrainerConfig(), card["resolution"])


def with_gradient_taken(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """``loss`` with its gradient by ``parameters`` taken now: the graph behind it can go, a later
    backward pass finds the same numbers."""
    if not loss.requires_grad:
        return loss
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    carrier = sum(
        (p * g).sum() for p, g in zip(parameters, gradients, strict=True) if g is not None
    )
    return loss.detach() + (carrier - carrier.detach())


def _nouns(text: str) -> list[Phrase]:
    return [
        Phrase(text[start:end], start, end, torch.zeros(0, 0, dtype=torch.bool))
        for start, end in noun_spans(text)
    ]
