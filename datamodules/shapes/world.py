"""The embedded world: small scenes of coloured shapes, rendered as a COCO dataset.

A scene holds one to three shapes (four in one evaluation split) on a plain grey ground. Everything
follows from ``(seed, split, index)``: the same triple gives the same bytes. Twelve of the 48
colour-shape combinations never occur in ``train`` and ``val``; every scene of ``heldout`` shows two
shapes of which at least one is such a combination. What a generator learnt of colours and of shapes
must be composed in new ways there.

On disk a split looks like COCO: ``<split>/000000000000.png``,
``annotations/instances_<split>.json`` (compressed RLE masks, category = shape,
``attributes.color``) and ``annotations/captions_<split>.json`` (several captions an image, each
with the ``relation`` that it states, or null).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from conf.data.shapes import COUNTED, SPLITS
from conf.describe import show_count
from conf.files import drop, named_when_full, read_json, write_atomically

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
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "cross", "ring")
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_C, _S = tuple(COLORS), SHAPES
# Every colour once (colour i with shape i mod 6), then four more, so that every shape is held out
# twice.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    [(_C[i], _S[i % 6]) for i in range(8)]
    + [(_C[0], _S[2]), (_C[1], _S[3]), (_C[2], _S[4]), (_C[3], _S[5])]
)
SEEN: tuple[tuple[str, str], ...] = tuple((c, s) for c in _C for s in _S if (c, s) not in HELD_OUT)
SIZE = 64  # pixels, both sides


@dataclass(frozen=True)
class Thing:
    """One shape: its colour, its centre and its radius in pixels (half the side of the box around
    it)."""

    color: str
    shape: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

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
    """What an image shows. ``relation`` is the place of the first thing relative to the second;
    only pairs have one."""

    things: tuple[Thing, ...]
    background: int
    relation: str | None = None

    def captions(self) -> list[tuple[str, str | None]]:
        """(caption, relation that it states or None), a fixed order; index 0 is what evaluation
        reads."""
        names = [f"a {t.name}".replace("a orange", "an orange") for t in self.things]
        if len(names) == 1:
            return [(names[0], None), (f"a photo of {names[0]}", None)]
        if len(names) == 2:
            first, second = names
            assert self.relation is not None
            return [
                (f"{first} {self.relation} {second}", self.relation),
                (f"{second} {INVERSE[self.relation]} {first}", INVERSE[self.relation]),
                (f"{first} and {second}", None),
                (f"{second} and {first}", None),
            ]
        turns = [names[i:] + names[:i] for i in range(len(names))]
        return [(f"{', '.join(turn[:-1])} and {turn[-1]}", None) for turn in turns]


def named_things(caption: str) -> list[tuple[str, str]]:
    """(colour, shape) of each thing that a caption names, in its order."""
    words = caption.replace(",", " ").split()
    return [(a, b) for a, b in pairwise(words) if a in COLORS and b in SHAPES]


def sample_scene(split: str, index: int, seed: int = 0, count: int | None = None) -> Scene:
    """The scene at ``index`` of ``split``.

    ``count`` fixes how many shapes there are (1 to 4); by default ``train`` and ``val`` mix 20 %
    singles, 55 % pairs and 25 % triples, ``heldout`` is all pairs, two thirds of them with one
    held-out combination and one third with two, and ``one`` to ``four`` have as many as their name
    says. Four at once are in no training image.

    Raises ValueError on an unknown split or count.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown: expected one of {', '.join(SPLITS)}")
    if count not in (None, 1, 2, 3, 4):
        raise ValueError(f"a scene of {count} shapes cannot be drawn: expected 1, 2, 3 or 4")
    rng = np.random.Generator(np.random.PCG64([seed, SPLITS.index(split), index, count or 0]))
    n = (
        count
        or COUNTED.get(split)
        or (2 if split == "heldout" else int(rng.choice([1, 2, 3], p=[0.2, 0.55, 0.25])))
    )
    combinations = _draw_combinations(rng, n, heldout=split == "heldout")
    background = int(rng.integers(70, 131))
    if n == 1:
        radius = float(rng.uniform(9, 14))
        x, y = rng.uniform(radius + 2, SIZE - radius - 2, size=2)
        return Scene((Thing(*combinations[0], float(x), float(y), radius),), background)
    if n == 2:
        relation = RELATIONS[int(rng.integers(4))]
        return Scene(_place_pair(rng, combinations, relation), background, relation)
    return Scene(_place_many(rng, combinations), background)


