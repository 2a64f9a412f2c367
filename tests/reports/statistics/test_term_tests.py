from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from reports import statistics as st

RNG = np.random.default_rng(2)


def weights(shape: tuple[int, ...]) -> np.ndarray:
    design = st.separable_effects([*product(*map(range, shape))], 0)
    return np.array([effect.weights for effect in design.interactions])


def test_of_one_contrast_it_is_the_square_of_its_t() -> None:
    y = RNG.normal(size=(4, 3, 20)) + RNG.normal(size=(4, 3, 1)) + RNG.normal(size=(4, 1, 20))
    w = weights((2, 2))
    found = st.compare_contrasts(y, {0: w[0]})
    one, test = found.comparisons[0], st.term_test(y, w, found.design_effect, found.df[0])
    t = one.mean / (one.half_prompts_like_these / st.dunnett_quantile(1, one.df, rho=0.0))
    assert (test.F, test.df) == (pytest.approx(t**2), 1)
    assert test.error_df == pytest.approx(one.df)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(t), one.df))


def test_without_prompts_that_differ_it_is_the_analysis_of_variance() -> None:
    values = RNG.normal(size=(3, 2, 5))
    test = st.value_term_test(values.reshape(6, 5), weights((3, 2)))
    expected = st.factorial_effects(values)
    assert (test.F, test.p) == (
        pytest.approx(expected.F["AB"]),
        pytest.approx(expected.p["AB"]),
    )
    assert (test.df, test.error_df) == (2, 20)


def test_scaling_and_other_contrasts_of_the_same_space_change_nothing() -> None:
    y, w = RNG.normal(size=(6, 3, 15)), weights((3, 2))
    one = st.term_test(y, w, 1.2, 10)
    other = st.term_test(5 * y + 3, [w[0] + w[1], 4 * w[1]], 1.2, 10)
    assert pytest.approx(one.F) == other.F and other.p == pytest.approx(one.p)


def test_one_seed_and_no_contrast_are_refused_or_undefined() -> None:
    y = RNG.normal(size=(4, 1, 9))
    assert np.isnan(st.term_test(y, weights((2, 2)), 1.0, 1).p)
    with pytest.raises(ValueError, match="sum to 0"):
        st.term_test(y, [[1.0, 0.0, 0.0, 0.0]], 1.0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "prompts", "shape", "trainings", "suits", "binary"),
    [
        (3, 60, (2, 2), 0.0, 0.0, False),
        (3, 60, (3, 3), 0.2, 0.5, False),
        (3, 112, (2, 2), 0.2, 0.3, True),
        (2, 40, (3, 4), 0.1, 0.3, True),
        (5, 30, (2, 3), 0.4, 0.4, False),
    ],
)
def test_without_interaction_p_is_small_as_often_as_it_says(
    seeds: int, prompts: int, shape: tuple[int, int], trainings: float, suits: float, binary: bool
) -> None:
    rng, cells, w, count = np.random.default_rng(0), int(np.prod(shape)), weights(shape), 800
    hits = 0
    for _ in range(count):
        y = rng.normal(0, trainings, (cells, seeds, 1)) + rng.normal(0, suits, (cells, 1, prompts))
        y = y + rng.normal(0, 1, (1, 1, prompts)) + rng.normal(0, 0.3, (1, seeds, 1))
        y = y + rng.normal(0, 1, (cells, seeds, prompts))
        y = (y > 0).astype(float) if binary else y
        found = st.compare_contrasts(y, dict(enumerate(w)), binary=binary)
        hits += st.term_test(y, w, found.design_effect, found.df[0], binary).p < 0.05
    assert hits / count <= 0.06
