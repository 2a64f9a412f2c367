from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.shapes.captions import draw_prompt
from datamodules.shapes.rendering import render
from datamodules.shapes.scenes import Scene, Thing, sample_scene
from datamodules.shapes.vocabulary import COLORS
from lightning_modules.metrics.functional import mask_iou
from lightning_modules.metrics.segmentation import ColorSegmenter, color_and_shape, color_map


def picture(*things: Thing, background: int = 100) -> tuple[Tensor, Tensor]:
    pixels, masks = render(Scene(things, background))
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(masks)


@pytest.fixture(scope="module")
def segmenter() -> ColorSegmenter:
    return ColorSegmenter()


def test_masks_of_rendered_scenes(segmenter: ColorSegmenter):
    """Of one thing or several equal ones, by the words that name them."""
    scenes = {
        (split, index): sample_scene(split, index)
        for split in ("val", "heldout", "counting", "pattern")
        for index in range(12)
    }
    images, masks = zip(
        *(picture(*s.things, background=s.background) for s in scenes.values()), strict=True
    )
    prompts = [draw_prompt(*key, scene) for key, scene in scenes.items()]
    found = segmenter.segment(
        torch.stack(images), [[p.text[a:b] for a, b, _ in p.phrases] for p in prompts]
    )
    values = [
        float(mask_iou(mask, true[list(words.things)].any(0)))
        for row, true, prompt in zip(found, masks, prompts, strict=True)
        for mask, words in zip(row, prompt.phrases, strict=True)
    ]
    assert len(values) > 80 and min(values) > 0.9 and np.mean(values) > 0.98
    assert all(m.dtype == torch.bool and m.shape == (64, 64) for row in found for m in row)


@pytest.mark.parametrize("background", [70, 130])
def test_every_color_keeps_its_edge(background: int):
    """Half covered orange lies nearer to red than to orange: mixtures must be read as such."""
    for index, color in enumerate(COLORS):
        image, (mask,) = picture(Thing(color, "circle", 30.3, 33.6, 11.2), background=background)
        colors = color_map(image)
        assert mask_iou(torch.from_numpy(colors == index), mask) > 0.95, color
        assert ((colors != index) & (colors != -1)).sum() == 0, color


def test_equal_colors_are_shared_out_by_shape(segmenter: ColorSegmenter):
    image, (circle, cross) = picture(
        Thing("green", "circle", 18.2, 20.1, 10), Thing("green", "cross", 45.3, 44.4, 10)
    )
    for order in ((0, 1), (1, 0)):
        phrases, masks = ["a green circle", "a green cross"], [circle, cross]
        (found,) = segmenter.segment(image[None], [[phrases[i] for i in order]])
        assert all(mask_iou(f, masks[i]) > 0.95 for f, i in zip(found, order, strict=True))
    (found,) = segmenter.segment(image[None], [["green cross", "green thing", "green ring"]])
    assert mask_iou(found[0], cross) > 0.95 and mask_iou(found[1], circle) > 0.95
    assert not found[2].any()  # No object serves two phrases


def test_the_right_shape_goes_before_the_larger_object(segmenter: ColorSegmenter):
    image, (small, large) = picture(
        Thing("red", "ring", 14.1, 14.2, 8), Thing("red", "square", 44.3, 44.4, 12)
    )
    (found,) = segmenter.segment(image[None], [["red ring"]])
    assert mask_iou(found[0], small) > 0.95
    # There is none: the colour is what is found
    (found,) = segmenter.segment(image[None], [["red circle"]])
    assert mask_iou(found[0], large) > 0.95


def test_a_broken_ring_is_one_object_and_specks_are_none(segmenter: ColorSegmenter):
    image, (ring,) = picture(Thing("blue", "ring", 30.2, 31.1, 13))
    image[:, :, 29:32] = 100
    image[:, 2:5, 2:6] = torch.tensor(COLORS["red"], dtype=torch.uint8)[:, None, None]  # 12 pixels
    (found,) = segmenter.segment(image[None], [["blue ring", "red circle", "white square"]])
    left = ring.clone()
    left[:, 29:32] = False
    assert mask_iou(found[0], left) > 0.95
    assert not found[1].any() and not found[2].any()


def test_requests_that_cannot_be_served(segmenter: ColorSegmenter):
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert color_and_shape("a photo of a Blue square, seen") == ("blue", "square")
    assert color_and_shape("something blue") == ("blue", None)
    with pytest.raises(ValueError, match="'a dog' names no colour"):
        segmenter.segment(images, [["a dog"]])
    with pytest.raises(ValueError, match="1 image but 2 lists"):
        segmenter.segment(images, [[], []])
    with pytest.raises(ValueError, match="uint8"):
        segmenter.segment(images.float(), [[]])
    assert segmenter.segment(images[:0], []) == []
