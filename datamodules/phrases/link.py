"""Which words of a caption mean which objects of its image."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import torch

from datamodules.batch import Instance, Phrase
from datamodules.phrases.categories import (
    ATTRIBUTES,
    COLORS,
    VERBS,
    both_numbers,
    compounds,
    words,
)
from datamodules.phrases.lexicon import BREAKS, LISTS, NOUNS_IN_ING, word_set
from datamodules.phrases.nouns import aside_spans
from datamodules.phrases.quantities import ALL, CERTAIN, GROUPS, PART, Quantity, quantity
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger
from datamodules.phrases.telling_apart import are_told_apart, is_placed

# Colour, where the data set knows it, and category
Name = tuple[str | None, str]
DETERMINERS = word_set(
    "a an the one another each every this that these those some his her their its my your"
)
SUBJECTS = word_set("he she it they who that which to")
WORD = re.compile(r"[\w']+|[^\w\s]")


class Mention(NamedTuple):
    """Characters of a caption and whom they name: None where the words mean something else, or
    could mean several."""

    start: int
    end: int
    name: Name | None


class Links(NamedTuple):
    """The ``phrases`` of a caption that name objects of the image, and for each other word that
    looks like one, why it was ``left_out``."""

    phrases: list[Phrase]
    left_out: list[tuple[str, str]]  # (words, reason)


# Why words that name a category name no object
EXPRESSION = "part of another expression"
FIRST_WORD = "before another noun of its phrase"
NO_NOUN = "no noun here"
AMBIGUOUS = "of several categories"
COLORLESS = "without the colour of its object"
SINGULAR = "a singular among several objects"
NUMBER = "a number smaller than that of the objects"
SOME = "some of several objects"
ORDER = "a certain one of several objects"
# Which of them ``data.singular`` decides on
BY_SETTING = frozenset({SINGULAR, NUMBER, SOME, ORDER})


def link(
    caption: str,
    instances: Sequence[Instance],
    singular: str = "one",
    tagger: Tagger = LIGHT_TAGGER,
) -> list[Phrase]:
    """The phrases of a caption that name objects of the image, from left to right; rather none than
    a wrong one.

    An object is named by its category, or by one of the category's usual words (`categories`),
    after its colour where the data set knows it; as whole words in any case. A phrase is these
    words, without articles and further adjectives.

    * Words belong to the longest expression that they are part of: "hot dog" names no dog, "bus
      stop" no bus. A word before another noun of its phrase names none either: "ship dock" no boat.
    * A word of several categories ("board") counts where only one of them is in the image.
    * "orange", "baby" and the like are things only between an article or another companion and the
      end of their noun phrase: not in "an orange cat". "skis", "boards" and the like are none where
      a person or a pronoun stands before them: "a man skis".
    * What is said not to be there names none ("no dogs", "without a dog"), nor does what is written
      on a sign, a name, or the picture's style (`asides`).
    * A plural means all objects of the category; so does "sheep" or "broccoli" unless "a" or the
      like stands before it, "each dog" and "a herd of zebra" (`quantities`). Singulars that name
      the category as often as
      there are objects of it mean one each, the first mention the first object and so on, unless
      words tell them apart ("a small dog beside a big dog"): no order says which is which. Of more
      objects, and of these, a singular means, by ``singular``: "one", that which stands out
      (`standing_out`; where none does, or several mentions want one, the words are left out); "all"
      of them; or "none", and the words are left out. "One of the dogs" is a singular.
    * A number means all objects where there are as many, or fewer: the annotations, or the crop,
      lack the rest. Where there are more, ``singular`` decides as above, on as many as it says. So
      it does on "some of the dogs", "every other dog" and "the third dog", which "one" leaves out:
      nothing says which.
    * ``tagger`` finds the noun phrases.
    """
    return link_or_say_why(caption, instances, singular, tagger).phrases


def link_or_say_why(
    caption: str,
    instances: Sequence[Instance],
    singular: str = "one",
    tagger: Tagger = LIGHT_TAGGER,
) -> Links:
    """As `link`, and what it left out of which it knows why, from left to right."""
    objects: dict[Name, list[Instance]] = {}
    for instance in instances:
        objects.setdefault((instance.color, instance.label.lower()), []).append(instance)
    mentions: dict[Name, list[Mention]] = {}
    left_out: dict[int, tuple[str, str]] = {}
    longest = _longest(_readings(caption, objects, tagger, left_out))
    for mention in sorted(longest, key=lambda mention: mention[:2]):
        if mention.name is not None:
            mentions.setdefault(mention.name, []).append(mention)
    for start in list(left_out):
        # "Hot dog" where the image has one: the word was not left out
        if any(m.name is not None and m.start <= start < m.end for m in longest):
            del left_out[start]
    phrases: list[Phrase] = []
    for name, of_name in mentions.items():
        forms = {_plain(caption[start:end]) for start, end, _ in of_name}
        wanted = [_quantity(caption, mention) for mention in of_name]
        if wanted == [1] and is_placed(caption[of_name[0].end :]):
            wanted = [CERTAIN]
        in_turn = (
            len(of_name) == len(objects[name]) and len(forms) == 1 and {1, CERTAIN} >= {*wanted}
        )
        in_turn = in_turn and not are_told_apart(caption, of_name)
        for i, (start, end, _) in enumerate(of_name):
            meant = objects[name][i : i + 1] if in_turn else objects[name]
            number = wanted[i]
            few = number == CERTAIN and len(meant) > 1
            if few or number == PART or (isinstance(number, int) and number < len(meant)):
                meant = _meant_by_few(meant, number, singular, len(of_name))
                if not meant:
                    reason = {PART: SOME, CERTAIN: ORDER, 1: SINGULAR}.get(number, NUMBER)
                    left_out[start] = (caption[start:end], reason)
            if meant:
                mask = torch.stack([instance.mask for instance in meant]).any(0)
                phrases.append(Phrase(caption[start:end], start, end, mask))
    phrases = sorted(phrases, key=lambda phrase: phrase.start)
    return Links(phrases, [left_out[start] for start in sorted(left_out)])


def standing_out(instances: Sequence[Instance], number: int = 1) -> list[Instance]:
    """The ``number`` of more objects that words most likely mean: large and near the middle of the
    image, in their order. None where another has more than half of the score of any of them.

    The score is the area of the mask times 1 - d, where d is the distance of the mask's centre from
    that of the image as a share of half of its diagonal.
    """
    scores = [_score(instance.mask) for instance in instances]
    last, next_one = sorted(scores, reverse=True)[number - 1 : number + 1]
    if last <= 0 or next_one > last / 2:
        return []
    return [instance for instance, score in zip(instances, scores, strict=True) if score >= last]


def _score(mask: torch.Tensor) -> float:
    rows, columns = (axis.double() + 0.5 for axis in mask.nonzero(as_tuple=True))
    if not len(rows):
        return 0.0
    height, width = mask.shape
    offset = math.hypot(float(rows.mean()) - height / 2, float(columns.mean()) - width / 2)
    return len(rows) * (1 - offset / (math.hypot(height, width) / 2))


def _meant_by_few(
    instances: Sequence[Instance], number: Quantity, singular: str, mentions: int
) -> list[Instance]:
    """Whom a number of more objects means; nobody where nothing says who."""
    if singular == "all":
        return list(instances)
    if singular == "one" and mentions == 1 and isinstance(number, int):
        return standing_out(instances, number)
    return []


def _readings(
    caption: str, names: Collection[Name], tagger: Tagger, left_out: dict[int, tuple[str, str]]
) -> list[Mention]:
    """All that may be named, overlapping or not; words that two names claim are nobody's. Those
    that name nothing are added to ``left_out``, by where they start, with the reason."""
    readings: dict[tuple[int, int], Mention] = {}
    for word in re.finditer(r"\w+", caption):
        pattern = _compounds().get(word.group().lower())
        if pattern and (match := pattern.match(caption, word.start())):
            readings[match.span()] = Mention(*match.span(), None)
    own: dict[tuple[int, int], Mention] = {}
    spans: list[tuple[int, int]] | None = None
    asides: list[tuple[int, int, str]] = []
    for name in names:
        for match in _pattern(name).finditer(caption):
            start, end = match.span()
            if spans is None:
                spans, asides = tagger.spans(caption), aside_spans(caption)
            aside = next((kind for s, e, kind in asides if s <= start < e), "")
            if not aside and not _is_noun(caption, start, end):
                left_out[start] = (match.group(), NO_NOUN)
                continue
            reason = aside
            if not reason and (start, end) in own:
                reason = AMBIGUOUS
            elif not reason and not _is_head(caption, start, end, spans):
                reason = FIRST_WORD
            elif not reason and any(
                (s, e) != (start, end) and s <= start and end <= e for s, e in readings
            ):
                reason = EXPRESSION
            if reason:
                left_out[start] = (match.group(), reason)
            nobody = bool(aside) or reason in (AMBIGUOUS, FIRST_WORD)
            own[start, end] = Mention(start, end, None if nobody else name)
    named = {mention.name for mention in own.values()}
    for name in names:
        if name[0] and name not in named and (None, name[1]) not in names:
            for match in _pattern((None, name[1])).finditer(caption):
                start, end = match.span()
                if not any(s <= start and end <= e for s, e in readings | own):
                    left_out.setdefault(start, (match.group(), COLORLESS))
    return list((readings | own).values())


def _is_head(caption: str, start: int, end: int, spans: Iterable[tuple[int, int]]) -> bool:
    """Whether no other noun of the same phrase follows: "a ship dock" is no ship. "The dog's bowl"
    speaks of a dog all the same."""
    return caption[end : end + 2] in ("'s", "\u2019s") or not any(
        first <= start and end < last for first, last in spans
    )


def _longest(readings: Iterable[Mention]) -> list[Mention]:
    """The longest readings that do not overlap."""
    kept: list[Mention] = []
    for reading in sorted(readings, key=lambda r: (r.start - r.end, r.start)):
        if not any(reading.start < other.end and other.start < reading.end for other in kept):
            kept.append(reading)
    return kept


def _is_noun(caption: str, start: int, end: int) -> bool:
    """Whether a word that may be something else names a thing here."""
    word = caption[start:end].lower()
    before = WORD.findall(caption[:start].lower())
    if word in VERBS and before and (before[-1] in SUBJECTS or before[-1] in words("person")):
        return False
    if word not in ATTRIBUTES:
        return True
    after = WORD.findall(caption[end:].lower())
    while (
        len(after) > 1 and after[0] in ("and", "or", ",", "&") and after[1] in COLORS | ATTRIBUTES
    ):
        del after[:2]
    ends = (
        not after
        or after[0] in BREAKS
        or after[0][0] in ".,;:!?)'\""
        or (after[0].endswith("ing") and after[0] not in NOUNS_IN_ING)
    )
    return ends and _accompanied(before, word)


def _accompanied(before: Sequence[str], word: str) -> bool:
    """Whether an article or the like stands before a word, with at most two others between them."""
    for token in reversed(before[-3:]):
        if token in DETERMINERS or token.endswith("'s"):
            return True
        if token in BREAKS or not token[0].isalnum() or (token in COLORS and word in COLORS):
            return False
    return False


def _quantity(caption: str, mention: Mention) -> Quantity:
    """How many objects the words of a mention mean."""
    start, end, name = mention
    if name is None:
        return 1
    color, label = name
    before = WORD.findall(caption[:start].lower())
    text = _plain(caption[start:end])
    several = _forms(color, label)[text]
    if text.removeprefix(f"{color} ") in both_numbers(label):
        several = not _has_singular_before(before)
    number = quantity(before, several)
    alone = number == ALL and before[-1:] != ["every"] and before[-1:] != ["each"]
    return GROUPS.get(text, number) if alone else number


def _has_singular_before(before: Sequence[str]) -> bool:
    for token in reversed(before[-3:]):
        if token in LISTS["singular"]:
            return True
        if token in BREAKS or not token[0].isalnum():
            break
    return False


def _plain(text: str) -> str:
    return text.lower().replace("-", " ")


@cache
def _forms(color: str | None, label: str) -> dict[str, bool]:
    """What an object may be called, and whether it means several."""
    return {
        _plain(f"{color} {word}" if color else word): several
        for word, several in words(label).items()
    }


@cache
def _pattern(name: Name) -> re.Pattern[str]:
    return _any_of(_forms(*name))


@cache
def _compounds() -> dict[str, re.Pattern[str]]:
    """The expressions of several words by their first: a single pattern of them all would be
    slow."""
    by_first: dict[str, list[str]] = {}
    for form in compounds():
        by_first.setdefault(re.split(r"\W", form)[0], []).append(form)
    return {first: _any_of(forms) for first, forms in by_first.items()}


def _any_of(forms: Iterable[str]) -> re.Pattern[str]:
    """Whole words, the longest first; a hyphen is as good as a blank."""
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    alternatives = "|".join(re.escape(form).replace(r"\ ", "[ -]") for form in ordered)
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)
