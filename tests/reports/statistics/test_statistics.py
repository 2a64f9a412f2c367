from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from reports import statistics as st

RNG = np.random.default_rng(7)
DRAWN = [RNG.normal(0.3, 1.0, n) for n in (2, 3, 5, 9)]


@pytest.mark.parametrize("x", DRAWN, ids=len)
@pytest.mark.parametrize("level", [0.95, 0.9875])
def test_mean_interval_is_scipys(x: np.ndarray, level: float) -> None:
    ours = st.mean_interval(x, level)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(level)
    assert (ours.low, ours.high) == pytest.approx((low, high))
    assert (ours.mean, ours.sd, ours.n) == pytest.approx((x.mean(), x.std(ddof=1), len(x)))
    assert ours.half == pytest.approx((high - low) / 2)


def test_mean_interval_at_the_borders() -> None:
    one = st.mean_interval([0.4])
    assert one.mean == 0.4 and math.isnan(one.low) and not one.excludes_zero
    equal = st.mean_interval([0.25, 0.25, 0.25])
    assert (equal.low, equal.high) == (0.25, 0.25)
    assert not equal.excludes_zero  # no spread, no claim
    rounded = st.mean_interval([0.5 - 0.2, 0.4 - 0.1, 0.6 - 0.3])  # .3 each, but for the last bit
    assert rounded.sd == 0 and not rounded.excludes_zero
    for bad in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            st.mean_interval(bad)


def test_excludes_zero() -> None:
    assert st.mean_interval([1.0, 1.1, 0.9]).excludes_zero
    assert st.mean_interval([-1.0, -1.1, -0.9]).excludes_zero
    assert not st.mean_interval([1.0, -1.1, 0.9]).excludes_zero


def test_paired_is_scipys_paired_t() -> None:
    a, b = RNG.normal(size=6), RNG.normal(size=6)
    ours = st.paired(dict(enumerate(a)), dict(enumerate(b)))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low, high))
    assert ours.seeds == tuple(range(6)) and not ours.missing_left and not ours.missing_right


def test_paired_uses_common_seeds_only_and_names_the_others() -> None:
    ours = st.paired({0: 1.0, 1: 2.0, 4: 100.0}, {0: 0.5, 1: 1.0, 2: -100.0, 3: 0.0})
    assert ours.seeds == (0, 1) and ours.differences == (0.5, 1.0)
    assert ours.missing_left == (2, 3) and ours.missing_right == (4,)
    assert ours.interval.mean == 0.75 and ours.smallest_p == 0.5
    with pytest.raises(ValueError, match="no common seed"):
        st.paired({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize("x", DRAWN, ids=len)
def test_sign_flip_is_scipys_exact_permutation_test(x: np.ndarray) -> None:
    exact = stats.permutation_test(
        (x,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    by_hand = np.mean(
        [
            abs(np.dot(s, x)) >= abs(x.sum()) - 1e-12
            for s in itertools.product((-1, 1), repeat=len(x))
        ]
    )
    assert st.sign_flip_p(x) == pytest.approx(by_hand)
    assert st.sign_flip_p(x) == pytest.approx(exact.pvalue)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8])
def test_smallest_p_is_reached(n: int) -> None:
    assert st.sign_flip_p([1.0] * n) == st.smallest_sign_flip_p(n) == 2 / 2**n
    assert st.sign_flip_p([0.0] * n) == 1.0


def test_sign_flip_beyond_the_exact_range_agrees_with_the_t_test() -> None:
    x = np.random.default_rng(0).normal(0.4, 1.0, 30)
    assert st.sign_flip_p(x) == st.sign_flip_p(x)
    assert st.sign_flip_p(x) == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.01)


def test_holm() -> None:
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert st.holm([0.9, 0.5]) == [1.0, 1.0]
    assert st.holm([]) == []


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (64, 64), (141, 384)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert st.wilson(k, n) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (3, 0.95), (3, 0.9875), (8, 0.95)])
def test_detectable_effect_has_the_power_it_says(n: int, level: float) -> None:
    shift = st.detectable_effect(0.5, n, level, power=0.8)
    x = np.random.default_rng(1).normal(shift, 0.5, size=(40_000, n))
    t = x.mean(1) / (x.std(1, ddof=1) / np.sqrt(n))
    assert np.mean(np.abs(t) > stats.t.ppf((1 + level) / 2, n - 1)) == pytest.approx(0.8, abs=0.01)
    assert math.isnan(st.detectable_effect(0.5, 1))
    assert st.detectable_effect(0.0, n, level) == 0.0


