"""What a prompt says: where in it the words of its objects stand and, for sentences of a known
form, what the image must show.

That has GenEval's form, for prompts of every origin:

    {"tag": str,
     "include": [{"class": str, "count": int, "color"?: str, "position"?: [relation, index]}],
     "exclude"?: [{"class": str, "count": int}]}

``include`` asks for at least ``count`` of a class, ``exclude`` for fewer; ``index`` is the place in
``include`` of what the relation refers to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from datamodules.phrases.lexicon import word_set
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

Span = tuple[int, int]


def _word_list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The words of the Attend-and-Excite protocol, in the order of its published prompts
ANIMALS = _word_list("cat dog bird bear lion horse elephant monkey frog turtle rabbit mouse")
OBJECTS = _word_list("backpack glasses crown suitcase chair balloon bow car bowl bench clock apple")
WORN = ("glasses", "crown", "bow")
COLORS = _word_list("red orange yellow green blue purple pink brown gray black white")

# Relations of T2I-CompBench's sentences; where GenEval has a word for the same, by that word
RELATIONS = {
    "on the left of": "left of",
    "on the right of": "right of",
    "on the top of": "above",
    "on top of": "above",
    "on the bottom of": "below",
    "on side of": "on side of",
    "next to": "next to",
    "near": "near",
    "in front of": "in front of",
    "behind": "behind",
    "hidden by": "hidden by",
}
NUMBERS = {"a": 1, "an": 1} | {
    word: i for i, word in enumerate(_word_list("one two three four five six seven eight"), 1)
}
# What T2I-CompBench counts: other nouns after a number or an article are not looked at, as in the
# benchmark
COUNTED = word_set(
    """
    airplane apple backpack bag balloon banana bear bee bicycle bird boat book bottle bowl boy bread
    butterfly cake camel camera candle car cat chair chicken clock computer couch cow cup deer desk
    dog drum duck egg fish flag frog giraffe girl goldfish guitar hamburger helicopter helmet horse
    key kite knife lamp lemon man microphone microwave mouse paddle painting peach pear pen person
    phone pig pillow plate printer rabbit refrigerator sheep ship shrimp sink sofa stool strawberry
    suitcase swan table television tent tomato toy train truck turtle vase woman
    """
)
IRREGULAR = dict(
    pair.split("/")
    for pair in _word_list(
        """
        deer/deer fish/fish foot/feet goldfish/goldfish knife/knives leaf/leaves man/men mouse/mice
        person/people sheep/sheep shrimp/shrimp tomato/tomatoes woman/women
        """
    )
)

_NO_THING = r"(?!(?:an?|and|the|with|to|of|on|by|near|behind)\b)"
_THING = rf"({_NO_THING}[a-z-]+(?: {_NO_THING}[a-z-]+){{0,2}})"
_COLOR = rf"(?:({'|'.join((*COLORS, 'grey', 'gold', 'silver', 'beige', 'tan'))}) )?"
_PAIR = re.compile(rf"an? {_COLOR}{_THING} (and|with) an? {_COLOR}{_THING}\.?", re.IGNORECASE)
_SPATIAL = re.compile(rf"an? {_THING} ({'|'.join(RELATIONS)}) an? {_THING}\.?", re.IGNORECASE)


class PromptMeaning(NamedTuple):
    """What a sentence says: the characters of its objects' words, from left to right, and what the
    image shall show."""

    spans: tuple[Span, ...]
    wanted: dict[str, Any]


def plural(noun: str) -> str:
    """The plural of an English noun, or of the last word of several."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


_SINGULAR = {form: noun for noun in COUNTED for form in (noun, plural(noun))}


def find_words(text: str, names: Sequence[Sequence[str]]) -> list[Span | None]:
    """For each thing, given by the forms of its name, where it stands in the text: as whole words,
    in any case; None if nowhere.

    Earlier forms go before later ones and longer names before shorter ones, whose words they may
    hold: "hot dog" names no dog. A name that is given twice means its second place then.
    """
    spans: list[Span | None] = [None] * len(names)
    taken: list[Span] = []
    for i in sorted(range(len(names)), key=lambda i: max(map(len, names[i])), reverse=True):
        matches = (
            m.span()
            for form in names[i]
            for m in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", text, re.IGNORECASE)
        )
        spans[i] = next(
            (span for span in matches if not any(overlap(span, other) for other in taken)), None
        )
        if (span := spans[i]) is not None:
            taken.append(span)
    return spans


def overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def spans_of(
    text: str, wanted: dict[str, Any] | None, tagger: Tagger = LIGHT_TAGGER
) -> tuple[Span, ...]:
    """The characters of the prompt's objects, from left to right: of those in ``wanted``, colour
    included; of all noun phrases without it, or where the prompt names none of it by its class."""
    names = []
    for thing in wanted["include"] if wanted else ():
        # GenEval itself writes "knifes" and "benchs".
        nouns = dict.fromkeys(
            form
            for name in (thing["class"],)
            for form in (name, plural(name), f"{name}s", f"{name}es")
        )
        names.append([*(f"{thing['color']} {noun}" for noun in nouns if "color" in thing), *nouns])
    found = sorted(span for span in find_words(text, names) if span)
    return tuple(found or tagger.spans(text))


# --- sentences of a known form --------------------------------------------------------------------


def pair(text: str) -> PromptMeaning | None:
    """A prompt of the Attend-and-Excite protocol: two of its animals, an animal and an object, or
    two objects; else None.

    An object has a colour, unless an animal wears it: "a cat and a dog", "a cat and a red car", "a
    cat with a crown", "a red car and a pink bow".
    """
    if not (match := _PAIR.fullmatch(text)):
        return None
    first_color, first, join, second_color, second = (
        part and part.lower() for part in match.groups()
    )
    colors = (first_color is not None, second_color is not None)
    worn = second in WORN and first in ANIMALS
    for tag, firsts, seconds, form in (
        ("animals", ANIMALS, ANIMALS, ("and", (False, False))),
        (
            "animals_objects",
            ANIMALS,
            OBJECTS,
            ("with", (False, False)) if worn else ("and", (False, True)),
        ),
        ("objects", OBJECTS, OBJECTS, ("and", (True, True))),
    ):
        if first in firsts and second in seconds and (join, colors) == form:
            return _both(match, tag)
    return None


def colored(text: str) -> PromptMeaning | None:
    """Two objects, each with its colour ("a green bench and a blue bowl"); None for any other
    sentence."""
    match = _PAIR.fullmatch(text)
    return (
        _both(match, "color")
        if match and match[1] and match[4] and match[3].lower() == "and"
        else None
    )


def _both(match: re.Match[str], tag: str) -> PromptMeaning:
    spans, include = [], []
    for color, thing in ((1, 2), (4, 5)):
        spans.append((match.start(color if match[color] else thing), match.end(thing)))
        shade = {"color": match[color].lower()} if match[color] else {}
        include.append({"class": match[thing].lower(), "count": 1, **shade})
    return PromptMeaning(tuple(spans), {"tag": tag, "include": include})


def spatial(text: str, tag: str = "spatial") -> PromptMeaning | None:
    """One object, a relation, another object ("a bee on the top of a boy"); None for any other
    sentence.

    As GenEval does, the first object of the sentence stands second in ``include``, with its
    position.
    """
    if not (match := _SPATIAL.fullmatch(text)):
        return None
    first, relation, second = (part.lower() for part in match.groups())
    include = [
        {"class": second, "count": 1},
        {"class": first, "count": 1, "position": [RELATIONS[relation], 0]},
    ]
    return PromptMeaning((match.span(1), match.span(3)), {"tag": tag, "include": include})


def counted(text: str) -> PromptMeaning | None:
    """How many there are of each thing that T2I-CompBench counts ("two boys, a kite and three
    fish"), no more and no fewer.

    None where there is no such thing, or one thing is counted twice.
    """
    spans, counts = [], {}
    for match in re.finditer(rf"\b({'|'.join(NUMBERS)}) ([a-z]+)\b", text, re.IGNORECASE):
        number, noun = match[1].lower(), _SINGULAR.get(match[2].lower())
        if noun is None:
            continue
        if noun in counts:
            return None
        counts[noun] = NUMBERS[number]
        spans.append(match.span(2))
    if not counts:
        return None
    include = [{"class": noun, "count": count} for noun, count in counts.items()]
    exclude = [{"class": noun, "count": count + 1} for noun, count in counts.items()]
    return PromptMeaning(tuple(spans), {"tag": "numeracy", "include": include, "exclude": exclude})
