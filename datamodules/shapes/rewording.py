"""The same wish in other words: prompts of the embedded world whose images are right where those of
the prompts as they were are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from datamodules.shapes.captions import Name, Style, put_into_words
from datamodules.shapes.reading import Mention, read_prompt
from datamodules.shapes.vocabulary import INVERSE, OPENINGS

__all__ = ["WORDINGS", "reword"]

T = TypeVar("T")
# As they are; the last thing first; synonyms, and patterns behind their things; with an opening;
# all of these
WORDINGS = ("own", "order", "synonyms", "opening", "all")


class _Always:
    """In the place of dice: everything that may be said otherwise is, in the first other way."""

    def chance(self, rate: float) -> bool:
        return True

    def pick(self, choices: Sequence[T]) -> T:
        return choices[0]


def reword(text: str, wording: str) -> str:
    """A prompt in one of `WORDINGS`. Raises ValueError for another."""
    if wording not in WORDINGS:
        raise ValueError(f"wording={wording!r}: expected one of {', '.join(WORDINGS)}")
    if wording == "own":
        return text
    mentions, relation = read_prompt(text)
    first = 0
    names = []
    for mention in mentions:
        number = mention.number or 2
        names.append(_name(mention, range(first, first + number)))
        first += number
    if wording in ("order", "all"):
        if relation:
            names, relation = [names[1], names[0], *names[2:]], INVERSE[relation]
        else:
            names = names[::-1]
    dice: Any = _Always() if wording in ("synonyms", "all") else None
    opening = OPENINGS[1] if wording in ("opening", "all") else ""
    return put_into_words(names, relation, Style(dice, opening)).text


def _name(mention: Mention, things: range) -> Name:
    counted = mention.number is not None
    return Name(tuple(things), mention.color, mention.shape, mention.size, mention.pattern, counted)
