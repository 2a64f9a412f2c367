"""Objects' masks on the planes of attention maps; what is asked of gates with them stands in the
tests of the signal."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.attention.gate_targets import on_plane


def test_a_quarter_of_a_location_is_enough():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, 0] = True  # a quarter of location 0
    mask[4:6, 4:7] = True  # all of location 10, half of 11
    assert on_plane(mask, 16).nonzero().flatten().tolist() == [0, 10, 11]
    assert torch.equal(on_plane(mask, 64), mask.flatten())


@pytest.mark.parametrize("where", [(0, 0), (33, 60), (63, 63)])
@pytest.mark.parametrize("locations", [4, 64, 256, 1024])
def test_nothing_small_vanishes(where: tuple[int, int], locations: int):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[where] = True
    side = math.isqrt(locations)
    row, column = (place * side // 64 for place in where)
    assert on_plane(mask, locations).nonzero().flatten().tolist() == [row * side + column]


def test_nothing_is_nowhere_and_everything_everywhere():
    empty = torch.zeros(64, 64, dtype=torch.bool)
    assert not on_plane(empty, 256).any() and bool(on_plane(~empty, 256).all())


def test_a_plane_has_the_masks_shape():
    mask = torch.zeros(32, 64, dtype=torch.bool)
    mask[:, :32] = True
    found = on_plane(mask, 8 * 16)
    assert torch.equal(found.view(8, 16), torch.tensor([True] * 8 + [False] * 8).expand(8, 16))
