"""MCGM (arXiv 2410.00483): target masks say where subjects go, through tokens that a mask encoder
appends to the text.

On top of Break-A-Scene on a scene, as in the paper; on a data set with captions and instance masks
the words of a caption stand in for the subjects, which lets the encoder learn masks that no scene
showed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from conf.describe import show_count
from conf.schema import Run
from datamodules.batch import Batch, Phrase
from lightning_modules.attention.capture import Capture, token_weights
from lightning_modules.attention.mask_tokens import ExtraTokens, MergedText
from lightning_modules.backbone.configs import BackboneConfigs
from lightning_modules.backbone.text import TextCondition
from lightning_modules.methods.base import Group, Step, StepDraws, Term
from lightning_modules.methods.break_a_scene import BreakAScene
from lightning_modules.methods.mask_targets import (
    MaskTarget,
    PromptMasks,
    TokenMasks,
    read_masks,
    stack_masks,
)
from lightning_modules.methods.optimizers import lr_multiplier
from lightning_modules.networks.mask_encoder import MaskEncoder, union
from losses.attention import mask_attention_loss
from losses.denoising import distillation_loss

BLANK, ALL_TIMESTEPS = 2, 3  # Streams of random numbers


class MCGM(BreakAScene):
    """Break-A-Scene with mask tokens; installed on construction, `remove` gives the stock backbone
    back."""

    name = "mcgm"
    takes_masks = True

    @classmethod
    def check_backbone(cls, config: Run, backbone: BackboneConfigs) -> None:
        """As `BreakAScene`'s; merged masks need one text for all layers. Raises ValueError."""
        super().check_backbone(config, backbone)
        if config.method.masks.encoder == "merged" and backbone.family.is_joint:
            raise ValueError(
                f"method.masks.encoder=merged with backbone={config.backbone.name}: joint "
                "attention changes the text in every layer, and masks cannot be merged into it; "
                "set per_mask, union or conv"
            )

    def extra_modules(self) -> dict[str, nn.Module]:
        settings, backbone = self.config.masks, self.backbone
        side = max(round(self.resolution / backbone.vae_scale_factor), 1)
        width = self.cross_sites[0].context
        encoder = MaskEncoder(
            settings.encoder,
            width,
            side,
            backbone.text.length,
            self.mask_resize,
            settings.blank == "encoded",
        )
        if settings.text_binding == "text" and settings.encoder in ("per_mask", "conv"):
            # The words alone stand for the mask at first: the encoder adds to them what it learns.
            nn.init.zeros_(encoder.project.weight)
            nn.init.zeros_(encoder.project.bias)
        encoder.requires_grad_(settings.trained)
        merged = settings.encoder == "merged"
        self.mask_tokens: ExtraTokens | MergedText = (
            MergedText(self.cross_sites)
            if merged
            else ExtraTokens(self.cross_sites, resize=self.mask_resize)
        )
        return {"encoder": encoder}

    @property
    def encoder(self) -> MaskEncoder:
        return self.adapter["encoder"]  # type: ignore[return-value]

    def install(self) -> None:
        super().install()
        if self.mask_tokens.is_attached:
            return
        try:
            self.mask_tokens.attach(self.backbone.denoiser)
        except ValueError:
            self.remove()
            raise

    def remove(self) -> None:
        super().remove()
        self.mask_tokens.detach()

    # --- masks to tokens -------------------------------------------------------------------------

    def set_mask_tokens(
        self, masks: Sequence[Sequence[Tensor]], words: Tensor | None = None, zeros: bool = False
    ) -> None:
        """From the next forward pass on each of its B samples has a token for each of its
        ``masks``, all of them zero with ``zeros``.

        ``words`` [B, n, D] are the states of each mask's words (`word_states`); None where no mask
        has any. A blank mask gives a token as ``masks.blank`` says, and acts nowhere where masks
        limit where tokens act.
        """
        settings = self.config.masks
        planes, present = stack_masks(
            masks, self.resolution, self.backbone.device, self.mask_resize
        )
        tokens, shown = self.encoder.to(planes.device)(planes)  # [B, m, D], [B, m]
        if zeros:
            tokens = torch.zeros_like(tokens)
        if isinstance(self.mask_tokens, MergedText):
            self.mask_tokens.samples = len(planes)
            self.mask_tokens.merge = lambda text: self.encoder.merge(text, tokens, shown)
            return
        where = planes if settings.mask_scope == "inside" else None
        if settings.encoder == "union":
            # A sample that was given no mask has no token; one whose masks are blank has one of
            # zeros.
            present = present.any(1, keepdim=True)
            where = None if where is None else union(where)
        elif settings.text_binding == "text" and words is not None:
            tokens = tokens + words * shown[..., None]
        self.mask_tokens.set(tokens, settings.token_scale, present, where)

    def clear_mask_tokens(self) -> None:
        """From the next forward pass on there are no mask tokens, only the text."""
        if isinstance(self.mask_tokens, MergedText):
            self.mask_tokens.merge = None
        else:
            self.mask_tokens.set(None)

    @contextmanager
    def _mask_tokens_set(
        self, masks: Sequence[Sequence[Tensor]], words: Tensor | None = None, zeros: bool = False
    ) -> Iterator[None]:
        self.set_mask_tokens(masks, words, zeros)
        try:
            yield
        finally:
            self.clear_mask_tokens()

    def word_states(self, text: TextCondition, indices: Sequence[Sequence[list[int]]]) -> Tensor:
        """float32 [B, n, D]: for each mask of each sample the mean state of the tokens at its
        ``indices``; zero where it has none."""
        hidden = self.backbone.project_text(text)
        with torch.autocast(hidden.device.type, enabled=False):
            means = token_weights(indices, hidden.shape[1]).to(hidden.device).transpose(1, 2)
            return means @ hidden.float()

    # --- training --------------------------------------------------------------------------------

    def parameter_groups(self) -> list[Group]:
        rate, recipe = self.config.masks.lr, self.recipe
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        group = Group(encoder, lambda step: rate * lr_multiplier(recipe, step))
        return [*super().parameter_groups(), group]

    def draw(self, latents: Tensor, draws: StepDraws, stream: int = 0) -> tuple[Tensor, Tensor]:
        """As `Method`'s; samples without masks, and class images, see all timesteps: there is no
        layout to be open for."""
        noise, timesteps = super().draw(latents, draws, stream)
        count, sampling = len(latents), self.recipe.timesteps
        sampling = "uniform" if sampling == "high_noise" else sampling
        generator = draws.generator(ALL_TIMESTEPS + stream)
        anywhere = self.draw_timesteps(sampling, count, draws, generator).to(timesteps)
        blank = [True] * count if stream else self._blank_samples(draws, count)
        return noise, torch.where(torch.tensor(blank).to(latents.device), anywhere, timesteps)

    def _blank_samples(self, draws: StepDraws, count: int) -> list[bool]:
        """Which samples of this step are shown without masks."""
        drawn = draws.uniform(count, draws.data_generator(BLANK))
        return (drawn < self.config.masks.dropout).tolist()

    def prepare(self, batch: Batch, draws: StepDraws) -> Step:
        """As `BreakAScene`'s, with the mask tokens of each sample."""
        step = super().prepare(batch, draws)
        blank, masks, word_indices = self._blank_samples(draws, len(batch)), [], []
        for phrases, indices, hidden in zip(step.phrases, step.token_indices, blank, strict=True):
            if hidden:
                phrases = [phrase._replace(mask=phrase.mask * 0) for phrase in phrases]
            slots = self._fill_slots(list(zip(phrases, indices, strict=True)))
            masks.append([mask for mask, _ in slots])
            word_indices.append([words for _, words in slots])
        step.token_masks = TokenMasks(blank, masks, word_indices)
        settings = self.config.masks
        if settings.lambda_m and not isinstance(self.mask_tokens, MergedText):
            drawn = [
                settings.supervised == "shown" or self._in_drawn_slots(len(phrases))
                for phrases in step.phrases
            ]
            union = settings.encoder == "union"
            step.token_masks.supervise(step.text.hidden.shape[1], union, drawn)
        return step

    def _fill_slots(self, drawn: list[tuple[Phrase, list[int]]]) -> list[tuple[Tensor, list[int]]]:
        """The masks of the drawn subjects in the slots where ``masks.slots`` puts them, blank masks
        in the others (strategies 0, 2, 3 and 4 of the released code)."""
        tokens, rule = self.config.subjects.tokens, self.config.masks.slots
        masks = [(phrase.mask, words) for phrase, words in drawn]
        if self._in_drawn_slots(len(drawn)):
            return masks
        slots = [(torch.zeros_like(masks[0][0]), list[int]()) for _ in tokens]
        for (phrase, _), mask in zip(drawn, masks, strict=True):
            slots[0 if rule == "first_one" else tokens.index(phrase.text)] = mask
        return slots

    def _in_drawn_slots(self, count: int) -> bool:
        """Whether the masks of so many drawn subjects stand in the order in which these were
        drawn."""
        rule = self.config.masks.slots
        moved = rule == "fixed" or (rule != "drawn" and count == 1)
        return not (moved and count and self.config.subjects.tokens)

    def run_denoiser(self, step: Step) -> None:
        """The forward pass with mask tokens, whose maps are read where a loss looks at them."""
        given = step.token_masks
        words = self.word_states(step.text, given.word_indices)
        with ExitStack() as acting:
            acting.enter_context(self._mask_tokens_set(given.masks, words))
            if given.supervised_indices is not None:
                capture = Capture(self.map_sites, given.supervised_indices)
                acting.enter_context(capture.attached(self.backbone.denoiser))
                super().run_denoiser(step)
                given.maps = capture.maps
            else:
                super().run_denoiser(step)

    def losses(self, step: Step) -> dict[str, Term]:
        terms = {"denoising": self._masked_denoising(step)}
        terms |= self._mask_attention_terms(step) | self._distillation_terms(step)
        return terms | self._attention_terms(step) | self._prior_terms(step)

    def _mask_attention_terms(self, step: Step) -> dict[str, Term]:
        """MCGM eq. 3: each mask token's map resembles its mask; blank masks do not count."""
        given = step.token_masks
        if given.maps is None:
            return {}
        masks, present = stack_masks(
            given.supervised_masks, self.resolution, self.backbone.device, self.mask_resize
        )
        loss = mask_attention_loss(given.maps.mean(), masks, present, resize=self.mask_resize)
        return {"mask_attention": Term(loss, self.config.masks.lambda_m)}

    def _distillation_terms(self, step: Step) -> dict[str, Term]:
        """How far the prediction on the samples without masks is from the untouched backbone's; not
        on a scene, whose words that does not know."""
        weight, draws = self.config.masks.distillation_weight, step.draws
        if not weight or self.subjects is not None:
            return {}
        rows = [row for row, blank in enumerate(step.token_masks.blank) if blank]
        counts = draws.all_gather_int(len(rows))
        if not sum(counts):
            return {}
        if not rows:
            return {"drift": Term(torch.zeros((), device=step.prediction.device), weight)}
        with torch.no_grad(), ExitStack() as untouched:
            for part in self.trained_weights.values():
                untouched.enter_context(part.swapped_out())
            text = self.backbone.text.encode([step.batch.captions[row] for row in rows])
            frozen = self.predict(step.noised[rows], step.timesteps[rows], text)
        loss = distillation_loss(step.prediction[rows], frozen)
        return {"drift": Term(draws.ddp_reweight(loss, counts), weight)}

    def _prior_terms(self, step: Step) -> dict[str, Term]:
        """As `BreakAScene`'s; a class image has as many mask tokens as its sample of the scene, all
        of them zero."""
        if step.batch.prior is None:
            return {}
        blank = torch.zeros(self.resolution, self.resolution)
        masks = [[blank] * len(sample) for sample in step.token_masks.masks]
        with self._mask_tokens_set(masks, zeros=True):
            return super()._prior_terms(step)

    # --- use -------------------------------------------------------------------------------------

    @torch.no_grad()
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
        """As `Method`'s, guided by ``masks``: for each prompt None, or which phrases should fill
        which mask (`read_masks`).

        A mask may belong to one phrase, to several, or to none; where it is blank, or there is
        none, the text alone says what to draw. Raises ValueError, before anything is drawn, on
        masks that cannot be read and on phrases that are not in their prompt.
        """
        if len(prompts) != len(seeds):
            raise ValueError(
                f"{show_count(len(prompts), 'prompt')} but {show_count(len(seeds), 'seed')}: "
                "expected one seed for each prompt"
            )
        targets, indices = self._read_targets(prompts, masks)
        images = []
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            with self._guided(prompts[rows], targets[rows], indices[rows]):
                named = None if objects is None else objects[rows]
                given = prompts[rows], seeds[rows], None, steps, guidance, batch, named
                images.append(super().generate(*given))
        return torch.cat(images)

    def mask_guidance(
        self, prompts: Sequence[str], masks: Sequence[PromptMasks] | None
    ) -> AbstractContextManager[None]:
        """Inside the block the backbone, also as a stock pipeline, draws these prompts in these
        masks: in one batch, one image a prompt. Raises ValueError as `generate`, at once."""
        return self._guided(list(prompts), *self._read_targets(prompts, masks))

    @contextmanager
    def _guided(
        self,
        prompts: list[str],
        targets: list[list[MaskTarget]],
        indices: list[list[list[int]]],
    ) -> Iterator[None]:
        self.clear_mask_tokens()
        try:
            if any(targets):
                masks = [[target.mask for target in sample] for sample in targets]
                with torch.no_grad():
                    words = self.word_states(self.backbone.text.encode(prompts), indices)
                    self.set_mask_tokens(masks, words)
            yield
        finally:
            self.clear_mask_tokens()

    def _read_targets(
        self, prompts: Sequence[str], masks: Sequence[PromptMasks] | None
    ) -> tuple[list[list[MaskTarget]], list[list[list[int]]]]:
        """The target masks of each prompt, and the indices of the tokens of each one's phrases."""
        targets = read_masks(masks, prompts, self.resolution, self.mask_resize)
        indices = []
        for prompt, sample in zip(prompts, targets, strict=True):
            phrases: list[Any] = [phrase for target in sample for phrase in target.phrases]
            # A phrase that is named twice means its second place then.
            found = iter(self.backbone.text.token_indices(prompt, phrases))
            indices.append(
                [sorted({at for _ in target.phrases for at in next(found)}) for target in sample]
            )
        return targets, indices
