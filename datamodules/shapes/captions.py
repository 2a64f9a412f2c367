"""What captions of the embedded world say: clean ones that name everything as it is, and careless
ones as they are found on the web.

A caption names groups of equal things: "a red circle", "two small striped red circles". The first
caption of an evaluation split is its prompt: clean, in plain words. Whatever a caption says wrongly
of a thing, its words for it still stand for that thing. No caption of training names a combination
that is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from conf.data.shapes import CLEAN, WEB, Careless
from datamodules.shapes.dice import Dice
from datamodules.shapes.scenes import ORDER, Scene
from datamodules.shapes.splits import RECIPES
from datamodules.shapes.vocabulary import (
    HELD_OUT,
    INVERSE,
    JOINS,
    NUMBERS,
    OPENINGS,
    PLAIN,
    PLURALS,
    SOME,
    THAT,
    forms,
)

EACH = 5  # Captions of an image
PLAIN_SAID = 0.5  # Of the rate of patterns: beside something patterned, "plain" is said so often
# Keep the random numbers of prompts and captions apart from those of their scene
PROMPT, CAPTIONS = 1, 2
_NUMBERS = {count: word for word, count in NUMBERS.items()}


class Words(NamedTuple):
    """Characters of a caption, from ``start`` up to ``end``, that name things, by their numbers in
    the scene."""

    start: int
    end: int
    things: tuple[int, ...]


class SceneCaption(NamedTuple):
    """A caption, how its first object lies from its second where it says so, and which words name
    which things, without articles, numbers and what is said behind these."""

    text: str
    relation: str | None
    phrases: tuple[Words, ...]


@dataclass(frozen=True)
class Name:
    """What is said of a group of equal things: None, or no ``count``, is not said."""

    things: tuple[int, ...]
    color: str | None
    shape: str
    size: str | None = None
    pattern: str | None = None
    counted: bool = True


class Style(NamedTuple):
    """How a caption is put: ``dice`` choose among synonyms and forms; without, everything is in
    plain words."""

    dice: Dice | None = None
    opening: str = ""

    def word(self, word: str) -> str:
        """The word, or one of its synonyms half of the time."""
        if self.dice is None:
            return word
        choices = forms(word)
        return self.dice.pick(choices[1:]) if len(choices) > 1 and self.dice.chance(0.5) else word


def name_things(scene: Scene) -> list[Name]:
    """Everything that can be said of each group of a scene, but that a thing is plain."""
    names = []
    for group in scene.groups:
        thing = scene.things[group[0]]
        pattern = None if thing.pattern == PLAIN else thing.pattern
        names.append(Name(group, thing.color, thing.shape, thing.size, pattern))
    return names


def clean_caption(scene: Scene, relation: bool = True, opening: str = "") -> SceneCaption:
    """Everything in a scene, in plain words and in the order of its things; with ``relation`` how
    the first two lie, where that can be said."""
    return put_into_words(
        name_things(scene), scene.relation if relation else None, Style(None, opening)
    )


def draw_prompt(split: str, index: int, scene: Scene, seed: int = 0) -> SceneCaption:
    """What evaluation asks for with the scene at ``index`` of ``split``: everything in it, clean
    and in plain words; a relation as often as the split has it."""
    dice, names = Dice(seed, ORDER.index(split), index, PROMPT), name_things(scene)
    if any(name.pattern for name in names) and dice.chance(PLAIN_SAID):
        names = [replace(name, pattern=name.pattern or PLAIN) for name in names]
    said = scene.relation if dice.chance(RECIPES[split].relation) else None
    return put_into_words(names, said, Style())


def draw_captions(
    split: str, index: int, scene: Scene, seed: int = 0, careless: Careless = WEB
) -> list[SceneCaption]:
    """The captions of the scene at ``index`` of ``split``. Those of ``train`` are as ``careless``
    as given, of other splits they are clean and the first is the prompt."""
    dice = Dice(seed, ORDER.index(split), index, CAPTIONS)
    if split == "train":
        return [draw_caption(scene, careless, dice) for _ in range(EACH)]
    more = [draw_caption(scene, CLEAN, dice) for _ in range(EACH - 1)]
    return [draw_prompt(split, index, scene, seed), *more]


def draw_caption(scene: Scene, careless: Careless, dice: Dice) -> SceneCaption:
    """One caption; the rates are those of `Careless`."""
    names = name_things(scene)
    related = scene.relation if dice.chance(careless.relation_said) else None
    if dice.chance(careless.shuffled):
        dice.shuffle(names)
    names = [names[0], *(name for name in names[1:] if not dice.chance(careless.left_out))]
    names, related = _put_related_first(names, related)
    patterned = any(thing.pattern != PLAIN for thing in scene.things)
    if dice.chance(careless.colors_swapped):
        names = _swap_colors(names, scene, dice)
    names = [_leave_words_out(name, careless, dice, patterned) for name in names]
    style = Style()
    if dice.chance(careless.paraphrased):
        style = Style(dice, dice.pick(OPENINGS))
    return put_into_words(names, related, style)


def _put_related_first(names: list[Name], relation: str | None) -> tuple[list[Name], str | None]:
    """The first two things of the scene before all others, in the order in which they stand; no
    relation where one of them is not named."""
    pair = [name for name in names if name.things in ((0,), (1,))]
    if relation is None or len(pair) < 2:
        return names, None
    if pair[0].things == (1,):
        relation = INVERSE[relation]
    return [*pair, *(name for name in names if name not in pair)], relation


def _swap_colors(names: list[Name], scene: Scene, dice: Dice) -> list[Name]:
    """Two names of different shapes with each other's colours, such that these are combinations
    neither of the scene nor held out; as they are where no two can be swapped."""
    taken = HELD_OUT | {thing.combination for thing in scene.things}
    pairs = [
        (i, j)
        for j, b in enumerate(names)
        for i, a in enumerate(names[:j])
        if a.shape != b.shape and not taken & {(a.color, b.shape), (b.color, a.shape)}
    ]
    if not pairs:
        return names
    i, j = dice.pick(pairs)
    swapped = [*names]
    swapped[i] = replace(names[i], color=names[j].color)
    swapped[j] = replace(names[j], color=names[i].color)
    return swapped


def _leave_words_out(name: Name, careless: Careless, dice: Dice, patterned: bool) -> Name:
    """What is said of a group; that it is plain only beside something ``patterned``."""
    color = None if dice.chance(careless.color_dropped) else name.color
    counted = not dice.chance(careless.number_dropped)
    size = name.size if dice.chance(careless.size_said) else None
    pattern = name.pattern or (PLAIN if patterned and dice.chance(PLAIN_SAID) else None)
    pattern = pattern if dice.chance(careless.pattern_said) else None
    return replace(name, color=color, size=size, pattern=pattern, counted=counted)


def put_into_words(names: Sequence[Name], relation: str | None, style: Style) -> SceneCaption:
    """The caption that names these in their order; ``relation`` is that of the first two."""
    text, phrases = style.opening, []
    for i, name in enumerate(names):
        before, words, behind = _describe(name, style)
        text += _join(i, len(names), relation, style) + before
        phrases.append(Words(len(text), len(text) + len(words), name.things))
        text += words + behind
    return SceneCaption(text, relation, tuple(phrases))


def _describe(name: Name, style: Style) -> tuple[str, str, str]:
    """("a ", "small red circle", ""): what stands before the words for a group, these, and what
    stands behind."""
    several = len(name.things) > 1
    shape = style.word(name.shape)
    said = [name.size, name.pattern, name.color]
    behind = ""
    if style.dice is not None and name.pattern and style.dice.chance(1 / 3):
        said[1], behind = None, THAT[several] + name.pattern
    words = [style.word(word) for word in said if word] + [PLURALS[shape] if several else shape]
    text = " ".join(words)
    if not several:
        return ("an " if text[0] in "aeiou" else "a "), text, behind
    return f"{style.word(_NUMBERS[len(name.things)]) if name.counted else SOME} ", text, behind


def _join(i: int, count: int, relation: str | None, style: Style) -> str:
    """What stands before object i of ``count``."""
    if i == 0:
        return ""
    if relation and i == 1:
        # "A red circle is left of a blue square": a sentence has no opening
        copula = "is " if style.dice and not style.opening and style.dice.chance(0.5) else ""
        return f" {copula}{style.word(relation)} "
    if relation and i == 2:
        return ", and "
    if i < count - 1:
        return ", "
    return style.dice.pick(JOINS) if style.dice else JOINS[0]
