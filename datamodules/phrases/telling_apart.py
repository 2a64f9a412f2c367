"""Whether a caption tells several mentions of a category apart: "a small dog beside a big dog", "a
man with a hat and a man with a bag", not "a dog next to a dog"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from datamodules.phrases.lexicon import BREAKS, LISTS, word_set

WORD = re.compile(r"[\w']+|[^\w\s]")
ARTICLES = word_set("a an the one other another each every this that these those some")
# Words after a mention that say where it is, and those that begin what is said of it alone
PLACES = word_set(
    "left right top bottom front back foreground background middle center centre first second"
)
# Of these, where what stands out is not
SIDES = word_set("left right background")
CLAUSES = word_set("who that which whose with without in on at wearing holding is has")


class Named(Protocol):
    """Characters of a caption."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


def are_told_apart(caption: str, mentions: Sequence[Named]) -> bool:
    """Whether the words around some of the ``mentions``, from left to right, are said of it and not
    of another."""
    if len(mentions) < 2:
        return False
    if len({_before(caption[: mention.start]) for mention in mentions}) > 1:
        return True
    ends = [*(mention.start for mention in mentions[1:]), len(caption)]
    after = [
        WORD.findall(caption[m.end : end].lower()) for m, end in zip(mentions, ends, strict=True)
    ]
    if any(PLACES.intersection(words) for words in after):
        return True
    return any(words and _begins_clause(words[0]) for words in after[:-1])


def is_placed(after: str) -> bool:
    """Whether the words right ``after`` a mention say that it is on a side: "on the far left"."""
    words = WORD.findall(after.lower())[:4]
    placed = words[:1] in (["on"], ["at"], ["to"], ["in"]) and words[1:2] == ["the"]
    return placed and not SIDES.isdisjoint(words[2:])


def _before(text: str) -> tuple[str, ...]:
    """The adjectives and possessives right before a mention."""
    found: list[str] = []
    for token in reversed(WORD.findall(text.lower())):
        possessive = token in LISTS["determiners"] and token not in ARTICLES
        if possessive:
            found.append(token)
        if token in BREAKS or token in LISTS["determiners"] or not token[0].isalnum():
            break
        if not possessive:
            found.append(token)
    return tuple(found)


def _begins_clause(word: str) -> bool:
    return word in CLAUSES or word.endswith("ing")
