"""Sentences of an answer and its rule are true of the numbers beside them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.image_results import BACKBONE, SUCCESS, make_results

from reports.answer.conclusion import conclude
from reports.answer.explain import explain_statistics
from reports.answer.words import describe_bound, describe_verdict, verdict_word
from reports.image_tables import NoTable, build_table
from reports.judging import judge
from reports.prose import show_interval
from reports.results import ReportedMetric, SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE
from reports.tables import compare_cells, difference_tables, headline_table
from reports.variances import explain_variance, variance_tables
from reports.verdicts import COLLAPSED


def draw(cells: str, seeds: int = 3, prompts: int = 100, flips: float = 0.1) -> dict[str, Any]:
    """Right and wrong images that cells share, but for a few."""
    rng = np.random.default_rng(3)
    shared = rng.random((seeds, prompts)) < 0.6
    return {
        name: {"success": (shared ^ (rng.random((seeds, prompts)) < flips)).astype(float)}
        for name in cells
    }


def rule_of(results: SweepResults) -> str:
    return " ".join(conclude(results, compare_cells(results)).rule)


def test_an_interval_is_not_rounded_to_the_other_side_of_what_decides() -> None:
    verdict = judge(make_results(draw("ab"), "a", SUCCESS), SUCCESS).levels[0]
    claim = replace(verdict, verdict=DIFFERS, low=0.0003, high=0.0812)
    assert show_interval(claim, 3) == "[+0.0003, +0.081]"
    null = replace(verdict, verdict=NO_DIFFERENCE, low=-0.0004, high=0.0497)
    assert show_interval(null, 3) == "[0.000, +0.050]".replace("0.050", "0.0497")
    assert describe_bound([null]) == "0.0497", "no bound of δ itself is less than matters"
    assert describe_bound([replace(null, high=0.0412)]) == "0.042"


def test_one_seed_claims_no_more_than_its_images() -> None:
    results = make_results(draw("abc", seeds=1), "a", SUCCESS)
    found, entries = conclude(results, compare_cells(results)), compare_cells(results)
    assert "no other training" in found.brackets and "other seeds" not in found.brackets
    assert "design effect" not in rule_of(results) and "other seeds" not in rule_of(results)
    for verdict in judge(results, SUCCESS).levels:
        assert verdict.settle is None, "how far trainings scatter is not known"
        assert verdict_word(verdict) == "open (one training)"
    assert not any("[" in row[5] for row in headline_table(results, entries).rows)


def test_a_control_that_collapsed_is_named_and_the_backbone_is_not() -> None:
    tables = draw("abc") | {BACKBONE: draw("z")["z"]}
    tables["a"]["success"][2] = 0
    results = make_results(tables, "a", SUCCESS)
    verdict = judge(results, SUCCESS).of(results.untouched)  # type: ignore[arg-type]
    assert verdict and verdict.verdict == COLLAPSED and verdict_word(verdict) == "control collapsed"
    rule = rule_of(results)
    assert "Trainings of the control a seem to have collapsed, in 1 of 3 seeds (seed 2" in rule
    fallen = draw("abc")
    fallen["b"]["success"][2] = 0
    text = rule_of(make_results(fallen, "a", SUCCESS))
    assert "Trainings collapsed at b" in text and "of the control" not in text


def test_cells_that_collapsed_have_an_interval_too() -> None:
    tables = draw("abcd")
    tables["b"]["success"][2] = 0
    results = make_results(tables, "a", SUCCESS)
    text = conclude(results, compare_cells(results)).text
    assert "Of the 2 levels judged by their means none changes success" in text


def test_an_error_rate_is_aimed_at_and_not_promised() -> None:
    results = make_results(draw("abc"), "a", SUCCESS)
    rule = rule_of(results)
    assert "are to hold in 95 % of sweeps" in rule and "5 % at most" not in rule
    assert "in 5 % or fewer" in rule and "never narrower than prompts and images alone" in rule
    if any(v.settle for v in judge(results, SUCCESS).levels):
        assert "54 to 81 %" in rule


def test_what_would_settle_is_probable() -> None:
    verdict = judge(make_results(draw("ab", prompts=30), "a", SUCCESS), SUCCESS).levels[0]
    assert verdict.settle and "would probably settle it" in describe_verdict(verdict)


def test_seeds_behind_the_design_effect_are_named() -> None:
    tables = draw("abc")
    tables["b"]["success"][2] = math.nan
    assert "The design effect is from seeds 0 and 1 of 3 cells." in rule_of(
        make_results(tables, "a", SUCCESS)
    )
    tables["c"]["success"][0] = math.nan
    assert "Cells have no two seeds in common" in rule_of(make_results(tables, "a", SUCCESS))


def test_cells_that_scatter_less_than_their_images_are_not_called_unstable() -> None:
    verdict = judge(make_results(draw("ab"), "a", SUCCESS), SUCCESS).levels[0]
    assert verdict.images is not None
    calm = replace(verdict.images, unstable=True, own_design_effect=0.8)
    assert not replace(verdict, images=calm).unstable
    assert replace(verdict, images=replace(calm, own_design_effect=9.0)).unstable


def test_seeds_that_share_some_prompts_have_no_table() -> None:
    """With 60 prompts of 80 in each seed an interval would miss in 12 % of sweeps."""
    results = make_results(draw("ab", prompts=20), "a", SUCCESS)
    for _, trial in results.trials():
        ids = [int(name.partition("/")[2].partition("#")[0]) for name in trial.samples.ids]
        trial.samples.ids[:] = [f"val/{(i + 5 * trial.seed) % 40}#0" for i in ids]
        trial.samples.prompts[:] = trial.samples.ids
    with pytest.raises(NoTable, match="seeds share some of their prompts"):
        build_table(results, SUCCESS)


def test_images_of_a_ratio_are_better_by_their_own_values() -> None:
    """Each image's share in the ratio was compared, which has the ratio of its cell in it: an image
    without an object was better wherever its cell was."""
    iou = ReportedMetric("mask_iou", "Mask IoU", "higher", "", "targets", 0.05)
    rng = np.random.default_rng(0)
    weights = np.tile([0.0, 2.0], 20)
    base = rng.normal(0.5, 0.05, (3, 40))
    tables: dict[str, Any] = {
        name: {"mask_iou": base + shift, "targets": np.tile(weights, (3, 1))}
        for name, shift in (("a", 0.0), ("b", 0.02))
    }
    results = make_results(tables, "a", iou)
    for cell in results.cells:
        for seed, trial in cell.trials.items():
            own = tables[cell.label]["mask_iou"][seed]
            trial.metrics["mask_iou"] = float(np.average(own, weights=weights))
    better = {e.cell.label: e.improvement for e in compare_cells(results)}["b"]
    assert better is not None and better.share == 0.75, "half of the images have no object: ties"
    assert "weighted by targets, a ratio of sums" in rule_of(results)


def test_tables_say_that_the_backbone_is_a_family_of_its_own() -> None:
    results = make_results(draw("abc") | {BACKBONE: draw("z")["z"]}, "a", SUCCESS)
    entries = compare_cells(results)
    titles = [headline_table(results, entries).title, difference_tables(results, entries)[0].title]
    assert all("untouched backbone is a family of its own" in title for title in titles)
    plain = make_results(draw("abc"), "a", SUCCESS)
    assert "family" not in headline_table(plain, compare_cells(plain)).title


def test_intervals_say_which_prompts_they_speak_of() -> None:
    """Those of means, and of metrics without images, are over seeds that share their prompts."""
    fid = ReportedMetric("fid", "FID", "lower", "")
    results = make_results(draw("abc", prompts=40), "a", SUCCESS, fid)
    for _, trial in results.trials():
        trial.metrics["fid"] = 4.0 + 0.1 * trial.seed
    entries = compare_cells(results)
    conclusion = conclude(results, entries)
    rule, all_of_it = rule_of(results), " ".join(explain_statistics(results, entries, conclusion))
    assert "Intervals by images speak of other prompts" in rule
    assert "Seeds share their prompts." in rule
    assert "instead of images go: FID" in rule and "speak of these prompts only" in rule
    assert "each for itself; where seeds share their prompts they speak of these prompts only" in (
        all_of_it
    )
    assert "leaves a difference between them alone" in all_of_it
    assert "for its interval to exclude 0 with probability 80 %" in all_of_it


def test_the_design_effect_is_said_to_be_the_larger_of_two() -> None:
    assert "the larger of two estimates: of all cells" in rule_of(
        make_results(draw("abc"), "a", SUCCESS)
    )


def test_a_prompts_images_of_several_noises_are_called_their_mean() -> None:
    results = make_results(draw("abc"), "a", SUCCESS, noises=2)
    verdicts = judge(results, SUCCESS)
    found = explain_variance(results, verdicts)
    assert found is not None and found.images == 2
    [table] = variance_tables(results, verdicts)
    assert "where the variance of the mean of a prompt's 2 images comes from" in table.title
    [alone] = variance_tables(
        single := make_results(draw("abc"), "a", SUCCESS), judge(single, SUCCESS)
    )
    assert "where the variance of an image comes from" in alone.title


@pytest.mark.parametrize(("draws", "told"), [(0, True), (1, False)])
def test_trainings_of_the_advice_and_of_the_table_are_told_apart(draws: int, told: bool) -> None:
    """Differences from the control of draw 0 scatter over seeds, all cells together do not."""
    rng = np.random.default_rng(draws)
    shared = rng.random((3, 40)) < 0.6
    tables = {
        name: {"success": (shared ^ (rng.random((3, 40)) < 0.1)).astype(float)}
        for name in "abcdefg"
    }
    results = make_results(tables, "a", SUCCESS)
    found = explain_variance(results, judge(results, SUCCESS))
    assert found is not None and found.parts is not None
    own = next(s.variance for s in found.sources if s.name == "cell × seed")
    assert (found.parts.variances.seed > 2 * max(0.0, own) + 1e-9) == told
    assert ("the larger of two estimates" in found.advice) == told
