"""What intervals seed by seed got wrong, each with the value that is right.

Two more stand where reports are made: which metrics have a value of each image, and what the
findings' nulls say.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports import statistics as st


def outcomes(cells: int = 5, seeds: int = 3, prompts: int = 112, seed: int = 0) -> np.ndarray:
    """Outcomes of 0 and 1 of cells that are alike."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 0.8, (1, 1, prompts)) + rng.normal(0, 0.5, (1, seeds, prompts))
    z = z + rng.normal(0.5, 0.6, (cells, seeds, prompts)) + rng.normal(0, 0.1, (cells, seeds, 1))
    return (z > 0).astype(float)


@pytest.mark.parametrize(("cells", "ratio"), [(5, 0.46), (27, 0.19)])
def test_three_seeds_are_as_wide_as_their_noise(cells: int, ratio: float) -> None:
    """Two degrees of freedom widened for 4 comparisons are 8.86, for 26 22.8; pooled 3.02, 3.09."""
    rows = [
        row
        for seed in range(12)
        for row in st.compare_cells(outcomes(cells, seed=seed), binary=True).comparisons
    ]
    pooled = np.mean([row.half_prompts_like_these for row in rows])
    assert pooled < ratio * np.mean([row.half_paired_t_bonferroni for row in rows])


def test_the_interval_is_for_prompts_like_these() -> None:
    """Prompts that suit a cell widen it, and do not where the same prompts are meant."""
    rng = np.random.default_rng(0)
    y = rng.normal(0, 0.1, (5, 10, 40)) + rng.normal(0, 0.4, (5, 1, 40))
    for row in st.compare_cells(y).comparisons:
        assert row.half_prompts_like_these > 2 * row.half_these_prompts
        assert row.half_prompts_like_these > 2 * row.half_paired_t_bonferroni
        sampled = 0.4 * math.sqrt(2 / 40)  # The standard error that prompts alone make
        assert row.half_prompts_like_these > 1.96 * sampled


def test_no_flip_is_no_certainty() -> None:
    y = np.repeat(outcomes(cells=1), 5, axis=0)
    row = st.compare_cells(y, binary=True).comparisons[0]
    assert row.identical and row.half_prompts_like_these == pytest.approx(0.007, abs=5e-4)
    assert st.decision(row.low, row.high, 0.05) == st.NO_DIFFERENCE
    few = y.copy()
    few[1, 0, 0] = 1 - few[1, 0, 0]
    row = st.compare_cells(few, binary=True).comparisons[0]
    assert not row.identical and row.half_prompts_like_these > 0.007
    assert st.decision(row.low, row.high) == st.OPEN


def test_rounding_is_no_difference() -> None:
    left = {0: 0.6517857142857144, 1: 0.8392857142857144, 2: 0.3839285714285715}
    right = {0: 0.6517857142857143, 1: 0.83928571428571430, 2: 0.38392857142857145}
    found = st.paired(left, right)
    assert not found.interval.excludes_zero
    assert found.differences == (0.0, 0.0, 0.0) and found.p == 1


def test_rounding_of_large_values_is_no_difference_either() -> None:
    """The spread of a difference that all seeds share is rounding by the values' size."""
    left = {0: 1e3 + 0.1, 1: 2e3 + 0.1, 2: 3e3 + 0.1}
    found = st.paired(left, {0: 1e3, 1: 2e3, 2: 3e3})
    assert found.interval.sd == 0 and not found.interval.excludes_zero
    assert found.interval.mean == pytest.approx(0.1)
    y = outcomes(cells=2)
    shaken = y + np.random.default_rng(0).normal(0, 1e-14, y.shape)
    shaken[1] = shaken[0] + np.random.default_rng(1).normal(1e-14, 1e-15, y[0].shape)
    (row,) = st.compare_cells(shaken).comparisons
    assert row.identical and row.mean == 0


def test_images_that_differ_by_rounding_have_no_interval_beside_zero() -> None:
    y = outcomes(cells=1)[0] + 0.1
    assert st.clustered_difference(y + 1e-14, y, draws=50) == (0.0, 0.0, 0.0)


def test_a_difference_above_rounding_stays_as_it_is() -> None:
    left, right = {0: 0.5, 1: 0.25}, {0: 0.5 - 2e-9, 1: 0.25 - 3e-9}
    found = st.paired(left, right)
    assert found.differences == (0.5 - (0.5 - 2e-9), 0.25 - (0.25 - 3e-9))


@pytest.mark.parametrize(("k", "seeds"), [(1, 6), (2, 7), (4, 8), (5, 8), (8, 9), (26, 11)])
def test_seeds_for_holm_depend_on_the_comparisons(k: int, seeds: int) -> None:
    assert st.fewest_seeds_for_holm(k) == seeds
    best = [st.smallest_sign_flip_p(seeds)] * k
    assert min(st.holm(best)) <= 0.05
    assert min(st.holm([st.smallest_sign_flip_p(seeds - 1)] * k)) > 0.05


def test_whether_the_method_helps_is_widened_over_controls() -> None:
    """The same cells, with one, two and three controls; the method helps at one was not widened."""
    y, halves = outcomes(cells=7), []
    for controls in ({0: [1, 2, 3, 4, 5]}, {0: [1, 2], 3: [4, 5]}, {0: [1], 2: [3], 4: [5]}):
        pairs = [(cell, control) for control, cells in controls.items() for cell in cells]
        found = st.compare_cells(y, binary=True, pairs=pairs, untouched=6)
        assert found.pool == (0, 1, 2, 3, 4, 5)
        assert [row.control for row in found.untouched] == [6] * len(controls)
        row = found.untouched[0]
        quantile = st.dunnett_quantile(len(controls), 10, 0.95, 0.0)
        expected = quantile * math.sqrt(row.design_effect * row.residual / 336)
        assert row.half_these_prompts == pytest.approx(expected)
        halves.append(quantile)
    assert halves == sorted(halves)


def test_each_of_several_looks_has_its_share_of_alpha() -> None:
    """Three looks at 3, 5 and 8 seeds: each is wider than the only look at so many seeds."""
    y = outcomes(seeds=8)
    for seeds in (3, 5, 8):
        one = st.compare_cells(y[:, :seeds], binary=True)
        look = st.compare_cells(y[:, :seeds], binary=True, level=1 - 0.05 / 3)
        for a, b in zip(one.comparisons, look.comparisons, strict=True):
            assert b.half_prompts_like_these > a.half_prompts_like_these


def test_a_null_is_bounded() -> None:
    y = outcomes(cells=5, seeds=5, prompts=600)
    rows = st.compare_cells(y, binary=True).comparisons
    bounds = [st.bound(row.low, row.high) for row in rows]
    said = [st.decision(row.low, row.high, max(bounds) * 1.01, scale=row.scale) for row in rows]
    assert all(abs(row.mean) < b for row, b in zip(rows, bounds, strict=True))
    assert said == [st.NO_DIFFERENCE] * 4
