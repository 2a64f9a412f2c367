from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reports import statistics as st


@pytest.mark.parametrize(
    ("low", "high", "delta", "said"),
    [
        (0.03, 0.09, 0.05, st.DIFFERS),
        (-0.09, -0.03, None, st.DIFFERS),
        (0.01, 0.04, 0.05, st.DIFFERS),  # By less than matters: bound < delta
        (-0.01, 0.041, 0.05, st.NO_DIFFERENCE),
        (-0.05, 0.02, 0.05, st.OPEN),  # Up to the very difference that matters
        (-0.04, 0.06, 0.05, st.OPEN),
        (-0.09, 0.08, 0.05, st.OPEN),
        (-0.001, 0.001, None, st.OPEN),
        (0.0, 0.04, 0.05, st.NO_DIFFERENCE),
        (0.0, 0.0, 0.05, st.OPEN),  # No width, no claim
        (0.3, 0.3, 0.05, st.OPEN),
        (math.nan, math.nan, 0.05, st.OPEN),
        (-math.inf, math.inf, 0.05, st.OPEN),
    ],
)
def test_an_interval_says_one_of_three_things(low, high, delta, said) -> None:
    assert st.decision(low, high, delta) == said
    if not math.isnan(low):
        assert st.decision(-high, -low, delta) == said
        assert st.bound(low, high) == max(abs(low), abs(high))


def test_a_claim_shows_a_digit() -> None:
    small = dict(low=0.0001, high=0.0007, delta=0.05)
    assert st.decision(**small) == st.DIFFERS
    assert st.decision(**small, decimals=3) == st.NO_DIFFERENCE  # "+0.000" is no difference
    assert st.decision(0.0001, 0.0009, 0.05, decimals=3) == st.DIFFERS  # "+0.001" is one
    assert st.decision(0.0001, 0.0007, decimals=3) == st.OPEN
    assert st.decision(0.0, 1.0, mean=0.9, decimals=0) == st.OPEN  # It does not exclude 0


def test_rounding_is_no_claim() -> None:
    assert st.decision(1e-12, 3e-12, scale=1.0) == st.OPEN
    assert st.decision(1e-12, 3e-12, scale=1e-12) == st.DIFFERS


@pytest.mark.parametrize("bad", [(0.2, 0.1, 0.05), (0.1, 0.2, 0.0), (0.1, 0.2, -1.0)])
def test_bad_intervals_are_an_error(bad: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        st.decision(*bad)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_tost_is_two_t_tests_of_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.01, 0.03, n)
    ours = st.tost_paired(d, 0.05)
    above = stats.ttest_1samp(d, -0.05, alternative="greater").pvalue
    below = stats.ttest_1samp(d, 0.05, alternative="less").pvalue
    assert (ours.p_low, ours.p_high) == pytest.approx((above, below))
    assert ours.p == max(ours.p_low, ours.p_high)
    interval = st.mean_interval(d, 0.9)
    assert (ours.p < 0.05) == (st.bound(interval.low, interval.high) < 0.05)


def test_tost_at_the_borders() -> None:
    assert st.tost_paired([0.01, 0.01], 0.05).p == 0
    assert st.tost_paired([0.07, 0.07], 0.05).p == 1
    for bad in (([0.1], 0.05), ([0.1, 0.2], 0.0), ([0.1, math.nan], 0.05)):
        with pytest.raises(ValueError, match="expected"):
            st.tost_paired(*bad)
