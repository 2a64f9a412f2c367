from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from reports import statistics as st

RNG = np.random.default_rng(9)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 2, 2, 3)])
def test_effects_are_those_of_regression(shape: tuple[int, ...]) -> None:
    """F of each term from dummies by least squares, seeds as blocks."""
    x = RNG.normal(size=shape) + RNG.normal(size=shape[-1])
    found = st.factorial_effects(x)
    labels = np.indices(x.shape).reshape(x.ndim, -1)
    factors = range(x.ndim - 1)

    def design(terms: list[tuple[int, ...]]) -> np.ndarray:
        """Deviation coding: each column sums to 0 over a factor's levels."""
        columns = [np.ones(x.size)]
        columns += [
            (labels[-1] == s).astype(float) - (labels[-1] == 0) for s in range(1, shape[-1])
        ]
        for term in terms:
            for levels in product(*(range(1, shape[i]) for i in term)):
                column = np.ones(x.size)
                for i, level in zip(term, levels, strict=True):
                    column = column * ((labels[i] == level).astype(float) - (labels[i] == 0))
                columns.append(column)
        return np.stack(columns, axis=1)

    def left(terms: list[tuple[int, ...]]) -> float:
        matrix = design(terms)
        residual = x.ravel() - matrix @ np.linalg.lstsq(matrix, x.ravel(), rcond=None)[0]
        return float(residual @ residual)

    every = [tuple(i for i in factors if mask >> i & 1) for mask in range(1, 2 ** len(factors))]
    cells = int(np.prod(shape[:-1]))
    assert found.df == (cells - 1) * (shape[-1] - 1)
    assert found.ms_error * found.df == pytest.approx(left(every))
    for term in every:
        name = "".join("ABC"[i] for i in term)
        df = int(np.prod([shape[i] - 1 for i in term]))
        without = left([other for other in every if other != term])
        ratio = (without - left(every)) / df / found.ms_error
        assert found.F[name] == pytest.approx(ratio)
        assert found.p[name] == pytest.approx(stats.f.sf(ratio, df, found.df))
        assert found.terms[name].df == df


def test_contrasts_are_differences_of_means() -> None:
    x = RNG.normal(size=(3, 2, 2, 4))
    found = st.factorial_effects(x, factors=["size", "rate", "gate"], controls=[1, 0, 1])
    size = found.terms["size"]
    assert [c.levels for c in size.contrasts] == [(0,), (2,)]
    assert size.contrasts[1].estimate == pytest.approx(x[2].mean() - x[1].mean())
    both = found.terms["size × gate"].contrasts[0]
    m = x.mean(axis=(1, 3))
    assert both.levels == (0, 0)
    assert both.estimate == pytest.approx((m[0, 0] - m[0, 1]) - (m[1, 0] - m[1, 1]))
    assert found.terms["size × gate"].largest.estimate == max(
        (c.estimate for c in found.terms["size × gate"].contrasts), key=abs
    )
    assert found.terms["size × rate × gate"].contrasts == ()
    assert found.rate == pytest.approx(x[:, 1].mean() - x[:, 0].mean())
    with pytest.raises(AttributeError):
        found.size  # noqa: B018 - it has two contrasts


def test_halves_hold_for_one_contrast_or_for_all() -> None:
    x = RNG.normal(size=(2, 2, 2, 3))
    found = st.factorial_effects(x)
    main = found.terms["A"].contrasts[0]
    assert main.half == pytest.approx(found.half_main)
    assert main.half_simultaneous / main.half == pytest.approx(
        st.dunnett_quantile(3, found.df, 0.95, 0) / st.dunnett_quantile(1, found.df)
    )
    per_seed = np.tensordot(main.weights, x, axes=3)
    assert per_seed.mean() == pytest.approx(main.estimate)
    assert found.half_interaction == pytest.approx(2 * found.half_main)


def test_at_equal_trials_a_factorial_is_narrower_than_one_factor_at_a_time() -> None:
    """Main effects of 2^3 over 8 cells against 4 cells of one factor each with twice the seeds."""
    factorial = st.factorial_effects(RNG.normal(size=(2, 2, 2, 3)))
    ratio = np.sqrt(1 / 6)  # Standard errors of a main effect: sqrt(2 MS / 12)
    assert factorial.half_main == pytest.approx(
        st.dunnett_quantile(1, 14) * np.sqrt(factorial.ms_error) * ratio
    )


def test_a_design_with_one_factor_is_a_one_way_table() -> None:
    x = RNG.normal(size=(3, 4))
    found = st.factorial_effects(x)
    assert set(found.F) == {"A"} and np.isnan(found.half_interaction)
    pooled = st.compare_cells_without_images(x)
    assert [c.estimate for c in found.terms["A"].contrasts] == pytest.approx(pooled.mean)
    assert found.ms_error == pytest.approx(pooled.ms_cell_seed)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 1, 3), {}),
        ((2, 2, 1), {}),
        ((3,), {}),
        ((2, 2, 3), {"factors": ["A"]}),
        ((2, 2, 3), {"factors": ["A", "A"]}),
        ((2, 2, 3), {"controls": [0, 2]}),
    ],
)
def test_bad_designs_are_an_error(shape: tuple[int, ...], options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        st.factorial_effects(np.zeros(shape), **options)


# ---- Variances by source


def test_the_variance_table_finds_what_was_put_in() -> None:
    put = {"seed": 0.04, "prompt": 0.25, "cell × seed": 0.01, "cell × prompt": 0.04}
    put |= {"seed × prompt": 0.09, "image": 0.16, "a": 0.03, "b": 0.0, "a × b": 0.0}
    rng, found = np.random.default_rng(0), []
    a = np.array([-1, 0, 1]) * np.sqrt(0.03 * 1.5)  # Mean square over levels: .03
    for _ in range(300):
        y = rng.normal(0, 0.4, (3, 2, 4, 12)) + a[:, None, None, None]
        for axes, key in (
            ((1, 1, 4, 1), "seed"),
            ((1, 1, 1, 12), "prompt"),
            ((3, 2, 4, 1), "cell × seed"),
            ((3, 2, 1, 12), "cell × prompt"),
            ((1, 1, 4, 12), "seed × prompt"),
        ):
            y = y + rng.normal(0, np.sqrt(put[key]), axes)
        found.append({row.source: row.variance for row in st.variance_table(y, ["a", "b"])})
    for source, variance in put.items():
        mean = np.mean([row[source] for row in found])
        error = np.std([row[source] for row in found]) / np.sqrt(300)
        assert mean == pytest.approx(variance, abs=4 * error + 1e-4), source


def test_shares_of_variance_add_up_and_names_are_the_factors() -> None:
    y = RNG.normal(size=(2, 3, 3, 5))
    rows = st.variance_table(y, ["size", "rate"])
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [row.source for row in rows[:3]] == ["size", "rate", "size × rate"]
    assert rows[2].factors == ("size", "rate") and all(row.factors == () for row in rows[3:])
    assert all(row.share >= 0 for row in rows)
    assert all(np.isnan(row.share) for row in st.variance_table(np.ones((2, 2, 2)), ["x"]))
    for bad in (np.ones((2, 2)), np.ones((2, 1, 3)), np.ones((2, 2, 2, 2))):
        with pytest.raises(ValueError, match="expected"):
            st.variance_table(bad, ["x"])
