"""Who answers questions about images, and how likely an answer is.

An answerer is asked about each image for pairs (question, answer) and says how likely it gives
that answer: an image-text-to-text model of transformers (`chat_answers`), a BLIP that was
fine-tuned for answering (`blip_answers`), the judge of the embedded world (`embedded.answers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from datamodules.formats.questions import NUMBERS

__all__ = ["EXPECTED", "WHAT", "Answerer", "Ask", "list_questions", "pick_tokens", "spellings"]

Ask = tuple[str, str]  # (question, answer)
WHAT = "answering model"
EXPECTED = (
    "a local folder, or a hub id, of an image-text-to-text model of transformers with safetensors "
    "weights, tokenizer and image processor"
)
DIGITS = {word: str(i) for i, word in enumerate(NUMBERS)}


class Answerer(Protocol):
    """``template`` holds {} where a question goes; ``identity`` changes with every answer that it
    may give, "" where answers are not worth keeping."""

    label: str
    template: str
    identity: str
    facts: dict[str, Any]

    def probabilities(self, images: Tensor, asked: Sequence[Sequence[Ask]]) -> list[list[float]]:
        """Of each image (uint8 [N, 3, H, W]) how likely each answer is to its question, in
        [0, 1]."""
        ...


def spellings(answer: str) -> list[str]:
    """How a model may write an answer: small and with a capital, with a blank before it, a number
    in digits, too (GenEval 2, arXiv 2512.16853, evaluation.py)."""
    word = answer.strip()
    forms = [word.lower(), word.capitalize(), word]
    if word.lower() in DIGITS:
        forms.append(DIGITS[word.lower()])
    return list(dict.fromkeys(f"{blank}{form}" for blank in ("", " ") for form in forms))


def pick_tokens(encode: Callable[[str], list[int]], answer: str) -> list[list[int]]:
    """The token ids of an answer's spellings: those of a single token, or where there are none,
    the whole words as they are given, small and with a capital."""
    rows = [encode(form) for form in spellings(answer)]
    single = [list(row) for row in dict.fromkeys(tuple(row) for row in rows if len(row) == 1)]
    if single:
        return single
    word = answer.strip()
    whole = (encode(form) for form in (word, word.lower(), word.capitalize()))
    return [list(row) for row in dict.fromkeys(map(tuple, whole)) if row]


class Asked(NamedTuple):
    """One question of one image, and its answers by their places in what was asked."""

    image: int
    question: str
    answers: list[tuple[int, str]]


def list_questions(asked: Sequence[Sequence[Ask]]) -> list[Asked]:
    """Each question once for each image, with its answers."""
    places = []
    for image, pairs in enumerate(asked):
        by_question: dict[str, list[tuple[int, str]]] = {}
        for i, (question, answer) in enumerate(pairs):
            by_question.setdefault(question, []).append((i, answer))
        places += [Asked(image, question, own) for question, own in by_question.items()]
    return places
