from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from reports.answer.conclusion import Conclusion, conclude, conclude_briefly
from reports.answer.parts import QUOTED
from reports.tables import compare_cells


def answer(results: Any) -> Conclusion:
    return conclude(results, compare_cells(results))


def with_success(results: Any, values: dict[str, list[float]]) -> Any:
    """Results with other success by label, seed by seed; NaN is a seed that is missing."""
    cells = []
    for cell in results.cells:
        own = values.get(cell.label, [t.metrics["success"] for t in cell.trials.values()])
        some = next(iter(cell.trials.values()))
        trials = {
            seed: dataclasses.replace(some, seed=seed, metrics={"success": value})
            for seed, value in enumerate(own)
            if not math.isnan(value)
        }
        cells.append(dataclasses.replace(cell, trials=trials))
    return dataclasses.replace(results, cells=cells)


def with_headline(results: Any, **changes: Any) -> Any:
    headline = dataclasses.replace(results.headline, **changes)
    metrics = [headline if m.key == headline.key else m for m in results.metrics]
    return dataclasses.replace(results, headline=headline, metrics=metrics)


def bounds_of(entry: Any) -> tuple[float, float]:
    return entry.wide.low, entry.wide.high


def test_a_null_result_is_reported_as_one(results: Any, entries: Any) -> None:
    found = answer(results("threshold"))
    success = {e.cell.label: e for e in entries("threshold") if e.metric.key == "success"}
    low, high = (f"{x:+.3f}".replace("-", "−") for x in bounds_of(success["0.4"]))
    assert "success: no difference that matters at 0.3; open at 0.7 (between " in found.levels
    assert f"0.4 (between {low} and {high})" in found.levels and "n = 3 seeds)" in found.levels
    assert "No level changes success by more than 0.135 (95 %, all levels at once)" in found.levels
    assert success["0.4"].verdict.bound == pytest.approx(0.13496, abs=5e-6)
    assert "at gate threshold 0.5 is any better than the untouched backbone is open" in found.method
    rule = " ".join(found.rule)
    assert "all 4 comparisons at once (Bonferroni: 98.75 % each)" in rule
    assert "Images could not be used: its mean over images is not the value" in rule
    assert "those of the levels hold for all 4 at once" in found.brackets
    brief = conclude_briefly(results("threshold"), entries("threshold"))
    assert brief == "no difference that matters: 0.3; open: 0.7, 0.4, 0.6"


def test_a_clear_effect_has_its_direction(results: Any, entries: Any) -> None:
    clear = results("clear")
    found = answer(clear)
    assert found.levels.startswith("Compared with hard, success is worse at soft (−0.3")
    assert "; no difference that matters at top_k (δ = 0.05; n = 3 seeds)" in found.levels
    assert "No level changes success by more than 0.328" in found.levels, "the bound of all"
    assert "gate threshold hard is better than the untouched backbone" in found.method
    assert conclude_briefly(clear, entries("clear")) == (
        "worse: soft; no difference that matters: top_k"
    )
    lower = answer(with_headline(clear, better="lower"))
    assert "is better at soft" in lower.levels and "is worse than the untouched" in lower.method
    assert "is lower at soft" in answer(with_headline(clear, better="none")).levels


def test_two_directions_are_kept_apart(results: Any) -> None:
    values = {"hard": [0.5, 0.51, 0.52], "soft": [0.2, 0.211, 0.219], "top_k": [0.8, 0.811, 0.819]}
    both = with_success(results("clear"), values)
    text = answer(both).levels
    assert "success is better at top_k (+0.300 [" in text and "and worse at soft (−0.300 [" in text
    assert conclude_briefly(both, compare_cells(both)) == "better: top_k; worse: soft"


def test_identical_numbers_are_reported_as_such(results: Any, entries: Any) -> None:
    text = answer(results("same")).text
    assert text.startswith("The setting changed nothing at all")
    assert "gives the same success as the untouched backbone in every seed" in text
    assert conclude_briefly(results("same"), entries("same")) == "changes nothing at all"


def test_equal_differences_prove_nothing(results: Any) -> None:
    values = {"hard": [0.5, 0.4, 0.6], "soft": [0.3, 0.2, 0.4], "top_k": [0.5, 0.41, 0.6]}
    text = answer(with_success(results("clear"), values)).levels
    assert text.startswith("Compared with hard in success: no difference that matters at top_k")
    assert "open at soft (−0.200, without spread to judge it by)" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hard": [], "soft": [0.1]}, "No answer yet: the control level hard has no finished seed"),
        ({"hard": [0.5], "soft": [], "top_k": []}, "No answer yet: no other level"),
        (
            {"hard": [0.5], "soft": [0.2], "top_k": [0.45]},
            "One seed cannot tell: the largest difference from hard in success is −0.300 at soft",
        ),
        (
            {"hard": [0.5, 0.5], "soft": [0.2], "top_k": [0.45, 0.47]},
            "open at soft (one seed: −0.300, without an interval)",
        ),
    ],
)
def test_too_few_seeds(results: Any, values: dict[str, list[float]], expected: str) -> None:
    few = with_success(results("clear"), values)
    assert expected in answer(few).levels


def test_unequal_seeds_compare_common_ones_only(results: Any) -> None:
    values = {"hard": [0.5, 0.6, math.nan], "soft": [0.41, 0.5, 99.0]}
    shifted = with_success(results("clear"), values)
    soft = next(e for e in compare_cells(shifted) if e.cell.label == "soft")
    assert soft.versus is not None and soft.summary is not None
    assert soft.versus.seeds == (0, 1) and soft.versus.missing_right == (2,)
    assert soft.versus.interval.mean == pytest.approx(-0.095) and soft.summary.n == 3


def test_combinations_are_named_in_full_and_the_largest_alone(results: Any) -> None:
    found = answer(results("grid"))
    control = "bias=2.0, surrogate=renormalised, protect=bos"
    worst = "bias=0.0, surrogate=released, protect=none"
    assert found.levels.startswith(f"Compared with {control}, success is worse at {worst} (−0.4")
    assert found.levels.count("bias=0.0") == QUOTED, "those with the largest difference"
    assert "and 2 more; no difference that matters at bias=4.0" in found.levels
    assert f"the method at {control} makes no difference that matters" in found.method
    assert "level" not in " ".join(found.rule)
    null = {cell.label: [0.5, 0.6, 0.7] for cell in results("grid").cells}
    text = answer(with_success(results("grid"), null)).levels
    assert "every combination of start bias, surrogate and protected tokens" in text


def test_with_a_control_for_each_level_all_are_judged(results: Any, entries: Any) -> None:
    found = answer(results("blocks"))
    assert "open at recipe=maskattn, preset=released (−0.050, without spread" in found.text
    assert "Compared with sound of the same method in success" in found.text
    for method, gain in (("maskattn", "+0.10"), ("mcgm", "+0.30")):
        at = f"The method at recipe={method}, preset=sound"
        assert f"{at} is better than the untouched backbone in success: {gain}" in found.text
    rule = " ".join(found.rule)
    assert "(sound of the same method)" in rule
    assert "by 2 intervals that are widened to hold at once" in rule, "helps at all, over controls"
