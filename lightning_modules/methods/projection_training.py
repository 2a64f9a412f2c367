"""What methods share that train projections of the backbone on losses of attention maps: the
weights themselves, noise as input, a distillation, and training on each prompt alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from datamodules.batch import Batch, Phrase
from datamodules.concepts import ConceptDataset, with_article
from datamodules.phrases.tagger import name_objects
from lightning_modules.backbone.text import TextEncoders
from lightning_modules.methods.base import Step, StepDraws, Term, weighted_sum
from lightning_modules.methods.projections import TrainedProjections
from lightning_modules.methods.second_step import SecondStep
from losses.denoising import distillation_loss

__all__ = ["ProjectionTraining"]

# Streams of random numbers
LATENTS, SINGLE_OBJECTS = 4, 5
SECOND_LATENTS, SECOND_NOISE = 6, 7  # Of a distillation in a step of its own


class ProjectionTraining(SecondStep, TrainedProjections):
    """As `TrainedProjections`. A method of this kind gives the losses on maps, `step_terms`.

    Batches name their objects by ``phrases``; samples may have different numbers of them.
    """

    # The method's own settings, below ``method.``
    section: ClassVar[str]
    # What a prompt without an object has nothing for
    purpose: ClassVar[str] = "train on"
    find_unused_parameters = True  # Layers behind the last map

    @property
    def settings(self) -> Any:
        """The method's own section; of each such method it has ``inputs``, ``objects``,
        ``distillation_…`` and ``test_time``."""
        return getattr(self.config, self.section)

    @staticmethod
    def check_texts(text: TextEncoders, dataset: Any) -> None:
        """Concepts that a prompt cannot hold whole would never be trained. Raises ValueError,
        naming the longest prompt's concept."""
        if not isinstance(dataset, ConceptDataset):
            return
        for prompt, phrases in dataset.longest(
            lambda concept: len(text.tokenizers[0](concept).input_ids)
        ):
            try:
                text.token_indices(prompt, [(phrase.start, phrase.end) for phrase in phrases])
            except ValueError as error:
                raise ValueError(
                    f"data.concepts with data.objects={dataset.objects}: {error}"
                ) from error

    # --- training --------------------------------------------------------------------------------

    @property
    def trains_on_noise(self) -> bool:
        """Whether the denoiser is given noised noise, or noised images."""
        return self.settings.inputs == "noise"

    @property
    def distils(self) -> bool:
        """Whether there is a distillation."""
        return self.settings.distillation_weight > 0

    def latents(self, batch: Batch, draws: StepDraws, stream: int = 0) -> Tensor:
        """What noise is added to, [B, C, h, w]: scaled noise, as the released code does, or the
        batch's images.

        Raises ValueError when images are needed and the batch has none.
        """
        if self.trains_on_noise:
            return self._noise_latents(len(batch), draws, LATENTS)
        if batch.latents is None and batch.images is None:
            raise ValueError(
                "images are needed but the prompts have none: leave data.concepts out, or "
                f"set method.{self.section}.inputs=noise"
            )
        return super().latents(batch, draws, stream)

    def _noise_latents(self, count: int, draws: StepDraws, stream: int) -> Tensor:
        noise = draws.normal(
            count, self.backbone.latent_size(self.resolution), draws.generator(stream)
        )
        scaled = noise * self.backbone.vae.config.scaling_factor
        return scaled.to(self.backbone.device, self.backbone.dtype)

    def step_terms(self, step: Step) -> dict[str, Term]:
        """The terms of the loss without the distillation."""
        raise NotImplementedError(f"no step_terms() of {self.name}")

    def losses(self, step: Step) -> dict[str, Term]:
        terms = self.step_terms(step)
        if self.distils and not self.has_second_step:
            # The pass of the maps is done with before that of the distillation begins: both at once
            # take twice the memory. Float16's scaler scales only what goes backwards later, and
            # small gradients would vanish without it: there both are kept.
            if self.recipe.precision != "16-mixed":
                terms = release_graph(terms, list(self.weights.parameters()))
            drift = self._distillation(step.batch, step.noised, step.timesteps, step.draws)
            terms["drift"] = Term(drift, self.settings.distillation_weight)
        return terms

    @property
    def has_second_step(self) -> bool:
        """Whether the distillation is a step of its own, as in the released code."""
        return self.distils and self.settings.distillation_step == "own"

    def second_terms(self, batch: Batch, draws: StepDraws) -> dict[str, Term]:
        """The distillation, on latents, noise and timesteps of its own."""
        latents = (
            self._noise_latents(len(batch), draws, SECOND_LATENTS)
            if self.trains_on_noise
            else self.latents(batch, draws, SECOND_NOISE)
        )
        noise, timesteps = self.draw(latents, draws, SECOND_NOISE)
        noised, _ = self.backbone.schedule.add_noise(latents, noise, timesteps)
        drift = self._distillation(batch, noised, timesteps, draws)
        return {"drift": Term(drift, self.settings.distillation_weight)}

    def _distillation(
        self, batch: Batch, noised: Tensor, timesteps: Tensor, draws: StepDraws
    ) -> Tensor:
        """How far the prediction on a prompt of one of each sample's objects is from the untouched
        backbone's (L_norm)."""
        objects, settings = self._objects(batch), self.settings
        counts = draws.all_gather_int(sum(map(bool, objects)))
        generator = draws.data_generator(SINGLE_OBJECTS)
        for _ in range(sum(counts[: draws.rank_and_world[0]])):  # The draws of earlier processes
            torch.randint(1, (), generator=generator)
        rows, singles = [], []
        for row, phrases in enumerate(objects):
            if phrases:
                drawn = int(torch.randint(len(phrases), (), generator=generator))
                phrase = phrases[0 if settings.distillation_object == "first" else drawn]
                rows.append(row)
                named = with_article(phrase.text, settings.distillation_article)
                singles.append(f"a photo of {named}")
        if not rows:
            # A gradient, should it be the only term
            return 0.0 * next(self.weights.parameters()).float().sum()
        text = self.backbone.text.encode(singles)
        with torch.no_grad(), self.weights.swapped_out():  # First, while no graph takes memory
            frozen = self.predict(noised[rows], timesteps[rows], text)
        prediction = self.predict(noised[rows], timesteps[rows], text)
        return draws.ddp_reweight(distillation_loss(prediction, frozen), counts)

    def _objects(self, batch: Batch) -> list[list[Phrase]]:
        """For each sample the words that name its objects, as the data set knows them; of captions
        alone all noun phrases."""
        if self.settings.objects == "nouns" and batch.phrases is None:
            return [name_objects(caption) for caption in batch.captions]
        if batch.phrases is None:
            raise ValueError(
                "objects need names: the batch's samples name no phrases; set the training "
                "set's with_phrases"
            )
        return batch.phrases

    # --- use -------------------------------------------------------------------------------------

    @property
    def takes_objects(self) -> bool:
        """Where the weights are trained on each prompt, too."""
        return not self.trains or super().takes_objects

    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Any = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
        objects: Sequence[Sequence[Any]] | None = None,
    ) -> Tensor:
        """As `Method`'s; with ``test_time`` the weights are trained on each prompt alone before it
        is drawn, and put back. ``objects`` are the words of each prompt that name its objects; left
        out, they are its noun phrases."""
        if self.trains:
            return super().generate(prompts, seeds, masks, steps, guidance, batch, objects)
        objects = objects or [name_objects(prompt) for prompt in prompts]
        rows_of: dict[tuple[Any, ...], list[int]] = {}
        for row, (prompt, named) in enumerate(zip(prompts, objects, strict=True)):
            spans = tuple((phrase.start, phrase.end) for phrase in named)
            rows_of.setdefault((prompt, spans), []).append(row)
        images: dict[int, Tensor] = {}
        for (prompt, _), rows in rows_of.items():
            own_seeds = [seeds[row] for row in rows]
            with self.adapted(prompt, objects[rows[0]]):
                named = [objects[row] for row in rows]
                given = [prompt] * len(rows), own_seeds, masks, steps, guidance, batch, named
                own = super().generate(*given)
            images |= dict(zip(rows, own, strict=True))
        for guide in self.guides:
            guide.reorder(list(images))
        return torch.stack([images[row] for row in range(len(prompts))])

    @contextmanager
    def adapted(self, prompt: str, objects: Sequence[Phrase] | None = None) -> Iterator[None]:
        """Inside the block the weights are those after ``test_time`` steps on the ``objects`` that
        the prompt names; left out, they are its noun phrases.

        Raises ValueError when it names none.
        """
        named = name_objects(prompt) if objects is None else list(objects)
        (located,), _ = self.backbone.text.locate_phrases([prompt], [named])
        if not located:
            raise ValueError(
                f"prompt {prompt!r} names nothing to {self.purpose}: expected a noun "
                "that the text encoder reads"
            )
        recipe, start = self.recipe, self.weights.tensors()
        count = recipe.batch
        batch = Batch(list(range(count)), [prompt] * count, phrases=[located] * count)
        parameters = list(self.weights.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        try:
            with torch.enable_grad():
                for number in range(self.settings.test_time):
                    draws = self.draws_of(number)
                    for terms in (
                        [self.compute_terms, self.second_terms]
                        if self.has_second_step
                        else [self.compute_terms]
                    ):
                        loss = weighted_sum(terms(batch, draws))
                        optimizer.zero_grad()
                        loss.backward()
                        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
                        optimizer.step()
            yield
        finally:
            self.weights.load_state_dict(start)


def release_graph(terms: Mapping[str, Term], parameters: Sequence[Tensor]) -> dict[str, Term]:
    """The terms with the gradient of their sum by ``parameters`` taken now, so that the graph
    behind them can go: a term of value zero carries it, and a later backward pass finds the same
    numbers."""
    if not any(term.value.requires_grad for term in terms.values()):
        return dict(terms)
    gradients = torch.autograd.grad(weighted_sum(terms), parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    carrier: Any = sum((p * g).sum() for p, g in pairs if g is not None)
    values = {name: term._replace(value=term.value.detach()) for name, term in terms.items()}
    return values | {"gradient": Term(carrier - carrier.detach(), logged=False)}
