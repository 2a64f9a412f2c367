"""What judges are trained on: renders of all 48 combinations, clean and spoilt as a generator
spoils them, with soft targets.

A generator's failures are not in any data set, so they are made here: faint objects, objects cut in
half, two colours in one object, two shapes in one object, stripes and dots that hardly show,
objects that lie over each other, crumbs. Where a person would hesitate the target is soft, so that
the judge's probabilities mean something on such images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.shapes.rendering import SIZE, coverage, render, texture
from datamodules.shapes.scenes import Scene, Thing, sample_scene
from datamodules.shapes.splits import MOST
from datamodules.shapes.vocabulary import COLORS, PATTERNS, PLAIN, SHADES, SHAPES

# Seeds of `sample_scene` that no data set uses (data sets count from 0).
TRAIN_SEED, FRESH_SEED = 9_000_001, 9_000_002
EVERY = MOST + 1  # Objects per image, with one more over another
PALETTE = np.array(list(COLORS.values()), dtype=np.float32)
# RGB distance at which a colour is no longer surely its neighbour in the palette
COLOR_WIDTH = 30.0
# How often an object of a spoilt image has which fault.
SPOILT = {
    "clean": 0.24,
    "faint": 0.12,
    "cut": 0.12,
    "two colors": 0.12,
    "mixed color": 0.1,
    "two shapes": 0.12,
    "small": 0.08,
    "faint pattern": 0.1,
}
# Stripes and dots on things that have none in the world, because there are too many of them or
# because they are smaller there: how often, and from which radius
MORE_PATTERNS, PATTERN_FROM = 0.25, 8.8


class Labels(NamedTuple):
    """Targets of a batch; an object with presence 0 is an empty slot."""

    place: Tensor  # [B, 6, 3] x, y, radius in pixels
    presence: Tensor  # [B, 6] in [0, 1]
    shape: Tensor  # [B, 6, 6] sums to 1
    color: Tensor  # [B, 6, 8] sums to 1
    pattern: Tensor  # [B, 6, 3] sums to 1


class Pool(NamedTuple):
    images: Tensor  # uint8 [P, 3, 64, 64]
    labels: Labels


def any_combination(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same places with colours and shapes drawn freely from all 48 combinations, held-out ones
    and repeats included, and more patterns."""
    things = []
    for old in scene.things:
        new = _any_thing(old.x, old.y, old.radius, rng)
        pattern = old.pattern
        if pattern == PLAIN and old.radius >= PATTERN_FROM and rng.random() < MORE_PATTERNS:
            pattern = PATTERNS[rng.integers(2)]
        things.append(replace(new, pattern=pattern))
    return replace(scene, things=tuple(things))


def _any_thing(x: float, y: float, radius: float, rng: np.random.Generator) -> Thing:
    colors = tuple(COLORS)
    return Thing(colors[rng.integers(len(colors))], SHAPES[rng.integers(len(SHAPES))], x, y, radius)


def make_pool(size: int, seed: int = TRAIN_SEED) -> Pool:
    """Renders ``size`` training images: half clean, half spoilt."""
    images = np.empty((size, 3, SIZE, SIZE), dtype=np.uint8)
    kinds = (3, None, len(SHAPES), len(COLORS), len(PATTERNS))
    labels = Labels(
        *(torch.zeros(size, EVERY) if n is None else torch.zeros(size, EVERY, n) for n in kinds)
    )
    place, presence, shape, color, pattern = (value.numpy() for value in labels)
    for index in range(size):
        rng = np.random.default_rng([seed, index])
        scene = any_combination(sample_scene("train", index, seed), rng)
        if index % 2 == 0:
            image = render(scene)[0].astype(np.float32)
            objects = [_as_drawn(thing) for thing in scene.things]
        else:
            image, objects = _render_spoilt(scene, rng)
        images[index] = np.clip(image + 0.5, 0, 255).astype(np.uint8).transpose(2, 0, 1)
        for slot, made in enumerate(objects[:EVERY]):
            place[index, slot] = made.thing.x, made.thing.y, made.thing.radius
            presence[index, slot] = made.presence
            shape[index, slot] = made.shape
            color[index, slot] = made.color
            pattern[index, slot] = made.pattern
    return Pool(torch.from_numpy(images), labels)


