from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from reports.statistics import dunnett_quantile


@pytest.mark.parametrize("df", [1, 2.5, 8, math.inf])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.9995])
def test_one_comparison_has_the_t_quantile(df: float, level: float) -> None:
    expected = (
        stats.norm.ppf((1 + level) / 2) if math.isinf(df) else stats.t.ppf((1 + level) / 2, df)
    )
    assert dunnett_quantile(1, df, level) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("k", "rho"), [(2, 0.5), (26, 0.5), (300, 0.5), (5, 0.2), (40, 0.95)])
def test_normal_quantile_is_that_of_adaptive_quadrature(k: int, rho: float) -> None:
    c = dunnett_quantile(k, math.inf, 0.95, rho)

    def inside(z: float) -> float:
        scale = math.sqrt(1 - rho)
        both = stats.norm.cdf([(math.sqrt(rho) * z + c) / scale, (math.sqrt(rho) * z - c) / scale])
        return stats.norm.pdf(z) * (both[0] - both[1]) ** k

    found, _ = integrate.quad(inside, -9, 9, points=[-c, 0, c], limit=400, epsabs=1e-12)
    assert found == pytest.approx(0.95, abs=1e-7)


@pytest.mark.parametrize(("k", "df"), [(3, 1.3), (26, 4.5), (150, 10)])
def test_independent_comparisons_are_those_of_adaptive_quadrature(k: int, df: float) -> None:
    c = dunnett_quantile(k, df, 0.95, 0.0)

    def inside(s: float) -> float:
        return stats.chi.pdf(s * math.sqrt(df), df) * math.sqrt(df) * math.erf(c * s / 2**0.5) ** k

    found, _ = integrate.quad(inside, 0, 15, points=[4 / c, 1, 3], limit=400, epsabs=1e-12)
    assert found == pytest.approx(0.95, abs=1e-7)


def test_it_is_the_quantile_of_drawn_comparisons() -> None:
    rng = np.random.default_rng(0)
    for k, df in ((4, 8), (26, 7.5)):
        x = rng.normal(size=(200_000, k + 1))
        t = (x[:, 1:] - x[:, :1]) / np.sqrt(2 * rng.chisquare(df, (200_000, 1)) / df)
        inside = (np.abs(t).max(axis=1) <= dunnett_quantile(k, df)).mean()
        assert inside == pytest.approx(0.95, abs=0.002)


def test_it_is_that_of_scipys_dunnett_test() -> None:
    x = np.random.default_rng(1).normal(size=(4, 5))
    theirs = stats.dunnett(*x[1:], control=x[0], rng=np.random.default_rng(0))
    interval = theirs.confidence_interval(0.95)
    error = math.sqrt(x.var(axis=1, ddof=1).mean() * 2 / 5)
    half = (interval.high - interval.low) / 2 / error
    assert half == pytest.approx(dunnett_quantile(3, 16), abs=0.02)


def test_it_grows_with_comparisons_and_falls_with_degrees_and_correlation() -> None:
    by_k = [dunnett_quantile(k, 8) for k in (1, 2, 4, 26, 300)]
    by_df = [dunnett_quantile(4, df) for df in (1, 1.5, 4, 8.5, 100, 1e6, math.inf)]
    by_rho = [dunnett_quantile(4, 8, 0.95, rho) for rho in (0, 0.3, 0.5, 0.9, 0.999)]
    assert by_k == sorted(by_k)
    assert by_df == sorted(by_df, reverse=True)
    assert by_rho == sorted(by_rho, reverse=True)
    assert by_df[-2] == pytest.approx(by_df[-1], rel=1e-5)
    assert by_rho[-1] == pytest.approx(dunnett_quantile(1, 8), rel=0.03)  # All but one variable
    assert dunnett_quantile(4, math.inf, 0.95, 0) == pytest.approx(
        stats.norm.ppf((1 + 0.95**0.25) / 2)  # Šidák
    )


@pytest.mark.parametrize(
    "bad", [(0, 8), (1.5, 8), (4, 0.5), (4, math.nan), (4, 8, 1.0), (4, 8, 0.95, 1.0)]
)
def test_what_it_cannot_answer_is_an_error(bad: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        dunnett_quantile(*bad)
