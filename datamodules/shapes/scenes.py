"""Scenes of the embedded world: one to five coloured shapes on a plain grey ground.

Everything follows from ``(seed, split, index)``: the same triple gives the same scene. Twelve of
the 48 colour-shape combinations never occur in ``train`` and ``val``; every scene of ``heldout``
and ``three_heldout`` shows at least one of these. What a generator learnt of colours and of shapes
must be composed in new ways there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby

from datamodules.shapes.dice import Dice
from datamodules.shapes.placing import (
    TRIES,
    Place,
    draw_radius,
    find_relation,
    place_many,
    place_pair,
    size_of,
)
from datamodules.shapes.splits import MOST, RECIPES, Recipe
from datamodules.shapes.vocabulary import HELD_OUT, PATTERNS, PLAIN, RELATIONS, SEEN

Combination = tuple[str, str]  # Colour and shape
ORDER = tuple(RECIPES)
SCENE = 0  # Keeps the random numbers of scenes apart from those of their captions
PATTERNED_AMONG = 3  # So many things at most: among more there is no room for stripes and dots


@dataclass(frozen=True)
class Thing:
    """One shape: its colour, its centre and its radius in pixels (half the side of the box around
    it), and its pattern."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    pattern: str = PLAIN

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def size(self) -> str | None:
        """``small``, ``large``, or None between."""
        return size_of(self.radius)

    @property
    def combination(self) -> Combination:
        return self.color, self.shape

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in pixels."""
        return (
            self.x - self.radius,
            self.y - self.radius,
            self.x + self.radius,
            self.y + self.radius,
        )


@dataclass(frozen=True)
class Scene:
    """What an image shows. Equal things stand behind one another. ``relation`` is the place of the
    first thing relative to the second, where one can be named; these two have no equals then."""

    things: tuple[Thing, ...]
    background: int
    relation: str | None = None

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The numbers of the things that a caption names together: those of the same colour and
        shape."""
        numbers = range(len(self.things))
        return [tuple(g) for _, g in groupby(numbers, lambda i: self.things[i].combination)]


def sample_scene(
    split: str, index: int, seed: int = 0, count: int | None = None, zipf: float = 0.0
) -> Scene:
    """The scene at ``index`` of ``split`` (see `splits`); ``count`` fixes how many things there
    are, 1 to 5. In ``train`` the seen combination of rank r, in an order that is always the same,
    is as frequent as r to the power of -``zipf``; 0: all alike.

    Raises ValueError on an unknown split or count.
    """
    if split not in RECIPES:
        raise ValueError(f"split {split!r} is unknown: expected one of {', '.join(RECIPES)}")
    if count not in (None, *range(1, MOST + 1)):
        raise ValueError(f"a scene of {count} shapes cannot be drawn: expected 1 to {MOST}")
    dice = Dice(seed, ORDER.index(split), index, count or 0, SCENE)
    recipe = RECIPES[split]
    n = count or 1 + dice.weigh(recipe.counts)
    weights = frequencies(zipf if split == "train" else 0.0)
    sizes = _draw_groups(dice, n, recipe)
    combinations = _draw_combinations(dice, len(sizes), recipe, weights)
    looks = _draw_looks(dice, len(sizes), n, recipe)
    things = [
        (combination, look)
        for combination, look, size in zip(combinations, looks, sizes, strict=True)
        for _ in range(size)
    ]
    single = [size == 1 for size in sizes for _ in range(size)]
    order, places, relation = _place(dice, [look for _, look in things], single, recipe)
    made = [Thing(*things[i][0], *places[i], things[i][1][1]) for i in order]
    return Scene(tuple(made), 70 + dice.below(61), relation)


@cache
def frequencies(zipf: float) -> tuple[float, ...]:
    """The weight of each of ``SEEN``."""
    ranks = [*range(1, len(SEEN) + 1)]
    Dice(SCENE).shuffle(ranks)
    return tuple(rank**-zipf for rank in ranks)


Look = tuple[str | None, str]  # Size and pattern


def _draw_groups(dice: Dice, n: int, recipe: Recipe) -> list[int]:
    """How many of n things are equal to one another: the sizes of their groups."""
    if n == 1 or not dice.chance(recipe.equal):
        return [1] * n
    first = 2 + dice.below(n - 1)
    rest = n - first
    sizes = [first, *([rest] if rest > 1 and dice.chance(0.4) else [1] * rest)]
    dice.shuffle(sizes)
    return sizes


def _draw_combinations(
    dice: Dice, n: int, recipe: Recipe, weights: tuple[float, ...]
) -> list[Combination]:
    """n combinations, no two alike, in shuffled order."""
    drawn: list[Combination] = []
    if recipe.heldout:
        pool = sorted(HELD_OUT)
        wanted = 1 if n == 1 or dice.chance(2 / 3) else 2
        while len(drawn) < wanted:
            _add(drawn, dice.pick(pool), recipe)
    while len(drawn) < n:
        uniform = weights[0] == weights[-1]
        combination = dice.pick(SEEN) if uniform else SEEN[dice.weigh(weights)]
        if recipe.similar and len(drawn) == 1 and combination[1] != drawn[0][1]:
            continue
        _add(drawn, combination, recipe)
    dice.shuffle(drawn)
    return drawn


def _add(drawn: list[Combination], combination: Combination, recipe: Recipe) -> None:
    """Adds a combination where it fits to the others."""
    if combination in drawn:
        return
    if recipe.similar == 0 and any(combination[0] == c or combination[1] == s for c, s in drawn):
        return
    drawn.append(combination)


def _draw_looks(dice: Dice, groups: int, n: int, recipe: Recipe) -> list[Look]:
    """Size and pattern of the things of each group."""
    while True:
        looks: list[Look] = []
        for _ in range(groups):
            size, pattern = None, PLAIN
            if dice.chance(recipe.sized):
                size = "large" if dice.chance(0.5) else "small"
                crowded = n > 3 or (n == 3 and any(s == "large" for s, _ in looks))
                size = "small" if crowded or groups < n > 2 else size
            if dice.chance(recipe.patterned) and size != "small" and n <= PATTERNED_AMONG:
                pattern = PATTERNS[dice.below(2)]
            looks.append((size, pattern))
        if not recipe.every or any(look != (None, PLAIN) for look in looks):
            return looks


def _place(
    dice: Dice, looks: list[Look], single: list[bool], recipe: Recipe
) -> tuple[list[int], list[Place], str | None]:
    """The order of the things, a place for each, and how the first then lies from the second where
    that can be said."""
    n = len(looks)
    if n == 2:
        relation = dice.pick(RELATIONS)
        places = place_pair(dice, _radii(dice, looks), relation)
        return [0, 1], places, relation if all(single) else None
    for _ in range(TRIES):
        found = place_many(dice, _radii(dice, looks))
        if found is None:
            continue
        pairs = [
            (i, j, said)
            for i in range(n)
            for j in range(n)
            if i != j and single[i] and single[j] and (said := find_relation(found[i], found[j]))
        ]
        if pairs:
            i, j, said = dice.pick(pairs)
            return [i, j, *(k for k in range(n) if k not in (i, j))], found, said
        if recipe.relation < 1:
            return [*range(n)], found, None
    raise RuntimeError(f"no room for {n} shapes on an image")


def _radii(dice: Dice, looks: list[Look]) -> list[float]:
    return [draw_radius(dice, size, pattern != PLAIN, len(looks)) for size, pattern in looks]