class _Object(NamedTuple):
    thing: Thing
    presence: float
    shape: np.ndarray
    color: np.ndarray
    pattern: np.ndarray


def _as_drawn(thing: Thing) -> _Object:
    return _Object(
        thing,
        1.0,
        _one_hot(SHAPES.index(thing.shape), len(SHAPES)),
        _color_target(_rgb(thing)),
        _one_hot(PATTERNS.index(thing.pattern), len(PATTERNS)),
    )


def _rgb(thing: Thing) -> np.ndarray:
    return PALETTE[list(COLORS).index(thing.color)]


def _one_hot(index: int, size: int) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[index]


def _color_target(rgb: np.ndarray) -> np.ndarray:
    """Soft colour from the distances to the palette: certain on its colours, divided between
    them."""
    distance = ((PALETTE - rgb) ** 2).sum(1) / (2 * COLOR_WIDTH**2)
    weight = np.exp(distance.min() - distance)
    return (weight / weight.sum()).astype(np.float32)


def _ramp(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))


def _side(thing: Thing, rng: np.random.Generator, shift: float) -> np.ndarray:
    """Soft half plane through the thing's centre, moved by ``shift`` radii: float [64, 64] in [0,
    1]."""
    angle = rng.uniform(0, 2 * np.pi)
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    along = (grid[None, :] - thing.x) * np.cos(angle) + (grid[:, None] - thing.y) * np.sin(angle)
    return np.clip((along - shift * thing.radius) / rng.uniform(1, 4) + 0.5, 0, 1)


def _render_spoilt(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, list[_Object]]:
    """An image as a poor generator draws it, with what a careful person would say is in it."""
    image = np.full((SIZE, SIZE, 3), scene.background, dtype=np.float32) + rng.normal(
        0, 5, 3
    ).astype(np.float32)
    things = list(scene.things)
    if rng.random() < 0.25:
        near = things[rng.integers(len(things))]  # One more object, partly over another
        x, y = np.clip([near.x, near.y] + rng.normal(0, near.radius, 2), 9, SIZE - 9)
        radius = float(rng.uniform(6, 11))
        if max(abs(x - near.x), abs(y - near.y)) > 8:
            things.append(_any_thing(float(x), float(y), radius, rng))
    for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.5 else 0):
        x, y = rng.uniform(3, SIZE - 3, 2)
        crumb = _any_thing(float(x), float(y), float(rng.uniform(1, 4.5)), rng)
        _paint(image, _rgb(crumb), coverage(crumb) * rng.uniform(0.3, 1))
    objects, painted = [], []
    for thing in things:
        made, alpha = _draw(image, thing, rng)
        objects.append(made)
        painted.append(alpha)
    # What later objects cover is not seen.
    for i, made in enumerate(objects):
        seen = painted[i]
        for later in painted[i + 1 :]:
            seen = seen * (1 - later)
        share = float(seen.sum() / max(painted[i].sum(), 1e-6))
        objects[i] = made._replace(presence=made.presence * _ramp(share, 0.35, 0.75))
    return image, [made for made in objects if made.presence > 0]


def _paint(image: np.ndarray, rgb: np.ndarray, alpha: np.ndarray) -> None:
    image += (rgb - image) * alpha[..., None]


