"""Where the objects that phrases name are in images of the embedded world, by colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import label
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from conf.describe import show_count
from datamodules.shapes.reading import canonical_words
from datamodules.shapes.vocabulary import COLORS, PLURALS, SHADES, SHAPES
from lightning_modules.embedded.judge import Judge
from lightning_modules.metrics.detection import Detection

# Pixels; what is smaller is noise. The smallest object of the embedded world, a triangle of radius
# 6.4, covers 66
SMALLEST = 16
# Share of a colour, or of its shade, from which a pixel belongs to it. The shade of white is grey,
# as are the edges of white things
LEAST = np.array([0.5] * len(COLORS) + [0.8 if color == "white" else 0.5 for color in SHADES])
GREY = 40  # The ground's channels differ by less than this
# And lie between these: 70 to 130 in renders, and a little off in generated images
LEVELS = (50, 150)


class ColorSegmenter:
    """Segments the embedded world by colour.

    A pixel is read as a mixture of the image's grey ground and one of the colours, or of the shades
    in which stripes and dots are drawn, and belongs to that colour if it is at least half of it.
    Connected pixels of one colour are an object, as are
    pieces inside one detection of the judge (a ring that is broken, say); fewer than ``SMALLEST``
    pixels are noise. Objects of a phrase's colour are its candidates: the judge's shape decides
    which phrase gets which, and between equals the larger object goes first. A colour on the wrong
    shape still is found: whether the shape is right, the judge says. A plural ("red circles") gets
    every object that is left of its colour and shape.

    ``judge``: the shipped one by default.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        self.judge = judge if judge is not None else Judge.load()

    def segment(self, images: Tensor, phrases: Sequence[Sequence[str]]) -> list[list[Tensor]]:
        """images: uint8 [N, 3, 64, 64]; ``phrases``: for each image, what to look for ("blue
        square").

        Returns, for each phrase of each image, a mask bool [H, W] on the CPU: empty where nothing
        was found. No two phrases of an image get the same object. Raises ValueError on other
        images, and on a phrase without a colour of the world.
        """
        if len(images) != len(phrases):
            raise ValueError(
                f"{show_count(len(images), 'image')} but {show_count(len(phrases), 'list')} of "
                "phrases: give one list for each "
                "image"
            )
        wanted = [[_read(phrase) for phrase in row] for row in phrases]
        found = self.judge.detect(images)
        return [
            _by_color(image, row, seen)
            for image, row, seen in zip(images.cpu(), wanted, found, strict=True)
        ]


def color_and_shape(phrase: str) -> tuple[str, str | None]:
    """("blue", "square") of "a blue square", and ("blue", None) of "something blue". Raises
    ValueError if it names no colour."""
    return _read(phrase)[:2]


class _Wanted(NamedTuple):
    color: str
    shape: str | None
    several: bool


def _read(phrase: str) -> _Wanted:
    known, words = canonical_words(), phrase.lower().replace(",", " ").split()
    color = next((known[w] for w in words if known.get(w) in COLORS), None)
    if color is None:
        raise ValueError(
            f"phrase {phrase!r} names no colour that can be segmented: expected one of "
            f"{', '.join(COLORS)}"
        )
    shape = next((w for w in words if known.get(w) in SHAPES), "")
    return _Wanted(color, known.get(shape), shape in PLURALS.values())


def color_map(image: Tensor) -> np.ndarray:
    """The colour of each pixel of an image uint8 [3, H, W]: int [H, W], its place among ``COLORS``,
    or -1 for the ground."""
    pixels = image.numpy().astype(np.float64).transpose(1, 2, 0)  # [H, W, 3]
    grey = (
        (np.ptp(pixels, axis=2) < GREY)
        & (pixels.mean(2) > LEVELS[0])
        & (pixels.mean(2) < LEVELS[1])
    )
    ground = np.median(pixels[grey], axis=0) if grey.any() else np.full(3, np.mean(LEVELS))
    # [16, 3] from the ground to each colour and each shade
    ways = np.array([*COLORS.values(), *SHADES.values()], dtype=np.float64) - ground
    offset = pixels - ground
    # [H, W, 16] of the colour in the mixture
    share = np.clip(offset @ ways.T / np.square(ways).sum(1), 0, 1)
    residual = np.square(offset[:, :, None, :] - share[..., None] * ways).sum(-1)
    # Of two that explain it as well, white and its shade, the one of which it has more
    best = (residual - share).argmin(2)
    there = np.take_along_axis(share, best[..., None], 2)[..., 0] >= LEAST[best]
    return np.where(there, best % len(COLORS), -1)


def _by_color(image: Tensor, wanted: list[_Wanted], detections: list[Detection]) -> list[Tensor]:
    colors = color_map(image)
    masks = [torch.zeros(colors.shape, dtype=torch.bool) for _ in wanted]
    for index, color in enumerate(COLORS):
        named = [i for i, one in enumerate(wanted) if one.color == color]
        rows = [i for i in named if not wanted[i].several]
        if not named:
            continue
        seen = [d for d in detections if d.color == color]
        objects = _objects(colors == index, seen)
        taken: set[int] = set()
        # The area, always below 1 % of the score of a certain shape, orders what the judge leaves
        # open.
        score = np.array(
            [
                [
                    (d.score if d is not None and d.label == wanted[i].shape else 0)
                    + 0.01 * o.mean()
                    for o, d in objects
                ]
                for i in rows
            ]
        ).reshape(len(rows), len(objects))
        for row, column in zip(*linear_sum_assignment(score, maximize=True), strict=True):
            masks[rows[row]] = torch.from_numpy(objects[column][0])
            taken.add(column)
        left = [one for k, one in enumerate(objects) if k not in taken]
        for i in (i for i in named if wanted[i].several):
            right = [o for o, d in left if d is not None and d.label == wanted[i].shape]
            if right:
                masks[i] = torch.from_numpy(np.any(right, axis=0))
    return masks


def _objects(
    pixels: np.ndarray, detections: list[Detection]
) -> list[tuple[np.ndarray, Detection | None]]:
    """Connected pieces of bool [H, W], those mostly inside the box of one detection as one, each
    with that detection."""
    pieces, count = label(pixels, structure=np.ones((3, 3)))
    whole: dict[int, tuple[np.ndarray, Detection | None]] = {}
    for piece in range(1, count + 1):
        mask = pieces == piece
        if mask.sum() < SMALLEST:
            continue
        shares = [_inside(mask, d.box) for d in detections]
        home = int(np.argmax(shares)) if max(shares, default=0.0) >= 0.5 else -piece
        before = whole.get(home)
        whole[home] = (
            (mask | before[0], before[1])
            if before
            else (mask, detections[home] if home >= 0 else None)
        )
    return list(whole.values())


def _inside(mask: np.ndarray, box: tuple[float, float, float, float]) -> float:
    ys, xs = mask.nonzero()
    x0, y0, x1, y1 = box
    return float(((xs + 0.5 > x0) & (xs + 0.5 < x1) & (ys + 0.5 > y0) & (ys + 0.5 < y1)).mean())