def test_clustered_difference_covers_and_is_wider_than_images_as_independent() -> None:
    rng = np.random.default_rng(3)
    covered, wider = 0, 0
    for _ in range(200):
        effect = (
            0.1 + rng.normal(0, 0.05, (8, 1)) + rng.normal(0, 0.3, (1, 40))
        )  # seed and prompt effects on the difference
        d = effect + rng.normal(0, 0.2, (8, 40))
        mean, low, high = st.clustered_difference(d, np.zeros_like(d), draws=300)
        assert mean == pytest.approx(d.mean())
        covered += low <= 0.1 <= high
        wider += (high - low) > 2 * 1.96 * d.std() / np.sqrt(d.size)
    assert covered >= 176  # 95 % of 200 less three standard errors and a little for few clusters
    assert wider == 200


def test_clustered_difference_is_repeatable_and_checks_shapes() -> None:
    a, b = RNG.random((3, 20)), RNG.random((3, 20))
    assert st.clustered_difference(a, b) == st.clustered_difference(a, b)
    assert st.clustered_difference(a, a) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="seeds, prompts"):
        st.clustered_difference(a, b[:, :5])


def test_error_rate_under_the_null() -> None:
    """Without an effect, widened intervals claim something in at most 5 % of sweeps."""
    rng = np.random.default_rng(11)
    claims = 0
    for _ in range(1000):
        base, levels = rng.normal(size=3), rng.normal(size=(4, 3))
        claims += any(st.mean_interval(x - base, 1 - 0.05 / 4).excludes_zero for x in levels)
    assert claims <= 65


# ---- effect sizes and unpaired seeds


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (9, 4)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_welch_is_scipys(sizes: tuple[int, int], level: float) -> None:
    a, b = RNG.normal(1, 2, sizes[0]), RNG.normal(0, 0.3, sizes[1])
    ours, theirs = (
        st.welch(a, b, level),
        stats.ttest_ind(a, b, equal_var=False).confidence_interval(level),
    )
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert (
        ours.mean == pytest.approx(a.mean() - b.mean())
        and ours.n == min(sizes)
        and ours.level == level
    )


def test_welch_at_the_borders() -> None:
    alone = st.welch([0.4], [0.1, 0.2])
    assert alone.mean == pytest.approx(0.25) and math.isnan(alone.low) and not alone.excludes_zero
    equal = st.welch([0.5, 0.5], [0.2, 0.2, 0.2])
    assert equal.low == equal.high == pytest.approx(0.3) and not equal.excludes_zero
    with pytest.raises(ValueError, match="finite"):
        st.welch([], [0.1])


@pytest.mark.parametrize("n", [3, 4, 9, 30])
def test_standardised_bounds_are_those_of_the_noncentral_t(n: int) -> None:
    x = np.random.default_rng(n).normal(0.6, 1.0, n)
    ours, t = st.standardised(x), stats.ttest_1samp(x, 0).statistic
    assert stats.nct.sf(t, n - 1, ours.low * np.sqrt(n)) == pytest.approx(0.025, abs=2e-4)
    assert stats.nct.cdf(t, n - 1, ours.high * np.sqrt(n)) == pytest.approx(0.025, abs=2e-4)
    d = x.mean() / x.std(ddof=1)
    assert ours.low < d < ours.high
    assert ours.g == pytest.approx(
        d * (1 - 3 / (4 * (n - 1) - 1)), rel=0.06 if n < 5 else 0.005
    )  # Hedges' own approximation
    mirrored = st.standardised(-x)
    assert (mirrored.g, mirrored.low, mirrored.high) == pytest.approx(
        (-ours.g, -ours.high, -ours.low)
    )


def test_standardised_has_no_bias_and_covers() -> None:
    x = np.random.default_rng(5).normal(0.5, 1.0, (2000, 5))
    found = [st.standardised(row) for row in x[:200]]
    d = x.mean(1) / x.std(1, ddof=1)
    factor = found[0].g / d[0]
    assert factor == pytest.approx(math.gamma(2) / math.sqrt(2) / math.gamma(1.5))
    assert (factor * d).mean() == pytest.approx(
        0.5, abs=0.06
    ) and d.mean() > 0.56  # uncorrected, it is a fifth too large
    assert np.mean([e.low <= 0.5 <= e.high for e in found]) == pytest.approx(0.95, abs=0.047)


