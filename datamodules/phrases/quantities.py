"""How many of the objects of its category a noun means, by the words before it: "two dogs", "one of
the dogs", "a herd of zebra"."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.phrases.lexicon import BREAKS, LISTS, word_set

ALL, PART, CERTAIN = "all", "part", "certain"
# A number, all there are, a part of which nothing says how large it is, or a certain one that is
# told by its place in an order
Quantity = int | str

_WORDS = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty"""
NUMBERS = {word: i for i, word in enumerate(_WORDS.split(), start=1)} | {"both": 2, "dozen": 12}
HUNDREDS = word_set("hundred thousand million hundreds thousands millions")
# Nouns that mean so many by themselves
GROUPS = {"couple": 2}
# Before "of"
GROUPS_OF = {"pair": 2, "duo": 2, "trio": 3}
OF_ALL = word_set("each all any none every everyone")
PARTS_OF = word_set("some most many few several half part rest majority either")
ORDINALS = word_set("""second third fourth fifth sixth seventh eighth ninth tenth 2nd 3rd 4th 5th
next last another other latter former middle left right leftmost rightmost nearest closest farthest
furthest smaller smallest shorter shortest tiniest first 1st""")
EACH = word_set("each every")
SEVERAL = word_set("all many several few multiple numerous various these those")
ONE = word_set("a an another this that")
# An adjective or two, the number and what it is part of
WINDOW = 8


def quantity(before: Sequence[str], several: bool) -> Quantity:
    """What the words ``before`` a noun, in small letters, make of it: a number or `ALL` or `PART`.

    ``several``: whether its form is a plural.
    A bare or definite plural means all, a bare or definite singular one; "one of the two dogs" one,
    "each dog" all, "some of the dogs" a part; "a herd of zebra" and "many zebra" all of them; of
    "two or three dogs" nothing is known but that they are several: all. "The third dog" and "the
    other dog" are `CERTAIN` ones, "every third dog" and "the other dogs" a part.
    """
    found: Quantity | None = None
    words = list(before[-WINDOW:])
    definite = ordered = False
    while words:
        word = words.pop()
        number = int(word) if word.isascii() and word.isdigit() else NUMBERS.get(word)
        if word == "of":
            return _of(words, definite, several, found)
        if word == "dozen" and found is None:
            found = _dozens(words)
        elif word in HUNDREDS:
            found = found or ALL
        elif number is not None and found is None:
            vague = words[-1:] in (["or"], ["to"], ["-"])
            found = ALL if vague or number == 0 else number
        elif _is_part(word, words, definite, several):
            found = found or PART
        elif word in EACH:
            found = found or (PART if ordered else ALL)
        elif word in SEVERAL:
            found = found or ALL
        elif word in ORDINALS:
            ordered = True
        elif word in ONE:
            found = found or (ALL if several else 1)
        elif word not in LISTS["determiners"] and (word in BREAKS or not word[0].isalnum()):
            break
        definite = definite or word in LISTS["determiners"]
    if ordered and found in (None, 1, ALL):
        return PART if several else CERTAIN
    return found or (ALL if several else 1)


def _dozens(before: Sequence[str]) -> int:
    """Of "a dozen", "two dozen" or "half a dozen", by the words ``before`` the last."""
    if "half" in before[-2:]:
        return 6
    return 12 * NUMBERS.get(before[-1] if before else "", 1)


def _is_part(word: str, before: Sequence[str], definite: bool, several: bool) -> bool:
    """Whether a word means a part: "half the dogs" but "a half eaten pizza", "most dogs" but "the
    most beautiful dogs"."""
    if word == "most":
        return several and before[-1:] != ["the"]
    return word == "either" or (word == "half" and definite)


def _of(words: list[str], definite: bool, several: bool, found: Quantity | None) -> Quantity:
    """As `quantity`, for a noun after "of" and the number ``found`` between them."""
    word = words[-1] if words else ""
    number = int(word) if word.isascii() and word.isdigit() else NUMBERS.get(word)
    if word in OF_ALL:
        return found or ALL
    if word in PARTS_OF and definite:
        return PART
    if number is not None:
        return number
    if found is None and word in GROUPS_OF:
        return GROUPS_OF[word]
    if found is None and not definite and _is_several(word):
        return ALL  # "a herd of zebra", "slices of pizza"
    return found or (ALL if several else 1)


def _is_several(word: str) -> bool:
    return word in LISTS["groups"] or (word in LISTS["containers"] and word.endswith("s"))