def _draw_combinations(rng: np.random.Generator, n: int, heldout: bool) -> list[tuple[str, str]]:
    """n combinations, no two alike; with ``heldout`` the first, or the first two, are held-out
    ones, in shuffled order."""
    pool = sorted(HELD_OUT)
    drawn: list[tuple[str, str]] = []
    if heldout:
        k = 1 if n == 1 or rng.random() < 2 / 3 else 2
        drawn = [pool[i] for i in rng.choice(len(pool), size=k, replace=False)]
    rest = [c for c in SEEN if c not in drawn]
    drawn += [rest[i] for i in rng.choice(len(rest), size=n - len(drawn), replace=False)]
    return [drawn[i] for i in rng.permutation(n)]


def _place_pair(
    rng: np.random.Generator, combinations: list[tuple[str, str]], relation: str
) -> tuple[Thing, ...]:
    """Two things along one axis, clearly apart on it and nearly level on the other."""
    radii = rng.uniform(8, 12, size=2)
    gap = float(rng.uniform(3, 8))
    span = 2 * float(radii.sum()) + gap
    start = float(rng.uniform(1, SIZE - span - 1)) if span < SIZE - 2 else (SIZE - span) / 2
    along = [start + radii[0], start + 2 * radii[0] + gap + radii[1]]
    level = float(rng.uniform(18, SIZE - 18))
    across = np.clip(level + rng.uniform(-4, 4, size=2), radii + 1, SIZE - radii - 1)
    order = (0, 1) if relation in ("left of", "above") else (1, 0)
    horizontal = relation in ("left of", "right of")
    things = []
    for i, slot in enumerate(order):
        x, y = (along[slot], across[slot]) if horizontal else (across[slot], along[slot])
        things.append(Thing(*combinations[i], float(x), float(y), float(radii[slot])))
    return tuple(things)


def _place_many(rng: np.random.Generator, combinations: list[tuple[str, str]]) -> tuple[Thing, ...]:
    """Rejection sampling of boxes that keep two pixels apart; starts over with smaller shapes when
    it gets stuck."""
    for attempt in range(1000):
        radii = rng.uniform(7.5, max(8.0, 11 - attempt / 20), size=len(combinations))
        things: list[Thing] = []
        for (color, shape), radius in zip(combinations, radii, strict=True):
            x, y = rng.uniform(radius + 1, SIZE - radius - 1, size=2)
            if all(max(abs(x - t.x), abs(y - t.y)) > radius + t.radius + 2 for t in things):
                things.append(Thing(color, shape, float(x), float(y), float(radius)))
        if len(things) == len(combinations):
            return tuple(things)
    raise RuntimeError(f"no room for {len(combinations)} shapes on {SIZE} pixels")


def coverage(thing: Thing, size: int = SIZE) -> np.ndarray:
    """How much of each pixel the shape covers, float32 [size, size] in [0, 1], from its signed
    distance."""
    scale = size / SIZE
    grid = np.arange(size, dtype=np.float32) + 0.5
    x = grid[None, :] - np.float32(thing.x * scale)
    y = grid[:, None] - np.float32(thing.y * scale)
    r = np.float32(thing.radius * scale)
    ax, ay = np.abs(x), np.abs(y)
    if thing.shape == "circle":
        distance = np.sqrt(x * x + y * y) - r
    elif thing.shape == "ring":
        distance = np.abs(np.sqrt(x * x + y * y) - r * 0.74) - r * 0.26
    elif thing.shape == "square":
        distance = np.maximum(ax, ay) - r * 0.88
    elif thing.shape == "diamond":
        distance = (ax + ay - r) * np.float32(np.sqrt(0.5))
    elif thing.shape == "cross":
        distance = np.minimum(np.maximum(ax - r, ay - r * 0.36), np.maximum(ax - r * 0.36, ay - r))
    elif thing.shape == "triangle":
        slope = np.float32(1 / np.sqrt(1.25))
        distance = np.maximum(y - r * 0.8, (ax * 2 - (y + r)) * slope / 2)
    else:
        raise ValueError(f"shape {thing.shape!r} is unknown: expected one of {', '.join(SHAPES)}")
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


