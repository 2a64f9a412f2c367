from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reports.statistics import clopper_pearson, find_collapsed_seeds, probability_of_improvement


@pytest.mark.parametrize(("k", "n"), [(0, 3), (1, 3), (3, 3), (17, 40)])
def test_clopper_pearson_is_scipys(k: int, n: int) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(k, n) == pytest.approx((theirs.low, theirs.high))
    with pytest.raises(ValueError, match="expected"):
        clopper_pearson(n + 1, n)


def images(share: float, seeds: int = 5, prompts: int = 112) -> np.ndarray:
    return (np.random.default_rng(0).random((seeds, prompts)) < share).astype(float)


def test_a_training_that_fell_is_named_and_others_are_not() -> None:
    control, cell = images(0.8), images(0.8)[::-1].copy()
    assert find_collapsed_seeds(cell, control, binary=True).seeds == ()
    cell[2] = 0
    found = find_collapsed_seeds(cell, control, binary=True, seeds=(10, 11, 12, 13, 14))
    assert found.seeds == (12,) and found.of == 5 and found.mixed and found.share == 0.2
    assert (found.low, found.high) == clopper_pearson(1, 5)
    assert found.distances[2] < -5 < found.distances[0]


def test_the_worse_direction_is_the_metrics() -> None:
    control, cell = images(0.2), images(0.2)[::-1].copy()
    cell[1] = 1
    assert find_collapsed_seeds(cell, control).seeds == ()
    assert find_collapsed_seeds(cell, control, better="lower").seeds == (1,)
    with pytest.raises(ValueError, match="higher or lower"):
        find_collapsed_seeds(cell, control, better="none")


def test_a_cell_that_is_worse_in_every_seed_did_not_collapse_in_some() -> None:
    found = find_collapsed_seeds(images(0.2), images(0.8), binary=True)
    assert len(found.seeds) == 5 and not found.mixed


def test_a_score_without_spread_falls_or_does_not() -> None:
    level = np.full((2, 4), 0.5)
    found = find_collapsed_seeds(level - [[1e-15], [0.1]], level)
    assert found.seeds == (1,) and found.distances[0] == 0
    with pytest.raises(ValueError, match="two or more prompts"):
        find_collapsed_seeds(level[:, :1], level[:, :1])


# ---- Probability of improvement


def test_improvement_counts_better_images_and_half_of_ties() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, (3, 3, 40)).astype(float)
    for row in probability_of_improvement(y):
        d = y[row.cell] - y[0]
        assert row.share == pytest.approx((d > 0).mean() + (d == 0).mean() / 2)
        assert 0 <= row.low < row.share < row.high <= 1
    for up, down in zip(
        probability_of_improvement(y), probability_of_improvement(y, better="lower"), strict=True
    ):
        assert (up.share, up.low) == pytest.approx((1 - down.share, 1 - down.high))


def test_improvement_sees_order_alone() -> None:
    y = np.random.default_rng(2).normal(size=(3, 3, 30))
    assert probability_of_improvement(np.exp(3 * y)) == probability_of_improvement(y)
    named = {name: y[i] for i, name in enumerate("abc")}
    assert [row.cell for row in probability_of_improvement(named, "b")] == ["a", "c"]
    same = probability_of_improvement(np.stack([y[0], y[0]]))[0]
    assert same.share == 0.5 and same.low < 0.5 < same.high
