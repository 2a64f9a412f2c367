"""Where the words of a caption stand among its tokens, from the tokenizer's own character offsets.

A position counts from BOS at 0 (T5, which has none: from the first word) in what the encoder is
given: ``tokenizer(caption, padding="max_length", truncation=True)``. Nothing is read from token
ids: a padding id may be that of EOS (CLIP) or of "!" (the second tokenizer of SDXL), and may stand
in a caption, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

BOS, WORD, EOS, PADDING = range(4)  # the kinds of `token_kinds`

# Words as they stand in the caption, or its characters from start up to end
Phrase = str | tuple[int, int]
# The characters [start, end) of each token; (0, 0) of BOS and EOS
Offsets = Sequence[tuple[int, int]]


class CutOffError(ValueError):
    """A phrase stands where the encoder no longer reads."""


class SpecialPositions(NamedTuple):
    """The positions of one caption at which no word stands."""

    bos: int
    eos: int
    padding: range


def offsets(tokenizer: Any, captions: Sequence[str], lower: bool = False) -> list[Offsets]:
    """Where the tokens of each caption stand, all in one call: most of what it costs to find
    positions."""
    read = [caption.lower() if lower else caption for caption in captions]
    return (
        tokenizer(read, return_offsets_mapping=True, truncation=False, verbose=False).offset_mapping
        if read
        else []
    )


def phrase_positions(
    tokenizer: Any,
    caption: str,
    phrases: Sequence[Phrase],
    what: str = "caption",
    length: int | None = None,
    lower: bool = False,
    known: Offsets | None = None,
) -> list[list[int]]:
    """For each phrase the positions of its tokens in the encoded caption, ascending.

    A string is found whatever its case, spacing and Unicode composition, where no letter or digit
    stands against it; listed twice it means its first and its second place. Punctuation belongs to
    a phrase that has it and to no other. A token that a phrase covers in part counts, so that a
    span inside a word gives that word's tokens. ``what`` names the text in errors. The encoder
    reads ``length`` tokens, as many as the tokenizer says without; with ``lower`` it is given the
    caption in lower case. ``known`` are the caption's `offsets`, where they have been found.

    Raises ValueError on an empty phrase, one that is not in the caption as often as it is listed, a
    span that is outside the caption or has no token, and CutOffError (a ValueError) on a phrase
    that the encoder would not see whole because the caption is cut.
    """
    # A character may be longer in lower case (İ).
    starts = [0, *accumulate(len(char.lower()) if lower else 1 for char in caption)]
    (standing,) = offsets(tokenizer, [caption], lower) if known is None else [known]
    length = length or tokenizer.model_max_length
    last = length - 2  # EOS takes the place after it
    positions = []
    for phrase, (start, end) in zip(phrases, _spans(caption, phrases, what), strict=True):
        found = [
            i
            for i, (left, right) in enumerate(standing)
            if left < starts[end] and right > starts[start]
        ]
        if not found:
            raise ValueError(
                f"phrase {phrase!r} of the {what} {caption!r} has no token: expected words"
            )
        if found[-1] > last:
            cut = f"its last token is number {found[-1]}, and the encoder reads {length} with EOS"
            raise CutOffError(
                f"phrase {phrase!r} of the {what} {caption!r} is cut off: {cut}; shorten the {what}"
            )
        positions.append(found)
    return positions


def common_positions(
    tokenizers: Sequence[Any],
    caption: str,
    phrases: Sequence[Phrase],
    what: str = "caption",
    length: int | None = None,
    lower: bool = False,
    known: Sequence[Offsets] | None = None,
) -> list[list[int]]:
    """`phrase_positions` for a model with several text encoders, whose states are concatenated
    token by token (SDXL).

    ``known`` are the caption's `offsets` by each tokenizer, where they have been found.

    Raises ValueError also when two tokenizers place a phrase differently: no position means that
    phrase in both states then.
    """
    standing = [None] * len(tokenizers) if known is None else known
    placed = [
        phrase_positions(one, caption, phrases, what, length, lower, at)
        for one, at in zip(tokenizers, standing, strict=True)
    ]
    for phrase, *places in zip(phrases, *placed, strict=True):
        if any(place != places[0] for place in places):
            found = " and at ".join(map(str, places))
            raise ValueError(
                f"phrase {phrase!r} of the {what} {caption!r} stands at {found}: expected "
                "the same tokens in every tokenizer"
            )
    return placed[0]


def token_kinds(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """What stands at each position of the encoded captions, uint8 [B, T]: `BOS`, `WORD`
    (punctuation, too), `EOS` or `PADDING`."""
    encoded = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    return kinds_by_end(encoded.attention_mask.sum(1) - 1, encoded.input_ids.shape[1])


def kinds_by_end(end: Tensor, length: int, bos: bool = True) -> Tensor:
    """The kinds of `token_kinds`, uint8 [B, length], of texts whose EOS stands at ``end`` [B];
    words alone behind BOS where that is ``length`` or more. Without ``bos`` the first token is a
    word, or EOS."""
    position = torch.arange(length, device=end.device)  # [T]
    end = end[:, None]
    kinds = torch.where(position < end, WORD, torch.where(position == end, EOS, PADDING))
    return (kinds.masked_fill(position == 0, BOS) if bos else kinds).to(torch.uint8)


def unknown_kinds(text: Tensor) -> Tensor:
    """The kinds that are taken for a text [B, T, C] of which nothing is known: words behind BOS."""
    batch, length = text.shape[:2]
    return kinds_by_end(torch.full((batch,), length, device=text.device), length)


def special_positions(tokenizer: CLIPTokenizer, caption: str) -> SpecialPositions:
    """The positions of BOS, of the EOS that ends the words, and of the padding behind it."""
    kinds = token_kinds(tokenizer, [caption])[0]
    eos = int((kinds == EOS).nonzero())
    return SpecialPositions(0, eos, range(eos + 1, len(kinds)))


def _spans(caption: str, phrases: Sequence[Phrase], what: str) -> list[tuple[int, int]]:
    """The characters [start, end) of the caption that each phrase means."""
    listed: Counter[str] = Counter()
    spans = []
    for phrase in phrases:
        if not isinstance(phrase, str):
            start, end = phrase
            if not 0 <= start < end <= len(caption):
                raise ValueError(
                    f"span {phrase!r} is not in the {what} {caption!r}: expected 0 <= start "
                    f"< end <= {len(caption)}"
                )
            spans.append((start, end))
            continue
        words = unicodedata.normalize("NFC", phrase).split()
        if not words:
            raise ValueError(
                f"phrase {phrase!r} for the {what} {caption!r} is empty: expected words of it"
            )
        key = " ".join(words).lower()
        places = _places(caption, words)
        listed[key] += 1
        if listed[key] > len(places):
            found = f"listed {listed[key]} times but only {len(places)} times" if places else "not"
            raise ValueError(
                f"phrase {phrase!r} is {found} in the {what} {caption!r}: expected words as "
                "they stand there"
            )
        spans.append(places[listed[key] - 1])
    return spans


def _places(caption: str, words: list[str]) -> list[tuple[int, int]]:
    """Where the words stand in the caption one after the other, from left to right, none
    overlapping the next."""
    pattern = re.compile(r"\s+".join("".join(map(_either, word)) for word in words), re.IGNORECASE)
    places, at = [], 0
    while match := pattern.search(caption, at):
        start, end = match.span()
        whole = not (_runs_on(caption, start) or _runs_on(caption, end))
        if whole:
            places.append((start, end))
        at = end if whole else start + 1
    return places


def _either(char: str) -> str:
    """A pattern for one character, composed or as a letter with its marks."""
    parts = unicodedata.normalize("NFD", char)
    return re.escape(char) if parts == char else f"(?:{re.escape(char)}|{re.escape(parts)})"


def _runs_on(text: str, at: int) -> bool:
    """Whether a word reaches from before ``at`` to behind it."""
    return 0 < at < len(text) and all(
        char.isalnum() or unicodedata.category(char)[0] == "M" for char in text[at - 1 : at + 1]
    )
