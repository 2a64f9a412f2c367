from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.evaluation.figures import DARK, PALE, over


def test_an_image_is_seen_through_a_map() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    found = over(image, np.array([[1.0, 0.0], [0.5, 1.0]]))
    assert found.shape == (4, 8, 3) and found.max() <= 1
    # Wholly open: black is grey, white is white
    assert found[0, 0] == pytest.approx(PALE) and found[3, 7] == pytest.approx(1.0)
    assert found[0, 7] == pytest.approx(DARK) and found[3, 0] == pytest.approx(
        PALE * (DARK + (1 - DARK) / 2)
    )
    assert np.allclose(found, over(image / 255, np.array([[1.0, 0.0], [0.5, 1.0]])))


def test_a_map_may_be_bright_at_its_own_maximum() -> None:
    image = np.full((2, 2, 3), 255, np.uint8)
    assert over(image, np.array([[0.02, 0.01]]), white=None)[:, :, 0] == pytest.approx(
        np.array([[1, DARK + (1 - DARK) / 2]] * 2)
    )
    assert over(image, np.zeros((1, 1)), white=None) == pytest.approx(DARK)
