"""The noun phrases of a caption that name things of its picture: the runs of words (`runs`) without
articles and other companions of nouns. Left out is what names no thing:

* the picture itself ("a photo of", "digital art" between commas) and its style,
* what only holds things together or portions them, before "of" ("a group of", "a slice of"; of "a
  cup of coffee" both are things),
* a place within the picture ("in the middle of"), a time ("at night"), an event ("does a trick"),
* adjectives alone ("in black and white"),
* what is not there, only written, or a name (`asides`).

The lists are in ``nouns.json``, written by hand for this project. These are read here (for others
see `lexicon` and `asides`):

    companions        words that are left out of phrases and make none
    adjectives        words that make no phrase without a noun; ``people``: but "the elderly",
                      ``things_with_determiners``: but "the open plain"
    pictures          words for the picture; ``pictures_of``: only before "of", between commas, or
                      where the caption begins with them before one of ``showing`` ("a picture
                      shows"), or ``pictures_with`` before "with"; ``tags``: only between commas
    styles, sites     words that make no phrase as its last word, or anywhere in it
    containers        words that make no phrase before "of"
    places            words that make no phrase by themselves
    times             nor do these as a last word; ``times_after``: after ``before_times``
    events            words that make none after ``before_events``; ``always_events``: anywhere
    nouns_in_function which words of closed classes may be part of a phrase
"""

from __future__ import annotations

import re
from collections.abc import Collection

from datamodules.phrases.asides import ABSENT, find_asides
from datamodules.phrases.lexicon import LISTS, Token, is_adverb, is_in, is_plural, tokenise
from datamodules.phrases.runs import find_runs

NO_THINGS = LISTS["places"] | LISTS["adjectives"] | LISTS["styles"] | LISTS["times"]
# "3", "35mm", "1970s"
NUMBER = re.compile(r"\d+(mm|px|fps|s)?")


def noun_phrases(caption: str) -> list[str]:
    """The noun phrases of an English caption in small letters, from left to right, articles and
    other companions left out."""
    return [" ".join(token.text for token in phrase) for phrase in _phrases(caption)]


def noun_spans(caption: str) -> list[tuple[int, int]]:
    """For each of `noun_phrases` the characters of the caption from its first word up to the end of
    its last."""
    return [(phrase[0].start, phrase[-1].end) for phrase in _phrases(caption)]


def aside_spans(caption: str) -> list[tuple[int, int, str]]:
    """The characters (start, end) of each word that names no thing of the picture, whatever it is,
    and why not (`asides`)."""
    tokens = tokenise(caption)
    return [
        (tokens[i].start, tokens[i].end, kind)
        for i, kind in sorted(find_asides(caption, tokens).items())
    ]


def cut(tokens: list[Token], run: list[int], asides: Collection[int] = ()) -> list[Token]:
    """What names a thing of the picture among the tokens ``run``, a noun phrase of any tagger,
    without articles, other companions and ``asides`` (`find_asides`); nothing where nothing
    does."""
    words = [
        i
        for i in run
        if tokens[i].text[0].isalnum()
        and i not in asides
        and (not is_in(tokens[i], "function") or is_in(tokens[i], "nouns_in_function"))
    ]
    while words and is_in(tokens[words[0]], "determiners"):
        del words[0]
    content = [tokens[i] for i in words if _is_content(tokens[i])]
    if len(content) > 1 and content[0].text == "couple" and is_plural(content[1].text):
        del content[0]  # "a couple people"
    return content if content and _names_a_thing(tokens, words, content) else []


def _phrases(caption: str) -> list[list[Token]]:
    tokens = tokenise(caption)
    asides = find_asides(caption, tokens)
    # What is absent may still be whom a verb follows
    barred = [i for i, kind in asides.items() if kind != ABSENT]
    cuts = [cut(tokens, run, asides) for run in find_runs(tokens, barred)]
    return [phrase for phrase in cuts if phrase]


