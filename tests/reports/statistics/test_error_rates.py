"""How often intervals miss in simulated sweeps; the numbers that docstrings state come from here.

Outcomes of 0 and 1 are thresholds of normal scores with parts of seed, prompt, image, training
(cell × seed) and of what suits a prompt (cell × prompt), so that true values are known in closed
form. Sweeps have four levels, a control, three seeds and 112 prompts unless said otherwise;
``pytest -m slow -rP`` shows what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import special
from scipy.interpolate import CubicSpline

from reports import statistics as st
from reports.statistics import pooled, widths
from reports.statistics.dunnett import dunnett_quantile

pytestmark = pytest.mark.slow


@cache
def spline(k: int, level: float, rho: float) -> CubicSpline:
    x = np.concatenate(
        [np.linspace(0, 0.05, 6), np.linspace(0.06, 0.3, 9), np.linspace(0.35, 1, 14)]
    )
    exact = [dunnett_quantile(k, 1 / v if v else math.inf, level, rho) for v in x]
    return CubicSpline(x, np.log(exact))


def interpolated(k: int, df: float, level: float = 0.95, rho: float = 0.5) -> float:
    return float(np.exp(spline(k, level, rho)(1 / df)))


@pytest.fixture(autouse=True)
def fast_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of sweeps have thousands of degrees of freedom: quantiles to four digits."""
    for df in (2.3, 8, 51.7):
        assert interpolated(4, df) == pytest.approx(dunnett_quantile(4, df), rel=1e-4)
    for module in (pooled, widths):
        monkeypatch.setattr(module, "dunnett_quantile", interpolated)


