"""Which object of a caption has which other one: "a man with a bag", "a frog wearing a hat"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datamodules.phrases.lexicon import word_set

__all__ = ["find_owners"]

# Words that may stand beside them
DETERMINERS = word_set("a an the his her its their one two three")
LINKS = word_set("who which that is are was were")
HAVING = word_set(
    "with has have had having wearing wears wear holding holds hold carrying carries carry"
)
HAVINGS = [[word] for word in HAVING]
# After one of these what was had goes on: "with a hat and a bag"
MORE = {("and",), (",",), (",", "and"), ("or",)}
WORD = re.compile(r"\w+|[^\w\s]")


def find_owners(caption: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Of each object, at the characters ``spans``, the number of the one that has it, -1 for none:
    the one named just before it, if nothing but a word of having is between the two. What is listed
    after a thing that is had, is had too."""
    owners = [-1] * len(spans)
    order = sorted(range(len(spans)), key=lambda number: spans[number])
    for before, number in zip(order, order[1:], strict=False):
        between = caption[spans[before][1] : spans[number][0]].lower()
        words = [word for word in WORD.findall(between) if word not in DETERMINERS]
        if tuple(words) in MORE:
            owners[number] = owners[before]
        elif [word for word in words if word not in LINKS] in HAVINGS:
            owners[number] = before
    return owners
