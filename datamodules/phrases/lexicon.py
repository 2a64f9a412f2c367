"""Words and signs of a caption, and what is known of a word by itself: its lists, and whether it
looks like a plural, an adverb or a verb of the third person.

The lists are in ``nouns.json``, written by hand for this project. These say which words are of a
phrase and which are verbs (`runs`); the others are described in `nouns` and `asides`:

    determiners       what opens a noun phrase and is no part of it
    singular          determiners after which a noun has no plural
    function          words of closed classes, which end a phrase; ``after_determiners``: which are
                      adjectives there ("a round table"); ``after_can``: before which "can" is one
    before_verbs      words after which a form of a verb is a verb; ``singular_subjects``: after
                      which one of the third person is
    after_nouns       adjectives that stand after their noun
    subjects          pronouns that a verb follows
    verbs             verbs of captions; their forms are made by rule, ``irregular`` participles;
                      ``pure_verbs``: which are nothing else
    nouns_like_verbs  plurals that look like third persons; ``verbs_above_all``: which of them are
                      verbs in doubt; ``verbs_with_directions``: before one of ``directions``;
                      ``verbs_of_ways``: before one of ``ways``
    agents, animals   singulars that do things, besides the words for people and animals
    with_agents       what may follow an agent before its verb ("man in hat cuts cake"), where none
                      of ``ends_of_agents`` stands between
    seeing            verbs of whose object a verb may follow ("watch a plane fly")
    groups            words before "of" after which a singular means several; ``collectives``:
                      singulars that do ("a family enjoy")
    nouns_in_ing      nouns that end so; ``compounds_in_ing``: first words of compounds ("parking
                      lot"), which ``animals_do_not`` do; ``sports_in_ing``: which of them are verbs
                      after their noun ("a man surfing on a wave")
    adjectives_like_nouns  adjectives that a verb may follow
    auxiliaries       words after which a participle before a noun is a verb
    infinitives       words after which any word before a determiner is a verb
    first_plurals     plurals that are first words of compounds ("sports car")
    singulars_in_s    singulars that end so; ``plurals``: plurals that do not
    nouns_in_ed, nouns_in_ly
    before_set        words with which "set" is a noun
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

WORD = re.compile(
    r"close ups?\b|(?:film|movie|video|anime) stills?\b|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*"
    r"|\d+[^\W\d_]*|[^\w\s]|_"
)
# A curly apostrophe within a word
INSIDE = re.compile(r"(?<=[^\W\d_])\u2019(?=[^\W\d_])")


class Token(NamedTuple):
    """A word or sign of a caption in small letters, and its characters from start up to end."""

    text: str
    start: int
    end: int


def word_set(text: str) -> frozenset[str]:
    """The words of a text that blanks divide."""
    return frozenset(text.split())


_TABLE = json.loads((Path(__file__).parent / "nouns.json").read_text(encoding="utf-8"))
# Of several words, by their first
EXPRESSIONS: dict[str, list[tuple[str, ...]]] = {}
IDIOMS: dict[str, list[tuple[str, ...]]] = {}
for _kind, _by_first in (("style_expressions", EXPRESSIONS), ("idioms", IDIOMS)):
    for _words in map(str.split, _TABLE.pop(_kind).split(",")):
        _by_first.setdefault(_words[0], []).append(tuple(_words))
LISTS = {name: word_set(text) for name, text in _TABLE.items()}
# Words before or after a noun phrase, not of it
BREAKS = LISTS["function"] | (LISTS["determiners"] - {"a", "an"})
NOUNS_IN_ING = LISTS["nouns_in_ing"]


def tokenise(caption: str) -> list[Token]:
    """The words and signs of a caption."""
    lower = caption.lower()
    if len(lower) != len(caption):  # a capital of two small characters
        lower = "".join(c if len(c.lower()) > 1 else c.lower() for c in caption)
    return [
        Token(match.group().replace(" ", "-"), match.start(), match.end())
        for match in WORD.finditer(INSIDE.sub("'", lower))
    ]


def is_in(token: Token, kind: str) -> bool:
    """Whether a word is on a list."""
    return token.text in LISTS[kind]


def is_plural(text: str) -> bool:
    """Whether a word looks like a plural."""
    return text in LISTS["plurals"] or (
        text.endswith("s")
        and not text.endswith(("ss", "us", "is", "'s", "\u2019s"))
        and text not in LISTS["singulars_in_s"]
    )


def is_adverb(text: str) -> bool:
    """Whether a word looks like an adverb."""
    return text.endswith("ly") and len(text) > 3 and text not in LISTS["nouns_in_ly"]


@cache
def third_persons() -> frozenset[str]:
    """The forms of the listed verbs of the third person."""
    return frozenset(map(third_person, LISTS["verbs"]))


def third_person(verb: str) -> str:
    """The form of a verb of the third person."""
    if re.search(r"(s|x|z|ch|sh|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"
