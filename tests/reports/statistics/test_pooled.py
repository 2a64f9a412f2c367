"""Comparisons of cells with the scatter of trainings pooled; values: test_golden.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports import statistics as st

NUMBERS = (
    *("mean", "ms_seed", "ms_prompt", "ms_residual", "design_effect", "df", "own_design_effect"),
    *("half_these_prompts", "half_prompts_like_these", "half_paired_t_bonferroni"),
)


def draw(cells: int = 4, seeds: int = 3, prompts: int = 12, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y = rng.normal(0.5, 0.3, (cells, seeds, prompts)) + rng.normal(0, 0.1, (cells, seeds, 1))
    return y + rng.normal(0, 0.2, (cells, 1, prompts)) + rng.normal(0, 1, (1, seeds, prompts))


def numbers(comparison: st.Comparison) -> list[float]:
    return [getattr(comparison, name) for name in NUMBERS]


def tables(binary: bool) -> np.ndarray:
    y = draw()
    return (y > 0.4).astype(float) if binary else y


@pytest.mark.parametrize("binary", [False, True])
def test_order_of_cells_seeds_and_prompts_does_not_matter(binary: bool) -> None:
    y = tables(binary)
    before = st.compare_cells(y, binary=binary)
    rng = np.random.default_rng(1)
    shuffled = y[:, rng.permutation(3)][:, :, rng.permutation(12)]
    order = [2, 0, 3, 1]
    after = st.compare_cells(shuffled[order], baseline=1, binary=binary)
    of_cell = {order[row.cell]: row for row in after.comparisons}
    for row in before.comparisons:
        assert numbers(row) == pytest.approx(numbers(of_cell[row.cell]))
    assert (after.F_all, after.F_base) == pytest.approx((before.F_all, before.F_base))


def test_scaling_scales_and_adding_adds_nothing() -> None:
    y = draw()
    for before, after in zip(
        st.compare_cells(y).comparisons, st.compare_cells(-40 * y + 3).comparisons, strict=True
    ):
        assert after.mean == pytest.approx(-40 * before.mean)
        assert after.half_prompts_like_these == pytest.approx(40 * before.half_prompts_like_these)
        assert after.half_these_prompts == pytest.approx(40 * before.half_these_prompts)
        assert (after.df, after.design_effect) == pytest.approx((before.df, before.design_effect))


def test_what_all_cells_share_changes_nothing() -> None:
    y, rng = draw(), np.random.default_rng(2)
    shifted = y + rng.normal(0, 5, (1, 3, 12))
    for before, after in zip(
        st.compare_cells(y).comparisons, st.compare_cells(shifted).comparisons, strict=True
    ):
        assert numbers(after) == pytest.approx(numbers(before))


def test_turning_the_control_round_turns_the_sign() -> None:
    y = draw(cells=2)
    (one,), (other,) = (st.compare_cells(y, b).comparisons for b in (0, 1))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_mapping_with_names_is_the_same_table() -> None:
    y = draw()
    named = {name: {10 + s: y[i, s] for s in range(3)} for i, name in enumerate("wxyz")}
    before = st.compare_cells(y, 2)
    after = st.compare_cells(named, "y")
    assert [row.cell for row in after.comparisons] == ["w", "x", "z"]
    assert after.seeds == (10, 11, 12) and after.pool == ("w", "x", "y", "z")
    for a, b in zip(before.comparisons, after.comparisons, strict=True):
        assert numbers(a) == pytest.approx(numbers(b))
    assert [r.control for r in st.compare_cells(named).comparisons] == ["w", "w", "w"]


def test_a_cell_is_wider_than_the_pool_and_never_narrower() -> None:
    y = draw(cells=8, seeds=4)
    y[1] += 2 * np.random.default_rng(0).normal(size=(4, 1))  # Its trainings scatter
    found = st.compare_cells(y)
    assert all(row.design_effect >= found.design_effect for row in found.comparisons)
    assert found.comparisons[0].design_effect > found.design_effect
    assert found.comparisons[0].unstable and not any(r.unstable for r in found.comparisons[1:])
    assert not found.unstable_control


def test_an_unstable_control_is_seen() -> None:
    y = draw(cells=6, seeds=4)
    y[0] += 2 * np.random.default_rng(0).normal(size=(4, 1))
    found = st.compare_cells(y)
    assert found.design_effect == found.F_base > found.F_all
    assert found.unstable_control and not st.compare_cells(draw(cells=6, seeds=4)).unstable_control


def by_the_page(y: np.ndarray, binary: bool) -> list[tuple[float, float, float]]:
    """Mean and both halves from the equations as they stand, sums written out."""
    cells, seeds, prompts = y.shape
    k, n = cells - 1, seeds * prompts
    q = st.dunnett_quantile

    def two_way(d: np.ndarray) -> tuple[float, float, float]:
        m, of_seed, of_prompt = d.mean(), d.mean(axis=1), d.mean(axis=0)
        left = d - of_seed[:, None] - of_prompt[None, :] + m
        a = prompts * ((of_seed - m) ** 2).sum() / (seeds - 1)
        b = seeds * ((of_prompt - m) ** 2).sum() / (prompts - 1)
        return a, b, (left**2).sum() / ((seeds - 1) * (prompts - 1))

    of_cell = y - y.mean(axis=0)  # Less what all cells share: two-way tables that sum to 0
    ms_cs = sum(two_way(part)[0] for part in of_cell) / (cells - 1)
    ms_csp = sum(two_way(part)[2] for part in of_cell) / (cells - 1)
    pairs = [two_way(part - y[0]) for part in y[1:]]
    f = max(ms_cs / ms_csp, sum(a for a, _, _ in pairs) / sum(e for _, _, e in pairs))
    nu, rest = k * (seeds - 1), (seeds - 1) * (prompts - 1)
    found = []
    for part, (a, b, raw) in zip(y[1:], pairs, strict=True):
        star = max(f, (4 * f + (seeds - 1) * a / raw) / (4 + seeds - 1))
        e, v = (n * raw + 1) / (n + 2) if binary else raw, max(0.0, b - raw)
        these = (e / n) ** 0.5 * max(q(k, nu) * star**0.5, q(k, rest))
        total = star * e + v
        below = (star * e) ** 2 / nu + (v > 0) * (b**2 / (prompts - 1) + raw**2 / rest)
        df = max(nu, total**2 / below)
        like = max(q(k, df) * (total / n) ** 0.5, q(k, rest) * ((e + v) / n) ** 0.5)
        found.append(((part - y[0]).mean(), these, like))
    return found


@pytest.mark.parametrize("shape", [(2, 2, 12), (3, 5, 8), (6, 3, 30)])
@pytest.mark.parametrize("binary", [False, True])
def test_the_rule_is_the_equations(shape: tuple[int, int, int], binary: bool) -> None:
    for seed in range(3):
        y = draw(*shape, seed=seed)
        y = (y > 0.4).astype(float) if binary else y
        found = [
            (row.mean, row.half_these_prompts, row.half_prompts_like_these)
            for row in st.compare_cells(y, binary=binary).comparisons
        ]
        np.testing.assert_allclose(found, by_the_page(y, binary), rtol=1e-9)


# ---- Seeds that are missing


def test_missing_seeds_leave_each_comparison_its_own_and_the_pool_those_of_all() -> None:
    y = draw(cells=3, seeds=4)
    y[2, 1] = np.nan
    found = st.compare_cells(y)
    full, short = found.comparisons
    assert full.seeds == (0, 1, 2, 3) and full.missing_seeds == ()
    assert short.seeds == (0, 2, 3) and short.missing_seeds == (1,)
    complete = st.compare_cells(y[:, [0, 2, 3]])
    assert (found.F_all, found.F_base) == pytest.approx((complete.F_all, complete.F_base))
    assert found.seeds == (0, 2, 3)
    assert full.mean == pytest.approx((y[1] - y[0]).mean())
    assert full.ms_residual == pytest.approx(st.pair_components(y[1] - y[0]).ms_residual)
    assert short.half_prompts_like_these == pytest.approx(
        complete.comparisons[1].half_prompts_like_these
    )
    ragged = {c: {s: y[c, s] for s in range(4) if (c, s) != (2, 1)} for c in range(3)}
    assert numbers(st.compare_cells(ragged).comparisons[1]) == pytest.approx(numbers(short))


def test_one_seed_is_images_alone_and_says_so() -> None:
    y = draw(cells=3, seeds=1, prompts=20)
    found = st.compare_cells(y)
    assert math.isnan(found.F_all) and found.pool == ()
    for row in found.comparisons:
        d = y[row.cell, 0] - y[0, 0]
        error = d.std(ddof=1) / math.sqrt(20)
        assert row.images_alone and math.isnan(row.half_paired_t_bonferroni)
        expected = error * st.dunnett_quantile(2, 19)
        assert row.half_these_prompts == row.half_prompts_like_these == pytest.approx(expected)


def test_a_cell_with_one_seed_does_not_take_the_pool_from_others() -> None:
    y = draw(cells=4, seeds=3)
    y[3, 1:] = np.nan
    found = st.compare_cells(y)
    assert found.pool == (0, 1, 2) and found.F_all == pytest.approx(st.compare_cells(y[:3]).F_all)
    assert [row.images_alone for row in found.comparisons] == [False, False, True]
    assert found.comparisons[2].half_prompts_like_these > 0


def test_cells_without_a_common_seed_have_no_interval() -> None:
    y = draw(cells=3, seeds=4)
    y[1, :2], y[0, 2:] = np.nan, np.nan
    first, second = st.compare_cells(y).comparisons
    assert first.seeds == () and math.isnan(first.mean) and not first.identical
    assert st.decision(first.low, first.high, 0.05) == st.OPEN
    assert second.seeds == (0, 1) and math.isfinite(second.half_prompts_like_these)


def test_cells_that_share_no_two_seeds_are_judged_with_the_degrees_of_the_fewest() -> None:
    y = draw(cells=3, seeds=6)
    y[1, 3:], y[2, :3] = np.nan, np.nan
    found = st.compare_cells(y)
    assert found.pool == () and found.F_base > 0
    assert [row.seeds for row in found.comparisons] == [(0, 1, 2), (3, 4, 5)]
    assert all(row.df >= 2 and row.half_prompts_like_these > 0 for row in found.comparisons)


# ---- Several controls, the untouched cell, contrasts


def test_several_controls_are_one_family_of_independent_comparisons() -> None:
    y = draw(cells=4)
    found = st.compare_cells(y, pairs=[(1, 0), (3, 2)])
    assert [(row.cell, row.control) for row in found.comparisons] == [(1, 0), (3, 2)]
    assert all(row.family == 2 and row.rho == 0 for row in found.comparisons)
    row = found.comparisons[0]
    error = math.sqrt(row.residual / 36)
    expected = error * max(
        st.dunnett_quantile(2, 6, 0.95, 0) * math.sqrt(row.design_effect),
        st.dunnett_quantile(2, 22, 0.95, 0),
    )
    assert row.half_these_prompts == pytest.approx(expected)
    same = st.compare_cells(y, pairs=[(1, 0), (2, 0), (3, 0)])
    assert same == st.compare_cells(y)


def test_settled_cells_that_were_dropped_stay_in_the_family() -> None:
    y = draw(cells=3)
    before, after = st.compare_cells(y), st.compare_cells(y, family=6)
    assert [row.family for row in after.comparisons] == [6, 6]
    assert after.comparisons[0].half_prompts_like_these > (
        before.comparisons[0].half_prompts_like_these
    )
    with pytest.raises(ValueError, match="family=1"):
        st.compare_cells(y, family=1)


def test_the_untouched_cell_is_outside_of_the_pool_and_a_family_of_its_own() -> None:
    y = draw(cells=5)
    without, found = st.compare_cells(y[:4]), st.compare_cells(y, untouched=4)
    assert (found.F_all, found.F_base) == (without.F_all, without.F_base)
    assert found.comparisons == without.comparisons
    (row,) = found.untouched
    assert (row.cell, row.control, row.family) == (0, 4, 1)
    assert row.mean == pytest.approx((y[0] - y[4]).mean())
    assert row.design_effect >= found.design_effect
    assert row.half_these_prompts == pytest.approx(
        math.sqrt(row.residual / 36)
        * max(st.dunnett_quantile(1, 6) * math.sqrt(row.design_effect), st.dunnett_quantile(1, 22))
    )


def test_a_control_alone_is_compared_with_the_untouched_cell_by_its_own_seeds() -> None:
    y = draw(cells=2)
    found = st.compare_cells(y, untouched=1)
    assert found.comparisons == () and len(found.untouched) == 1
    row = found.untouched[0]
    assert row.design_effect == pytest.approx(row.own_design_effect)
    assert row.df >= 2


def test_a_contrast_of_one_pair_is_a_comparison() -> None:
    y = draw(cells=2)
    contrast = st.compare_contrasts(y, {"one": [-1, 1]})
    assert numbers(contrast.comparisons[0]) == pytest.approx(
        numbers(st.compare_cells(y).comparisons[0])
    )


@pytest.mark.parametrize("binary", [False, True])
def test_contrasts_scale_and_main_effects_are_narrower(binary: bool) -> None:
    y = tables(binary)
    main = {"A": [0.5, 0.5, -0.5, -0.5], "B": {0: 0.5, 1: -0.5, 2: 0.5, 3: -0.5}}
    found = st.compare_contrasts(y, main, binary=binary)
    doubled = st.compare_contrasts(y, {"A": [1, 1, -1, -1], "B": [1, -1, 1, -1]}, binary=binary)
    for row, twice in zip(found.comparisons, doubled.comparisons, strict=True):
        assert twice.mean == pytest.approx(2 * row.mean)
        assert twice.half_prompts_like_these == pytest.approx(2 * row.half_prompts_like_these)
    pairs = st.compare_cells(y, binary=binary).comparisons
    assert found.comparisons[0].residual < max(row.residual for row in pairs)


# ---- Cells that do not differ, and bad input


def test_a_cell_that_is_the_control_in_every_image_says_so_and_leaves_the_pool() -> None:
    y = draw(cells=4)
    y[2] = y[0] * (1 + 1e-15)
    found = st.compare_cells(y)
    row = found.comparisons[1]
    assert row.identical and row.mean == row.half_prompts_like_these == 0
    others = st.compare_cells(y[[0, 1, 3]])
    assert found.pool == (0, 1, 3) and found.F_all == pytest.approx(others.F_all)
    assert [r.identical for r in found.comparisons] == [False, True, False]
    assert found.comparisons[0].family == 3  # It was compared all the same


def test_a_score_of_seeds_alone_is_as_wide_as_seeds_say() -> None:
    y = np.repeat(np.random.default_rng(0).normal(size=(3, 4, 1)), 5, axis=2)
    for row in st.compare_cells(y).comparisons:
        assert row.ms_residual == 0
        assert row.half_prompts_like_these == pytest.approx(row.half_paired_t_bonferroni)
        assert row.half_these_prompts == pytest.approx(row.half_paired_t_bonferroni)


def test_a_difference_without_any_spread_claims_nothing() -> None:
    y = np.stack([np.zeros((3, 5)), np.full((3, 5), 0.3)])
    (row,) = st.compare_cells(y).comparisons
    assert not row.identical and row.half_prompts_like_these == 0
    assert st.decision(row.low, row.high, 0.05, scale=row.scale) == st.OPEN


@pytest.mark.parametrize(
    ("y", "options", "named"),
    [
        (np.zeros((3, 4)), {}, "cells, seeds, prompts"),
        (np.zeros((3, 4, 1)), {}, "two or more prompts"),
        (np.zeros((1, 4, 5)), {}, "two or more cells"),
        (np.full((2, 3, 4), np.inf), {}, "finite"),
        (draw(cells=2), {"baseline": 7}, "no cell 7"),
        (draw(cells=2), {"pairs": [(1, 1)]}, "itself"),
        (draw(cells=2), {"untouched": "none"}, "no cell 'none'"),
        ({"a": {0: [1, 2]}, "b": {0: [1, 2, 3]}}, {}, "same prompts"),
    ],
)
def test_bad_tables_are_one_error(y: object, options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        st.compare_cells(y, **options)


def test_a_prompt_that_lacks_a_value_is_named_by_cell_and_seed() -> None:
    y = draw(cells=2)
    y[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="cell 1, seed 2"):
        st.compare_cells(y)
    for weights in ([1, 1], [0, 0], [1, -1, 0], {5: 1}):
        with pytest.raises(ValueError, match="expected"):
            st.compare_contrasts(draw(cells=2), {"x": weights})