def _draw(image: np.ndarray, thing: Thing, rng: np.random.Generator) -> tuple[_Object, np.ndarray]:
    """Paints one thing, spoilt in one of several ways, and says what should be seen: (object,
    opacity [64, 64])."""
    kind = rng.choice(list(SPOILT), p=list(SPOILT.values()))
    if kind in ("two colors", "mixed color"):
        thing = replace(thing, pattern=PLAIN)
    own = _rgb(thing)
    alpha = coverage(thing)
    _, presence, shape, color, pattern = _as_drawn(thing)
    rgb = own
    if thing.pattern != PLAIN:
        clear = rng.uniform(0, 1) if kind == "faint pattern" else 1.0
        dark = np.array(SHADES[thing.color], dtype=np.float32)
        rgb = own + (dark - own) * texture(thing)[..., None] * np.float32(clear)
        share = _ramp(clear, 0.25, 0.6)
        plain = _one_hot(PATTERNS.index(PLAIN), len(PATTERNS))
        pattern = share * pattern + (1 - share) * plain
    if kind == "faint":
        opacity = rng.uniform(0.1, 1)
        alpha = alpha * opacity
        presence = _ramp(opacity, 0.3, 0.65)
    elif kind == "cut":
        whole = alpha.sum()
        alpha = alpha * _side(thing, rng, rng.uniform(-0.9, 0.4))
        left = float(alpha.sum() / whole)
        presence = _ramp(left, 0.45, 0.8)
        shape = left * shape + (1 - left) / len(SHAPES)
    elif kind == "two colors":
        other = PALETTE[rng.integers(len(COLORS))]
        part = _side(thing, rng, rng.uniform(-0.6, 0.6))
        share = float((alpha * part).sum() / alpha.sum())
        rgb = own + (other - own) * part[..., None]
        color = (1 - share) * color + share * _color_target(other)
    elif kind == "mixed color":
        rgb = own + (PALETTE[rng.integers(len(COLORS))] - own) * np.float32(rng.uniform(0, 1))
        color = _color_target(rgb)
    elif kind == "two shapes":
        second = replace(thing, shape=SHAPES[rng.integers(len(SHAPES))])
        part = _side(thing, rng, rng.uniform(-0.5, 0.5))
        share = float((alpha * part).sum() / alpha.sum())
        alpha = alpha * (1 - part) + coverage(second) * part
        shape = (1 - share) * shape + share * _one_hot(SHAPES.index(second.shape), len(SHAPES))
    elif kind == "small":
        thing = replace(thing, radius=float(rng.uniform(2.5, 5.5)), pattern=PLAIN)
        alpha, rgb = coverage(thing), own
        presence, pattern = _ramp(thing.radius, 3.5, 5.3), _as_drawn(thing).pattern
    _paint(image, rgb, alpha)
    return _Object(thing, presence, shape, color, pattern), alpha


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of float images [B, 3, H, W] with reflected borders; sigma in pixels."""
    reach = max(1, int(3 * sigma + 0.5))
    at = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1)
    images = F.conv2d(
        F.pad(images, (reach, reach, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=3
    )
    return F.conv2d(
        F.pad(images, (0, 0, reach, reach), mode="reflect"), kernel[:, None, :, None], groups=3
    )


def draw_batch(pool: Pool, size: int, seed: int) -> tuple[Tensor, Labels]:
    """``size`` augmented images, float [-1, 1], with their labels; the same seed gives the same
    batch.

    Augmentations imitate an autoencoder: blur, of colours alone too, lost resolution, edges drawn
    too sharply, blotches, noise, small shifts of colour and contrast. Every shape is its own mirror
    image from left to right, so half the images are mirrored.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    rows = torch.randint(len(pool.images), (size,), generator=generator)
    images = pool.images[rows].float() / 127.5 - 1
    labels = Labels(*(value[rows] for value in pool.labels))
    mirrored = torch.rand(size, generator=generator) < 0.5
    images[mirrored] = images[mirrored].flip(-1)
    x = labels.place[..., 0]
    labels.place[..., 0] = torch.where(mirrored[:, None], SIZE - x, x)
    parts = []
    # One kind of damage per eight images: separate kernels per image would cost more than the
    # network
    for part in images.split(8):
        kind = float(uniform(1))
        if kind < 0.4:
            part = blur(part, float(uniform(1, low=0.3, high=1.7)))
        elif kind < 0.55:
            part = _through(part, int(uniform(1, low=26, high=56)))
        if float(uniform(1)) < 0.25:
            gray = part.mean(1, keepdim=True)
            part = gray + blur(part - gray, float(uniform(1, low=0.5, high=2.0)))
        if float(uniform(1)) < 0.25:
            part = part + (part - blur(part, 1.0)) * float(uniform(1, high=0.8))
        if float(uniform(1)) < 0.3:
            blotches = torch.randn(len(part), 3, 12, 12, generator=generator) * float(
                uniform(1, high=0.12)
            )
            part = part + F.interpolate(blotches, size=SIZE, mode="bilinear")
        if float(uniform(1)) < 0.5:
            part = part + torch.randn(part.shape, generator=generator) * float(uniform(1, high=0.1))
        parts.append(part)
    images = torch.cat(parts)
    gain = uniform(size, 1, 1, 1, low=0.85, high=1.1) * uniform(size, 3, 1, 1, low=0.95, high=1.05)
    images = images * gain + uniform(size, 3, 1, 1, low=-0.06, high=0.06)
    return images.clamp(-1, 1), labels


