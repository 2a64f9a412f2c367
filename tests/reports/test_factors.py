"""Main effects, interactions and what a set of cells cannot tell apart, in reports."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from helpers.image_results import SCORE, SUCCESS, make_results

from reports.answer.conclusion import conclude
from reports.answer.factors import (
    describe_design,
    name_reach,
    state_effects,
    state_factor_rule,
)
from reports.answer.files import answer_json
from reports.factor_tables import factor_blocks, factor_tables
from reports.factors import FactorEffects, judge_factors
from reports.judging import judge
from reports.results import SweepResults
from reports.statistics import (
    DIFFERS,
    NO_DIFFERENCE,
    OPEN,
    compare_contrasts,
    term_test,
    two_level_fraction,
)
from reports.tables import compare_cells
from reports.verdicts import IMAGES_ALONE, PER_SEED_T, POOLED

FACTORS = ("bias", "gradient", "protect")
GRID = [*itertools.product(("0.0", "2.0", "4.0"), ("released", "exact"), ("none", "bos"))]
CONTROL = ("2.0", "exact", "bos")
LAYERS = [
    (stage, side)
    for stage in ("high", "mid", "low", "all")
    for side in ("encoder", "decoder", "both")
    if stage != "low" or side == "both"
]


def images(share: float, key: int, seeds: int, prompts: int = 112) -> np.ndarray:
    """Outcomes [seeds, prompts]; prompts are hard, and noises lucky, for all cells alike."""
    hard = np.random.default_rng(7).normal(0, 0.8, (1, prompts))
    noise = np.random.default_rng(3).normal(0, 0.8, (seeds, prompts))
    own = np.random.default_rng([11, key]).normal(0, 0.5, (seeds, prompts))
    return (3.2 * (share - 0.5) + hard + noise + own > 0).astype(float)


def made(
    cells: Iterable[tuple[str, ...]],
    control: tuple[str, ...],
    share: Callable[..., float],
    factors: tuple[str, ...] = FACTORS,
    seeds: int = 3,
) -> SweepResults:
    tables = {
        " / ".join(cell): {"success": images(share(*cell), key, seeds)}
        for key, cell in enumerate(cells)
    }
    results = make_results(tables, " / ".join(control), SUCCESS, factors=factors)
    for cell in results.cells:
        cell.name = ", ".join(f"{key}={level}" for key, level in cell.values.items())
    return results


def damage(bias: str, gradient: str, protect: str) -> float:
    return 0.7 - (bias == "0.0") * (0.1 + 0.2 * (gradient == "released"))


def judged(results: SweepResults) -> FactorEffects:
    effects = judge_factors(results, judge(results, results.headline))
    assert effects is not None
    return effects


@pytest.fixture(scope="module")
def grid() -> SweepResults:
    return made(GRID, CONTROL, damage)


def test_main_effects_are_means_over_all_other_levels(grid: SweepResults) -> None:
    effects = judged(grid)
    means = {
        tuple(cell.values.values()): np.mean([*cell.per_seed("success").values()])
        for cell in grid.cells
    }

    def mean(axis: int, level: str) -> float:
        return float(np.mean([value for key, value in means.items() if key[axis] == level]))

    shown = {
        (j.effect.factors[0], grid.factors[j.effect.factors[0]].texts[j.effect.levels[0]]): j
        for j in effects.main
    }
    assert [*shown] == [(0, "0.0"), (0, "4.0"), (1, "released"), (2, "none")]
    for (axis, level), one in shown.items():
        assert one.verdict.mean == pytest.approx(mean(axis, level) - mean(axis, CONTROL[axis]))
    words = [one.verdict.verdict for one in shown.values()]
    assert words[0] == DIFFERS and shown[0, "0.0"].verdict.direction == "worse"
    assert words[1] == words[3] == NO_DIFFERENCE
    assert effects.rule == POOLED and {one.verdict.family for one in shown.values()} == {4}


def test_intervals_and_tests_are_those_of_the_rule(grid: SweepResults) -> None:
    """One family of main effects, another of interactions, on the images of all cells."""
    effects, table = judged(grid), judge(grid, SUCCESS).table
    assert table is not None
    y = {name: rows for name, rows in table.y.items()}
    for part in (effects.main, [p for own in effects.interactions for p in own.parts]):
        weights = {i: dict(zip(y, j.effect.weights, strict=True)) for i, j in enumerate(part)}
        expected = compare_contrasts(y, weights, binary=True)
        for j, c in zip(part, expected.comparisons, strict=True):
            assert (j.verdict.low, j.verdict.high) == (pytest.approx(c.low), pytest.approx(c.high))
    array = np.array([[rows[seed] for seed in range(3)] for rows in y.values()])
    own = effects.interactions[0]
    test = term_test(
        array, [p.effect.weights for p in own.parts], expected.design_effect, expected.df[0], True
    )
    assert own.test == test and test.df == 2 and own.test.p < 0.01


def test_an_interaction_that_is_not_excluded_brings_simple_effects(grid: SweepResults) -> None:
    effects = judged(grid)
    pairs = {own.factors: own for own in effects.interactions}
    assert pairs[0, 1].verdict == DIFFERS and pairs[0, 2].verdict != DIFFERS
    largest = pairs[0, 1].largest.effect
    assert [grid.factors[i].texts[v] for i, v in zip((0, 1), largest.levels, strict=True)] == [
        "0.0",
        "released",
    ]
    simple = {(factor, level) for factor, level, _ in effects.simple}
    assert simple == {(0, "0.0"), (0, "4.0"), (1, "released"), (2, "none")}
    levels = {v.cell: v for v in judge(grid, SUCCESS).levels}
    for _, _, verdict in effects.simple:  # The very numbers of the table of all combinations
        assert (verdict.low, verdict.mean) == (
            levels[verdict.cell].low,
            levels[verdict.cell].mean,
        )
    excluded = made(GRID, CONTROL, lambda *cell: 0.6, seeds=12)
    found = judged(excluded)
    assert all(own.excluded for own in found.interactions) and found.simple == ()
    text = state_effects(excluded, found)
    assert "They add up, but for less than matters: no interaction of two is larger than 0.0" in (
        text
    )
    assert text.endswith(" in any part (95 %, all parts at once).")
    assert "Cells, main effects and interactions are families of their own" in (
        state_factor_rule(found)
    )


def test_the_answer_says_what_factors_do(grid: SweepResults) -> None:
    text = conclude(grid, compare_cells(grid)).text
    assert "Main effects, over all levels of the other factors: success is worse with bias 0.0" in (
        text
    )
    assert "Effects depend on each other in bias × gradient (largest with bias 0.0 with grad" in (
        text
    )
    grid.tags["mode"] = "screen"
    screened = conclude(grid, compare_cells(grid)).text
    del grid.tags["mode"]
    assert screened.startswith("Main effects") and sorted(screened) == sorted(text)
    data = json.loads(answer_json(grid, compare_cells(grid)))["factors"]
    assert data["design"] == "grid" and len(data["cells"]) == 12
    assert [row["word"] for row in data["main"]][:2] == [
        "differs: worse",
        "no difference that matters",
    ]
    assert data["interactions"][0]["factors"] == ["bias", "gradient"]
    titles = [table.title for table in factor_tables(grid, compare_cells(grid))]
    assert [title.partition(": ")[2].partition(",")[0] for title in titles] == [
        "main effects",
        "interactions of two factors",
        "simple effects",
    ]


def test_cells_left_out_leave_the_largest_full_grid() -> None:
    layers = made(
        LAYERS,
        ("mid", "both"),
        lambda stage, side: 0.6 - 0.15 * (side == "encoder"),
        ("stage", "placement"),
    )
    effects = judged(layers)
    assert effects.design.kind == "sub-grid" and len(effects.design.used) == 9
    assert [cell.name for cell in effects.left_out] == ["stage=low, placement=both"]
    text = describe_design(layers, effects)
    assert "(stage=low, placement=both)" in text and "cannot be separated" in text
    shown = {(j.effect.factors[0], j.effect.levels[0]) for j in effects.main}
    assert shown == {(0, 0), (0, 3), (1, 0), (1, 1)}


def test_a_mean_over_part_of_the_cells_is_not_said_to_be_over_all_levels() -> None:
    layers = made(
        LAYERS,
        ("mid", "both"),
        lambda stage, side: 0.6 - 0.15 * (side == "encoder"),
        ("stage", "placement"),
    )
    effects, entries = judged(layers), compare_cells(layers)
    reach = "over the levels of the other factors in the full grid of 9 cells"
    assert name_reach(effects) == reach
    titles = [table.title for table in factor_tables(layers, entries)]
    for text in (describe_design(layers, effects), state_effects(layers, effects), titles[0]):
        assert reach in text and "all levels of the other" not in text
    cells = [*itertools.product("01", repeat=3)][:-1]
    part = judged(made(cells, ("0", "0", "0"), lambda *cell: 0.6))
    assert (
        name_reach(part)
        == "by least squares over the 7 cells measured, which lack some combinations"
    )


def test_intervals_of_effects_have_the_level_of_the_answer(grid: SweepResults) -> None:
    grid.tags["looks"] = json.dumps({"level": 0.99, "rounds": []})
    try:
        effects = judged(grid)
        columns = [
            column for table in factor_tables(grid, compare_cells(grid)) for column in table.columns
        ]
    finally:
        del grid.tags["looks"]
    wide = {judged_.verdict.level for judged_ in effects.main}
    assert wide == {0.99}
    assert "99 % interval, all at once" in columns and "99 % interval" in columns
    assert not [column for column in columns if "95" in column]
    one = dataclasses.replace(effects, main=effects.main[:1], interactions=())
    assert "one of 99 %" in state_factor_rule(one)


def test_one_cell_less_supposes_that_no_three_interact() -> None:
    cells = [*itertools.product("01", repeat=3)][:-1]
    results = made(cells, ("0", "0", "0"), lambda *cell: 0.6 - 0.1 * (cell[0] == "1"))
    effects = judged(results)
    assert (effects.design.kind, effects.design.order) == ("model", 2)
    text = describe_design(results, effects)
    assert "7 of the 8 combinations" in text and "no three factors interact" in text
    assert "Bias × gradient × protect cannot be separated" in text
    assert len(effects.main) == len(effects.interactions) == 3


def test_a_fraction_names_its_aliases() -> None:
    names = ("bias", "width", "stage", "head")
    runs = [tuple("ab"[v] for v in run) for run in two_level_fraction(4, 4).runs.tolist()]
    results = made(runs, runs[0], lambda *cell: 0.6 - 0.12 * (cell[1] == "b"), names)
    effects = judged(results)
    assert effects.design.kind == "fraction"
    assert "8 of the 16 combinations" in describe_design(results, effects)
    rows = factor_tables(results, compare_cells(results))[1].rows
    assert [row[0] for row in rows] == [
        "Bias × width + stage × head",
        "Bias × stage + width × head",
        "Bias × head + width × stage",
    ]
    assert [j.verdict.verdict == DIFFERS for j in effects.main] == [False, True, False, False]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([("a", "x"), ("b", "x"), ("a", "y")], "differs from the control in one factor"),
        ([("a", "x"), ("b", "y"), ("c", "x")], "cannot be separated from interactions"),
    ],
)
def test_what_cannot_be_told_is_said(cells: Any, words: str) -> None:
    results = made(cells, ("a", "x"), lambda *cell: 0.6, ("first", "second"))
    effects = judged(results)
    assert effects.main == () and words in describe_design(results, effects)
    entries = compare_cells(results)
    assert factor_tables(results, entries) == [] and "Main effects" not in (
        conclude(results, entries).text
    )
    assert len(factor_blocks(results, entries)) == 2


def test_one_factor_has_no_such_section() -> None:
    tables = {"a": {"success": images(0.6, 1, 3)}, "b": {"success": images(0.6, 2, 3)}}
    results = make_results(tables, "a", SUCCESS)
    entries = compare_cells(results)
    assert factor_blocks(results, entries) == [] == factor_tables(results, entries)
    assert json.loads(answer_json(results, entries))["factors"] is None


def test_controls_of_their_own_have_no_such_section() -> None:
    tables = {
        f"{block} / {level}": {"success": images(0.6, k, 3)}
        for k, (block, level) in enumerate(itertools.product("pq", "ab"))
    }
    results = make_results(tables, ["p / a", "q / a"], SUCCESS, within=True)
    assert judge_factors(results, judge(results, SUCCESS)) is None


def test_without_images_effects_go_by_seeds() -> None:
    results = made(GRID, CONTROL, damage, seeds=5)
    for _, trial in results.trials():
        trial.samples = None
    effects = judged(results)
    assert effects.rule == PER_SEED_T
    assert effects.main[0].verdict.verdict == DIFFERS
    cells = [cell.per_seed("success") for cell in results.cells]
    one = effects.main[0]
    values = [one.effect.weights @ [cell[seed] for cell in cells] for seed in range(5)]
    assert one.verdict.mean == pytest.approx(np.mean(values))
    from scipy import stats

    half = stats.t.ppf(1 - 0.025 / 4, 4) * np.std(values, ddof=1) / np.sqrt(5)
    assert one.verdict.high - one.verdict.low == pytest.approx(2 * half)
    assert effects.interactions[0].test.df == 2 and effects.interactions[0].test.p < 0.01


def test_less_than_matters_is_no_claim() -> None:
    names = ("bias", "gradient", "protect")
    results = made(
        GRID, CONTROL, lambda *cell: 0.6 - 0.03 * (cell[1] == "released"), names, seeds=12
    )
    effects = judged(results)
    one = effects.main[2]
    assert one.verdict.verdict == DIFFERS and not one.verdict.matters
    text = state_effects(results, effects)
    assert "differs, by less than matters with gradient released (−0.0" in text
    assert "worse with" not in text and "better with" not in text


def test_one_seed_claims_nothing() -> None:
    results = made(GRID, CONTROL, damage, seeds=1)
    effects = judged(results)
    assert {j.verdict.verdict for j in effects.main} == {OPEN}
    assert effects.rule == IMAGES_ALONE and state_effects(results, effects) == ""
    assert np.isnan(effects.interactions[0].test.p)


def test_a_cell_without_trials_is_no_part_of_the_design() -> None:
    results = made(GRID, CONTROL, damage)
    results.cells[0].trials.clear()
    effects = judged(results)
    assert effects.design.kind == "model" and len(effects.cells) == 11
    assert "11 of the 12 combinations" in describe_design(results, effects)


def test_a_metric_without_bounds_is_judged_too() -> None:
    tables = {
        " / ".join(cell): {"score": images(damage(*cell), key, 3) * 3}
        for key, cell in enumerate(GRID)
    }
    results = make_results(tables, " / ".join(CONTROL), SCORE, factors=FACTORS)
    effects = judged(results)
    assert effects.main[0].verdict.mean < -0.3 and not effects.interactions[1].excluded
