"""Texts: prompts to states, phrases to the indices of their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.batch import Phrase
from lightning_modules.attention.token_positions import (
    CutOffError,
    Offsets,
    common_token_indices,
    phrase_spans,
    token_offsets,
)
from lightning_modules.backbone.weights import modules_digest

if TYPE_CHECKING:
    from datamodules.cache import TextCache
    from lightning_modules.backbone.families import Family


@dataclass
class TextCondition:
    """An encoded text: ``hidden`` [B, T, C] for attention, ``pooled`` [B, P] beside the timestep
    (SDXL, SD3, FLUX), ``mask`` [B, T], 1 where a token is read (PixArt only)."""

    hidden: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def map(self, change: Callable[..., Tensor], *others: TextCondition) -> TextCondition:
        """``change`` of each of the three, as far as all texts have it."""
        columns = zip(
            *((text.hidden, text.pooled, text.mask) for text in (self, *others)), strict=True
        )
        return TextCondition(
            *(None if any(part is None for part in parts) else change(*parts) for parts in columns)
        )

    def __add__(self, other: TextCondition) -> TextCondition:
        """One batch after the other."""
        return self.map(lambda *parts: torch.cat(parts), other)

    def __getitem__(self, rows: slice) -> TextCondition:
        return self.map(lambda part: part[rows])


class TextEncoders:
    """The text encoders and tokenizers of a pipeline.

    ``cache`` holds texts that were encoded before; it is of no use where an encoder or its tokens
    are changed. ``token_types`` tells words from padding by a text's states; None where a mask
    comes with the text.
    """

    def __init__(self, family: Family) -> None:
        self.family, pipeline = family, family.pipeline
        # The encoders' names in the pipeline, which may have others in their places later
        self.names: list[str] = []
        self.encoders, self.tokenizers = [], []
        for end in family.text_parts:
            if (encoder := getattr(pipeline, f"text_encoder{end}", None)) is not None:
                self.names.append(f"text_encoder{end}")
                self.encoders.append(encoder)
                self.tokenizers.append(getattr(pipeline, f"tokenizer{end}"))
        self.token_types = family.token_types()
        self.cache: TextCache | None = None

    @property
    def length(self) -> int:
        """Tokens of an encoded text, padding included."""
        return self.family.text_length

    def fingerprint(self) -> str:
        """Digest of the encoders' weights and settings, and of the tokenizers: what cached texts
        depend on."""
        tokenizers = [_tokenizer_facts(tokenizer) for tokenizer in self.tokenizers]
        settings = [_encoder_settings(encoder) for encoder in self.encoders]
        facts = (type(self.family).__name__, self.length, tokenizers, settings)
        return modules_digest(str(facts), *self.encoders)

    # --- tokens ----------------------------------------------------------------------------------

    def tokenize(self, prompts: list[str], which: int = 0) -> Any:
        """``input_ids`` and ``attention_mask`` [B, T] by one of the tokenizers, padded and cut to
        `length`."""
        return self.tokenizers[which](
            [self.family.prepare(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.family.token_lengths[which],
            return_tensors="pt",
        )

    def find_cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than the encoders read, each of its stretches: their
        end counts for nothing."""
        lengths, stretches = self.family.token_lengths, self._stretches
        longest = max(lengths[tokenizers[0]] for tokenizers in stretches)
        # A byte is a token at most, and two are added
        long = [text for text in texts if len(self.family.prepare(text).encode()) + 2 > longest]
        if not long:
            return []
        read = [self.family.prepare(text) for text in long]
        counts = [
            [len(ids) for ids in tokenizer(read, truncation=False, verbose=False)["input_ids"]]
            for tokenizer in self.tokenizers
        ]

        def is_cut(text: int, stretch: tuple[int, ...]) -> bool:
            return any(counts[which][text] > lengths[which] for which in stretch)

        return [
            text for i, text in enumerate(long) if all(is_cut(i, stretch) for stretch in stretches)
        ]

    @property
    def _stretches(self) -> list[tuple[int, ...]]:
        """The family's whose encoders are there."""
        known = range(len(self.tokenizers))
        return [stretch for stretch in self.family.stretches if stretch[0] in known]

    def token_names(self, prompt: str) -> list[str]:
        """The prompt's tokens as text, padding left out at the end, "" where another stretch
        follows: "BOS" first (not of T5), "EOS" last."""
        names: list[str] = []
        start = 0
        for which, *_ in self._stretches:
            given = self.tokenize([prompt], which)
            ids = given.input_ids[0, : int(given.attention_mask.sum())].tolist()
            names += [""] * (start - len(names))
            names += self.family.name_tokens(self.tokenizers[which].convert_ids_to_tokens(ids))
            start += self.family.token_lengths[which]
        return names

    def token_indices(
        self,
        caption: str,
        phrases: Sequence[str | tuple[int, int]],
        offsets: Sequence[Offsets] | None = None,
    ) -> list[list[int]]:
        """The indices of each phrase's tokens in the encoded caption.

        A phrase is its words or its characters [start, end). ``offsets`` and what is raised are as
        in `common_token_indices`. Of several stretches (SD3: CLIP and T5) a phrase has its tokens
        in each that reads it whole; CutOffError where none does.
        """
        family, stretches = self.family, self._stretches
        known = [None] * len(self.tokenizers) if offsets is None else offsets

        def in_stretch(stretch: tuple[int, ...], phrases: Sequence[Any]) -> list[list[int]]:
            return common_token_indices(
                [self.tokenizers[which] for which in stretch],
                caption,
                phrases,
                length=family.token_lengths[stretch[0]],
                lower=family.lower_case,
                offsets=None if offsets is None else [known[which] or [] for which in stretch],
            )

        if len(stretches) == 1:
            return in_stretch(stretches[0], phrases)
        found: list[list[int]] = []
        for span in phrase_spans(caption, phrases):
            start, indices, cut = 0, [], None
            for stretch in stretches:
                try:
                    (own,) = in_stretch(stretch, [span])
                    indices += [start + index for index in own]
                except CutOffError as error:
                    cut = error
                start += family.token_lengths[stretch[0]]
            if cut is not None and not indices:
                raise cut
            found.append(indices)
        return found

    def indices_up_to(self, indices: Sequence[int]) -> list[int]:
        """All tokens of each stretch from its first, BOS left out, up to the last of ``indices``
        there; the first token where there is none."""
        found: list[int] = []
        start = 0
        for which, *_ in self._stretches:
            end = start + self.family.token_lengths[which]
            first = start + (self.tokenizers[which].bos_token_id is not None)
            last = max((index for index in indices if start <= index < end), default=None)
            found += [] if last is None else range(first, last + 1)
            start = end
        return found or [0]

    def token_offsets(self, captions: Sequence[str]) -> list[list[Offsets]]:
        """For each caption where its tokens stand, by each of the tokenizers."""
        lower = self.family.lower_case
        by_tokenizer = [token_offsets(tokenizer, captions, lower) for tokenizer in self.tokenizers]
        return [list(own) for own in zip(*by_tokenizer, strict=True)]

    def locate_phrases(
        self, captions: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> tuple[list[list[Phrase]], list[list[list[int]]]]:
        """For each caption those of its phrases that the encoder sees whole, and the indices of
        each one's tokens."""
        offsets = self.token_offsets(captions)
        kept: list[list[Phrase]] = [[] for _ in captions]
        indices: list[list[list[int]]] = [[] for _ in captions]
        for i, (caption, linked) in enumerate(zip(captions, phrases, strict=True)):
            for phrase in linked:
                with suppress(CutOffError):
                    span = phrase.start, phrase.end
                    indices[i] += self.token_indices(caption, [span], offsets[i])
                    kept[i].append(phrase)
        return kept, indices

    # --- states ----------------------------------------------------------------------------------

    def encode(self, prompts: list[str]) -> TextCondition:
        """The prompts as the stock pipeline encodes them, read from `cache` where it holds all of
        them."""
        if self.cache is not None:
            with suppress(LookupError):
                return self._from_cache(self.cache.get(prompts))
        tokens = [self.tokenize(prompts, i) for i in range(len(self.tokenizers))]
        return self.family.encode(self.encoders, tokens)

    def encode_empty(self, count: int) -> TextCondition:
        """The unconditional half of classifier-free guidance for ``count`` samples: zeros where the
        pipeline says so (SDXL), else the empty prompt."""
        one = self.encode([""])
        if self.family.pipeline.config.get("force_zeros_for_empty_prompt"):
            one = one.map(torch.zeros_like)
        return one.map(lambda part: part.expand(count, *part.shape[1:]))

    @torch.no_grad()
    def encode_for_cache(self, prompts: list[str]) -> dict[str, Tensor]:
        """What `TextCache` keeps of the prompts: what `encode` gives, by name, and ``ids`` [B, T]
        of the first tokenizer of each stretch."""
        text = self.encode(prompts)
        parts = {"hidden": text.hidden, "pooled": text.pooled, "mask": text.mask}
        there = {name: part for name, part in parts.items() if part is not None}
        ids = [self.tokenize(prompts, which).input_ids for which, *_ in self._stretches]
        return {"ids": torch.cat(ids, dim=1)} | there

    def _from_cache(self, entry: dict[str, Tensor]) -> TextCondition:
        device = self.encoders[0].device
        text = TextCondition(
            **{name: part.to(device) for name, part in entry.items() if name != "ids"}
        )
        if self.token_types is not None:
            self.token_types.remember_text(text.hidden, entry["ids"])
        return text


def _encoder_settings(encoder: Any) -> dict[str, Any]:
    """What its config says of how it computes, not of where it comes from."""
    elsewhere = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
    settings = {k: v for k, v in encoder.config.to_dict().items() if k not in elsewhere}
    return dict(sorted(settings.items()))


def _tokenizer_facts(tokenizer: Any) -> Any:
    """What decides the ids of a text; lengths and padding are given with each call."""
    special = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    if not hasattr(tokenizer, "backend_tokenizer"):
        return special, sorted(tokenizer.get_vocab().items())
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return special, {k: v for k, v in rules.items() if k not in ("truncation", "padding")}
