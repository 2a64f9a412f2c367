"""What a sweep may be, and its cells."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from sweeps.sweep import UNTOUCHED, Factor, Metric, Sweep
from sweeps.threshold import SWEEP


def grid() -> Sweep:
    factors = [
        Factor("method.gate.stage", ["mid", "all"]),
        Factor("method.gate.bias", [0.0, 2.0], when="evaluate"),
    ]
    control = {"method.gate.stage": "all", "method.gate.bias": 2.0}
    return replace(SWEEP, factors=factors, control=control)


def within() -> Sweep:
    settings: dict[str, dict[str, Any]] = {
        "a": {"trainer.steps": 7},
        "b": {"trainer.steps": 9, "method": "mcgm"},
        "c": {},
    }
    factors = [
        Factor("recipe", ["a", "b"], settings=settings),
        Factor("method.gate.bias", [0.0, 2.0, 4.0]),
    ]
    levels = {"recipe": "b", "method.gate.bias": 4.0}
    also = [(levels, {"trainer.lr": 0.5, "method": "mcgm_released"})]
    control = {"method.gate.bias": 2.0}
    return replace(SWEEP, factors=factors, control=control, within="recipe", also=also)


def texts(sweep: Sweep, **words: Any) -> list[str]:
    return [cell.text for cell in sweep.cells(**words)]


def test_cells_are_the_product_with_the_untouched_backbone_first() -> None:
    cells = grid().cells()
    products = [f"stage={stage}, bias={bias}" for stage in ("mid", "all") for bias in (0.0, 2.0)]
    assert texts(grid()) == [UNTOUCHED, *products]
    assert [cell.control for cell in cells] == [False] * 4 + [True]
    assert [cell.untouched for cell in cells] == [True] + [False] * 4
    assert cells[1].training == {"method.gate.stage": "mid"}
    assert cells[1].evaluation == {"method.gate.bias": 0.0}
    late = grid().cells(when="evaluate")[1]
    assert late.training == {} and len(late.evaluation) == 2
    assert cells[1].folder(2) == "stage=mid,bias=0.0-seed2"
    assert cells[0].folder(0) == "untouched-backbone-seed0"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"mode": "one_factor"}, ["stage=mid, bias=2.0", "stage=all, bias=0.0"]),
        ({"mode": "list", "names": ["stage=mid, bias=0.0"]}, ["stage=mid, bias=0.0"]),
        ({"mode": "search"}, []),
    ],
)
def test_modes_select_cells_and_keep_control_and_untouched(words: Any, expected: list[str]) -> None:
    assert set(texts(grid(), **words)) == {UNTOUCHED, "stage=all, bias=2.0", *expected}


def test_a_list_may_name_numbers_between_the_levels() -> None:
    named = ["stage=mid, bias=1.5"]
    assert named[0] in texts(grid().with_named(named), mode="list", names=named)
    with pytest.raises(ValueError, match="no cell of that name"):
        grid().cells(mode="list", names=named)
    for name, message in {
        "stage=mid": "expected stage=…, bias=…",
        "stage=low, bias=0.0": "stage=low; expected one of mid, all",
        "stage=mid, bias=x": "bias=x; expected a number",
    }.items():
        with pytest.raises(ValueError, match=message):
            grid().with_named([name])


def test_combinations_that_are_left_out_have_no_cell() -> None:
    without = [{"method.gate.stage": "mid", "method.gate.bias": 0.0}]
    sweep = replace(grid(), without=without)
    assert texts(sweep) == [text for text in texts(grid()) if text != "stage=mid, bias=0.0"]


@pytest.mark.parametrize(
    ("sweep", "change", "message"),
    [
        (grid(), {"without": [{"method.gate.stag": "mid"}]}, "is none of the factors"),
        (grid(), {"without": [{"method.gate.stage": "high"}]}, "high is none of mid, all"),
        (
            grid(),
            {"without": [{"method.gate.stage": "all", "method.gate.bias": 2.0}]},
            "that is the control",
        ),
        (grid(), {"without": [{"method.gate.bias": 2.0}]}, "that is the control"),
        (grid(), {"without": [{}]}, "that is the control"),
        (grid(), {"without": [{"method.gate.stage": "mid"}]}, "leaves no cell of method.gate.sta"),
        (SWEEP, {"name": "Threshold/v2"}, "module name"),
        (SWEEP, {"factors": []}, "factors (none); give one or more"),
        (SWEEP, {"control": {}}, "expected exactly method.gate.threshold"),
        (SWEEP, {"control": {"method.gate.threshold": 0.55}}, "0.55 is none of 0.3, 0.4"),
        (SWEEP, {"baseline": {"method.gate.threshold": 0.5}}, "called control= now"),
        (SWEEP, {"headline": "beauty"}, "'beauty' is none of the metrics"),
        (SWEEP, {"headline": "gate_closed"}, "no better direction"),
        (SWEEP, {"metrics": [Metric("success", "Success")] * 2}, "each given once"),
        (within(), {"within": "preset"}, "within='preset'; expected one of several factors"),
        (within(), {"control": {"recipe": "a", "method.gate.bias": 2.0}}, "expected exactly"),
        (within(), {"without": [{"recipe": "a", "method.gate.bias": 2.0}]}, "that is the control"),
        (within(), {"also": [({"recipe": "z"}, {})]}, "recipe=z is none of a, b, c"),
    ],
)
def test_a_sweep_whose_parts_do_not_fit_is_refused(
    sweep: Sweep, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(sweep, **change)


def test_unknown_words_and_levels_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="each once"):
        Factor("a", [0.5, 0.5])
    with pytest.raises(ValueError, match="'evaluate'"):
        Factor("a", [1], when="later")
    with pytest.raises(ValueError, match="no settings for the level d"):
        Factor("a", ["d"], settings={"c": {}})


def test_factors_with_one_ending_get_longer_names() -> None:
    control = {"data.name": "shapes", "backbone.name": "embedded"}
    factors = [Factor(key, [level]) for key, level in control.items()]
    cells = replace(SWEEP, factors=factors, control=control).cells()
    assert cells[1].text == "data.name=shapes, backbone.name=embedded"


def test_folders_of_levels_that_differ_only_in_odd_characters_differ() -> None:
    cells = replace(SWEEP, factors=[Factor("k", ["a/b", "a b"])], control={"k": "a b"}).cells()
    assert len({cell.folder(0) for cell in cells}) == 3


@pytest.mark.parametrize("key", ["method.name", "method"])
def test_a_sweep_of_methods_uses_its_own_untouched_backbone(key: str) -> None:
    factors = [Factor(key, ["untouched", "maskattn"])]
    cells = replace(SWEEP, factors=factors, control={key: "maskattn"}).cells()
    assert [cell.untouched for cell in cells] == [True, False] and len(cells) == 2
    (control, _) = replace(SWEEP, factors=factors, control={key: "untouched"}).cells()
    assert control.control and not control.untouched


def test_other_levels_keep_the_control_and_are_sorted() -> None:
    assert SWEEP.with_levels([0.9, 0.2]).factors[0].levels == (0.2, 0.5, 0.9)
    with pytest.raises(ValueError, match="single factor"):
        grid().with_levels([1])


def test_levels_that_are_lists_read_as_words() -> None:
    factor = Factor("data.concepts", [[], ["yellow square", "cyan ring"]])
    words = ["none", "yellow square+cyan ring"]
    assert factor.describe()["levels"] == words
    cells = replace(SWEEP, factors=[factor], control={"data.concepts": []}).cells()
    assert [cell.text for cell in cells[1:]] == [f"concepts={word}" for word in words]
    assert Factor("k", [0.5, True, None]).describe()["levels"] == [0.5, True, None]
    assert Factor("k", [1, 2.5]).numeric and not Factor("k", [1, True]).numeric


def test_each_level_of_within_has_a_control_of_its_own() -> None:
    sweep, cells = within(), within().cells()
    controls = [cell for cell in cells if cell.control]
    assert [cell.text for cell in controls] == ["recipe=a, bias=2.0", "recipe=b, bias=2.0"]
    assert [cell.training for cell in cells if "trainer.lr" in cell.training] == [
        {"trainer.steps": 9, "method": "mcgm_released", "method.gate.bias": 4.0, "trainer.lr": 0.5}
    ]
    compared = {
        cell.text: getattr(sweep.control_of(cell, controls), "text", None) for cell in cells
    }
    assert compared["recipe=b, bias=0.0"] == "recipe=b, bias=2.0"
    assert compared["recipe=a, bias=4.0"] == "recipe=a, bias=2.0"
    assert compared[UNTOUCHED] is None and compared["recipe=a, bias=2.0"] is None
    assert sweep.cells(mode="one_factor") == cells
    others = [f"recipe=c, bias={bias}" for bias in (0.0, 2.0, 4.0)]
    assert texts(sweep.with_levels(["c"]))[1:] == others
