"""Words by which captions call the objects of COCO's 80 categories, and words that only look so;
written by hand for this project, in ``categories.json``:

    words       category -> its words, divided by commas. The plural is formed by rule, or given
                after a stroke (man/men); a word with nothing after its stroke (broccoli/) has
                none, one with nothing before it (/cattle) is a plural, one with itself
                (sheep/sheep) is both. A word of several
                categories (board) counts where only one of them is in the image.
    same        names of other data sets and detectors -> COCO's category
    leading     word -> what may follow it in expressions that mean nothing of its category (car
                seat)
    trailing    word -> what may stand before it in such expressions (toy horse)
    longer      more such expressions, in the form of words
    attributes  words that go before another noun, too ("orange cat", "baby elephant")
    verbs       words that are verbs, too ("a man skis")
    colors      what may stand beside "orange" where it is no fruit
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from datamodules.phrases.lexicon import LISTS, is_plural

_TABLE = json.loads((Path(__file__).parent / "categories.json").read_text(encoding="utf-8"))
WORDS: dict[str, str] = _TABLE["words"]
SAME: dict[str, str] = _TABLE["same"]
ATTRIBUTES, VERBS, COLORS = (
    frozenset(_TABLE[kind].split()) for kind in ("attributes", "verbs", "colors")
)


def plural(word: str) -> str:
    """The regular plural of an English expression: that of its last word."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return re.sub(r"(?<![aeiou])y$", "ie", word) + "s"


# How plurals end, and their singulars instead
ENDS = (
    (r"(?<=ss|ch|sh)es$|(?<=[xz])es$|(?<=[ae]to)es$", ""),
    (r"(?<!^.)(?<!cook|hood|self)(?<!brown)(?<!smooth)(?<!mov)ies$", "y"),
    (r"(?<=el|al|ol|ul|ea|oa|ar|oo)ves$", "f"),
    (r"s$", ""),
)


@cache
def words(category: str) -> dict[str, bool]:
    """The words that name objects of a category, in small letters, and whether each means several
    of them.

    A category outside the table has its own name and the plural of it, or, where its name is a
    plural, the singular. Numbers around a name, as in "01_dog", are no part of it.
    """
    name = _tidy(category)
    own = {category.lower(): False, name: False}
    if (row := _row(name)) is not None:
        return own | dict(_forms(row))
    one = singular(name)
    if one is None:
        return own | {plural(name): True}
    return own | dict(_forms(_row(one) or f"{one}/{name}")) | {name: True}


def singular(name: str) -> str | None:
    """The singular of an expression whose last word looks like a plural; None of another."""
    if name in (known := _singulars()):  # "people", "mice", "traffic lights"
        return known[name]
    *before, last = name.split()
    if not last.endswith("s") or not is_plural(last) or len(last) < 4:
        return None
    if last in LISTS["first_plurals"]:
        return None
    for end, instead in ENDS:
        if re.search(end, last):
            return " ".join([*before, re.sub(end, instead, last)])
    return None


@cache
def _singulars() -> dict[str, str]:
    """Plural -> singular of the table, the category for those of its first word."""
    found: dict[str, str] = {}
    for category, row in WORDS.items():
        for i, entry in enumerate(row.split(",")):
            one, stroke, given = " ".join(entry.split()).partition("/")
            if one and given != one and (given or not stroke):
                found.setdefault(given or plural(one), category if i == 0 else one)
    return found


def _tidy(category: str) -> str:
    """A category's name in small letters, words divided by a blank, without numbers around it."""
    parts = [part for part in re.split(r"[\s_-]+", category.lower()) if part]
    named = [part for part in parts if not part.isdigit()]
    return " ".join(named or parts)


def _row(name: str) -> str | None:
    return WORDS.get(SAME.get(name, name))


@cache
def both_numbers(category: str) -> frozenset[str]:
    """Those of `words` that mean one object or several."""
    name = _tidy(category)
    forms = _forms(_row(name) or _row(singular(name) or "") or "")
    return frozenset(form for form, several in forms if several and (form, False) in forms)


@cache
def compounds() -> frozenset[str]:
    """Every expression of several words, of the table or not, that may hold a word of another
    category."""
    pairs = [f"{word} {other}" for word, row in _TABLE["leading"].items() for other in row.split()]
    pairs += [
        f"{other} {word}" for word, row in _TABLE["trailing"].items() for other in row.split()
    ]
    rows = [*WORDS.values(), _TABLE["longer"], ",".join(pairs)]
    return frozenset(form for row in rows for form, _ in _forms(row) if re.search(r"\W", form))


def _forms(row: str) -> list[tuple[str, bool]]:
    """(form, whether it is a plural) of the words of a row."""
    forms = []
    for entry in row.split(","):
        singular, stroke, given = " ".join(entry.split()).partition("/")
        forms += [(given if stroke else plural(singular), True), (singular, False)]
    return [(form, several) for form, several in forms if form]
