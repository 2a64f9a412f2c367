from __future__ import annotations

import math

import numpy as np
import pytest

from reports.statistics import compare_cells_without_images, dunnett_quantile, mean_interval

RNG = np.random.default_rng(5)


def test_order_scale_and_what_cells_share_do_not_matter() -> None:
    x = RNG.normal(size=(4, 3))
    before = compare_cells_without_images(x)
    after = compare_cells_without_images(
        7 * (x[[3, 0, 2, 1]][:, [1, 2, 0]] + RNG.normal(size=3)), 1
    )
    assert after.ms_cell_seed == pytest.approx(49 * before.ms_cell_seed)
    assert after.plain_half == pytest.approx(7 * before.plain_half)
    back = {3: 0, 2: 1, 1: 2}  # Where each cell stands now, the control left out
    for cell in (1, 2, 3):
        assert after.mean[back[cell]] == pytest.approx(7 * before.mean[cell - 1])
        assert after.half[back[cell]] == pytest.approx(7 * before.half[cell - 1])


def test_two_cells_have_the_paired_t_interval() -> None:
    x = RNG.normal(size=(2, 5))
    assert compare_cells_without_images(x).half[0] == pytest.approx(mean_interval(x[1] - x[0]).half)


def test_a_cell_that_scatters_and_a_control_that_does_are_wider() -> None:
    x = RNG.normal(size=(6, 4))
    x[2] *= 30
    found = compare_cells_without_images(x)
    assert found.half[1] > found.half[0] >= found.plain_half
    control = compare_cells_without_images(x, baseline=2)
    pooled = (np.delete(x, 2, axis=0) - x[2]).var(axis=1, ddof=1).mean()
    assert min(control.variance_used) == pytest.approx(pooled)
    assert min(control.half) > control.plain_half
    assert found.plain_half == pytest.approx(
        dunnett_quantile(5, 15) * math.sqrt(2 * found.ms_cell_seed / 4)
    )


@pytest.mark.parametrize(
    ("x", "baseline"), [(np.zeros((1, 3)), 0), (np.zeros((3, 1)), 0), (np.zeros((2, 2)), 2)]
)
def test_bad_values_are_an_error(x: np.ndarray, baseline: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        compare_cells_without_images(x, baseline)
