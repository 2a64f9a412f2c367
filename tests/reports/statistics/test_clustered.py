from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reports.statistics import (
    clustered_difference,
    clustered_mean,
    clustered_share,
    krippendorff_alpha,
    two_way_bootstrap,
    wilson,
)

NONE = math.nan
# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: four observers
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
)


def letters(*raters: str) -> np.ndarray:
    return np.array([[float(ord(sign)) for sign in rater] for rater in raters])


@pytest.mark.parametrize(
    ("values", "metric", "published"),
    [
        (letters("0100000010", "1110010000"), "nominal", 0.095),  # section A
        (letters("aabbdcccedda", "babbbccceddd"), "nominal", 0.692),  # section B
        (OBSERVERS, "nominal", 0.743),
        (OBSERVERS, "ordinal", 0.815),
    ],
)
def test_alpha_is_the_published_one(values: np.ndarray, metric: str, published: float) -> None:
    assert krippendorff_alpha(values, metric) == pytest.approx(published, abs=0.0005)


def test_alpha_by_its_definition() -> None:
    """Pairs within units against pairs of all values, with the ordinal distance written out."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, (4, 15)).astype(float)
    values[rng.random(values.shape) < 0.2] = NONE
    units = [[v for v in unit if v == v] for unit in values.T]
    units = [unit for unit in units if len(unit) > 1]
    every = [v for unit in units for v in unit]

    def distance(a: float, b: float) -> float:
        low, high = min(a, b), max(a, b)
        return (
            sum(low <= v <= high for v in every) - (every.count(low) + every.count(high)) / 2
        ) ** 2

    within = sum(
        distance(a, b) / (len(u) - 1)
        for u in units
        for i, a in enumerate(u)
        for j, b in enumerate(u)
        if i != j
    ) / len(every)
    among = sum(distance(a, b) for a in every for b in every) / (len(every) * (len(every) - 1))
    assert krippendorff_alpha(values, "ordinal") == pytest.approx(1 - within / among)


def test_alpha_where_it_is_not_defined() -> None:
    assert math.isnan(krippendorff_alpha(np.ones((3, 4)), "nominal"))  # nothing varies
    assert math.isnan(krippendorff_alpha(np.array([[1.0, 2.0, 3.0]]), "ordinal"))  # one rater
    assert krippendorff_alpha(np.array([[1.0, 2.0], [1.0, 2.0]]), "ordinal") == 1.0
    with pytest.raises(ValueError, match="expected nominal or ordinal"):
        krippendorff_alpha(OBSERVERS, "interval")


def test_the_bootstrap_is_that_of_the_reports_where_nothing_is_missing() -> None:
    values = np.random.default_rng(1).normal(size=(6, 9))
    mean, low, high = clustered_difference(values, np.zeros_like(values))
    assert np.quantile(two_way_bootstrap(values), [0.025, 0.975]) == pytest.approx([low, high])
    half = (
        stats.t.ppf(0.975, 5) * two_way_bootstrap(values).std()
    )  # six participants are fewer than nine items
    found = clustered_mean(values)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx(
        (mean, mean - half, mean + half, 54)
    )


def test_missing_answers_carry_no_weight() -> None:
    values = np.array([[1.0, NONE, 0.0], [1.0, NONE, 1.0], [NONE, NONE, 1.0]])
    found = clustered_share(values)
    assert found.share == pytest.approx(4 / 5) and found.n == 5
    assert found.wilson == pytest.approx(wilson(4, 5))
    assert np.isfinite(two_way_bootstrap(values)).all()
    assert (two_way_bootstrap(np.where(values == 0, NONE, values)) == 1).all()
    with pytest.raises(ValueError, match="with values, got shape"):
        two_way_bootstrap(np.full((2, 2), NONE))


def test_answers_that_repeat_themselves_are_worth_less() -> None:
    people = np.repeat((np.arange(10) < 7)[:, None], 30, axis=1).astype(
        float
    )  # everyone gives one answer thirty times
    found = clustered_share(people)
    assert found.effective == pytest.approx(10, rel=0.1)
    assert found.high - found.low > 3 * (found.wilson[1] - found.wilson[0])
    free = clustered_share((np.random.default_rng(2).random((10, 30)) < 0.7).astype(float))
    assert free.n == 300 and 100 < free.effective <= 300


def test_unanimity_has_a_width() -> None:
    found = clustered_share(np.ones((5, 30)))
    assert found.percentile == (1.0, 1.0)  # the bootstrap alone would be certain
    t = stats.t.ppf(0.975, 4)
    assert (found.low, found.high) == pytest.approx(
        (5 / (5 + t * t), 1.0)
    )  # Wilson's for five answers


@pytest.mark.parametrize("shape", [(1, 8), (8, 1)], ids=["one participant", "one item"])
def test_one_participant_or_item_has_no_interval(shape: tuple[int, int]) -> None:
    values = (np.arange(8) % 2).astype(float).reshape(shape)
    assert math.isnan(clustered_share(values).low) and math.isnan(clustered_mean(values).high)
    assert math.isfinite(clustered_share(values).wilson[0])


@pytest.mark.parametrize("people", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_the_clustered_interval_covers_where_wilsons_does_not(people: int) -> None:
    rng = np.random.default_rng(3)
    truth = (1 / (1 + np.exp(-rng.normal(1.0, np.sqrt(2.0), 200_000)))).mean()
    clustered = naive = 0
    for _ in range(150):
        liking = 1.0 + rng.normal(0, 1.3, (people, 1)) + rng.normal(0, np.sqrt(2 - 1.3**2), (1, 20))
        values = (rng.random((people, 20)) < 1 / (1 + np.exp(-liking))).astype(float)
        values[rng.random(values.shape) < 0.1] = NONE
        found = clustered_share(values)
        clustered += found.low <= truth <= found.high
        naive += found.wilson[0] <= truth <= found.wilson[1]
    assert clustered >= 137  # 95 % of 150 less two standard errors
    assert naive < 120
