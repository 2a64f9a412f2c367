"""Success corrected for a judge's errors, against computations that share nothing with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from lightning_modules.metrics.correction import ErrorRates, correct_share


def test_the_share_undoes_the_errors():
    # Of 1000 images 400 are right: 360 of these and 60 of the others are called right
    errors = ErrorRates(sensitivity=(90, 100), specificity=(180, 200))
    assert correct_share((420, 1000), errors).share == pytest.approx(0.4)
    perfect = ErrorRates((100, 100), (100, 100))
    assert correct_share((3, 10), perfect).share == pytest.approx(0.3)


def test_shares_stay_between_none_and_all():
    errors = ErrorRates((90, 100), (90, 100))
    none, every = correct_share((0, 50), errors), correct_share((50, 50), errors)
    assert none[:2] == (0, 0) and 0 < none.high < 0.2
    assert (every.share, every.high) == (1, 1) and 0.8 < every.low < 1


def profile(called, errors, level=0.95):
    """The profile-likelihood interval, by numerical search."""

    def log_likelihood(share, rates):
        sensitivity, specificity = rates
        p = share * sensitivity + (1 - share) * (1 - specificity)
        return sum(
            stats.binom.logpmf(count, total, q)
            for (count, total), q in (
                (called, p),
                (errors[0], sensitivity),
                (errors[1], specificity),
            )
        )

    def best(share):
        fit = optimize.minimize(
            lambda x: -log_likelihood(share, x), (0.9, 0.9), bounds=[(0.5, 1 - 1e-9)] * 2
        )
        return -fit.fun

    grid = np.linspace(0.2, 0.95, 76)
    heights = np.array([best(share) for share in grid])
    inside = grid[heights >= heights.max() - stats.chi2.ppf(level, 1) / 2]
    return inside[0], inside[-1]


@pytest.mark.parametrize(
    "called, errors",
    [
        ((420, 1000), ErrorRates((95, 100), (90, 100))),
        ((150, 500), ErrorRates((60, 64), (140, 146))),
        ((80, 100), ErrorRates((120, 130), (66, 70))),
    ],
)
def test_intervals_are_those_of_the_likelihood(called, errors):
    low, high = profile(called, errors)
    corrected = correct_share(called, errors)
    assert (corrected.low, corrected.high) == pytest.approx((low, high), abs=0.02)


def test_fewer_labels_make_it_wider():
    widths = []
    for labels in (20, 100, 100_000):
        errors = ErrorRates((labels * 19 // 20, labels), (labels * 9 // 10, labels))
        corrected = correct_share((400, 1000), errors)
        widths.append(corrected.high - corrected.low)
    assert widths[0] > 1.8 * widths[1] > 1.8 * widths[2]
    # With the errors known it is the interval of a share, over sensitivity + specificity - 1
    known = stats.binomtest(400, 1000).proportion_ci(method="wilson")
    assert widths[2] == pytest.approx((known.high - known.low) / 0.85, rel=0.01)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_it_holds_the_truth_as_often_as_it_says(share):
    sensitivity, specificity, images, labels = 0.95, 0.97, 200, 100
    rng = np.random.default_rng(0)
    right = round(labels * 0.4)
    p = share * sensitivity + (1 - share) * (1 - specificity)
    draws = zip(
        rng.binomial(images, p, 2000).tolist(),
        rng.binomial(right, sensitivity, 2000).tolist(),
        rng.binomial(labels - right, specificity, 2000).tolist(),
        strict=True,
    )
    held = 0
    for k, a, b in draws:
        found = correct_share((k, images), ErrorRates((a, right), (b, labels - right)))
        held += found.low <= share <= found.high
    assert 0.935 <= held / 2000 <= 0.995


@pytest.mark.parametrize(
    "called, errors, level, words",
    [
        ((5, 4), ErrorRates((9, 10), (9, 10)), 0.95, "called: 5 of 4"),
        ((1, 4), ErrorRates((0, 0), (9, 10)), 0.95, "sensitivity: 0 of 0"),
        ((1, 4), ErrorRates((9, 10), (-1, 10)), 0.95, "specificity: -1 of 10"),
        ((1, 4), ErrorRates((4, 10), (6, 10)), 0.95, "<= 1"),
        ((1, 4), ErrorRates((9, 10), (9, 10)), 95, "level=95"),
    ],
)
def test_what_cannot_be_corrected_is_refused(called, errors, level, words):
    with pytest.raises(ValueError, match=words):
        correct_share(called, errors, level)
