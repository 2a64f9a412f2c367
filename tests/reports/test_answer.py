from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from reports.answer import QUOTED, Answer, answer
from reports.tables import entries

Study = Callable[[str], Any]


def say(study: Any) -> Answer:
    return answer(study, entries(study))


def only(study: Any, values: dict[str, list[float]]) -> Any:
    """A study with other success values by label, seed by seed; NaN is a seed that is missing."""
    cells = []
    for cell in study.cells:
        given = values.get(cell.label, [t.metrics["success"] for t in cell.trials.values()])
        some = next(iter(cell.trials.values()))
        trials = {
            s: dataclasses.replace(some, seed=s, metrics={"success": v})
            for s, v in enumerate(given)
            if not math.isnan(v)
        }
        cells.append(dataclasses.replace(cell, trials=trials))
    return dataclasses.replace(study, cells=cells)


def test_a_null_result_is_said_as_null(study: Study) -> None:
    said = say(study("threshold"))
    assert said.levels.startswith(
        "No level of gate threshold differs from 0.5 in success by more than its interval: the largest "
    )
    assert said.levels.endswith("at 0.3 (n = 3 seeds).")
    largest = next(
        e
        for e in entries(study("threshold"))
        if e.cell.label == "0.3" and e.metric.key == "success"
    )
    assert largest.wide is not None and f"{largest.wide.mean:+.3f}".replace("-", "−") in said.levels
    assert (
        "Against the untouched backbone, the method at gate threshold 0.5 does not differ"
        in said.method
    )
    assert "all 4 comparisons at once (Bonferroni: 98.75 % each)" in said.rule


def test_a_clear_effect_is_said_with_its_direction(study: Study) -> None:
    said = say(study("clear"))
    assert said.levels.startswith("Compared with hard, success is worse at soft (−0.3")
    assert "the other level does not differ by more than its interval" in said.levels
    assert said.method.startswith(
        "The method at gate threshold hard is better than the untouched backbone in success: +0.2"
    )
    lower = dataclasses.replace(
        study("clear"), headline=dataclasses.replace(study("clear").headline, better="lower")
    )
    assert (
        "is better at soft" in say(lower).levels
        and "is worse than the untouched backbone" in say(lower).method
    )
    neither = dataclasses.replace(
        study("clear"), headline=dataclasses.replace(study("clear").headline, better="none")
    )
    assert "is lower at soft" in say(neither).levels


def test_two_directions_are_told_apart(study: Study) -> None:
    said = say(
        only(
            study("clear"),
            {"hard": [0.5, 0.51, 0.52], "soft": [0.2, 0.211, 0.219], "top_k": [0.8, 0.811, 0.819]},
        )
    )
    assert (
        "success is better at top_k (+0.300 [" in said.levels
        and "and worse at soft (−0.300 [" in said.levels
    )


def test_identical_numbers_are_said_to_be_so(study: Study) -> None:
    assert say(study("same")).text == (
        "The setting changed nothing at all: every level of gate threshold gives the same numbers as 0.5 in every metric and seed "
        "(n = 3 seeds). The method at gate threshold 0.5 gives the same success as the untouched backbone in every seed."
    )


def test_equal_differences_prove_nothing(study: Study) -> None:
    values = {"hard": [0.5, 0.4, 0.6], "soft": [0.3, 0.2, 0.4], "top_k": [0.5, 0.41, 0.6]}
    said = say(only(study("clear"), values))
    assert said.levels.startswith("No level of gate threshold differs from hard")
    assert (
        "at soft all seeds gave the same difference, which has no spread to judge by" in said.levels
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"hard": [], "soft": [0.1]},
            "No answer yet: the baseline level hard has no finished seed",
        ),
        (
            {"hard": [0.5], "soft": [], "top_k": []},
            "No answer yet: no other level than the baseline hard",
        ),
        (
            {"hard": [0.5], "soft": [0.2], "top_k": [0.45]},
            "One seed cannot tell: the largest difference from hard in success is −0.300 at ",
        ),
        (
            {"hard": [0.5, 0.5], "soft": [0.2], "top_k": [0.45, 0.47]},
            "soft cannot be judged by one seed (n = 1 to 2 seeds)",
        ),
    ],
)
def test_too_few_seeds(study: Study, values: dict[str, list[float]], expected: str) -> None:
    base = study("clear")
    cells = [dataclasses.replace(c, trials=dict(c.trials)) for c in base.cells]
    assert expected in say(only(dataclasses.replace(base, cells=cells), values)).levels


def test_unequal_seeds_compare_common_ones_only(study: Study) -> None:
    shifted = only(study("clear"), {"hard": [0.5, 0.6, math.nan], "soft": [0.41, 0.5, 99.0]})
    soft = next(e for e in entries(shifted) if e.cell.label == "soft")
    assert soft.versus is not None and soft.summary is not None
    assert (
        soft.versus.seeds == (0, 1)
        and soft.versus.missing_right == (2,)
        and soft.versus.interval.mean == pytest.approx(-0.095)
    )
    assert soft.summary.n == 3


def test_combinations_are_said_in_full_and_the_largest_alone(study: Study) -> None:
    said = say(study("grid"))
    assert said.levels.startswith(
        "Compared with bias=2.0, surrogate=renormalised, protect=bos, success is worse at bias=0.0, surrogate=released, protect=none (−0.4"
    )
    assert (
        said.levels.count("bias=0.0") == QUOTED
        and "and 2 more; the other 11 combinations do not differ" in said.levels
    )
    assert (
        "the method at bias=2.0, surrogate=renormalised, protect=bos does not differ" in said.method
    )
    assert (
        "Every combination is compared with the baseline combination (bias=2.0, " in said.rule
        and "level" not in said.rule
    )
    null = only(study("grid"), {cell.label: [0.5, 0.6, 0.7] for cell in study("grid").cells})
    assert (
        "every combination of start bias, surrogate and protected tokens gives the same numbers"
        in say(null).levels
    )
