"""What is said where nothing is trained: images are the replicates, prompts with noises within."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from helpers.image_results import BACKBONE, SCORE, SUCCESS, make_results
from scipy import stats

from reports.answer.conclusion import conclude
from reports.answer.factors import state_factor_rule
from reports.answer.words import verdict_word
from reports.factors import judge_factors
from reports.judging import judge
from reports.results import ReportedMetric, SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN, compare_cells, dunnett_quantile
from reports.tables import compare_cells as compare_entries
from reports.tables import headline_table
from reports.verdicts import IMAGES_ALONE, POOLED, UNTRAINED

# Two cells, three seeds, four prompts
HALVED = (
    np.array(
        [
            [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 1]],
            [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]],
        ]
    )
    + 1
) / 2


def draw(cells: str, seeds: int, prompts: int = 120, better: float = 0.2) -> dict[str, np.ndarray]:
    """Outcomes; all cells but the first are better."""
    rng = np.random.default_rng(5)
    shared, hard = rng.random((seeds, prompts)), rng.random(prompts) * 0.3
    return {
        cell: (shared < 0.3 + hard + better * (i > 0) + 0.001 * i).astype(float)
        for i, cell in enumerate(cells)
    }


def results_of(
    tables: dict[str, np.ndarray],
    untrained: Collection[str],
    metric: ReportedMetric = SUCCESS,
    factors: Collection[str] = (),
) -> SweepResults:
    control = next(iter(tables))
    given = {cell: {metric.key: y} for cell, y in tables.items()}
    results = make_results(given, control, metric, factors=[*factors])
    for cell, trial in results.trials():
        trial.counts["trained_parameters"] = 0 if cell.name in untrained else 100
    return results


def text_of(results: SweepResults) -> str:
    found = conclude(results, compare_entries(results))
    return " ".join([found.text, found.brackets, *found.rule])


# --- the interval ---------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_mean_over_prompts() -> None:
    """By hand: prompts' mean differences 0, 0, 0, -1/6; their deviation 1/12, t of 3 degrees
    3.182446, and so 3.182446 / 12 / 2."""
    (found,) = compare_cells(HALVED, untrained=[0, 1]).comparisons
    assert found.untrained and not found.images_alone and found.df == 3
    assert found.mean == pytest.approx(-1 / 24)
    assert found.half_prompts_like_these == pytest.approx(0.132602, abs=1e-6)
    each = (HALVED[1] - HALVED[0]).mean(0)
    own = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((own.low, own.high))
    # Of other noise alone: the mean square within prompts, with 4 x 2 degrees
    within = (HALVED[1] - HALVED[0]).var(0, ddof=1).mean()
    half = stats.t.ppf(0.975, 8) * np.sqrt(within / 12)
    assert found.half_these_prompts == pytest.approx(half)


def test_one_noise_a_prompt_is_a_paired_t_test() -> None:
    y = np.random.default_rng(0).normal(size=(3, 1, 40))
    found = compare_cells(y, untrained=[0, 1, 2]).comparisons
    ratio = dunnett_quantile(2, 39) / stats.t.ppf(0.975, 39)
    for i, one in enumerate(found, 1):
        own = stats.ttest_rel(y[i, 0], y[0, 0]).confidence_interval(0.95)
        assert one.half_prompts_like_these == pytest.approx(ratio * (own.high - own.low) / 2)
        assert not one.images_alone


def test_outcomes_have_two_imaginary_images() -> None:
    y = np.zeros((2, 3, 10))
    (found,) = compare_cells(y, binary=True, untrained=[0, 1]).comparisons
    half = stats.t.ppf(0.975, 9) * np.sqrt(1 / 32 / 30)
    assert found.half_prompts_like_these == pytest.approx(half)


def test_intervals_cover_the_mean_of_other_prompts_and_noise() -> None:
    """Prompts differ in the effect; by the pooled rule intervals would be wider."""
    rng = np.random.default_rng(1)
    missed, widths = 0, []
    for _ in range(400):
        y = np.zeros((2, 2, 25))
        y[1] = rng.normal(0, 0.2, 25) + rng.normal(0, 0.5, (2, 25))
        (found,) = compare_cells(y, untrained=[0, 1]).comparisons
        missed += not found.low <= 0 <= found.high
        widths.append(found.half_prompts_like_these)
    assert 8 <= missed <= 34  # 20 expected, deviation 4.4
    assert np.mean(widths) == pytest.approx(
        stats.t.ppf(0.975, 24) * np.sqrt((0.04 + 0.25 / 2) / 25), rel=0.03
    )


def test_a_trained_cell_beside_them_is_pooled_without_them() -> None:
    rng = np.random.default_rng(2)
    y = {cell: rng.normal(size=(3, 30)) for cell in "abcd"}
    y["b"] += rng.normal(0, 1, (3, 1))
    some = compare_cells(y, "a", untrained="acd")
    alone = compare_cells({c: y[c] for c in "ab"}, "a", family=3)
    one, two = some.comparisons[0], alone.comparisons[0]
    assert not one.untrained and some.pool == alone.pool == ("a", "b")
    assert one.half_prompts_like_these == two.half_prompts_like_these
    assert [c.untrained for c in some.comparisons] == [False, True, True]
    # One that was trained makes the comparison one of trainings
    assert not any(c.untrained for c in compare_cells(y, "b", untrained="acd").comparisons)


# --- verdicts and words ---------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_images_decide_where_nothing_is_trained(seeds: int) -> None:
    tables = draw("abc", seeds)
    results = results_of(tables, "abc")
    for verdict in judge(results, SUCCESS).levels:
        assert (verdict.verdict, verdict.rule) == (DIFFERS, UNTRAINED)
        assert verdict_word(verdict) == "differs: better" and verdict.judged
    text = text_of(results)
    assert "better at" in text and "cannot tell" not in text and "one training" not in text
    assert "Nothing is trained for any level" in text and "prompts are clusters" in text
    assert "nothing is trained: for prompts like these and other noise" in text
    rows = headline_table(results, compare_entries(results)).rows
    assert [row[-1] for row in rows][1:] == ["differs: better"] * 2
    # The same images of trainings decide nothing with one seed
    trained = judge(results_of(tables, ""), SUCCESS).levels
    assert {v.rule for v in trained} == {IMAGES_ALONE if seeds == 1 else POOLED}
    assert seeds > 1 or {v.verdict for v in trained} == {OPEN}


def test_the_untouched_backbone_trains_nothing() -> None:
    tables = draw("ab", 1) | {BACKBONE: draw("z", 1)["z"]}
    judged = judge(results_of(tables, "ab"), SUCCESS)
    assert {v.rule for v in (*judged.levels, *judged.untouched)} == {UNTRAINED}
    judged = judge(results_of(tables, "b"), SUCCESS)
    assert {v.rule for v in (*judged.levels, *judged.untouched)} == {IMAGES_ALONE}


@pytest.mark.parametrize("seeds", [1, 3])
def test_rows_with_a_training_beside_them_are_told_apart(seeds: int) -> None:
    results = results_of(draw("abc", seeds), "ab")
    one, two = judge(results, SUCCESS).levels
    assert (one.rule, one.verdict) == (UNTRAINED, DIFFERS)
    assert two.rule == (IMAGES_ALONE if seeds == 1 else POOLED)
    text = text_of(results)
    assert "At b neither side trains anything" in text
    assert ("One training cannot tell" in text) == (seeds == 1)


def test_small_differences_and_what_would_settle_open_ones() -> None:
    equal = judge(results_of(draw("ab", 3, 400, 0.0), "ab"), SUCCESS).levels[0]
    assert equal.verdict == NO_DIFFERENCE
    few = {"a": np.zeros((2, 12)), "b": np.eye(2, 12)}
    verdict = judge(results_of(few, "ab"), SUCCESS).levels[0]
    assert verdict.verdict == OPEN and verdict.settle is not None and verdict.settle.prompts


def test_training_on_each_prompt_is_training() -> None:
    results = results_of(draw("ab", 1), "ab")
    for _, trial in results.trials():
        trial.ran["training"] = {"learns": "on each prompt"}
    assert judge(results, SUCCESS).levels[0].rule == IMAGES_ALONE


def test_effects_of_factors_go_by_images_too() -> None:
    tables = draw("pqrs", 1)
    named = dict(zip(["x / u", "x / v", "y / u", "y / v"], tables.values(), strict=True))
    results = results_of(named, [*named], factors=["one", "two"])
    effects = judge_factors(results, judge(results, SUCCESS))
    assert effects is not None and effects.rule == UNTRAINED
    assert {e.verdict.verdict for e in effects.main} != {OPEN}
    assert "nothing is trained, and they are of images" in state_factor_rule(effects)


def test_other_scores_too() -> None:
    scores = {cell: y + 0.5 for cell, y in draw("ab", 1).items()}
    scores["b"][0, 0] = 0.7
    assert judge(results_of(scores, "ab", SCORE), SCORE).levels[0].rule == UNTRAINED