def damages() -> dict[str, Callable[[Tensor], Tensor]]:
    """Named ways to spoil uint8 images [N, 3, 64, 64] as a whole, from none to more than the judge
    was trained on; all deterministic."""

    def rounded(images: Tensor) -> Tensor:
        return images.round().clamp(0, 255).to(torch.uint8)

    def blurred(sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda images: rounded(blur(images.float(), sigma))

    def noisy(sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda images: rounded(
            images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        )

    def coarse(side: int) -> Callable[[Tensor], Tensor]:
        return lambda images: rounded(_through(images.float(), side))

    return {
        "none": lambda images: images,
        **{f"blur {sigma:g}": blurred(sigma) for sigma in (0.5, 1.0, 1.5, 2.0, 2.5)},
        **{f"noise {sigma:g}": noisy(sigma) for sigma in (12.0, 25.0, 40.0)},
        **{f"resolution {side}": coarse(side) for side in (32, 21, 16)},
    }


def _through(images: Tensor, side: int) -> Tensor:
    """Float images scaled down to ``side`` pixels and back up."""
    small = F.interpolate(images, size=side, mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-1], mode="bilinear")


def fresh_scenes(count: int, objects: int, heldout: bool, seed: int = FRESH_SEED) -> list[Scene]:
    """Scenes as the data sets hold them, none of which a judge was trained on; with ``heldout``
    each shows a held-out combination."""
    split = "three_heldout" if heldout else "val"
    return [sample_scene(split, index, seed, objects) for index in range(count)]


def kinds_of_scenes(count: int, seed: int = FRESH_SEED) -> dict[str, list[Scene]]:
    """``count`` fresh scenes of each kind that a judge is measured on."""
    kinds = {
        f"{objects} {'held-out' if heldout else 'seen'}": fresh_scenes(
            count, objects, heldout, seed
        )
        for heldout in (False, True)
        for objects in range(1, MOST + 1)
    }
    asked: dict[str, tuple[str, Callable[[Thing], bool]]] = {
        "small": ("size", lambda thing: thing.size == "small"),
        "large": ("size", lambda thing: thing.size == "large"),
        "striped": ("pattern", lambda thing: thing.pattern == "striped"),
        "dotted": ("pattern", lambda thing: thing.pattern == "dotted"),
        "equal": ("counting", lambda thing: True),
        "of one shape": ("similar", lambda thing: True),
        "related": ("relation", lambda thing: True),
    }
    for kind, (split, wanted) in asked.items():
        drawn = (sample_scene(split, index, seed) for index in count_from())
        fitting = (scene for scene in drawn if any(map(wanted, scene.things)))
        kinds[kind] = list(islice(fitting, count))
    return kinds


def to_images(scenes: list[Scene]) -> Tensor:
    """uint8 [N, 3, 64, 64]."""
    return (
        torch.from_numpy(np.stack([render(scene)[0] for scene in scenes]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
