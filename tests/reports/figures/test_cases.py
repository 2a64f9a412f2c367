from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports.figures.cases import draw_cases, explain_no_cases, find_cases, pick_cases

YES, NO, BOTH = (True, False), (False, True), (True, True)


def test_cases_are_picked_by_the_stated_rule() -> None:
    outcomes = {
        "a": [YES, NO, NO],
        "b": [BOTH] * 3,
        "c": [YES, YES, (False, False)],
        "d": [YES, NO, YES],
        "e": [YES, YES, YES],
    }
    won = pick_cases(outcomes, [0, 1, 5], YES)
    assert won == {"e": [0, 1, 5], "c": [0, 1], "d": [0, 5]}
    assert list(won) == ["e", "c", "d"]  # Equals in the order of the plan
    assert pick_cases(outcomes, [0, 1, 5], NO) == {"a": [1, 5], "d": [1]}
    assert pick_cases({"b": [BOTH]}, [0], YES) == {}


def judge(cell: Any, right: Callable[[int, int], bool]) -> Any:
    """The cell with outcomes of its images: seed, index -> whether it is right."""
    trials = {}
    for seed, trial in cell.trials.items():
        success = [right(seed, i) for i in range(len(trial.samples.ids))]
        samples = dataclasses.replace(trial.samples, success=success)
        trials[seed] = dataclasses.replace(trial, samples=samples)
    return dataclasses.replace(cell, trials=trials)


def test_the_control_stands_beside_the_untouched_backbone(
    results: Any, tmp_path: Path, written: Any
) -> None:
    threshold = results("threshold")
    backbone = judge(threshold.untouched, lambda seed, i: i == 1 and seed == 2)
    method = judge(threshold.control, lambda seed, i: i in (0, 17) and seed < 2)
    odd = dataclasses.replace(threshold, cells=[backbone, method])
    cases = find_cases(odd)
    assert cases is not None and cases.kept == 12 and cases.seeds == (0, 1, 2)
    assert cases.won == {"val/0#0": [0, 1], "heldout/1#0": [0, 1]}
    assert cases.lost == {"val/1#0": [2]} and explain_no_cases(odd, cases) == ""
    picture = draw_cases(odd, cases, tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    assert picture.caption.startswith("2 best and 1 worst cases of 0.5 (right of each pair)")
    assert "against the untouched backbone (left)" in picture.caption
    assert "N = 12 images that both kept at seeds 0, 1, 2" in picture.caption
    texts = [text for _, _, text in written]
    won, lost = ["seed 0: won", "seed 1: won", "seed 2"], ["seed 0", "seed 1", "seed 2: lost"]
    assert [text for text in texts if text.startswith("seed")] == [*won, *won, *lost]
    assert sum(text.startswith("won at 2 of 3 seeds\n") for text in texts) == 2
    assert sum(text.startswith("lost at 1 of 3 seeds\n") for text in texts) == 1
    assert texts.count("✓") == 2 * 2 + 1 and texts.count("✗") == 3 * 3 * 2 - 5


def test_only_losses_are_reported_as_such(results: Any, tmp_path: Path) -> None:
    threshold = results("threshold")
    backbone = judge(threshold.untouched, lambda seed, i: i == 0)
    method = judge(threshold.control, lambda seed, i: False)
    odd = dataclasses.replace(threshold, cells=[backbone, method])
    caption = draw_cases(odd, find_cases(odd), tmp_path).caption
    assert caption.startswith("1 worst case of 0.5") and caption.endswith(
        "none was won in any seed."
    )


def test_targets_are_outlined_and_explained(results: Any, tmp_path: Path) -> None:
    for name, outlined in (("grid", True), ("threshold", False)):
        picture = draw_cases(results(name), find_cases(results(name)), tmp_path)
        assert picture is not None and ("Outlines" in picture.caption) == outlined


def test_no_case_is_reported_as_none(results: Any, tmp_path: Path) -> None:
    threshold = results("threshold")
    cells = [judge(c, lambda seed, i: i % 2 == 0) for c in (threshold.untouched, threshold.control)]
    same = dataclasses.replace(threshold, cells=cells)
    cases = find_cases(same)
    assert draw_cases(same, cases, tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
    text = explain_no_cases(same, cases)
    assert "there are none: of the 12 images" in text and "0.5 and the untouched backbone" in text
    assert find_cases(results("clear")) is None
    assert explain_no_cases(results("clear"), None) == ""


def test_without_an_untouched_backbone_the_farthest_level_is_shown(results: Any) -> None:
    threshold = results("threshold")
    levels = [cell for cell in threshold.levels if cell.label != "0.6"]
    base = threshold.control.per_seed("success")
    shifts = {
        cell.label: abs(sum(cell.per_seed("success")[seed] - base[seed] for seed in base))
        for cell in levels
    }
    cases = find_cases(dataclasses.replace(threshold, cells=levels))
    assert cases is not None and cases.base.label == "0.5"
    assert cases.cell.label == max(shifts, key=lambda label: shifts[label])


def test_of_many_seeds_those_that_were_won_are_shown_first(
    results: Any, tmp_path: Path, written: Any
) -> None:
    threshold = results("threshold")

    def with_five_seeds(cell: Any) -> Any:
        trials = {s: dataclasses.replace(cell.trials[s % 3], seed=s) for s in range(5)}
        return dataclasses.replace(cell, trials=trials)

    backbone = judge(with_five_seeds(threshold.untouched), lambda seed, i: False)
    method = judge(with_five_seeds(threshold.control), lambda s, i: i == 0 and s in (1, 4))
    many = dataclasses.replace(threshold, cells=[backbone, method], seeds=list(range(5)))
    picture = draw_cases(many, find_cases(many), tmp_path)
    assert picture is not None and "of 5 seeds 3 are shown" in picture.caption
    assert "none was lost" in picture.caption
    texts = [text for _, _, text in written if text.startswith("seed")]
    assert texts == ["seed 0", "seed 1: won", "seed 4: won"]
