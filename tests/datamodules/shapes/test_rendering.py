"""How things of the embedded world are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules.shapes.rendering import SIZE, coverage, render, texture
from datamodules.shapes.scenes import Scene, Thing
from datamodules.shapes.vocabulary import COLORS, PATTERNS, SHADES, SHAPES


def draw(*things: Thing, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    return render(Scene(things, background=100), size)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_are_the_drawn_pixels(shape: str):
    thing = Thing("green", shape, 30.3, 33.8, 11.2)
    image, masks = draw(thing)
    cover = coverage(thing)
    assert masks.shape == (1, SIZE, SIZE) and masks.dtype == bool
    # The share of each pixel's way from the ground to the colour is its coverage.
    shift = (image.astype(float) - 100) / (np.asarray(COLORS["green"]) - 100.0)
    assert np.abs(shift - cover[..., None]).max() < 0.02
    assert np.array_equal(masks[0], cover >= 0.5)
    x0, y0, x1, y1 = thing.box
    rows, columns = np.nonzero(masks[0])
    assert columns.min() >= x0 - 1 and columns.max() <= x1
    assert rows.min() >= y0 - 1 and rows.max() <= y1
    assert image.dtype == np.uint8 and (image[0, 0] == 100).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_at_the_border_is_drawn_as_elsewhere(shape: str):
    inside, outside = (coverage(Thing("red", shape, x, 9, 9)) for x in (32, 4))
    assert np.allclose(inside[:, 28:44], outside[:, :16], atol=1e-5)
    assert inside.sum() == pytest.approx(coverage(Thing("red", shape, 32, 32, 9)).sum(), rel=1e-4)


def test_shapes_differ_from_one_another():
    masks = [draw(Thing("red", shape, 32, 32, 12))[1][0] for shape in SHAPES]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.85


@pytest.mark.parametrize("shape", SHAPES)
def test_patterns_leave_the_outline_and_are_seen_at_half_of_the_size(shape: str):
    thing = Thing("blue", shape, 32, 32, 12)
    plain, masks = draw(thing)
    inside = coverage(thing) == 1
    coarse = []
    for pattern in PATTERNS:
        image, own = draw(replace(thing, pattern=pattern))
        outside = coverage(thing) == 0
        assert np.array_equal(own, masks) and np.array_equal(image[outside], plain[outside])
        way = np.asarray(SHADES["blue"], float) - COLORS["blue"]
        share = ((image[inside] - np.asarray(COLORS["blue"], float)) @ way) / (way @ way)
        dark = {"striped": (0.35, 0.65), "dotted": (0.13, 0.4), "plain": (0, 0)}[pattern]
        assert dark[0] <= share.mean() <= dark[1], (pattern, share.mean())
        assert np.abs(texture(replace(thing, pattern=pattern))[inside] - share).max() < 0.02
        coarse.append(image.reshape(32, 2, 32, 2, 3).mean((1, 3)))
    for i, a in enumerate(coarse):
        for b in coarse[:i]:
            assert np.abs(a - b)[..., 2].max() > 40, "told apart at half the size"


def test_every_shade_has_the_hue_of_its_colour_and_is_seen_on_it_and_on_the_ground():
    for color, shade in SHADES.items():
        ratio = [s / c for s, c in zip(shade, COLORS[color], strict=True) if c]
        assert max(ratio) - min(ratio) < 0.03, "the same hue"
        away = np.abs(np.asarray(shade, float) - COLORS[color]).max()
        assert away > 60, "seen on the colour"
        # The ground is a grey of 70 to 130
        ground = min(np.abs(np.asarray(shade, float) - g).max() for g in range(70, 131))
        assert ground > 35, (color, ground)


def test_later_things_lie_on_top_and_larger_images_show_the_same():
    below, above = Thing("red", "square", 30, 30, 10), Thing("white", "square", 34, 34, 6)
    image, masks = draw(below, above)
    assert image[34, 34].tolist() == list(COLORS["white"]) and masks[:, 34, 34].all()
    large, _ = draw(replace(below, pattern="striped"), size=128)
    small, _ = draw(replace(below, pattern="striped"))
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 1.5


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Thing("red", "star", 30, 30, 9), "shape 'star' is unknown"),
        (Thing("red", "ring", 30, 30, 9, "checked"), "pattern 'checked' is unknown"),
    ],
)
def test_what_cannot_be_drawn_is_refused(thing: Thing, message: str):
    with pytest.raises(ValueError, match=message):
        draw(thing)