def render(scene: Scene, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [size, size, 3], masks bool [things, size, size]); later things lie on top."""
    image = np.full((size, size, 3), scene.background, dtype=np.float32)
    masks = []
    for thing in scene.things:
        alpha = coverage(thing, size)
        image += (np.asarray(COLORS[thing.color], dtype=np.float32) - image) * alpha[..., None]
        masks.append(alpha >= 0.5)
    return np.round(image).astype(np.uint8), np.stack(masks)


def write_dataset(root: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Renders ``counts[split]`` scenes of each split below ``root`` unless a complete copy is
    there.

    Each split is written into a folder beside its place and moved there whole, so that an
    interrupted call leaves nothing half done.
    """
    for split, count in counts.items():
        stamp = {"split": split, "count": count, "seed": seed, "size": SIZE, "version": 1}
        marker = root / "annotations" / f"made_{split}.json"
        made = read_json(marker, then="rendered again")
        if isinstance(made, dict):
            written, now = made.pop("bytes", 0), _size(root, split)  # Older markers have none
            if made == stamp and now >= written:
                continue
            if made == stamp:
                reason = f"{show_count(now, 'byte')} of {written:,}"
                drop(root / split, None, reason, "rendered again")
        scratch = root / f".{split}.{os.getpid()}"
        scratch.mkdir(parents=True)
        try:
            with named_when_full(root / split):
                instances, captions = _coco_json(scratch, split, count, seed)
            # An older marker must not vouch for what is being replaced.
            marker.unlink(missing_ok=True)
            marker.parent.mkdir(exist_ok=True)
            shutil.rmtree(root / split, ignore_errors=True)
            scratch.rename(root / split)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _write_json(root / "annotations" / f"instances_{split}.json", instances)
        _write_json(root / "annotations" / f"captions_{split}.json", captions)
        _write_json(marker, stamp | {"bytes": _size(root, split)})


def _size(root: Path, split: str) -> int:
    """Bytes of all files of a split."""
    names = [root / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "captions")]
    total = sum(path.stat().st_size for path in names if path.exists())
    if (root / split).is_dir():
        total += sum(entry.stat().st_size for entry in os.scandir(root / split))
    return total


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, json.dumps(content))


def _coco_json(folder: Path, split: str, count: int, seed: int) -> tuple[dict, dict]:
    """Writes the images of one split into ``folder``; returns its instances and captions in COCO's
    JSON form."""
    from pycocotools import mask as coco_mask

    images: list[dict] = []
    annotations: list[dict] = []
    captions: list[dict] = []
    for index in range(count):
        scene = sample_scene(split, index, seed)
        pixels, masks = render(scene)
        name = f"{index:012d}.png"
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        images.append({"id": index, "file_name": name, "width": SIZE, "height": SIZE})
        for thing, mask in zip(scene.things, masks, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            x0, y0, x1, y1 = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": SHAPES.index(thing.shape) + 1,
                    "attributes": {"color": thing.color},
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "bbox": [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
        for text, relation in scene.captions():
            captions.append(
                {"id": len(captions) + 1, "image_id": index, "caption": text, "relation": relation}
            )
    categories = [
        {"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)
    ]
    info = {"description": "coloured shapes", "split": split, "seed": seed}
    return (
        {"info": info, "images": images, "annotations": annotations, "categories": categories},
        {"info": info, "images": images, "annotations": captions},
    )


def words() -> Iterator[str]:
    """Every word that a caption can hold, once each, in a fixed order: the vocabulary of the
    embedded tokenizer."""
    seen: set[str] = set()
    phrases = ["a an and photo of the , .", *COLORS, *SHAPES, *RELATIONS, "with on in next to"]
    for word in " ".join(phrases).split():
        if word not in seen:
            seen.add(word)
            yield word
