"""The words of the embedded world: colours, shapes, sizes, patterns, relations and numbers with
their synonyms, and the combinations of colour and shape that training never shows."""

from __future__ import annotations

from collections.abc import Iterator

from datamodules.phrases.categories import plural

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 60),
    "green": (44, 150, 60),
    "cyan": (60, 215, 225),
    "blue": (40, 70, 210),
    "purple": (150, 60, 190),
    "white": (245, 245, 245),
}
# What stripes and dots are drawn in: half as bright, but for what would look like the grey ground
SHADES = {
    color: tuple(round(value * {"white": 0.7, "yellow": 0.6}.get(color, 0.5)) for value in rgb)
    for color, rgb in COLORS.items()
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "cross", "ring")
# Objects between them have no word for their size
SIZES: tuple[str, ...] = ("small", "large")
PLAIN = "plain"
PATTERNS: tuple[str, ...] = ("striped", "dotted", PLAIN)
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS: dict[str, int] = {"two": 2, "three": 3, "four": 4, "five": 5}
SOME = "some"  # Before a plural of which the number is not said
# A pattern may also be named behind its object, or objects
THAT = {False: " that is ", True: " that are "}

# What captions may say instead; evaluation prompts hold none of these
SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("scarlet",),
    "orange": ("amber",),
    "yellow": ("golden",),
    "green": ("emerald",),
    "cyan": ("turquoise",),
    "blue": ("cobalt",),
    "purple": ("violet",),
    "white": ("ivory",),
    "circle": ("disc",),
    "square": ("box",),
    "triangle": ("wedge",),
    "diamond": ("rhombus",),
    "cross": ("plus",),
    "ring": ("hoop",),
    "small": ("tiny", "little"),
    "large": ("big", "huge"),
    "striped": ("stripy",),
    "dotted": ("spotted",),
    PLAIN: ("solid",),
    "left of": ("to the left of", "on the left of"),
    "right of": ("to the right of", "on the right of"),
    "above": ("over",),
    "below": ("under", "beneath"),
    "two": ("a pair of", "a couple of"),
}
# What may stand before the first object, and between the last two; the first is the plain form
OPENINGS: tuple[str, ...] = ("", "a photo of ", "a picture of ", "an image of ", "a drawing of ")
JOINS: tuple[str, ...] = (" and ", " with ", " together with ")

_C, _S = tuple(COLORS), SHAPES
# Every colour once (colour i with shape i mod 6), then four more, so that every shape is held out
# twice.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    [(_C[i], _S[i % 6]) for i in range(8)]
    + [(_C[0], _S[2]), (_C[1], _S[3]), (_C[2], _S[4]), (_C[3], _S[5])]
)
SEEN: tuple[tuple[str, str], ...] = tuple((c, s) for c in _C for s in _S if (c, s) not in HELD_OUT)

PLURALS: dict[str, str] = {
    word: plural(word) for shape in SHAPES for word in (shape, *SYNONYMS[shape])
}


def forms(word: str) -> tuple[str, ...]:
    """The word and its synonyms."""
    return (word, *SYNONYMS.get(word, ()))


def words() -> Iterator[str]:
    """Every word that a caption can hold, once each, in a fixed order: the vocabulary of the
    embedded tokenizer."""
    plain = [*COLORS, *SHAPES, *RELATIONS, *SIZES, *PATTERNS, *NUMBERS, SOME, *THAT.values()]
    others = [synonym for synonyms in SYNONYMS.values() for synonym in synonyms]
    phrases = ["a an and photo of the , . is", *plain, *others, *PLURALS.values()]
    phrases += [*OPENINGS, *JOINS, "with on in next to"]
    yield from dict.fromkeys(" ".join(phrases).split())
