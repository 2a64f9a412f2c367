"""Where the words of a caption stand among its tokens, from the tokenizer's own character offsets.

An index counts from BOS at 0 (T5, which has none: from the first word) in what the encoder is
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
from typing import Any

from conf.describe import show_count

# Words as they stand in the caption, or its characters [start, end)
Phrase = str | tuple[int, int]
# The characters [start, end) of each token; (0, 0) of BOS and EOS
Offsets = Sequence[tuple[int, int]]


class CutOffError(ValueError):
    """A phrase stands where the encoder no longer reads."""


def token_offsets(tokenizer: Any, captions: Sequence[str], lower: bool = False) -> list[Offsets]:
    """Where the tokens of each caption stand, in lower case if ``lower``; all captions in one call,
    which is most of what token indices cost."""
    if not captions:
        return []
    read = [caption.lower() if lower else caption for caption in captions]
    encoded = tokenizer(read, return_offsets_mapping=True, truncation=False, verbose=False)
    return encoded.offset_mapping


def phrase_token_indices(
    tokenizer: Any,
    caption: str,
    phrases: Sequence[Phrase],
    what: str = "caption",
    length: int | None = None,
    lower: bool = False,
    offsets: Offsets | None = None,
) -> list[list[int]]:
    """For each phrase the indices of its tokens in the encoded caption, ascending.

    A string matches in any case, spacing and Unicode composition, where no letter or digit stands
    against it; listed twice it means its first and its second place. Punctuation belongs to
    a phrase that has it and to no other. A token that a phrase covers in part counts, so that a
    span inside a word gives that word's tokens. ``what`` names the text in errors. The encoder
    reads ``length`` tokens, by default the tokenizer's own limit; with ``lower`` it is given the
    caption in lower case. ``offsets`` are the caption's `token_offsets`, where they are known.

    Raises ValueError on an empty phrase, one that is not in the caption as often as it is listed, a
    span that is outside the caption or has no token, and CutOffError (a ValueError) on a phrase
    that the encoder would not see whole because the caption is cut.
    """
    # A character may be longer in lower case (İ).
    starts = [0, *accumulate(len(char.lower()) if lower else 1 for char in caption)]
    if offsets is None:
        (offsets,) = token_offsets(tokenizer, [caption], lower)
    length = length or tokenizer.model_max_length
    last = length - 2  # EOS takes the place after it
    result = []
    for phrase, (start, end) in zip(phrases, phrase_spans(caption, phrases, what), strict=True):
        indices = [
            i
            for i, (left, right) in enumerate(offsets)
            if left < starts[end] and right > starts[start]
        ]
        if not indices:
            raise ValueError(
                f"phrase {phrase!r} of the {what} {caption!r} has no token: expected words"
            )
        if indices[-1] > last:
            raise CutOffError(
                f"phrase {phrase!r} of the {what} {caption!r} is cut off: its last token is number "
                f"{indices[-1]}, and the encoder reads {length} with EOS; shorten the {what}"
            )
        result.append(indices)
    return result


def common_token_indices(
    tokenizers: Sequence[Any],
    caption: str,
    phrases: Sequence[Phrase],
    what: str = "caption",
    length: int | None = None,
    lower: bool = False,
    offsets: Sequence[Offsets] | None = None,
) -> list[list[int]]:
    """`phrase_token_indices` for a model with several text encoders, whose states are concatenated
    token by token (SDXL); ``offsets`` are the caption's by each tokenizer.

    Raises ValueError also where two tokenizers differ: no index means that phrase in both states
    then.
    """
    known = [None] * len(tokenizers) if offsets is None else offsets
    first, *others = [
        phrase_token_indices(tokenizer, caption, phrases, what, length, lower, own)
        for tokenizer, own in zip(tokenizers, known, strict=True)
    ]
    for phrase, indices, *rest in zip(phrases, first, *others, strict=True):
        if any(other != indices for other in rest):
            listed = " and at ".join(map(str, (indices, *rest)))
            raise ValueError(
                f"phrase {phrase!r} of the {what} {caption!r} stands at {listed}: expected "
                "the same tokens in every tokenizer"
            )
    return first


def phrase_spans(
    caption: str, phrases: Sequence[Phrase], what: str = "caption"
) -> list[tuple[int, int]]:
    """The characters [start, end) of the caption that each phrase means; what is raised is as in
    `phrase_token_indices`."""
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
        matches = _matches(caption, words)
        listed[key] += 1
        if listed[key] > len(matches):
            times = (
                f"listed {show_count(listed[key], 'time')} but only "
                f"{show_count(len(matches), 'time')}"
                if matches
                else "not"
            )
            raise ValueError(
                f"phrase {phrase!r} is {times} in the {what} {caption!r}: expected words as "
                "they stand there"
            )
        spans.append(matches[listed[key] - 1])
    return spans


def _matches(caption: str, words: list[str]) -> list[tuple[int, int]]:
    """Where the words stand one after the other in the caption, from left to right, none of the
    matches overlapping the next."""
    pattern = re.compile(r"\s+".join("".join(map(_either, word)) for word in words), re.IGNORECASE)
    spans, at = [], 0
    while match := pattern.search(caption, at):
        start, end = match.span()
        whole = not (_runs_on(caption, start) or _runs_on(caption, end))
        if whole:
            spans.append((start, end))
        at = end if whole else start + 1
    return spans


def _either(char: str) -> str:
    """A pattern for one character, composed or as a letter with its marks."""
    parts = unicodedata.normalize("NFD", char)
    return re.escape(char) if parts == char else f"(?:{re.escape(char)}|{re.escape(parts)})"


def _runs_on(text: str, at: int) -> bool:
    """Whether a word reaches from before ``at`` to behind it."""
    return 0 < at < len(text) and all(
        char.isalnum() or unicodedata.category(char)[0] == "M" for char in text[at - 1 : at + 1]
    )
