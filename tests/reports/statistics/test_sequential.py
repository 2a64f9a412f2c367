from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from reports import statistics as st


@pytest.mark.parametrize(("t", "n", "df", "g"), [(2.5, 6, 20, 0.3), (0.0, 3, 2, 1.0), (6, 9, 8, 2)])
def test_e_value_is_the_ratio_of_the_mixture_to_the_null(t, n, df, g) -> None:
    """The effect's prior is N(0, g sigma^2), and of sigma 1/sigma: integrated by quadrature."""

    def density(t: float, wide: float) -> float:
        """Of t, where its numerator has ``wide`` times the variance of the null."""
        return stats.t.pdf(t / math.sqrt(wide), df) / math.sqrt(wide)

    assert st.e_value(t, n, df, g) == pytest.approx(density(t, 1 + n * g) / density(t, 1))


def test_an_e_value_is_one_on_average_under_the_null() -> None:
    mean, _ = integrate.quad(
        lambda t: st.e_value(t, 5, 16, 0.3) * stats.t.pdf(t, 16), -np.inf, np.inf
    )
    assert mean == pytest.approx(1)


@pytest.mark.parametrize(("n", "df"), [(5, 16), (8, 28), (40, 156)])
def test_the_anytime_quantile_is_where_the_evidence_suffices(n: int, df: float) -> None:
    t = st.anytime_quantile(n, df, 0.0125, 0.3)
    assert st.e_value(t, n, df, 0.3) == pytest.approx(80)
    assert t > st.dunnett_quantile(1, df, 1 - 0.0125)  # The price of looking at any time
    assert st.anytime_quantile(n, df, 0.001) > t


def test_few_seeds_never_suffice_at_any_time() -> None:
    assert math.isinf(st.anytime_quantile(3, 8, 0.0125))
    assert st.e_value(1e6, 3, 8) < 80


def test_stein_reaches_the_width_and_no_more() -> None:
    for variance, half in ((0.0009, 0.03), (0.004, 0.021), (1e-6, 0.05)):
        n = st.stein_total_seeds(variance, 3.02, half, 3)
        assert 3.02 * math.sqrt(variance / n) <= half * (1 + 1e-9)
        assert n == 3 or 3.02 * math.sqrt(variance / (n - 1)) > half
    assert st.stein_total_seeds(0.0004, 2.0, 0.01, 3) == 16  # Exactly, whatever rounding does


@pytest.mark.parametrize("bad", [(-1, 3, 0.1, 3), (1, 0, 0.1, 3), (1, 3, 0, 3), (1, 3, 0.1, 1)])
def test_bad_plans_are_an_error(bad: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        st.stein_total_seeds(*bad)
    for call in (
        lambda: st.e_value(1, 0, 5),
        lambda: st.e_value(1, 3, 0),
        lambda: st.anytime_quantile(3, 8, 1.5),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
