"""What the scenes of each split hold: how many things, which, and what their prompts ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST = 5  # Things in a scene


@dataclass(frozen=True)
class Recipe:
    """How scenes of a split are drawn. Rates are of scenes, or of things where they say so."""

    # Of scenes with 1, 2, … things
    counts: tuple[float, ...]
    # Combinations that training never shows: one in two thirds of the scenes, two in the others
    heldout: bool = False
    # Scenes of two things or more in which some are equal
    equal: float = 0.0
    # Things that are small or large, patterned; scenes with at least one of these where ``every``
    sized: float = 0.0
    patterned: float = 0.0
    every: bool = False
    # Scenes of two things or more in which some have the same shape in other colours; None: as it
    # comes
    similar: float | None = None
    # Prompts that say how their first two things lie, of those that could
    relation: float = 0.0


TRAIN = Recipe((0.2, 0.35, 0.22, 0.13, 0.1), equal=0.2, sized=0.3, patterned=0.25)


def _exactly(count: int) -> tuple[float, ...]:
    return tuple(float(n == count) for n in range(1, MOST + 1))


RECIPES: dict[str, Recipe] = {
    "train": TRAIN,
    "val": replace(TRAIN, relation=0.5),
    # Pairs in which colours and shapes both differ: what a model mixes up is seen
    "heldout": Recipe(_exactly(2), heldout=True, similar=0),
    "one": Recipe(_exactly(1)),
    "two": Recipe(_exactly(2), similar=0),
    "three": Recipe(_exactly(3)),
    "three_heldout": Recipe(_exactly(3), heldout=True),
    "four": Recipe(_exactly(4)),
    "five": Recipe(_exactly(5)),
    "counting": Recipe((0, 0.25, 0.35, 0.25, 0.15), equal=1),
    "relation": Recipe((0, 2 / 3, 1 / 3), similar=0, relation=1),
    "size": Recipe((1 / 3, 2 / 3), sized=0.75, every=True, similar=0),
    "pattern": Recipe((1 / 3, 2 / 3), patterned=0.75, every=True, similar=0),
    "similar": Recipe((0, 0.6, 0.4), similar=1),
}
