from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports import cases

YES, NO = (True, False), (False, True)


def test_cases_are_picked_by_the_stated_rule() -> None:
    outcomes = {
        "a": [YES, NO, NO], "b": [(True, True)] * 3, "c": [YES, YES, (False, False)], "d": [YES, NO, YES], "e": [YES, YES, YES],
    }  # fmt: skip
    assert cases.pick(outcomes, [0, 1, 5], YES) == {
        "e": [0, 1, 5],
        "c": [0, 1],
        "d": [0, 5],
    }  # equals in the order of the plan
    assert list(cases.pick(outcomes, [0, 1, 5], YES)) == ["e", "c", "d"]
    assert cases.pick(outcomes, [0, 1, 5], NO) == {"a": [1, 5], "d": [1]}
    assert cases.pick({"b": [(True, True)]}, [0], YES) == {}


def judged(study: Any, cell: Any, right: Callable[[int, int], bool]) -> Any:
    """The cell with outcomes of its images: seed, place -> whether it is right."""
    trials = {
        seed: dataclasses.replace(
            t,
            samples=dataclasses.replace(
                t.samples, success=[right(seed, i) for i in range(len(t.samples.ids))]
            ),
        )
        for seed, t in cell.trials.items()
    }
    return dataclasses.replace(cell, trials=trials)


def among(study: Any, *cells: Any) -> Any:
    return dataclasses.replace(study, cells=list(cells))


def test_the_baseline_cell_stands_beside_the_untouched_backbone(
    study: Callable[[str], Any], tmp_path: Path, said: list[str]
) -> None:
    threshold = study("threshold")
    backbone = judged(threshold, threshold.reference, lambda seed, i: i == 1 and seed == 2)
    method = judged(threshold, threshold.baseline, lambda seed, i: i in (0, 17) and seed < 2)
    odd = among(threshold, backbone, method)
    found = cases.find(odd)
    assert found is not None and found.kept == 12 and found.seeds == (0, 1, 2)
    assert found.won == {"val/0#0": [0, 1], "heldout/1#0": [0, 1]} and found.lost == {
        "val/1#0": [2]
    }
    picture = cases.cases(odd, found, tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    assert picture.caption.startswith(
        "2 best and 1 worst cases of 0.5 (right of each pair) against the untouched backbone (left)"
    )
    assert (
        "among the N = 12 images that both kept at seeds 0, 1, 2" in picture.caption
        and cases.none(odd, found) == ""
    )
    assert [text for text in said if text.startswith("seed")] == [
        "seed 0: won",
        "seed 1: won",
        "seed 2",
    ] * 2 + [
        "seed 0",
        "seed 1",
        "seed 2: lost",
    ]
    assert sum(text.startswith("won at 2 of 3 seeds\n") for text in said) == 2
    assert sum(text.startswith("lost at 1 of 3 seeds\n") for text in said) == 1
    assert said.count("✓") == 2 * 2 + 1 and said.count("✗") == 3 * 3 * 2 - 5


def test_only_losses_are_said_as_such(study: Callable[[str], Any], tmp_path: Path) -> None:
    threshold = study("threshold")
    odd = among(
        threshold,
        judged(threshold, threshold.reference, lambda seed, i: i == 0),
        judged(threshold, threshold.baseline, lambda *_: False),
    )
    caption = cases.cases(odd, cases.find(odd), tmp_path).caption
    assert caption.startswith("1 worst case of 0.5") and caption.endswith(
        "; none was won in any seed."
    )


def test_targets_are_outlined_and_explained(study: Callable[[str], Any], tmp_path: Path) -> None:
    grid = study("grid")
    steered, plain = (
        cases.cases(one, cases.find(one), tmp_path) for one in (grid, study("threshold"))
    )
    assert steered is not None and steered.caption.endswith(
        "Outlines: where the objects should be."
    )
    assert plain is not None and "Outlines" not in plain.caption


def test_none_is_said_as_none(study: Callable[[str], Any], tmp_path: Path) -> None:
    threshold = study("threshold")
    same = among(
        threshold,
        *(
            judged(threshold, cell, lambda seed, i: i % 2 == 0)
            for cell in (threshold.reference, threshold.baseline)
        ),
    )
    found = cases.find(same)
    assert cases.cases(same, found, tmp_path / "none") is None and not (tmp_path / "none").exists()
    assert (
        "there are none: of the 12 images that were kept, 0.5 and the untouched backbone"
        in cases.none(same, found)
    )
    assert cases.find(study("clear")) is None and cases.none(study("clear"), None) == ""


def test_where_the_backbone_is_the_baseline_the_level_farthest_from_it_is_shown(
    study: Callable[[str], Any],
) -> None:
    threshold = study("threshold")
    levels = [cell for cell in threshold.levels if cell.label != "0.6"]
    key = threshold.headline.key
    base = threshold.baseline.per_seed(key)
    shifts = {c.label: abs(sum(c.per_seed(key)[s] - base[s] for s in base)) for c in levels}
    found = cases.find(among(threshold, *levels))
    assert (
        found is not None
        and found.base.label == "0.5"
        and found.cell.label == max(shifts, key=lambda label: shifts[label])
    )


def test_of_many_seeds_those_that_were_won_are_shown_first(
    study: Callable[[str], Any], tmp_path: Path, said: list[str]
) -> None:
    threshold = study("threshold")

    def five(cell: Any) -> Any:
        return dataclasses.replace(
            cell,
            trials={
                seed: dataclasses.replace(cell.trials[seed % 3], seed=seed) for seed in range(5)
            },
        )

    left = judged(threshold, five(threshold.reference), lambda *_: False)
    right = judged(threshold, five(threshold.baseline), lambda seed, i: i == 0 and seed in (1, 4))
    many = dataclasses.replace(among(threshold, left, right), seeds=list(range(5)))
    picture = cases.cases(many, cases.find(many), tmp_path)
    assert (
        picture is not None
        and "of 5 seeds 3 are shown, those won or lost before others; none was lost"
        in picture.caption
    )
    assert [text for text in said if text.startswith("seed")] == [
        "seed 0",
        "seed 1: won",
        "seed 4: won",
    ]
