"""What comparisons say: by images where a metric has a table of them, else over seeds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from helpers.image_results import BACKBONE, SCORE, SUCCESS, make_results

from reports import prose
from reports.answer.conclusion import conclude, conclude_briefly
from reports.answer.words import describe_settling, describe_verdict, verdict_word
from reports.image_tables import NoTable, build_table, keep_common_prompts
from reports.judging import judge, judge_metrics
from reports.results import ReportedMetric, SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN, clopper_pearson
from reports.tables import compare_cells, headline_table, shows_p
from reports.verdicts import (
    COLLAPSED,
    IDENTICAL,
    IMAGES_ALONE,
    PER_SEED_T,
    POOLED,
    Verdict,
)

# The golden case of the rule, by hand: three cells, three seeds, four prompts
GOLDEN = [
    [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 1]],
    [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]],
    [[0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1]],
]


def outcomes(share: float, seed: int, seeds: int = 3, prompts: int = 100) -> np.ndarray:
    """[seeds, prompts] of right and wrong images; prompts have a difficulty of their own."""
    hard = np.random.default_rng(7).random((1, prompts)) * 0.2 - 0.1
    draws = np.random.default_rng(11).random((seeds, prompts))
    own = np.random.default_rng(seed).random((seeds, prompts))
    mixed = np.where(own < 0.015, own / 0.015, draws)  # A few images are a cell's own
    return (mixed < share + hard).astype(float)


def success(**shares: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {label: {"success": table} for label, table in shares.items()}


def level(results: SweepResults, label: str, metric: ReportedMetric | None = None) -> Verdict:
    found = judge_metrics(results)[(metric or results.headline).key]
    return next(v for v in found.levels if v.cell == label)


def text_of(results: SweepResults) -> str:
    return conclude(results, compare_cells(results)).text


def test_the_rule_is_read_from_the_images_of_trials() -> None:
    halved = (np.array(GOLDEN) + 1) / 2  # No mere outcomes
    tables = {name: {"score": y} for name, y in zip("abc", halved, strict=True)}
    judged = judge(make_results(tables, "a", SCORE), SCORE)
    assert judged.pooled is not None and judged.pooled.design_effect == pytest.approx(0.6)
    one, two = judged.levels
    assert (one.mean, two.mean) == (pytest.approx(-1 / 24), pytest.approx(1 / 24))
    assert one.high - one.low == pytest.approx(0.238563, abs=2e-6)
    assert two.high - two.low == pytest.approx(0.533442, abs=2e-6)
    assert {one.rule, two.rule} == {POOLED} and (one.seeds, one.prompts) == ((0, 1, 2), 4)


def test_the_mean_over_images_is_the_difference_of_the_table_of_means() -> None:
    results = make_results(success(a=outcomes(0.5, 1), b=outcomes(0.65, 2)), "a", SUCCESS)
    rows = {row[0]: row for row in headline_table(results, compare_cells(results)).rows}
    means = [float(rows[label][1]) for label in ("a (control)", "b")]
    assert float(rows["b"][3]) == pytest.approx(means[1] - means[0], abs=1.1e-3)
    assert rows["b"][-1] == "differs: better" and rows["a (control)"][-1] == "–"


def test_noises_of_a_prompt_are_averaged() -> None:
    two = np.repeat(np.array(GOLDEN[0], dtype=float), 2, axis=1)
    two[0, 0] = 0
    results = make_results({"a": {"success": two}}, "a", SUCCESS, noises=2)
    table = build_table(results, SUCCESS)
    assert table.prompts == ("val/0", "val/1", "val/2", "val/3") and table.binary
    assert table.y["a"][0].tolist() == [0.5, 0, 1, 0]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda trial: trial.metrics.update(success=0.9), r"is not the value that was logged"),
        (lambda trial: setattr(trial, "samples", None), "b, seed 1 has no table of its images"),
        (lambda trial: trial.samples.columns.clear(), "images have no value of it"),
        (lambda trial: trial.samples.prompts.__setitem__(0, "other"), "b has other prompts than a"),
    ],
)
def test_without_a_whole_table_the_older_rule_stands_in_and_says_why(spoil: Any, why: str) -> None:
    results = make_results(success(a=outcomes(0.5, 1), b=outcomes(0.5, 2)), "a", SUCCESS)
    spoil(results.cells[1].trials[1])
    with pytest.raises(NoTable, match=why):
        build_table(results, SUCCESS)
    verdict = level(results, "b")
    assert verdict.rule == PER_SEED_T and verdict.images is None and verdict.alike is not None
    rule = " ".join(conclude(results, compare_cells(results)).rule)
    assert "Images could not be used" in rule and "t-interval" in rule


def test_a_prompt_without_a_value_somewhere_has_no_table() -> None:
    tables = success(a=outcomes(0.5, 1), b=outcomes(0.5, 2))
    tables["b"]["success"][1, 3] = math.nan
    with pytest.raises(NoTable, match="prompt val/3 has no value in b, seed 1"):
        build_table(make_results(tables, "a", SUCCESS), SUCCESS)
    tables["a"]["success"][:, 3] = tables["b"]["success"][:, 3] = math.nan
    table = build_table(make_results(tables, "a", SUCCESS), SUCCESS)
    assert len(table.prompts) == 99, "a prompt that has no value anywhere is no part of it"


def test_three_ways() -> None:
    tables = success(
        a=outcomes(0.5, 1),
        better=outcomes(0.65, 2),
        same=outcomes(0.5, 3),
        far=np.roll(outcomes(0.5, 4), 7, axis=1),
    )
    results = make_results(tables, "a", SUCCESS)
    better, same, far = (level(results, label) for label in ("better", "same", "far"))
    assert (better.verdict, same.verdict, far.verdict) == (DIFFERS, NO_DIFFERENCE, OPEN)
    assert [v.conclusive for v in (better, same, far)] == [True, True, False]
    assert same.bound == max(abs(same.low), abs(same.high)) < 0.05 < far.bound
    text = text_of(results)
    assert text.startswith("Compared with a, success is better at better (+0.1")
    assert "; no difference that matters at same; open at far (between −0." in text
    assert far.settle is not None and far.settle.seeds is None, "no number of seeds would"
    assert f"about {far.settle.prompts} more prompts would probably settle it" in text
    assert "No level changes success by more than 0.197" in text and "all levels at once" in text
    assert conclude_briefly(results, compare_cells(results)) == (
        "better: better; no difference that matters: same; open: far"
    )
    strict = make_results(tables, "a", ReportedMetric("success", "S", "higher", "share", delta=0.2))
    assert level(strict, "better").verdict == DIFFERS
    assert verdict_word(level(strict, "far")) == NO_DIFFERENCE
    lenient = ReportedMetric("success", "Success", "higher", "share", delta=0.3)
    assert verdict_word(level(make_results(tables, "a", lenient), "better")) == (
        "differs, by less than matters"
    )


def test_no_difference_at_all_levels_is_one_sentence_with_its_bound() -> None:
    tables = success(**{name: outcomes(0.5, i) for i, name in enumerate("abc")})
    results = make_results(tables, "a", SUCCESS)
    bound = max(v.bound for v in judge(results, SUCCESS).levels)
    shown = f"{math.ceil(bound * 1000) / 1000:.3f}"
    assert text_of(results).startswith(
        f"No level of level changes success by more than {shown} (95 %, all levels at once): no "
        "difference that matters from a (δ = 0.05; n = 3 seeds of 100 prompts)."
    )


def test_without_a_difference_that_matters_only_the_bound_is_said() -> None:
    rng = np.random.default_rng(0)
    tables = {name: {"score": rng.normal(0.5, 0.1, (3, 40))} for name in "ab"}
    results = make_results(tables, "a", SCORE)
    assert level(results, "b").verdict == OPEN
    found = conclude(results, compare_cells(results))
    assert "δ" not in found.text and "b does not change score by more than 0.0" in found.text
    assert "no difference is fixed as one that matters" in found.rule[0]


def test_images_that_are_all_equal_are_no_certainty() -> None:
    """An interval without width was printed as [.000, .000]."""
    same = outcomes(0.5, 1)
    results = make_results(success(a=same, b=same, c=outcomes(0.5, 3)), "a", SUCCESS)
    verdict = level(results, "b")
    assert verdict.mean == 0 and 0.003 < verdict.high < 0.05 and verdict.low == -verdict.high
    assert verdict.verdict == NO_DIFFERENCE


def test_rounding_is_no_difference() -> None:
    values = [[0.6517857142857144], [0.8392857142857144], [0.3839285714285715]]
    other = [[0.6517857142857143], [0.8392857142857143], [0.38392857142857145]]
    tables = {"b": {"score": values}, "a": {"score": other}}
    verdict = level(make_results(tables, "a", SCORE), "b")
    assert verdict.rule == PER_SEED_T, "one prompt"
    assert verdict.mean == 0 and verdict.verdict == OPEN


def test_nothing_below_half_a_printed_digit_is_claimed() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.1, (3, 40))
    tables = {"a": {"score": base}, "b": {"score": base + rng.normal(0.0003, 1e-5, (3, 40))}}
    verdict = level(make_results(tables, "a", SCORE), "b")
    assert verdict.low > 0, "it excludes 0"
    assert verdict.verdict == OPEN and "0.000 to all printed digits" in describe_verdict(verdict)
    tables["b"]["score"] = base + rng.normal(0.0009, 1e-5, (3, 40))
    assert level(make_results(tables, "a", SCORE), "b").verdict == DIFFERS


@pytest.mark.parametrize(("seeds", "levels", "shown"), [(6, 1, True), (6, 4, False), (8, 4, True)])
def test_p_values_are_shown_once_holm_lets_them_pass(seeds: int, levels: int, shown: bool) -> None:
    tables = success(**{f"l{i}": outcomes(0.5, i, seeds) for i in range(levels + 1)})
    results = make_results(tables, "l0", SUCCESS)
    assert shows_p(compare_cells(results), SUCCESS) == shown


@pytest.mark.parametrize("images", [True, False])
def test_whether_the_method_helps_is_one_family_over_all_controls(images: bool) -> None:
    labels = [f"{block} / {name}" for block in "xyz" for name in ("sound", "other")]
    tables = {label: {"success": outcomes(0.6, i)} for i, label in enumerate(labels)}
    tables[BACKBONE] = {"success": outcomes(0.55, 99)}
    controls = [label for label in labels if label.endswith("sound")]
    results = make_results(tables, controls, SUCCESS, within=True)
    if not images:
        results.cells[0].trials[0].samples = None
    judged = judge(results, SUCCESS)
    assert [v.cell for v in judged.untouched] == controls
    assert {v.family for v in judged.untouched} == {3} == {v.family for v in judged.levels}
    assert {v.rule for v in judged.untouched} == {POOLED if images else PER_SEED_T}
    alone = make_results(
        {k: tables[k] for k in (*labels[:2], BACKBONE)}, labels[0], SUCCESS, within=True
    )
    alone.cells[0].trials[0].samples = results.cells[0].trials[0].samples
    first = judge(alone, SUCCESS).untouched[0]
    if not images:
        assert judged.untouched[0].half > 1.5 * first.half, "t of two degrees of freedom"
    rule = " ".join(conclude(results, compare_cells(results)).rule)
    assert ("a family of its own, of 3" if images else "3 intervals that are widened") in rule


def test_seeds_that_collapse_are_an_outcome_of_their_own() -> None:
    fallen = outcomes(0.7, 2)
    fallen[1] = 0
    tables = success(a=outcomes(0.7, 1), b=fallen, c=outcomes(0.7, 3))
    verdict = level(results := make_results(tables, "a", SUCCESS), "b")
    assert verdict.verdict == COLLAPSED and not verdict.conclusive
    assert verdict.collapse is not None and verdict.collapse.seeds == (1,)
    low, high = clopper_pearson(1, 3)
    share = f"in 1 of 3 seeds (seed 1; 95 %: {low:.2f} to {high:.2f} of trainings)"
    found = conclude(results, compare_cells(results))
    assert f"collapsed at b ({share})" in found.text and "better" not in found.text
    assert any("Trainings collapsed at b" in part for part in found.rule)


def test_a_cell_that_is_far_worse_in_every_seed_has_not_collapsed() -> None:
    """Its distance passes the limit in some seeds and not in others, by its images alone."""
    for seed in range(6):
        tables = success(a=outcomes(0.7, 1), b=outcomes(0.42, 50 + seed))
        assert level(make_results(tables, "a", SUCCESS), "b").verdict == DIFFERS, seed


def test_identical_images_are_said_to_be_so() -> None:
    same, score = outcomes(0.5, 1), np.random.default_rng(0).random((3, 100))
    tables = {name: {"success": same, "score": score} for name in "ab"}
    tables["c"] = {"success": same, "score": score + 0.01 * outcomes(0.5, 9)}
    results = make_results(tables, "a", SUCCESS, SCORE)
    assert level(results, "b").verdict == level(results, "b", SCORE).verdict == IDENTICAL
    assert level(results, "c").verdict == NO_DIFFERENCE, "other images, as many right"
    assert "identical in every image at b" in text_of(results)


def test_one_seed_speaks_of_its_images_alone() -> None:
    tables = success(a=outcomes(0.5, 1, 1), b=outcomes(0.75, 2, 1), c=outcomes(0.5, 3, 1))
    results = make_results(tables, "a", SUCCESS)
    verdict = level(results, "b")
    assert verdict.rule == IMAGES_ALONE and verdict.verdict == OPEN and verdict.low > 0
    text = text_of(results)
    assert text.startswith("One seed cannot tell: the largest difference from a in success is +0.1")
    assert "the interval is of images alone, one training, and says nothing of others" in text


def test_missing_seeds_are_named() -> None:
    lacking = outcomes(0.5, 2)
    lacking[2] = math.nan
    results = make_results(success(a=outcomes(0.5, 1), b=lacking, c=outcomes(0.5, 3)), "a", SUCCESS)
    verdict = level(results, "b")
    assert verdict.seeds == (0, 1) and verdict.missing_seeds == (2,) and verdict.rule == POOLED
    rule = " ".join(conclude(results, compare_cells(results)).rule)
    assert "Compared without seed 2, which one side lacks: b." in rule
    assert "n = 2 to 3 seeds of 100 prompts" in text_of(results)


def test_trials_with_more_prompts_are_compared_on_those_that_all_have() -> None:
    whole = outcomes(0.5, 1, prompts=100)
    tables = success(a=whole, b=outcomes(0.6, 2, prompts=100)[:, :60])
    results = make_results(tables, "a", SUCCESS)
    for _, trial in results.trials():
        trial.facts = {"success": {"detector": "judge", "images": len(trial.samples.ids)}}
    keep_common_prompts(results)
    assert results.fewer_prompts == (60, 100)
    assert {len(t.samples.ids) for _, t in results.trials()} == {60}
    assert all(trial.facts["success"] == {"detector": "judge"} for _, trial in results.trials())
    verdict, entries = level(results, "b"), compare_cells(results)
    assert verdict.prompts == 60 and verdict.rule == POOLED
    means = {e.cell.label: e.summary.mean for e in entries if e.summary}
    assert means["a"] == pytest.approx(whole[:, :60].mean())
    assert verdict.mean == pytest.approx(means["b"] - means["a"])
    rule = " ".join(conclude(results, entries).rule)
    assert "up to 100: all means over images, and all comparisons, are over the 60" in rule


def test_other_prompts_are_not_cut() -> None:
    results = make_results(success(a=outcomes(0.5, 1), b=outcomes(0.5, 2)), "a", SUCCESS)
    trial = results.cells[1].trials[0]
    trial.samples.ids[0] = "heldout/0#0"
    keep_common_prompts(results)
    assert results.fewer_prompts is None and len(trial.samples.ids) == 100


def test_means_that_are_weighted_have_tables_too() -> None:
    """Mask IoU, centre and turn errors were in no table."""
    iou = ReportedMetric("mask_iou", "Mask IoU", "higher", "", "targets", 0.05)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, (3, 60)).astype(float)
    tables: dict[str, dict[str, Any]] = {
        name: {"mask_iou": rng.normal(0.5, 0.05, (3, 60)), "targets": weights} for name in "ab"
    }
    results = make_results(tables, "a", iou)
    for cell in results.cells:
        for seed, trial in cell.trials.items():
            own = tables[cell.label]["mask_iou"][seed]
            trial.metrics["mask_iou"] = float(np.average(own, weights=weights[seed]))
    verdict = level(results, "b")
    assert verdict.rule == POOLED and verdict.verdict == NO_DIFFERENCE
    assert not build_table(results, iou).binary


def test_seeds_may_have_prompts_of_their_own() -> None:
    results = make_results(success(a=outcomes(0.5, 1), b=outcomes(0.5, 2)), "a", SUCCESS)
    for _, trial in results.trials():
        trial.samples.ids[:] = [name.replace("/", f"/{trial.seed}-") for name in trial.samples.ids]
    table = build_table(results, SUCCESS)
    assert table.own_prompts and table.y["a"][2].shape == (100,)
    assert "Each seed has prompts of its own" in " ".join(
        conclude(results, compare_cells(results)).rule
    )


def test_a_control_that_nothing_is_compared_with_is_open_for_its_own_reason() -> None:
    labels = ["x / sound", "x / other", "y / sound"]
    tables = {label: {"success": outcomes(0.6, i)} for i, label in enumerate(labels)}
    tables[BACKBONE] = {"success": outcomes(0.55, 99)}
    results = make_results(tables, ["x / sound", "y / sound"], SUCCESS, within=True)
    judged = judge(results, SUCCESS)
    assert [(v.cell, v.control) for v in judged.levels] == [("x / other", "x / sound")]
    text = conclude(results, compare_cells(results)).method
    assert "the method at y / sound is any better than the untouched backbone is open: noth" in text
    assert "the two share no finished seed" not in text


def test_a_cell_whose_trainings_scatter_on_their_own_is_warned_of() -> None:
    rng = np.random.default_rng(0)
    tables = {f"l{i}": {"score": rng.normal(0.5, 0.1, (3, 60))} for i in range(7)}
    offsets = np.array([[-0.2], [0.0], [0.2]])
    tables["wild"] = {"score": rng.normal(0.5, 0.1, (3, 60)) + offsets}
    results = make_results(tables, "l0", SCORE)
    assert level(results, "wild").unstable and not level(results, "l3").unstable
    rule = " ".join(conclude(results, compare_cells(results)).rule)
    own = level(results, "wild").images.own_design_effect
    assert f"trainings at wild scatter beyond their images by {own:.1f}, in the pool by" in rule


def with_settling(seeds: int | None, prompts: int | None, *best: int | None) -> Verdict:
    far = np.roll(outcomes(0.5, 4), 7, axis=1)
    verdict = level(make_results(success(a=outcomes(0.5, 1), far=far), "a", SUCCESS), "far")
    best_seeds, best_prompts = best or (None, None)
    settle = dataclasses.replace(
        verdict.settle,
        seeds=seeds,
        prompts=prompts,
        best_seeds=best_seeds,
        best_prompts=best_prompts,
    )
    return dataclasses.replace(verdict, settle=settle)


@pytest.mark.parametrize(
    ("ways", "words"),
    [
        ([(3, 120)], "about 3 more seeds or 120 more prompts would probably settle it"),
        ([(1, None)], "about 1 more seed would probably settle it"),
        (
            [(3, 120), (7, 40)],
            "about 7 more seeds or 120 more prompts would probably settle each of them",
        ),
        (
            [(3, None, 2, 10), (None, 40, 4, 8)],
            "about 4 more seeds with 10 more prompts would probably settle each of them",
        ),
        (
            [(101, 10_001)],
            "neither 100 more seeds nor 10,000 more prompts alone would settle it",
        ),
    ],
)
def test_what_would_settle_all_that_is_open(ways: list[Any], words: str) -> None:
    assert describe_settling([with_settling(*way) for way in ways]) == words


def test_nothing_settles_a_metric_for_which_no_difference_matters() -> None:
    rng = np.random.default_rng(0)
    tables = {name: {"score": rng.normal(0.5, 0.1, (3, 40))} for name in "ab"}
    assert level(make_results(tables, "a", SCORE), "b").settle is None


def test_a_bound_that_is_printed_still_holds() -> None:
    assert prose.show_up(0.0411, 3) == "0.042" and prose.show_up(-0.0411, 3) == "0.042"
    assert prose.show_up(0.041, 3) == "0.041" and prose.show_up(0.1 + 0.2, 1) == "0.3"


def test_controls_alone_are_not_compared_with_each_other() -> None:
    labels = ["x / sound", "y / sound"]
    tables = {label: {"success": outcomes(0.6, i)} for i, label in enumerate(labels)}
    tables[BACKBONE] = {"success": outcomes(0.55, 99)}
    judged = judge(make_results(tables, labels, SUCCESS, within=True), SUCCESS)
    assert not judged.levels and [v.cell for v in judged.untouched] == labels
    assert {(v.rule, v.family) for v in judged.untouched} == {(PER_SEED_T, 2)}
