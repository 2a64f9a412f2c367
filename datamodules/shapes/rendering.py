"""How things of the embedded world are drawn: shapes from their signed distance, stripes and dots
in a darker shade of the thing's own colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from datamodules.shapes.vocabulary import COLORS, PLAIN, SHADES, SHAPES

if TYPE_CHECKING:
    from datamodules.shapes.scenes import Scene, Thing

SIZE = 64  # Pixels, both sides
# All in shares of the radius: where the middle of a ring's band lies, and half of the band; half of
# the width of a cross's arm; the radius of a dot
RING, BAND, ARM, DOT = 0.74, 0.26, 0.36, 0.21
# Two stripes, so far from the middle and so wide on either side of there
STRIPE, HALF = 0.4, 0.2
# They are parallel to no edge of any shape, so that each outline stays clear
TILT = (np.float32(np.sin(0.5)), np.float32(np.cos(0.5)))


def _around(count: int, away: float) -> list[tuple[float, float]]:
    turns = [2 * np.pi * k / count for k in range(count)]
    return [(away * float(np.sin(t)), -away * float(np.cos(t))) for t in turns]


# Where dots have their centres, (x, y): none is cut by an edge; few and apart, so that an
# autoencoder that keeps a sixteenth of the places still shows them
DOTS: dict[str, list[tuple[float, float]]] = {
    "circle": _around(4, 0.52),
    "square": [(-0.46, -0.46), (-0.46, 0.46), (0.46, -0.46), (0.46, 0.46)],
    "triangle": [(0, -0.2), (-0.42, 0.46), (0.42, 0.46)],
    "diamond": _around(4, 0.5),
    "cross": _around(4, 0.68),
    "ring": _around(5, RING),
}
_COLORS = {name: np.asarray(rgb, dtype=np.float32) for name, rgb in COLORS.items()}
_SHADES = {name: np.asarray(rgb, dtype=np.float32) for name, rgb in SHADES.items()}


class _Window(NamedTuple):
    """The part of an image around a thing: its rows and columns, and in it the offset of each
    pixel's centre from the thing's."""

    place: tuple[slice, slice]
    x: np.ndarray  # [1, w]
    y: np.ndarray  # [h, 1]


def _look(thing: Thing, size: int) -> _Window:
    scale = size / SIZE
    sides, offsets = [], []
    for centre in (thing.y, thing.x):
        first = max(int((centre - thing.radius) * scale) - 1, 0)
        last = min(int((centre + thing.radius) * scale) + 2, size)
        sides.append(slice(first, last))
        offsets.append(np.arange(first, last, dtype=np.float32) + np.float32(0.5 - centre * scale))
    y, x = offsets
    return _Window((sides[0], sides[1]), x[None, :], y[:, None])


def _cover(thing: Thing, window: _Window, scale: float) -> np.ndarray:
    """The share of each pixel of the window that the shape covers, float32 [h, w]."""
    x, y, r = window.x, window.y, np.float32(thing.radius * scale)
    ax, ay = np.abs(x), np.abs(y)
    if thing.shape == "circle":
        distance = np.sqrt(x * x + y * y) - r
    elif thing.shape == "ring":
        distance = np.abs(np.sqrt(x * x + y * y) - r * RING) - r * BAND
    elif thing.shape == "square":
        distance = np.maximum(ax, ay) - r * 0.88
    elif thing.shape == "diamond":
        distance = (ax + ay - r) * np.float32(np.sqrt(0.5))
    elif thing.shape == "cross":
        distance = np.minimum(np.maximum(ax - r, ay - r * ARM), np.maximum(ax - r * ARM, ay - r))
    elif thing.shape == "triangle":
        slope = np.float32(1 / np.sqrt(1.25))
        distance = np.maximum(y - r * 0.8, (ax * 2 - (y + r)) * slope / 2)
    else:
        raise ValueError(f"shape {thing.shape!r} is unknown: expected one of {', '.join(SHAPES)}")
    return np.clip(0.5 - distance, 0, 1)


def _mark(thing: Thing, window: _Window, scale: float) -> np.ndarray:
    """The share of each pixel of the window that stripes or dots cover, float32 [h, w]."""
    x, y, r = window.x, window.y, thing.radius * scale
    if thing.pattern == "striped":
        along = np.abs(x * TILT[0] + y * TILT[1])
        distance = np.abs(along - np.float32(STRIPE * r)) - np.float32(HALF * r)
    elif thing.pattern == "dotted":
        places = np.asarray(DOTS[thing.shape], dtype=np.float32) * np.float32(r)
        across = x - places[:, 0, None, None]  # [dots, 1, w]
        down = y - places[:, 1, None, None]  # [dots, h, 1]
        distance = np.sqrt((across * across + down * down).min(0)) - np.float32(DOT * r)
    else:
        raise ValueError(
            f"pattern {thing.pattern!r} is unknown: expected striped, dotted or {PLAIN}"
        )
    return np.clip(0.5 - distance, 0, 1)


def coverage(thing: Thing, size: int = SIZE) -> np.ndarray:
    """How much of each pixel the shape covers, float32 [size, size] in [0, 1], from its signed
    distance."""
    window = _look(thing, size)
    whole = np.zeros((size, size), dtype=np.float32)
    whole[window.place] = _cover(thing, window, size / SIZE)
    return whole


def texture(thing: Thing, size: int = SIZE) -> np.ndarray:
    """How much of each pixel around a thing is in the darker shade, float32 [size, size] in [0,
    1]; its shape is not looked at."""
    whole = np.zeros((size, size), dtype=np.float32)
    if thing.pattern != PLAIN:
        window = _look(thing, size)
        whole[window.place] = _mark(thing, window, size / SIZE)
    return whole


def paint(image: np.ndarray, thing: Thing) -> tuple[tuple[slice, slice], np.ndarray]:
    """Draws a thing on an image, float32 [size, size, 3], in place. Returns the rows and columns
    that it lies in and its coverage there."""
    size = len(image)
    window, scale = _look(thing, size), size / SIZE
    alpha = _cover(thing, window, scale)
    color = _COLORS[thing.color]
    if thing.pattern != PLAIN:
        marks = _mark(thing, window, scale)[..., None]
        color = color + (_SHADES[thing.color] - color) * marks
    part = image[window.place]
    part += (color - part) * alpha[..., None]
    return window.place, alpha


def render(scene: Scene, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [size, size, 3], masks bool [things, size, size]); later things lie on top."""
    image = np.full((size, size, 3), scene.background, dtype=np.float32)
    masks = np.zeros((len(scene.things), size, size), dtype=bool)
    for thing, mask in zip(scene.things, masks, strict=True):
        place, alpha = paint(image, thing)
        mask[place] = alpha >= 0.5
    return np.rint(image).astype(np.uint8), masks