@pytest.mark.parametrize("x", [[0.1, 0.3], [0.2, 0.2, 0.2], [0.0, 0.0, 0.0]])
def test_standardised_is_undefined_without_spread(x: list[float]) -> None:
    assert all(
        math.isnan(value)
        for value in (st.standardised(x).g, st.standardised(x).low, st.standardised(x).high)
    )


def test_standardised_where_seeds_all_but_agree() -> None:
    ours = st.standardised([1.0, 1.0001, 1.0002])
    assert 0 < ours.low < ours.g < ours.high and math.isfinite(ours.high)


# ---- error rates under the null: each within three standard errors of its level


def error_rate(claims: int, of: int, level: float = 0.05) -> bool:
    return abs(claims / of - level) <= 3 * math.sqrt(level * (1 - level) / of)


@pytest.mark.parametrize("n", [3, 8])
def test_the_t_interval_keeps_its_level(n: int) -> None:
    x = np.random.default_rng(21).normal(size=(2000, n))
    assert error_rate(sum(st.mean_interval(row).excludes_zero for row in x), len(x))


def test_welchs_interval_keeps_its_level() -> None:
    rng = np.random.default_rng(22)
    assert error_rate(
        sum(st.welch(rng.normal(size=6), rng.normal(0, 3, 4)).excludes_zero for _ in range(2000)),
        2000,
    )


def test_the_widened_intervals_keep_the_level_over_all_cells() -> None:
    """A false claim among six cells with a control in at most 5 % of sweeps; plain ones in more."""
    rng = np.random.default_rng(23)
    base, cells = rng.normal(size=(1000, 1, 4)), rng.normal(size=(1000, 6, 4))
    wide, plain = (
        sum(
            any(st.mean_interval(row, level).excludes_zero for row in sweep)
            for sweep in cells - base
        )
        for level in (1 - 0.05 / 6, 0.95)
    )
    assert wide / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000) and plain / 1000 > 0.12


def test_holm_over_sign_flips_keeps_the_level_over_all_cells() -> None:
    rng = np.random.default_rng(24)
    for cells, n in ((1, 6), (2, 7), (4, 8)):
        d = rng.normal(size=(500, cells, n)) - rng.normal(size=(500, 1, n))
        claims = sum(min(st.holm([st.sign_flip_p(row) for row in sweep])) < 0.05 for sweep in d)
        assert claims / 500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)
    one_true = [
        st.holm([st.sign_flip_p(row) for row in sweep])
        for sweep in d + np.array([9.0, 0, 0, 0])[:, None]
    ]
    assert all(p[0] == pytest.approx(4 * 2 / 2**8) for p in one_true)  # what is there is found


@pytest.mark.parametrize(("seeds", "low", "high"), [(3, 0.12, 0.35), (20, 0.02, 0.10)])
def test_the_clustered_bootstrap_is_too_narrow_with_few_seeds_only(
    seeds: int, low: float, high: float
) -> None:
    """With three seeds that scatter as prompts do it errs often: no answer may rest on it."""
    rng = np.random.default_rng(25)
    claims = 0
    for _ in range(300):
        d = (
            rng.normal(0, 0.3, (seeds, 1))
            + rng.normal(0, 0.3, (1, 40))
            + rng.normal(0, 0.3, (seeds, 40))
        )
        _, below, above = st.clustered_difference(d, np.zeros_like(d), draws=300)
        claims += below > 0 or above < 0
    assert low <= claims / 300 <= high


def test_an_interval_of_shares_ends_where_shares_end() -> None:
    whole = st.mean_interval([0.99, 0.9, 1.0])
    cut = whole.within((0.0, 1.0))
    assert whole.high > 1 and cut.high == 1 and cut.low == whole.low
    assert cut.half == whole.half and cut.uncut == whole.half, "the t-interval's own is kept"
    inside = st.mean_interval([0.5, 0.51, 0.49])
    assert inside.within((0.0, 1.0)) is inside and whole.within(None) is whole
    assert math.isnan(st.mean_interval([0.4]).within((0.0, 1.0)).low)
    rng = np.random.default_rng(0)  # What is cut off never holds the true mean
    drawn = [st.mean_interval(rng.beta(9, 1, 3)) for _ in range(300)]
    holds = [i.low <= 0.9 <= i.high for i in drawn]
    assert holds == [c.low <= 0.9 <= c.high for c in (i.within((0.0, 1.0)) for i in drawn)]
