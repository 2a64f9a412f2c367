from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.shapes.rendering import coverage
from datamodules.shapes.scenes import Thing
from datamodules.shapes.vocabulary import SHAPES
from lightning_modules.metrics.functional import mask_iou
from lightning_modules.metrics.mask_adherence import compare_masks, mean_adherence
from lightning_modules.metrics.masks import (
    centre_error,
    masked_similarity,
    orientation_error,
    turn_error,
)

EMPTY = torch.zeros(64, 64, dtype=torch.bool)


def drawn(
    shape: str, degrees: float = 0, radius: float = 10, x: float = 32, y: float = 32
) -> Tensor:
    """A mask of the shape, turned about its centre, which is then moved to (x, y); drawn large, so
    that turning leaves it sharp."""
    big = torch.from_numpy(coverage(Thing("red", shape, 32, 32, radius), 512))[None, None]
    return turned(big, degrees, x, y)


def bar(degrees: float = 0, x: float = 32, y: float = 32) -> Tensor:
    big = torch.zeros(1, 1, 512, 512)
    big[..., 236:276, 136:376] = 1
    return turned(big, degrees, x, y)


def turned(big: Tensor, degrees: float, x: float, y: float) -> Tensor:
    a = math.radians(degrees)
    dx, dy = (x - 32) / 32, (y - 32) / 32
    rows = [[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]
    theta = torch.tensor([[[*r, -r[0] * dx - r[1] * dy] for r in rows]])
    moved = F.grid_sample(
        big, F.affine_grid(theta, list(big.shape), align_corners=False), align_corners=False
    )
    return F.avg_pool2d(moved, 8)[0, 0] >= 0.5


@pytest.mark.parametrize(("empty", "expected"), [("one", 1.0), ("zero", 0.0), ("nan", None)])
def test_iou(empty: str, expected: float | None):
    pred = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    target = pred.clone()
    pred[0, 0, :2], target[0, 0, 1:3] = True, True  # 4 of 12 pixels
    pred[0, 1], target[0, 1] = True, True
    target[1, 0, 0, 0] = True
    values = mask_iou(pred, target, empty)
    assert values.dtype == torch.float32 and values.shape == (2, 2)
    assert values.flatten()[:3].tolist() == pytest.approx([1 / 3, 1, 0])
    assert mask_iou(target, pred, empty).flatten()[2] == 0
    assert values[1, 1].isnan() if expected is None else values[1, 1] == expected


@pytest.mark.parametrize(
    ("pred", "target", "empty", "message"),
    [
        (EMPTY, EMPTY, "skip", "empty='skip' is unknown: expected one of one, zero, nan"),
        (EMPTY.float(), EMPTY, "one", "must be bool"),
        (EMPTY, EMPTY[:1], "one", r"one shape .* not \[64, 64\] and \[1, 64\]"),
        (EMPTY[None], EMPTY, "one", "one shape"),
    ],
)
def test_iou_refuses(pred: Tensor, target: Tensor, empty: str, message: str):
    with pytest.raises(ValueError, match=message):
        mask_iou(pred, target, empty)


def test_centre_error_is_in_pixels():
    assert centre_error(drawn("square", x=30, y=40), drawn("square", x=33, y=36)) == pytest.approx(
        5, abs=0.05
    )
    assert centre_error(drawn("ring"), drawn("circle", radius=6)) == pytest.approx(0, abs=0.05)
    assert centre_error(EMPTY, drawn("ring")) is None and centre_error(drawn("ring"), EMPTY) is None
    with pytest.raises(ValueError, match="one size"):
        centre_error(EMPTY[1:], EMPTY)
    with pytest.raises(ValueError, match="bool"):
        centre_error(EMPTY.float(), EMPTY.float())


@pytest.mark.parametrize("degrees", [0, 7, 90, 175])
@pytest.mark.parametrize("base", [0, 40])
def test_orientation_error_of_a_bar(degrees: float, base: float):
    error = orientation_error(bar(base + degrees, 28, 35), bar(base))
    assert error == pytest.approx(min(degrees % 180, 180 - degrees % 180), abs=0.5)


def test_orientation_needs_a_long_axis():
    for shape in SHAPES:
        assert orientation_error(bar(), drawn(shape)) is None
    assert orientation_error(bar(), EMPTY) is None


@pytest.mark.parametrize("degrees", [0, 31, 90, 180, 250])
def test_turn_error_tells_a_triangle_up_from_one_down(degrees: float):
    error = turn_error(drawn("triangle", degrees, 9, 27, 36), drawn("triangle", 0, 12))
    assert error == pytest.approx(min(degrees, 360 - degrees), abs=2)


@pytest.mark.parametrize("shape", ["square", "diamond", "cross"])
@pytest.mark.parametrize(("degrees", "error"), [(10, 10), (44, 44), (70, 20), (90, 0), (260, 10)])
def test_turn_error_knows_quarter_turns(shape: str, degrees: float, error: float):
    assert turn_error(drawn(shape, degrees, 9, 27, 36), drawn(shape, 0, 12)) == pytest.approx(
        error, abs=2
    )


@pytest.mark.parametrize("shape", ["circle", "ring"])
@pytest.mark.parametrize("radius", [7.5, 9.1])
def test_turn_error_of_what_is_round_is_zero(shape: str, radius: float):
    for x, y in ((20.2, 40.9), (33.5, 30.1)):
        assert turn_error(drawn(shape, 25, radius, x, y), drawn(shape, 0, 8.7)) == 0
        assert turn_error(drawn(shape, 25, radius, x, y), bar()) == 0  # No direction to compare


def test_a_wide_range_of_turns_says_nothing():
    """A ring of 5 pixels has a square's stairs; wide ranges of turns fit, with the best anywhere in
    them."""
    for places in (((25.3, 27.4, 6.3), (33.8, 28.0, 5.3)), ((28.4, 23.1, 6.3), (29.5, 41.9, 5.1))):
        pred, target = (
            torch.from_numpy(coverage(Thing("red", "ring", *place)) >= 0.5) for place in places
        )
        assert turn_error(pred, target) == 0


def test_turn_error_of_a_bar_and_of_nothing():
    assert turn_error(bar(110), bar(10)) == pytest.approx(80, abs=2)
    assert turn_error(EMPTY, bar()) is None and turn_error(bar(), EMPTY) is None
    one = EMPTY.clone()
    one[3, 60] = True
    assert turn_error(one, one) == 0


def test_all_measures_of_one_subject():
    lost = compare_masks(EMPTY, bar())
    assert (lost.iou, lost.found, lost.centre, lost.turn) == (0, False, None, None)
    same = compare_masks(bar(20), bar(20))
    assert (same.iou, same.found, same.centre, same.orientation, same.turn) == (1, True, 0, 0, 0)
    with pytest.raises(ValueError, match="target mask is empty"):
        compare_masks(bar(), EMPTY)


def test_means_say_what_they_are_over():
    pairs = [
        (bar(30, 35, 36), bar()),
        (EMPTY, drawn("square")),
        (drawn("circle"), drawn("circle")),
        (drawn("triangle", 180), drawn("triangle")),
    ]
    subjects = [compare_masks(*pair) for pair in pairs]
    result = mean_adherence(subjects)
    first, _, second, third = (mask_iou(*pair).item() for pair in pairs)
    assert second == 1 and 0 < first < 0.5
    assert result["mask_iou"] == pytest.approx((first + 0 + second + third) / 4)
    assert result["found"] == 0.75
    down = centre_error(*pairs[3])
    assert down is not None and down > 3  # A triangle's centroid lies below the middle of its box
    assert result["centre_error"] == pytest.approx((5 + 0 + down) / 3, abs=0.05)
    assert result["turn_error"] == pytest.approx((30 + 0 + 180) / 3, abs=2)
    # Of the bar, the only one that has a long axis
    assert result["orientation_error"] == pytest.approx(30, abs=0.5)
    assert mean_adherence(subjects[1:2]) == {"mask_iou": 0, "found": 0}
    with pytest.raises(ValueError, match="no subject was measured"):
        mean_adherence([])


def test_similarity_is_the_cosine_of_area_weighted_means():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(2, 5, 4, 4, generator=generator),
        torch.randn(2, 5, 2, 2, generator=generator),
    )
    mask_a, mask_b = torch.zeros(2, 8, 8, dtype=torch.bool), torch.ones(2, 6, 6, dtype=torch.bool)
    mask_a[0, 0:2, 0:2], mask_a[0, 2, 2] = True, True  # One cell whole, another by a quarter
    mask_a[1, 7, 7] = True  # A single pixel is not lost
    expected = [(a[0, :, 0, 0] + a[0, :, 1, 1] / 4), a[1, :, 3, 3]]
    wanted = torch.stack(
        [
            torch.cosine_similarity(e, f.mean((1, 2)), dim=0)
            for e, f in zip(expected, b, strict=True)
        ]
    )
    assert torch.allclose(masked_similarity(a, mask_a, b, mask_b), wanted, atol=1e-6)
    assert torch.allclose(masked_similarity(b, mask_b, a, mask_a), wanted, atol=1e-6)


def test_similarity_ignores_what_is_outside_and_marks_empty_masks():
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 1] = True
    other = torch.where(mask[:, None], features, 9.0)
    similarity = masked_similarity(features, mask, other, mask)
    assert similarity[0] == pytest.approx(1) and similarity[1].isnan()


def test_similarity_refuses_what_does_not_fit():
    features, masks = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="same N and d"):
        masked_similarity(features, masks, features[:, :2], masks)
    with pytest.raises(ValueError, match="one mask .* for each of 2"):
        masked_similarity(features, masks[:1], features, masks)
