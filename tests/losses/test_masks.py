"""Masks at the size of maps."""

from __future__ import annotations

import pytest
import torch

from losses.masks import cover_pixels, draw_boxes


def test_pixels_that_are_covered_by_a_quarter_and_the_one_that_is_covered_most():
    mask = torch.zeros(2, 3, 8, 8)
    mask[0, 0, :4, :3] = 1  # Two pixels wide at 2 by 2: 12 of 16, and no more
    mask[0, 1, 5, 6] = 1  # One of 16
    mask[0, 2, 3:5, :4] = 1  # Half of two pixels' rows
    covered = cover_pixels(mask, (2, 2))
    assert covered[0].int().tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[1, 0], [1, 0]]]
    assert not covered[1].any()
    mask[0, 0, 7, 7] = 1
    assert not cover_pixels(mask, (2, 2))[0, 0, 1, 1]
    assert cover_pixels(mask, (2, 2), share=0)[0, 0, 1, 1]


def test_boxes_end_at_the_nearest_border_or_the_one_before():
    boxes = torch.tensor([[0.0, 0.2, 0.45, 1.0], [0.6, 0.6, 0.7, 0.7]])
    drawn = draw_boxes(boxes, (4, 4))
    assert drawn[0].tolist() == [[0, 0, 0, 0], *[[1, 1, 0, 0]] * 3]
    assert draw_boxes(boxes, (4, 4), "floor")[0].tolist() == [[1, 0, 0, 0]] * 4
    assert drawn[1].sum() == 1 and draw_boxes(boxes, (4, 4), "floor")[1].sum() == 0
    with pytest.raises(ValueError, match="edges='ceil'"):
        draw_boxes(boxes, (4, 4), "ceil")
    with pytest.raises(ValueError, match="x0 y0 x1 y1"):
        draw_boxes(boxes[:, :3], (4, 4))