def _adjective_at(tokens: list[Token], i: int) -> bool:
    return i < len(tokens) and is_in(tokens[i], "adjectives")


def _is_content(token: Token) -> bool:
    return not (
        is_in(token, "determiners")
        or is_in(token, "companions")
        or NUMBER.fullmatch(token.text) is not None
    )


def _names_a_thing(tokens: list[Token], run: list[int], content: list[Token]) -> bool:
    """Whether a phrase names a thing of the picture."""
    head = content[-1].text
    after = [token.text for token in tokens[run[-1] + 1 : run[-1] + 3]] + ["", ""]
    if all(is_in(token, "adjectives") for token in content):
        # "an orange on a plate" and "an orange and an apple", but "an orange and white cat"
        joined = after[0] in ("and", "or", ",") and after[1] not in LISTS["determiners"]
        goes_on = joined or after[0] == "one"  # "a red apple and a green one"
        if is_in(content[-1], "people") and run[0] > 0 and tokens[run[0] - 1].text == "the":
            return not goes_on  # "the elderly"
        # "the plain", "a bright light"
        before = tokens[run[0] - 1].text if run[0] else ""
        if head in LISTS["things_with_determiners"] and (len(content) > 1 or before == "the"):
            return before in LISTS["determiners"] and not goes_on
        # "a black and a white dog"
        goes_on = goes_on or (
            after[0] == "and" and head != "orange" and _adjective_at(tokens, run[-1] + 3)
        )
        return run[0] > 0 and is_in(tokens[run[0] - 1], "singular") and not goes_on
    if head in LISTS["pictures"] or head in LISTS["styles"] or len(head) == 1:
        return False
    if any(is_in(token, "sites") for token in content):
        return False
    if after[0] == "of" and head in LISTS["pictures_of"] | LISTS["containers"]:
        return False
    if _is_time(tokens, run, head) or _is_event(tokens, run, head):
        return False
    if _is_picture_itself(tokens, run, after[0], head):
        return False
    return not all(token.text in NO_THINGS for token in content)


def _is_picture_itself(tokens: list[Token], run: list[int], after: str, head: str) -> bool:
    """Whether a phrase that may mean a thing means the picture: "a painting with a guitar" at the
    beginning, "digital art" between commas."""
    if head not in LISTS["pictures_of"] and head not in LISTS["tags"]:
        return False
    if run[0] == 0 and after == ",":
        return True
    opens = all(not _is_content(token) or is_in(token, "function") for token in tokens[: run[0]])
    if opens:
        return after in LISTS["showing"] or (after == "with" and head in LISTS["pictures_with"])
    before = run[0] - 1
    while before > 0 and is_adverb(tokens[before].text):
        before -= 1
    tag = tokens[before].text in (",", "(", "|", ";")
    return tag and (not after[:1].isalnum() or after == "by")


def _is_time(tokens: list[Token], run: list[int], head: str) -> bool:
    """Whether a phrase says when: "at night", "on a sunny day", "at sunset"."""
    if head in LISTS["times"]:
        return True
    before = _before(tokens, run)
    return head in LISTS["times_after"] and before >= 0 and is_in(tokens[before], "before_times")


def _is_event(tokens: list[Token], run: list[int], head: str) -> bool:
    """Whether a phrase says what is done: "does a trick", "go for a walk"."""
    before = _before(tokens, run)
    if before >= 0 and tokens[before].text in ("for", "on"):
        before -= 1
        if before >= 0 and head in LISTS["events"] and tokens[before].text in ("out", "along"):
            return True
    return head in LISTS["always_events"] or (
        head in LISTS["events"] and before >= 0 and is_in(tokens[before], "before_events")
    )


def _before(tokens: list[Token], run: list[int]) -> int:
    """The place of the last word before a phrase and its determiners, or -1."""
    before = run[0] - 1
    while before >= 0 and is_in(tokens[before], "determiners"):
        before -= 1
    return before
