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


@cache
def words(category: str) -> dict[str, bool]:
    """The words that name objects of a category, in small letters, and whether each means several
    of them.

    A category outside the table has its own name and the plural of it.
    """
    name = " ".join(re.split(r"[\s_-]+", category.lower()))
    row = WORDS.get(SAME.get(name, name), f"{name}/{plural(name)}")
    return {category.lower(): False, name: False, **dict(_forms(row))}


@cache
def both_numbers(category: str) -> frozenset[str]:
    """Those of `words` that mean one object or several."""
    name = " ".join(re.split(r"[\s_-]+", category.lower()))
    forms = _forms(WORDS.get(SAME.get(name, name), ""))
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
