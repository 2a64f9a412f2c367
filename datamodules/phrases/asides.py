"""Words of a caption that name no thing of its picture, whatever they are: what is said not to be
there ("no dogs"), what is written on a thing ("a sign that says stop"), names ("a dog named Bear"),
and what is said of the picture's style, its maker or its generator ("in the style of", "--ar
16:9").

The lists of ``nouns.json`` that are read here:

    negators, instead_of  words that deny what follows; the second before "of" and the like
    not_absent        words after which they do not ("no longer"), ``signs``: whose names hold "no"
    having            verbs whose denial denies their object ("not wearing a hat")
    saying, reading   verbs before what is written, the second after ``surfaces`` ("a sign
                      reading"); ``written``: participles after it; ``ends_writing``: what ends it
    naming            participles before a name
    makers, fame      participles before "by" whoever, or "on" wherever
    sources           what a scene may be from
    style_expressions, idioms  of several words, divided by commas
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from datamodules.phrases.lexicon import EXPRESSIONS, IDIOMS, LISTS, Token, is_in
from datamodules.phrases.runs import find_runs

ABSENT = "said not to be there"
WRITTEN = "written words"
NAME = "a name"
STYLE = "style or maker of the picture"
IDIOM = "part of another expression"

# Opening quotation marks and their closing ones
QUOTES = {'"': '"', "'": "'", "\u2018": "\u2019", "\u201c": "\u201d"}
SETTING = re.compile(r"(?<!\S)--[a-z]", re.IGNORECASE)
# Without these a caption has no asides
TRIGGERS = frozenset().union(
    {"-", "<", "by", "from", "shot", "style", "missing", *QUOTES},
    *(
        [words[-1] for words in expressions]
        for table in (EXPRESSIONS, IDIOMS)
        for expressions in table.values()
    ),
    *(
        LISTS[kind]
        for kind in ("negators", "instead_of", "saying", "reading", "naming", "fame", "written")
    ),
)


def find_asides(caption: str, tokens: list[Token]) -> dict[int, str]:
    """Place among the tokens -> why the word names no thing."""
    texts = [token.text for token in tokens]
    if TRIGGERS.isdisjoint(texts) and not any(text.endswith("n't") for text in texts):
        return {}
    found: dict[int, str] = {}
    for mark in (_generator_settings, _written, _names, _style, _idioms):
        for places, kind in mark(caption, tokens):
            found |= dict.fromkeys(places, kind)
    for run in _absent(tokens, found):
        found |= dict.fromkeys(run, ABSENT)
    return found


Asides = Iterator[tuple[range, str]]


def _generator_settings(caption: str, tokens: list[Token]) -> Asides:
    """ "--ar 16:9", "--no people, cars" and "<lora:name:0.8>"."""
    starts = [i for i, token in enumerate(tokens) if SETTING.match(caption, token.start)]
    for i, end in zip(starts, [*starts, len(tokens)][1:], strict=True):
        yield range(i, end), ABSENT if tokens[i + 2].text == "no" else STYLE
    for match in re.finditer(r"<\w+:[^<>]*>", caption):
        inside = [i for i, t in enumerate(tokens) if match.start() <= t.start < match.end()]
        yield range(inside[0], inside[-1] + 1), STYLE


def _written(caption: str, tokens: list[Token]) -> Asides:
    """What stands in quotation marks, unless these hold the whole caption or follow an article; and
    what a sign says without them."""
    i = 0
    while i < len(tokens):
        text = tokens[i].text
        end = _closing(caption, tokens, i) if text in QUOTES else None
        if end is not None:
            whole = i == 0 and end >= len(tokens) - 2
            part = i > 0 and (
                is_in(tokens[i - 1], "determiners") or is_in(tokens[i - 1], "adjectives")
            )
            after = tokens[end + 1].text if end + 1 < len(tokens) else ""
            if after in LISTS["written"] or not (whole or part):
                yield range(i, end + 1), WRITTEN
            i = end
        elif text in LISTS["saying"] | LISTS["reading"] and _says(tokens, i):
            end = _until(tokens, i + 1, LISTS["ends_writing"])
            yield range(i + 1, end), WRITTEN
            i = end - 1
        i += 1


def _closing(caption: str, tokens: list[Token], i: int) -> int | None:
    """Where the quotation ends that a mark opens."""
    start = tokens[i].start
    if start and caption[start - 1].isalnum():
        return None  # an apostrophe, or inches
    for j in range(i + 1, len(tokens)):
        end = tokens[j].end
        if tokens[j].text == QUOTES[tokens[i].text] and not caption[end : end + 1].isalnum():
            return j
    return None


def _says(tokens: list[Token], i: int) -> bool:
    """Whether a form of "say" or "read" is followed by what is written, without quotation marks."""
    if i + 1 == len(tokens) or tokens[i + 1].text in QUOTES or i == 0:
        return False
    before = tokens[i - 1]
    if tokens[i].text in ("reads", "reading", "read"):
        return before.text in ("that", "which") or is_in(before, "surfaces")
    return True


def _names(caption: str, tokens: list[Token]) -> Asides:
    """ "a cat named Luna"."""
    for i, token in enumerate(tokens[:-1]):
        if is_in(token, "naming") and not is_in(tokens[i + 1], "determiners"):
            end = _until(tokens, i + 1, LISTS["function"] | LISTS["determiners"])
            doing = (j for j in range(i + 2, end) if tokens[j].text.endswith("ing"))
            yield range(i + 1, next(doing, end)), NAME


def _style(caption: str, tokens: list[Token]) -> Asides:
    """ "in the style of Van Gogh", "trending on Flickr", ", by Alphonse Mucha", "film grain"."""
    stops = LISTS["function"] - {"and", "of"}
    for i, token in enumerate(tokens):
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if (
            (token.text == "style" and after == "of")
            or (is_in(token, "fame") and after == "on")
            or (token.text == "shot" and after == "on" and tokens[i - 1].text == ",")
            or (token.text == "by" and _is_by_maker(caption, tokens, i))
        ):
            start = i if token.text == "shot" else i + 1 + (after in ("of", "on"))
            end = _until(tokens, i + 1 + (after in ("of", "on")), stops | LISTS["having"])
            yield range(start, end), STYLE
        if (is_in(token, "pictures") or is_in(token, "pictures_of")) and after == "from":
            source = _skip(tokens, i + 2, "determiners")
            if source < len(tokens) and is_in(tokens[source], "sources"):
                yield range(i + 2, source + 1), STYLE
        for end in _expressions(EXPRESSIONS, tokens, i):
            while i and is_in(tokens[i - 1], "adjectives"):
                i -= 1
            yield range(i, end), STYLE


def _idioms(caption: str, tokens: list[Token]) -> Asides:
    """ "people wait in line", unless an article or an adjective makes a thing of it."""
    for i in range(len(tokens)):
        for end in _expressions(IDIOMS, tokens, i):
            if (
                end == len(tokens)
                or not tokens[end].text[0].isalnum()
                or (is_in(tokens[end], "function") or is_in(tokens[end], "determiners"))
            ):
                yield range(i, end), IDIOM


def _expressions(
    table: dict[str, list[tuple[str, ...]]], tokens: list[Token], i: int
) -> Iterator[int]:
    """The ends of the expressions of a table that begin at ``i``."""
    for words in table.get(tokens[i].text, ()):
        end = i + len(words)
        if tuple(token.text for token in tokens[i:end]) == words:
            yield end


def _is_by_maker(caption: str, tokens: list[Token], i: int) -> bool:
    """Whether "by" stands before whoever made the picture."""
    end = _until(tokens, i + 1, LISTS["function"])
    if i == 0 or end == i + 1 or is_in(tokens[i + 1], "determiners"):
        return False
    before = tokens[i - 1]
    if before.text == "," or is_in(before, "makers") or tokens[end - 1].text in LISTS["styles"]:
        return True
    if any(is_in(before, kind) for kind in ("pictures", "pictures_of", "styles")):
        return True
    of_a_picture = any(
        is_in(token, "pictures") or is_in(token, "pictures_of") for token in tokens[:i]
    )
    capital = caption[tokens[i + 1].start].isupper() and caption[tokens[i].start].islower()
    return of_a_picture and capital and not before.text.endswith(("ing", "ed"))


def _until(tokens: list[Token], start: int, stops: frozenset[str]) -> int:
    """The end of the words from ``start`` on up to a sign or one of ``stops``."""
    end = start
    while end < len(tokens) and tokens[end].text not in stops:
        if not tokens[end].text[0].isalnum() and tokens[end].text not in "-&":
            break
        end += 1
    return end


def _absent(tokens: list[Token], found: dict[int, str]) -> Iterator[list[int]]:
    """What a word of negation speaks of: "no dogs or cats", "without a hat", "not wearing a hat",
    "instead of a dog"; not "not looking at a dog" nor "a no smoking sign"."""
    if not any(_negated_from(tokens, i) for i in range(len(tokens))):
        return
    runs = find_runs(tokens, found)
    at = {run[0]: k for k, run in enumerate(runs)}
    for i in range(len(tokens)):
        start = None if i in found else _negated_from(tokens, i)
        if start is None:
            continue
        k = at.get(_skip(tokens, start, "determiners"))
        while k is not None:
            if any(is_in(tokens[j], "signs") for j in runs[k]):
                break
            yield runs[k]
            k = _joined_run(tokens, runs, at, k)


def _negated_from(tokens: list[Token], i: int) -> int | None:
    """Where what the word at ``i`` denies begins, if it denies anything."""
    text = tokens[i].text
    after = tokens[i + 1].text if i + 1 < len(tokens) else ""
    if text == "missing" and i and is_in(tokens[i - 1], "determiners"):
        return i  # "a missing wheel"
    if text == "missing":
        return i + 1 if after in LISTS["determiners"] else None
    if text in LISTS["instead_of"]:
        return i + 2 if after in ("of", "than", "from") else None
    if text not in LISTS["negators"] and not text.endswith("n't"):
        return None
    if after in LISTS["not_absent"]:
        return None
    return i + 2 if after in LISTS["having"] else i + 1


def _joined_run(
    tokens: list[Token], runs: list[list[int]], at: dict[int, int], k: int
) -> int | None:
    """The run after run ``k`` that is denied with it: "no cats or dogs", "no cars and people", "no
    pieces of furniture"; not "no cars and a dog"."""
    end = runs[k][-1] + 1
    link = tokens[end].text if end < len(tokens) else ""
    if link == "," and end + 1 < len(tokens) and tokens[end + 1].text in ("or", "nor"):
        end += 1
        link = tokens[end].text
    following = at.get(_skip(tokens, end + 1, "determiners"))
    if link in ("or", "nor", "of") or (link == "and" and following == at.get(end + 1)):
        return following
    if link == "," and following is not None:
        rest = _joined_run(tokens, runs, at, following)
        last = runs[following][-1] + 1
        listed = last < len(tokens) and tokens[last].text in ("or", "nor", ",")
        return following if listed and rest is not None else None
    return None


def _skip(tokens: list[Token], i: int, kind: str) -> int:
    while i < len(tokens) and is_in(tokens[i], kind):
        i += 1
    return i
