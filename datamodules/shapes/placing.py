"""Where things of the embedded world lie and how large they are: inside the image, none over
another. Places are (x, y, radius) in pixels."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.shapes.dice import Dice
from datamodules.shapes.rendering import SIZE

Place = tuple[float, float, float]
# Radii by the word for the size; what lies between two ranges is never drawn
RADII: dict[str | None, tuple[float, float]] = {
    "small": (6.4, 7.2),
    None: (8.4, 11.5),
    "large": (13.5, 15.5),
}
SMALL_BELOW, LARGE_FROM = 7.8, 12.5
# The largest radius without a word for it among so many things
ROOM = (11.5, 11.5, 11.5, 9.6, 9.0)
LARGE_OF_MANY = 14.2
PATTERN_FROM = 10.2  # Radius from which stripes and dots can be told apart
APART = 2.0  # Between the boxes of two things
TRIES, PLACES = 1000, 30


def size_of(radius: float) -> str | None:
    """The word for the size of a thing of this radius; None between small and large."""
    if radius < SMALL_BELOW:
        return "small"
    return "large" if radius >= LARGE_FROM else None


def draw_radius(dice: Dice, size: str | None, patterned: bool, count: int) -> float:
    """The radius of one of ``count`` things."""
    low, high = RADII[size]
    if size is None:
        high = ROOM[count - 1]
        low = PATTERN_FROM if patterned else low
    elif size == "large" and count > 1:
        high = LARGE_OF_MANY
    return dice.between(low, high)


def place_pair(dice: Dice, radii: Sequence[float], relation: str) -> list[Place]:
    """Two things along one axis, clearly apart on it and nearly level on the other, the first as
    ``relation`` says of the second."""
    gap = dice.between(3, 8)
    both = 2 * sum(radii)
    gap = min(gap, SIZE - 2 - both)
    span = both + gap
    start = dice.between(1, SIZE - 1 - span)
    largest = max(radii)
    level = dice.between(max(18, largest + 1), min(SIZE - 18, SIZE - largest - 1))
    slots = (0, 1) if relation in ("left of", "above") else (1, 0)
    first = radii[slots[0]]
    along = {slots[0]: start + first, slots[1]: start + 2 * first + gap + radii[slots[1]]}
    places = []
    for i, radius in enumerate(radii):
        across = level + dice.between(-4, 4)
        across = min(max(across, radius + 1), SIZE - radius - 1)
        level_first = relation in ("left of", "right of")
        x, y = (along[i], across) if level_first else (across, along[i])
        places.append((x, y, radius))
    return places


def place_many(dice: Dice, radii: Sequence[float]) -> list[Place] | None:
    """Places for all, the largest first, each tried again where it is too near another; None where
    there is no room left."""
    order = sorted(range(len(radii)), key=lambda i: -radii[i])
    placed: dict[int, Place] = {}
    for i in order:
        radius = radii[i]
        low, high = radius + 1, SIZE - radius - 1
        for _ in range(PLACES):
            x, y = dice.between(low, high), dice.between(low, high)
            if all(max(abs(x - a), abs(y - b)) > radius + r + APART for a, b, r in placed.values()):
                placed[i] = (x, y, radius)
                break
        else:
            return None
    return [placed[i] for i in range(len(radii))]


def find_relation(a: Place, b: Place) -> str | None:
    """How ``a`` lies from ``b`` where a person would say so at once: its box apart from the other
    along one axis, the centres at least twice as far along it as across."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    if abs(dx) >= 2 * abs(dy) and abs(dx) > a[2] + b[2]:
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= 2 * abs(dx) and abs(dy) > a[2] + b[2]:
        return "above" if dy < 0 else "below"
    return None
