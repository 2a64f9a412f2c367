"""What a prompt of the embedded world asks for, read from its words."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from datamodules.shapes.vocabulary import (
    COLORS,
    HELD_OUT,
    NUMBERS,
    PATTERNS,
    PLURALS,
    RELATIONS,
    SHAPES,
    SIZES,
    SOME,
    forms,
)


class Mention(NamedTuple):
    """Words of a prompt, its characters from ``start`` up to ``end``, that name one thing or equal
    ones, and what they say: None where they do not. ``number`` is None of a plural without
    one."""

    number: int | None
    color: str | None
    shape: str
    size: str | None
    pattern: str | None
    start: int
    end: int


class Reading(NamedTuple):
    """All that a prompt names, and how the first lies from the second where it says so."""

    mentions: list[Mention]
    relation: str | None


def read_prompt(text: str) -> Reading:
    """What the words of a prompt say, synonyms included; other words are passed over."""
    found = [*_mention().finditer(text.lower())]
    mentions = [_read_mention(match) for match in found]
    relation = None
    if len(found) > 1:
        between = _relation().fullmatch(text.lower()[found[0].end() : found[1].start()])
        relation = canonical_words()[between["relation"]] if between else None
    return Reading(mentions, relation)


def named_things(text: str) -> list[tuple[str, str]]:
    """(colour, shape) of each thing that a prompt names, in its order, equal ones as often as it
    counts them; things without a colour are left out."""
    return [
        (mention.color, mention.shape)
        for mention in read_prompt(text).mentions
        for _ in range(mention.number or 2)
        if mention.color is not None
    ]


def find_skills(text: str) -> list[str]:
    """What a prompt asks a model to be able to do:

    * ``binding``: two of its things differ in colour and in shape, so that these could be exchanged
    * ``similar``: two of its things have the same shape in different colours
    * ``held-out``: a combination that is in no training image
    * ``counting``: so many equal things
    * ``many``: three things or more
    * ``relation``, ``size``, ``pattern``: how two things lie; a word for the size or pattern of one
    """
    mentions, relation = read_prompt(text)
    things = named_things(text)
    pairs = [(a, b) for i, a in enumerate(things) for b in things[:i]]
    asked = {
        "binding": any(a[0] != b[0] and a[1] != b[1] for a, b in pairs),
        "similar": any(a[0] != b[0] and a[1] == b[1] for a, b in pairs),
        "held-out": not HELD_OUT.isdisjoint(things),
        "counting": any(mention.number != 1 for mention in mentions),
        "many": len(things) > 2,
        "relation": relation is not None,
        "size": any(mention.size for mention in mentions),
        "pattern": any(mention.pattern for mention in mentions),
    }
    return [skill for skill, needed in asked.items() if needed]


def _read_mention(match: re.Match[str]) -> Mention:
    plain = canonical_words()
    said = {key: plain[word] for key, word in match.groupdict().items() if word in plain}
    several = match["shape"] in PLURALS.values()
    number = NUMBERS.get(said.get("number", ""), None if several else 1)
    pattern = said.get("pattern") or said.get("behind")
    return Mention(
        number,
        said.get("color"),
        said["shape"],
        said.get("size"),
        pattern,
        match.start("words"),
        match.end("words"),
    )


@cache
def canonical_words() -> dict[str, str]:
    """Every form of a word -> the word."""
    singular = {other: word for word, other in PLURALS.items()}
    known = {
        form: word
        for word in (*COLORS, *SHAPES, *SIZES, *PATTERNS, *RELATIONS, *NUMBERS)
        for form in forms(word)
    }
    return known | {other: known[word] for other, word in singular.items()}


def _any_of(*words: str) -> str:
    return "|".join(
        re.escape(form) for form in sorted((f for w in words for f in forms(w)), key=len)[::-1]
    )


@cache
def _mention() -> re.Pattern[str]:
    shapes = "|".join(sorted({*PLURALS, *PLURALS.values()}, key=len)[::-1])
    return re.compile(
        rf"(?<!\w)(?:(?P<number>{_any_of(*NUMBERS)}|{SOME}|an?)\s+)?(?P<words>"
        rf"(?:(?P<size>{_any_of(*SIZES)})\s+)?(?:(?P<pattern>{_any_of(*PATTERNS)})\s+)?"
        rf"(?:(?P<color>{_any_of(*COLORS)})\s+)?(?P<shape>{shapes})"
        rf")(?:\s+that\s+(?:is|are)\s+(?P<behind>{_any_of(*PATTERNS)}))?(?!\w)"
    )


@cache
def _relation() -> re.Pattern[str]:
    return re.compile(rf"\s+(?:is\s+)?(?P<relation>{_any_of(*RELATIONS)})\s+")
