"""MCGM (arXiv 2410.00483): target masks say where subjects go, through tokens that a mask encoder
appends to the text.

On top of Break-A-Scene on a scene, as in the paper; on a dataset with captions and instance masks
the words of a caption take the subjects' place, which lets the encoder learn masks that no scene
showed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from conf.schema import Masks
from conf.schema import Method as MethodConfig
from datamodules.batch import Batch
from lightning_modules.attention import nearest
from lightning_modules.attention.capture import Capture, token_weights
from lightning_modules.attention.mask_tokens import ExtraTokens, MergedText
from lightning_modules.backbone.text import TextCondition
from lightning_modules.methods.base import Group
from lightning_modules.methods.break_a_scene import SIDE, BreakAScene, stacked
from lightning_modules.methods.mask_targets import Given, MaskTarget, read_masks
from lightning_modules.networks.mask_encoder import MaskEncoder, union
from losses.attention import mask_attention_loss
from losses.regularisation import distillation_loss


class MCGM(BreakAScene):
    """Break-A-Scene with mask tokens; installed on construction, `remove` gives the stock backbone
    back."""

    name = "mcgm"
    takes_masks = True

    def more_parts(self) -> dict[str, nn.Module]:
        chosen = self.config.masks
        # Where the noisy image still leaves the layout open
        self.noisier = chosen.timesteps == "noisier"
        side = max(round(self.resolution / self.backbone.vae_scale_factor), 1)
        encoder = MaskEncoder(
            chosen.encoder, self.cross[0].context, side, self.backbone.text.length
        )
        if chosen.text_binding == "text" and chosen.encoder in ("per_mask", "conv"):
            # The words alone stand for the mask at first: the encoder adds to them what it learns.
            nn.init.zeros_(encoder.project.weight)
            nn.init.zeros_(encoder.project.bias)
        encoder.requires_grad_(chosen.trained)
        self.mask_capture = Capture(nearest(self.cross, SIDE))
        # Noised latents, timesteps and prediction of the step's forward pass
        self.latest: tuple[Tensor, Tensor, Tensor] | None = None
        self.extra: ExtraTokens | MergedText = (
            MergedText(self.cross) if chosen.encoder == "merged" else ExtraTokens(self.cross)
        )
        return {"encoder": encoder}

    @property
    def encoder(self) -> MaskEncoder:
        return self.adapter["encoder"]  # type: ignore[return-value]

    def install(self) -> None:
        super().install()
        if not self.extra.is_attached:
            self.extra.attach(self.backbone.denoiser)

    def remove(self) -> None:
        super().remove()
        self.extra.detach()

    # --- masks to tokens --------------------------------------------------------------------------

    def steer(self, targets: Sequence[Sequence[MaskTarget]], words: Tensor | None = None) -> None:
        """From the next forward pass on its B samples are steered by ``targets``, a list for each.
        ``words`` [B, n, D] are the states of each target's words (`words`); None where no target
        has any. A blank mask gives a token of zeros, and acts nowhere where masks limit the tokens'
        reach."""
        chosen = self.config.masks
        masks, present = stacked(
            [[target.mask for target in sample] for sample in targets],
            self.resolution,
            self.backbone.device,
        )
        tokens, said = self.encoder(masks)  # [B, m, D], [B, m]
        if isinstance(self.extra, MergedText):
            self.extra.samples = len(masks)
            self.extra.merge = lambda states: self.encoder.merge(states, tokens, said)
            return
        where = masks if chosen.mask_scope == "inside" else None
        if chosen.encoder == "union":
            # A sample that was given no mask has no token; one whose masks are blank has one of
            # zeros.
            present, where = present.any(1, keepdim=True), None if where is None else union(where)
        elif chosen.text_binding == "text" and words is not None:
            tokens = tokens + words * said[..., None]
        self.extra.set(tokens, chosen.token_scale, present, where)

    def words(self, text: TextCondition, positions: Sequence[Sequence[list[int]]]) -> Tensor:
        """float32 [B, n, D]: for each target of each sample the mean state of the tokens at its
        ``positions``; zero where it has none."""
        hidden = self.backbone.project_text(text)
        with torch.autocast(hidden.device.type, enabled=False):
            return (
                token_weights(positions, hidden.shape[1]).to(hidden.device).transpose(1, 2)
                @ hidden.float()
            )

    def unsteered(self) -> None:
        """From the next forward pass on there are no mask tokens: the text is all that the model is
        told."""
        if isinstance(self.extra, MergedText):
            self.extra.merge = None
        else:
            self.extra.set(None)

    # --- training --------------------------------------------------------------------------------

    def draw(self, latents: Tensor, stream: int = 0) -> tuple[Tensor, Tensor]:
        """`Method.draw`; samples without masks, and class images, see all timesteps: there is no
        layout to be open for."""
        noise, timesteps = super().draw(latents, stream)
        generator, last = self.generator(3 + stream), self.backbone.schedule.num_timesteps
        anywhere = self.own(
            lambda samples: torch.randint(last, (samples,), generator=generator), len(latents)
        ).to(timesteps)
        alone = (
            torch.ones_like(timesteps, dtype=torch.bool)
            if stream
            else torch.tensor(self._blank(len(latents))).to(latents.device)
        )
        return noise, torch.where(alone, anywhere, timesteps)

    def parameter_groups(self) -> list[Group]:
        rate = self.config.masks.lr
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        return [*super().parameter_groups(), Group(encoder, lambda step: rate * self.factor(step))]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with self.mask_capture.attached(self.backbone.denoiser):
            try:
                return super().training_step(batch, batch_idx)
            finally:
                self.unsteered()
                self.latest = None

    def condition(self, batch: Batch, text: TextCondition) -> TextCondition:
        targets, positions = [], []
        for kept, places, without in zip(
            self.kept, self.positions, self._blank(len(batch)), strict=True
        ):
            given = [
                MaskTarget(
                    (phrase.text,), torch.zeros_like(phrase.mask) if without else phrase.mask
                )
                for phrase in kept
            ]
            slots = self._slots(list(zip(given, places, strict=True)))
            targets.append([target for target, _ in slots])
            positions.append([at for _, at in slots])
        self.steer(targets, self.words(text, positions))
        self._watch(
            [[target.mask for target in sample] for sample in targets], text.hidden.shape[1]
        )
        return text

    def predict(self, noised: Tensor, timesteps: Tensor, text: TextCondition) -> Tensor:
        prediction = super().predict(noised, timesteps, text)
        self.latest = (noised, timesteps, prediction)
        return prediction

    def _watch(self, masks: list[list[Tensor]], length: int) -> None:
        """Which tokens behind a text of ``length`` the mask loss looks at, and their masks: all but
        the blank ones."""
        self.mask_capture.tokens = None
        if isinstance(self.extra, MergedText) or not self.config.masks.lambda_m:
            return
        if self.config.masks.encoder == "union":
            masks = [
                [torch.stack([mask.float() for mask in sample]).amax(0)] if sample else []
                for sample in masks
            ]
        shown = [
            [(length + j, mask) for j, mask in enumerate(sample) if bool(mask.any())]
            for sample in masks
        ]
        self.mask_capture.tokens = [[at for at, _ in sample] for sample in shown]
        self.watched_masks = [[mask for _, mask in sample] for sample in shown]

    def _blank(self, count: int) -> list[bool]:
        """Which samples of this step are shown without masks."""
        generator = self.generator(2)
        return (
            self.own(lambda samples: torch.rand(samples, generator=generator), count)
            < self.config.masks.dropout
        ).tolist()

    def _slots(
        self, drawn: list[tuple[MaskTarget, list[int]]]
    ) -> list[tuple[MaskTarget, list[int]]]:
        """The masks of the drawn subjects in the slots where ``masks.slots`` puts them, blank masks
        in the others (papers: strategies 0, 2, 3 and 4 of the released code)."""
        tokens, rule = self.config.subjects.tokens, self.config.masks.slots
        if not tokens or rule == "drawn" or (rule != "fixed" and len(drawn) > 1) or not drawn:
            return drawn
        slots = [(MaskTarget((), torch.zeros_like(drawn[0][0].mask)), list[int]()) for _ in tokens]
        for target, at in drawn:
            slots[0 if rule == "first_one" else tokens.index(str(target.phrases[0]))] = (target, at)
        return slots

    def with_extra(self, loss: Tensor, batch: Batch, timesteps: Tensor) -> Tensor:
        if self.mask_capture.tokens is not None:
            masks, present = stacked(self.watched_masks, self.resolution, self.backbone.device)
            attention = mask_attention_loss(
                self.mask_capture.maps.mean(), masks, present, resize="area"
            )
            self.log("train/mask_attention", attention)
            loss = loss + self.config.masks.lambda_m * attention
        if self.config.masks.distillation_weight and self.subjects is None:
            blank = [i for i, without in enumerate(self._blank(len(batch))) if without]
            if sum(counts := self.counts(len(blank))):
                drift = (
                    self.weighed(self.drift(batch, blank), counts) if blank else loss.new_zeros(())
                )
                self.log("train/drift", drift)
                loss = loss + self.config.masks.distillation_weight * drift
        return super().with_extra(loss, batch, timesteps)

    def drift(self, batch: Batch, rows: list[int]) -> Tensor:
        """How far the prediction on ``rows``, the samples without masks, is from the untouched
        backbone's."""
        assert self.latest is not None
        noised, timesteps, prediction = self.latest
        watched, self.mask_capture.tokens, self.capture.tokens = self.capture.tokens, None, None
        self.unsteered()
        with torch.no_grad(), ExitStack() as untouched:
            for part in self.trained_weights:
                untouched.enter_context(part.swapped_out())
            text = self.backbone.text.encode([batch.captions[row] for row in rows])
            frozen = super().predict(noised[rows], timesteps[rows], text)
        self.capture.tokens = watched
        return distillation_loss(prediction[rows], frozen)

    def prior(self, batch: Batch) -> Tensor:
        """Class images have blank masks."""
        self.mask_capture.tokens = None
        blank = MaskTarget((), torch.zeros(self.resolution, self.resolution))
        count = max(len(self.config.subjects.tokens), 1)
        self.steer([[blank] * count] * len(batch))
        return super().prior(batch)

    # --- use --------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Sequence[Given] | None = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
    ) -> Tensor:
        """As `Method.generate`, steered by ``masks``: for each prompt None, or which phrases shall
        fill which mask (`read_masks`).

        A mask may belong to one phrase, to several, or to none; where it is blank, or there is
        none, the text alone says what to draw. Raises ValueError, before anything is drawn, on
        masks that cannot be read and on phrases that are not in their prompt.
        """
        if len(prompts) != len(seeds):
            raise ValueError(
                f"{len(prompts)} prompts but {len(seeds)} seeds: expected one seed for each prompt"
            )
        targets, positions = self._read(prompts, masks)
        images = []
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            with self._steering(prompts[rows], targets[rows], positions[rows]):
                images.append(
                    super().generate(prompts[rows], seeds[rows], None, steps, guidance, batch)
                )
        return torch.cat(images)

    def steered(
        self, prompts: Sequence[str], masks: Sequence[Given] | None
    ) -> AbstractContextManager[None]:
        """Inside the block the backbone, also as a stock pipeline, draws these prompts in these
        masks: in one batch, one image a prompt."""
        return self._steering(list(prompts), *self._read(prompts, masks))

    @contextmanager
    def _steering(
        self, prompts: list[str], targets: list[list[MaskTarget]], positions: list[list[list[int]]]
    ) -> Iterator[None]:
        self.unsteered()
        try:
            if any(targets):
                with torch.no_grad():
                    self.steer(targets, self.words(self.backbone.text.encode(prompts), positions))
            yield
        finally:
            self.unsteered()

    def _read(
        self, prompts: Sequence[str], masks: Sequence[Given] | None
    ) -> tuple[list[list[MaskTarget]], list[list[list[int]]]]:
        targets = read_masks(masks, prompts, self.resolution)
        return targets, [
            self._positions(prompt, sample) for prompt, sample in zip(prompts, targets, strict=True)
        ]

    def _positions(self, prompt: str, targets: Sequence[MaskTarget]) -> list[list[int]]:
        """For each target the positions of the tokens of all its phrases; a phrase that is named
        twice means its second place then."""
        found = iter(
            self.backbone.text.token_indices(
                prompt, [phrase for target in targets for phrase in target.phrases]
            )
        )
        return [sorted({at for _ in target.phrases for at in next(found)}) for target in targets]

    def adapter_config(self) -> dict[str, Any]:
        return super().adapter_config() | {"masks": asdict(self.config.masks)}

    @classmethod
    def method_config(cls, saved: dict[str, Any]) -> MethodConfig:
        return dataclasses.replace(super().method_config(saved), masks=Masks(**saved["masks"]))
