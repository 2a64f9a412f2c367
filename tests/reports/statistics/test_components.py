from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from reports import statistics as st
from reports.statistics.components import mean_squares

RNG = np.random.default_rng(3)


def by_regression(y: np.ndarray) -> dict[tuple[int, ...], float]:
    """Sums of squares of a full table by least squares on indicators, a term at a time."""
    labels = np.indices(y.shape).reshape(y.ndim, -1)
    design, left = [np.ones((y.size, 1))], float(((y - y.mean()) ** 2).sum())
    found = {}
    for size in range(1, y.ndim + 1):
        for term in combinations(range(y.ndim), size):
            index = np.ravel_multi_index(labels[list(term)], [y.shape[i] for i in term])
            design.append((index[:, None] == np.unique(index)).astype(float))
            x = np.hstack(design)
            residual = y.ravel() - x @ np.linalg.lstsq(x, y.ravel(), rcond=None)[0]
            now = float(residual @ residual)
            found[term], left = left - now, now
    return found


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 4), (2, 3, 2, 3)])
def test_mean_squares_are_those_of_regression(shape: tuple[int, ...]) -> None:
    y = RNG.normal(size=shape)
    ours = mean_squares(y)
    for term, total in by_regression(y).items():
        ms, df = ours[term]
        assert ms * df == pytest.approx(total, abs=1e-9)
    assert sum(df for _, df in ours.values()) == y.size - 1


def test_components_estimate_what_was_put_in() -> None:
    shape, found = (5, 4, 30), []
    for _ in range(300):
        y = (
            RNG.normal(0, 0.3, shape)
            + RNG.normal(0, 0.1, (5, 4, 1))
            + RNG.normal(0, 0.2, (5, 1, 30))
        )
        y += RNG.normal(0, 3, (1, 4, 30)) + RNG.normal(0, 3, (5, 1, 1))  # Stands in none of them
        c = st.components(y)
        found.append((c.var_cell_seed, c.var_cell_prompt, c.var_residual))
    assert np.mean(found, axis=0) == pytest.approx([0.01, 0.04, 0.09], rel=0.06)
    assert c.df == (12, 116, 348)


def test_two_cells_and_their_difference_say_the_same() -> None:
    y = RNG.normal(size=(2, 3, 7))
    of_table, of_pair = st.components(y), st.pair_components(y[1] - y[0])
    assert of_pair.mean == pytest.approx(y[1].mean() - y[0].mean())
    assert of_pair.ms_seed == pytest.approx(2 * of_table.ms_cell_seed)
    assert of_pair.ms_prompt == pytest.approx(2 * of_table.ms_cell_prompt)
    assert of_pair.ms_residual == pytest.approx(2 * of_table.ms_residual)
    assert of_pair.ms_seed == pytest.approx(7 * (y[1] - y[0]).mean(axis=1).var(ddof=1))


def test_one_seed_knows_images_alone() -> None:
    d = RNG.normal(size=(1, 9))
    pair = st.pair_components(d)
    assert np.isnan(pair.ms_seed)
    assert pair.ms_prompt == pair.ms_residual == pytest.approx(d.var(ddof=1))


def test_the_floor_is_two_images_one_of_which_flips() -> None:
    flips = np.array([1.0, -1.0] + [0.0] * 8)
    assert st.residual_with_floor(float((flips**2).mean()), 10) == pytest.approx(3 / 12)
    assert 0 < st.residual_with_floor(0.0, 10_000) < 1e-4 + 1e-12


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1)])
def test_tables_that_are_too_small_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        st.components(np.zeros(shape))


@pytest.mark.parametrize("d", [np.zeros(4), np.zeros((3, 1)), np.full((2, 3), np.nan)])
def test_differences_that_are_too_few_are_an_error(d: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        st.pair_components(d)
    with pytest.raises(ValueError, match="expected"):
        st.residual_with_floor(-1.0, 3)
