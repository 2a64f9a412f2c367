"""The noun phrases of a caption, by a light tagger: word lists and the words beside a word.

A noun phrase is a run of words between words that cannot be part of one. Most of these are of
closed classes (prepositions, conjunctions, pronouns, auxiliaries). Verbs are told from nouns by
where they stand: "throws" after "the man" is a verb, "stand" after "tv" a noun, "watch" after
"people" a verb, "parked" before "car" part of its phrase and after "car" its end. What remains is
cut of articles and other companions of nouns, and left out where it names no thing of the picture:

* the picture itself ("a photo of"),
* what only holds things together, before "of" ("a group of", "a pair of", "a herd of"),
* a place within the picture ("in the middle of"),
* adjectives alone ("in black and white").

The lists are in ``nouns.json``, written by hand for this project:

    determiners       what opens a noun phrase and is no part of it
    singular          determiners after which a noun has no plural
    companions        words that are left out of phrases and make none
    function          words of closed classes, which end a phrase
    before_verbs      words after which a form of a verb is a verb
    after_nouns       adjectives that stand after their noun
    adjectives        words that make no phrase without a noun
    pictures          words for the picture; ``pictures_of``: only before "of", or where the caption
                      begins with them before one of ``showing`` ("a picture shows")
    subjects          pronouns that a verb follows
    containers        words that make no phrase before "of"
    places            words that make no phrase by themselves
    verbs             verbs of captions; their forms are made by rule, ``irregular`` participles
    nouns_like_verbs  plurals that look like third persons; ``verbs_above_all``: which of them are
                      verbs in doubt
    nouns_in_ing      nouns that end so; ``compounds_in_ing``: first words of compounds ("parking
                      lot"); ``sports_in_ing``: which of them are verbs after their noun ("a man
                      surfing on a wave")
    auxiliaries       words after which a participle before a noun is a verb
    infinitives       words after which any word before a determiner is a verb
    first_plurals     plurals that are first words of compounds ("sports car")
    singulars_in_s    singulars that end so
    nouns_in_ed, nouns_in_ly
    plurals           plurals without s
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

WORD = re.compile(r"close ups?\b|[a-z]+(?:['\u2019-][a-z]+)*|\d+[a-z]*|[^\sa-z\d]")


class Token(NamedTuple):
    """A word or sign of a caption in small letters, and its characters from start up to end."""

    text: str
    start: int
    end: int


def word_set(text: str) -> frozenset[str]:
    """The words of a text that blanks divide."""
    return frozenset(text.split())


LISTS = {
    name: word_set(text)
    for name, text in json.loads(
        (Path(__file__).parent / "nouns.json").read_text(encoding="utf-8")
    ).items()
}
# Words before or after a noun phrase, not of it
BREAKS = LISTS["function"] | (LISTS["determiners"] - {"a", "an"})
NOUNS_IN_ING = LISTS["nouns_in_ing"]


def noun_phrases(caption: str) -> list[str]:
    """The noun phrases of an English caption in small letters, from left to right, articles and
    other companions left out."""
    return [" ".join(token.text for token in phrase) for phrase in _phrases(caption)]


def noun_spans(caption: str) -> list[tuple[int, int]]:
    """For each of `noun_phrases` the characters of the caption from its first word up to the end of
    its last."""
    return [(phrase[0].start, phrase[-1].end) for phrase in _phrases(caption)]


def tokenise(caption: str) -> list[Token]:
    """The words and signs of a caption."""
    return [
        Token(match.group().replace(" ", "-"), match.start(), match.end())
        for match in WORD.finditer(caption.lower())
    ]


def cut(tokens: list[Token], run: list[int]) -> list[Token]:
    """What names a thing of the picture among the tokens ``run``, a noun phrase of any tagger,
    without articles and other companions; nothing where nothing does."""
    words = [i for i in run if tokens[i].text[0].isalnum() and not _is(tokens[i], "function")]
    while words and _is(tokens[words[0]], "determiners"):
        del words[0]
    content = [tokens[i] for i in words if _is_content(tokens[i])]
    return content if content and _names_a_thing(tokens, words, content) else []


def _phrases(caption: str) -> list[list[Token]]:
    tokens = tokenise(caption)
    phrases: list[list[Token]] = []
    run: list[int] = []
    for i, token in enumerate([*tokens, Token(".", len(caption), len(caption))]):
        if _continues(tokens, run, i):
            if not _is(token, "determiners"):
                run.append(i)
            continue
        if content := cut(tokens, run):
            phrases.append(content)
        run = []
    return phrases


def _continues(tokens: list[Token], run: list[int], i: int) -> bool:
    """Whether the word at ``i`` is part of the noun phrase that ``run`` began, or begins one."""
    if i == len(tokens) or not tokens[i].text[0].isalnum():
        return False
    token = tokens[i]
    if _is(token, "determiners"):
        return not run
    if _is(token, "function") or (
        run and _is(token, "after_nouns") and not _noun_follows(tokens, i)
    ):
        return False
    return not _is_verb(tokens, run, i) and not _is_adverb(token.text)


def _is_verb(tokens: list[Token], run: list[int], i: int) -> bool:
    """Whether a word is used as a verb, or as a participle after its noun."""
    text = tokens[i].text
    before = tokens[i - 1].text if i else ""
    if _is_verb_by_place(tokens, run, i):
        return True
    determined = before in LISTS["determiners"] and before != "both"
    after_verb_word = before in LISTS["before_verbs"] and not run
    follows = _noun_follows(tokens, i)
    if text.endswith("ing") and len(text) > 4:
        if text in LISTS["compounds_in_ing"] and follows:
            return False
        if text in NOUNS_IN_ING and not (
            not _precedes_of(tokens, i)
            and _has_noun(tokens, run)
            and (
                _determiner_follows(tokens, i)
                or _is_plural(tokens[run[-1]].text)
                or (text in LISTS["sports_in_ing"] and not follows)
            )
        ):
            return not run and _determiner_follows(tokens, i)
        if run and not all(_is(tokens[j], "adjectives") for j in run):
            return True
        return not determined and not run and (after_verb_word or not follows)
    if _is_participle(text):
        if run:
            return not follows
        return not follows or before in LISTS["auxiliaries"]
    if text in _third_persons():
        if after_verb_word and before in ("it", "he", "she", "who", "that", "which"):
            return True
        if not run:
            return False
        if _is_singular(tokens, run) or _determiner_follows(tokens, i):
            return not _is_plural(tokens[run[-1]].text) or _determiner_follows(tokens, i)
        return text not in LISTS["nouns_like_verbs"] or text in LISTS["verbs_above_all"]
    if text in LISTS["verbs"]:
        if determined:
            return False
        if not run:
            opens = i == 0 or after_verb_word or tokens[i - 1].text in LISTS["verbs"]
            return opens and (before != "and" or not follows or _determiner_follows(tokens, i))
        if _is_plural(tokens[run[-1]].text):
            return tokens[run[-1]].text not in LISTS["first_plurals"]
        # "An onion and a carrot lie on a board", but "a sofa and a tv stand in a room"
        ends = _determiner_follows(tokens, i) or (
            _is_plural(tokens[i + 1].text)
            if follows
            else _third_person(text) not in LISTS["nouns_like_verbs"]
        )
        return _is_joined(tokens, run) and i + 1 < len(tokens) and ends
    return False


def _is_verb_by_place(tokens: list[Token], run: list[int], i: int) -> bool:
    """Whether a word can only be a verb where it stands, whatever it is."""
    text = tokens[i].text
    if not run:
        before = tokens[i - 1].text if i else ""
        if before in LISTS["subjects"]:
            return True
        return before in LISTS["infinitives"] and _determiner_follows(tokens, i)
    last = tokens[run[-1]].text
    if not _has_noun(tokens, run) or last in LISTS["containers"] or not text[0].isalpha():
        return False
    if not _is_plural(text):  # "Workers haul a boat"
        return _is_plural(last) and _determiner_follows(tokens, i)
    if last in LISTS["first_plurals"] or last.endswith(("'s", "\u2019s")):
        return False
    # "A truck hauls lumber", "the truck hauls a boat", "seagulls circles above"
    return _is_singular(tokens, run) or _determiner_follows(tokens, i) or last.endswith("s")


def _has_noun(tokens: list[Token], run: list[int]) -> bool:
    return bool(run) and not all(
        _is(tokens[j], "adjectives") or _is(tokens[j], "companions") for j in run
    )


def _is_participle(text: str) -> bool:
    if text in LISTS["irregular"]:
        return True
    return text.endswith("ed") and len(text) > 3 and text not in LISTS["nouns_in_ed"]


def _is_adverb(text: str) -> bool:
    return text.endswith("ly") and len(text) > 3 and text not in LISTS["nouns_in_ly"]


def _is_singular(tokens: list[Token], run: list[int]) -> bool:
    """Whether the determiner before a run is of one thing."""
    return run[0] > 0 and _is(tokens[run[0] - 1], "singular")


def _is_joined(tokens: list[Token], run: list[int]) -> bool:
    """Whether a run is the last of several that "and" joins."""
    before = run[0] - 1
    if before >= 0 and _is(tokens[before], "determiners"):
        before -= 1
    return before >= 0 and tokens[before].text == "and"


def _is_plural(text: str) -> bool:
    return text in LISTS["plurals"] or (
        text.endswith("s")
        and not text.endswith(("ss", "us", "is", "'s", "\u2019s"))
        and text not in LISTS["singulars_in_s"]
    )


def _noun_follows(tokens: list[Token], i: int) -> bool:
    """Whether the next word may be a noun or an adjective of the same phrase."""
    if i + 1 >= len(tokens):
        return False
    text = tokens[i + 1].text
    return (
        text[0].isalpha()
        and text not in LISTS["determiners"]
        and text not in LISTS["function"]
        and text not in LISTS["companions"]
        and not _is_adverb(text)
    )


def _precedes_of(tokens: list[Token], i: int) -> bool:
    return i + 1 < len(tokens) and tokens[i + 1].text == "of"


def _determiner_follows(tokens: list[Token], i: int) -> bool:
    return i + 1 < len(tokens) and _is(tokens[i + 1], "determiners")


def _is(token: Token, kind: str) -> bool:
    return token.text in LISTS[kind]


def _is_content(token: Token) -> bool:
    return not (_is(token, "determiners") or _is(token, "companions") or token.text.isdigit())


def _names_a_thing(tokens: list[Token], run: list[int], content: list[Token]) -> bool:
    """Whether a phrase names a thing of the picture."""
    head = content[-1].text
    after = [token.text for token in tokens[run[-1] + 1 : run[-1] + 3]] + ["", ""]
    if all(_is(token, "adjectives") for token in content):
        # "an orange on a plate" and "an orange and an apple", but "an orange and white cat"
        joined = after[0] in ("and", "or", ",") and after[1] not in LISTS["determiners"]
        goes_on = joined or after[0] == "one"  # "a red apple and a green one"
        return run[0] > 0 and _is(tokens[run[0] - 1], "singular") and not goes_on
    if head in LISTS["pictures"]:
        return False
    if after[0] == "of" and head in LISTS["pictures_of"] | LISTS["containers"]:
        return False
    opens = all(not _is_content(token) or _is(token, "function") for token in tokens[: run[0]])
    if opens and after[0] in LISTS["showing"] and head in LISTS["pictures_of"]:
        return False
    return not all(_is(token, "places") or _is(token, "adjectives") for token in content)


@cache
def _third_persons() -> frozenset[str]:
    """The forms of the listed verbs of the third person."""
    return frozenset(map(_third_person, LISTS["verbs"]))


def _third_person(verb: str) -> str:
    if re.search(r"(s|x|z|ch|sh|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"