def draw(
    sweeps: int,
    *,
    k: int = 4,
    seeds: int = 3,
    prompts: int = 112,
    training: float | list[float] = 0.15,
    suits: float = 0.0,
    own: float = 0.6,
    base: float = 0.6,
    effects: list[float] | None = None,
    collapse: float = 0.0,
    binary: bool = True,
    seed: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Tables [sweeps, cells, seeds, prompts] and the true differences from cell 0.

    ``training``: SD of a cell's trainings, of all cells or each. ``collapse``: share of trainings
    of cell 1 that fall by 2 (of scores with an SD of about 1.2).
    """
    rng, cells = np.random.default_rng(seed), k + 1
    mu = base + np.asarray(effects if effects else [0.0] * cells)
    scatter = np.broadcast_to(np.asarray(training, dtype=float), cells)
    z = mu[:, None, None] + 0.2 * rng.normal(size=(sweeps, 1, seeds, 1))
    z = z + 0.8 * rng.normal(size=(sweeps, 1, 1, prompts))
    z = z + 0.5 * rng.normal(size=(sweeps, 1, seeds, prompts))
    z = z + own * rng.normal(size=(sweeps, cells, seeds, prompts))
    z += scatter[:, None, None] * rng.normal(size=(sweeps, cells, seeds, 1))
    z += suits * rng.normal(size=(sweeps, cells, 1, prompts))
    falls = np.zeros(cells)
    falls[1] = collapse
    z -= 2 * (rng.random((sweeps, cells, seeds, 1)) < falls[:, None, None])
    if not binary:
        return z, (mu - mu[0] - 2 * falls)[1:]
    sd = np.sqrt(0.2**2 + 0.8**2 + 0.5**2 + own**2 + suits**2 + scatter**2)
    share = (1 - falls) * special.ndtr(mu / sd) + falls * special.ndtr((mu - 2) / sd)
    return (z > 0).astype(float), share[1:] - share[0]


def misses(rows: Any, truth: np.ndarray, half: str = "half_prompts_like_these") -> bool:
    return any(
        abs(row.mean - true) > getattr(row, half) for row, true in zip(rows, truth, strict=True)
    )


def family_wise_error(sweeps: int, binary: bool = True, half: str = "", **options: Any) -> float:
    y, truth = draw(sweeps, binary=binary, **options)
    half = half or "half_prompts_like_these"
    return float(
        np.mean([misses(st.compare_cells(t, binary=binary).comparisons, truth, half) for t in y])
    )


STABLE: dict[str, dict[str, Any]] = {
    "images alone": {"training": 0.0},
    "trainings scatter": {},
    "trainings scatter much": {"training": 0.4},
    "what suits prompts": {"training": 0.0, "suits": 0.4},
    "what suits prompts, ten seeds": {"training": 0.0, "suits": 0.4, "seeds": 10},
    "both": {"training": 0.2, "suits": 0.3},
    "a score, images alone": {"training": 0.0, "binary": False},
    "a score, both": {"training": 0.1, "suits": 0.2, "binary": False},
    "cells scatter differently": {"training": [0.1, 0.3, 0.1, 0.3, 0.1]},
    "few flips": {"training": 0.0, "own": 0.05, "base": 2.5, "effects": [0, 0.05, 0.05, 0, 0]},
    "one comparison": {"k": 1},
    "two seeds": {"seeds": 2},
    "ten seeds": {"seeds": 10},
    "twenty prompts": {"prompts": 20},
}


@pytest.mark.parametrize("name", STABLE)
def test_all_intervals_of_a_sweep_hold_in_94_of_100(name: str) -> None:
    error = family_wise_error(500, **STABLE[name])
    print("family wise error", round(error, 3))
    assert error <= 0.06


def test_all_of_26_intervals_hold() -> None:
    error = family_wise_error(120, k=26)
    print("family wise error", round(error, 3))
    assert error <= 0.06


# Scenario, and between what its error lies; beyond .06 reports warn
UNSTABLE: dict[str, tuple[dict[str, Any], float, float]] = {
    "a level is wild": ({"training": [0.05, 0.5, 0.05, 0.05, 0.05]}, 0.06, 0.14),
    "the control is wild": ({"training": [0.4, 0.05, 0.05, 0.05, 0.05]}, 0.06, 0.14),
    "the control scatters twice": ({"training": [0.2, 0.1, 0.1, 0.1, 0.1]}, 0.02, 0.08),
    "trainings of a level collapse": ({"training": 0.0, "collapse": 0.15}, 0.2, 0.6),
}


# What reports quote of trainings that collapse in 15 % of seeds: the rule, and t over seeds
COLLAPSED: dict[str, tuple[dict[str, Any], float, float]] = {
    "images alone": ({"training": 0.0}, 0.34, 0.13),
    "trainings scatter, too": ({}, 0.11, 0.07),
    "five seeds": ({"training": 0.0, "seeds": 5}, 0.39, 0.30),
    "ten seeds": ({"training": 0.0, "seeds": 10}, 0.21, 0.23),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_where_trainings_collapse_misses_are_what_reports_quote(name: str) -> None:
    options, rule, over_seeds = COLLAPSED[name]
    for half, quoted in (("", rule), ("half_paired_t_bonferroni", over_seeds)):
        error = family_wise_error(400, half=half, collapse=0.15, **options)
        print("family wise error", round(error, 3))
        assert abs(error - quoted) <= 0.05


@pytest.mark.parametrize("name", UNSTABLE)
def test_where_a_cell_is_wild_more_miss(name: str) -> None:
    options, low, high = UNSTABLE[name]
    error = family_wise_error(500, **options)
    print("family wise error", round(error, 3))
    assert low <= error <= high


def test_seed_by_seed_intervals_miss_for_other_prompts_and_for_few_flips() -> None:
    """Two of the reasons for the rule: .05 was meant."""
    older = "half_paired_t_bonferroni"
    assert family_wise_error(200, half=older, training=0.0, suits=0.4, seeds=10) > 0.2
    assert family_wise_error(200, half=older, **STABLE["few flips"]) > 0.1


# ---- Several controls, the untouched cell, contrasts, equivalence


def every(error: Callable[[np.ndarray], bool], y: np.ndarray) -> float:
    return float(np.mean([error(t) for t in y]))


def test_several_controls_and_all_pairs_hold() -> None:
    y, truth = draw(300, k=5, training=0.2)
    of = np.concatenate([[0], truth])
    for pairs in (
        [(1, 0), (2, 0), (4, 3), (5, 3)],
        [(i, j) for i in range(6) for j in range(i)],
    ):
        true = np.array([of[i] - of[j] for i, j in pairs])

        def error(t: np.ndarray, pairs=pairs, true=true) -> bool:
            return misses(st.compare_cells(t, binary=True, pairs=pairs).comparisons, true)

        assert every(error, y) <= 0.06


def test_the_untouched_family_holds() -> None:
    y, truth = draw(400, k=5, training=[0.2] * 5 + [0], suits=0.2)
    of = np.concatenate([[0], truth])
    for pairs in (None, [(1, 0), (3, 2), (4, 2)]):
        controls = [0] if pairs is None else [0, 2]
        true = of[controls] - of[5]

        def error(t: np.ndarray, pairs=pairs, true=true) -> bool:
            found = st.compare_cells(t, binary=True, pairs=pairs, untouched=5)
            return misses(found.untouched, true)

        assert every(error, y) <= 0.06


def test_contrasts_of_a_factorial_hold() -> None:
    y, _ = draw(400, k=3, training=0.2, suits=0.2)
    contrasts = {"A": [0.5, 0.5, -0.5, -0.5], "B": [0.5, -0.5, 0.5, -0.5], "AB": [1, -1, -1, 1]}

    def error(t: np.ndarray) -> bool:
        found = st.compare_contrasts(t, contrasts, binary=True)
        return misses(found.comparisons, np.zeros(3))

    assert every(error, y) <= 0.06


def test_no_difference_that_matters_is_seldom_said_where_it_does_matter() -> None:
    """The true differences are delta itself."""
    y, _ = draw(300, binary=False, training=0.02, own=0.2, effects=[0, 0.05, 0.05, -0.05, -0.05])

    def error(t: np.ndarray) -> bool:
        rows = st.compare_cells(t).comparisons
        return any(st.decision(row.low, row.high, 0.05) == st.NO_DIFFERENCE for row in rows)

    assert every(error, y) <= 0.06


# ---- More than one look


def looks(t: np.ndarray, seeds: tuple[int, ...], level: float = 0.95) -> Iterator[Any]:
    for count in seeds:
        yield st.compare_cells(t[:, :count], binary=True, level=level).comparisons


def claims(rows: Any) -> bool:
    return any(st.decision(row.low, row.high) == st.DIFFERS for row in rows)


def test_looks_that_stop_at_a_claim_share_alpha() -> None:
    """Looks at 3, 5, 8, 12 and 20 seeds until something is claimed: α/5 each holds, α does not."""
    y, truth = draw(300, seeds=20, prompts=60)
    assert not truth.any()
    seeds = (3, 5, 8, 12, 20)
    spent = every(lambda t: any(claims(rows) for rows in looks(t, seeds, 1 - 0.05 / 5)), y)
    whole = every(lambda t: any(claims(rows) for rows in looks(t, seeds)), y)
    print("alpha over looks", round(spent, 3))
    print("alpha at each look", round(whole, 3))
    assert spent <= 0.05
    assert whole > 0.06


@pytest.mark.parametrize(("seeds", "confirm"), [((5, 8, 12, 20), 0), ((3, 5, 8, 12, 19), 1)])
def test_stopping_by_width_is_nearly_free(seeds: tuple[int, ...], confirm: int) -> None:
    """Until every half-width is small enough, from five seeds on or with a seed more at the end."""
    y, truth = draw(400, seeds=20, prompts=60, training=0.2)

    def error(t: np.ndarray) -> bool:
        for count, rows in zip(seeds, looks(t, seeds), strict=True):
            if max(row.half_prompts_like_these for row in rows) <= 0.15 or count == seeds[-1]:
                if confirm:
                    rows = st.compare_cells(t[:, : count + confirm], binary=True).comparisons
                return misses(rows, truth)
        raise AssertionError

    found = every(error, y)
    print("family wise error", round(found, 3))
    assert found <= 0.07


def test_dropping_settled_cells_saves_trials_at_the_same_error() -> None:
    """Looks with α/5; a cell whose comparison is conclusive gets no more seeds."""
    effects = [0, 0.9, 0.0, 0.5, 0.0]
    y, truth = draw(200, seeds=20, training=0.1, own=0.4, effects=effects)
    trials, wrong = [], []
    for t in y:
        left, ran, error = [1, 2, 3, 4], 0, False
        before = 0
        for count in (3, 5, 8, 12, 20):
            ran += (len(left) + 1) * (count - before)
            before = count
            rows = st.compare_cells(
                t[[0, *left], :count], binary=True, level=1 - 0.05 / 5, family=4
            ).comparisons
            said = [st.decision(row.low, row.high, 0.1) for row in rows]
            for cell, word, row in zip(left, said, rows, strict=True):
                if word == st.DIFFERS:
                    error |= truth[cell - 1] == 0 or (row.mean > 0) != (truth[cell - 1] > 0)
                if word == st.NO_DIFFERENCE:
                    error |= abs(truth[cell - 1]) > 0.1
            left = [cell for cell, word in zip(left, said, strict=True) if word == st.OPEN]
            if not left:
                break
        trials.append(ran)
        wrong.append(error)
    print("trials", round(float(np.mean(trials)), 1))
    print("error", round(float(np.mean(wrong)), 3))
    assert np.mean(wrong) <= 0.05
    assert np.mean(trials) < 75  # Of 100 with every cell at 20 seeds
