from __future__ import annotations

import math

import numpy as np
import pytest

from reports import statistics as st
from reports.statistics.planning import Variances


def draw(seeds: int, prompts: int, *, mean: float = 0.0, seed: int = 0, cells: int = 5):
    """Cells alike but for ``mean`` of all levels: variances of a difference .0008, .005, .18."""
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 0.3, (cells, seeds, prompts)) + rng.normal(0, 0.02, (cells, seeds, 1))
    y += rng.normal(0, 0.05, (cells, 1, prompts)) + rng.normal(0, 1, (1, seeds, prompts))
    y[1:] += mean
    return y


VARIANCES = Variances(seed=0.0008, prompt=0.005, image=0.18)


def test_the_prediction_is_the_width_that_sweeps_have() -> None:
    for seeds, prompts in ((3, 60), (5, 30)):
        halves = [
            row.half_prompts_like_these
            for s in range(40)
            for row in st.compare_cells(draw(seeds, prompts, seed=s)).comparisons
        ]
        predicted = st.predict_half_width(VARIANCES, seeds, prompts, 4)
        assert predicted == pytest.approx(np.mean(halves), rel=0.12)


def test_a_comparisons_own_variances_give_its_own_width_back() -> None:
    for seed in range(5):
        for row in st.compare_cells(draw(3, 40, seed=seed)).comparisons:
            if row.design_effect < 1:  # A plan expects images alone at the least
                continue
            again = st.predict_half_width(st.variances_of(row), 3, 40, 4)
            assert again == pytest.approx(row.half_prompts_like_these, rel=0.02)


def test_more_of_either_is_narrower_and_more_comparisons_wider() -> None:
    halves = [st.predict_half_width(VARIANCES, s, 112, 4) for s in (2, 3, 5, 20)]
    assert halves == sorted(halves, reverse=True)
    halves = [st.predict_half_width(VARIANCES, 3, p, 4) for p in (2, 20, 112, 1000)]
    assert halves == sorted(halves, reverse=True)
    halves = [st.predict_half_width(VARIANCES, 3, 112, k) for k in (1, 4, 26)]
    assert halves[1] < halves[2]
    assert math.isnan(st.predict_half_width(VARIANCES, 1, 112, 4))
    assert VARIANCES.of_mean(3, 112) == pytest.approx(0.0008 / 3 + 0.005 / 112 + 0.18 / 336)


def test_the_smallest_difference_is_claimed_with_its_power() -> None:
    smallest = st.predict_smallest_difference(VARIANCES, 3, 60, 4)
    claims = [
        st.decision(row.low, row.high) == st.DIFFERS
        for s in range(60)
        for row in st.compare_cells(draw(3, 60, seed=s, mean=smallest)).comparisons
    ]
    assert np.mean(claims) == pytest.approx(0.8, abs=0.12)
    assert smallest > st.predict_half_width(VARIANCES, 3, 60, 4)
    assert math.isnan(st.predict_smallest_difference(VARIANCES, 3, 1, 4))


def test_the_best_split_is_the_narrowest_at_its_cost() -> None:
    variances, T, t = Variances(0.002, 0.0, 0.3), 295.0, 1.0
    best = st.best_prompts(variances, T, t)
    budget = 3 * (T + best * t)

    def variance(prompts: float) -> float:
        seeds = budget / (T + prompts * t)
        return variances.seed / seeds + variances.image / (seeds * prompts)

    assert best == pytest.approx(math.sqrt(295 * 150))
    assert variance(best) < min(variance(0.7 * best), variance(1.4 * best))
    assert math.isinf(st.best_prompts(Variances(0.0, 0.1, 0.3), T, t))
    with pytest.raises(ValueError, match="expected"):
        st.best_prompts(variances, T, 0.0)


def test_what_settles_an_open_comparison_is_the_least_that_does() -> None:
    rows = st.compare_cells(draw(3, 60, seed=2)).comparisons
    T, t, z = 295.0, 1.0, 0.8416212
    for row, found in zip(rows, st.needed(rows, 0.05, T, t), strict=True):
        assert st.decision(row.low, row.high, 0.05) == st.OPEN and found is not None
        variances, size = st.variances_of(row), abs(row.mean)

        def settles(seeds: int, prompts: int, of=variances, size=size) -> bool:
            half = st.predict_half_width(of, seeds, prompts, 4)
            power = half + z * math.sqrt(of.of_mean(seeds, prompts)) <= max(size, 0.05 - size)
            return half <= 0.025 or power

        if found.seeds is not None:
            assert settles(3 + found.seeds, 60) and not settles(3 + found.seeds - 1, 60)
            assert found.cost_seeds == found.seeds * (T + 60 * t)
        if found.prompts is not None:
            assert settles(3, 60 + found.prompts) and not settles(3, 60 + found.prompts - 1)
            assert found.cost_prompts == 3 * found.prompts * t
        assert found.cost <= min(found.cost_seeds, found.cost_prompts)
        assert settles(3 + found.best_seeds, 60 + found.best_prompts)
        assert 0.025 <= found.half < 0.05


def test_certainty_is_half_of_what_matters() -> None:
    rows = st.compare_cells(draw(3, 60, seed=2)).comparisons
    likely, certain = (st.needed(rows, 0.05, 295, 1, power=power) for power in (0.8, 1.0))
    for row, one, other in zip(rows, likely, certain, strict=True):
        assert other.half == 0.025 and other.cost >= one.cost
        plan = (3 + other.best_seeds, 60 + other.best_prompts)
        assert st.predict_half_width(st.variances_of(row), *plan, 4) <= 0.025


def test_settled_comparisons_need_nothing() -> None:
    rows = st.compare_cells(draw(3, 60, mean=0.5)).comparisons
    assert st.needed(rows, 0.05, 295, 1) == [None] * 4
    y = draw(3, 60)
    y[1] = y[0]
    assert st.needed(st.compare_cells(y).comparisons, 0.05, 295, 1)[0] is None


def test_without_a_difference_that_matters_only_one_that_is_there_can_be_shown() -> None:
    rows = st.compare_cells(draw(3, 60, seed=2)).comparisons
    for row, found in zip(rows, st.needed(rows, None, 295, 1), strict=True):
        assert found.half <= abs(row.mean)


def test_one_seed_needs_a_second_at_least() -> None:
    rows = st.compare_cells(draw(1, 60, mean=0.9)).comparisons
    for found in st.needed(rows, 0.05, 295, 1):
        assert found.seeds >= 1 and found.prompts is None
    with pytest.raises(ValueError, match="expected"):
        st.needed(rows, 0.05, 0, 0)
