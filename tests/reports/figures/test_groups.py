from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_results import SUCCESS
from helpers.image_sweeps import SCORE, make_sweep

from reports.figures import groups
from reports.image_tables import build_table
from reports.results import ReportedMetric
from reports.statistics import compare_cells

PROMPTS = 40
OBJECTS = [1] * 10 + [2] * 20 + [3] * 8 + [4] * 2
SKILLS = ["binding relation"] * 12 + ["binding"] * 18 + [None] * 10


def make(metric: ReportedMetric = SCORE, seeds: int = 3, **facts: Any) -> Any:
    rng = np.random.default_rng(0)
    base = rng.random((seeds, PROMPTS))
    shift = np.where(np.arange(PROMPTS) < 12, 0.5, 0.0)
    levels = {
        "a": base,
        "b": base + shift + 0.02 * rng.random((seeds, PROMPTS)),
        "c": base + 0.02 * rng.random((seeds, PROMPTS)),
    }
    if metric.bounds:
        levels = {name: (values > 0.5).astype(float) for name, values in levels.items()}
    facts = {"objects": OBJECTS, "skills": SKILLS} | facts
    return make_sweep(levels, "a", metric=metric, untouched=levels["a"] * 0.9, **facts)


def find(results: Any) -> tuple[Any, list[groups.Panel]]:
    table = build_table(results, results.headline)
    return table, groups.find_panels(table, results.control.trials[0].samples)


def test_prompts_are_grouped_by_objects_and_by_each_of_their_skills() -> None:
    table, (objects, skills) = find(make())
    assert [(g.label, len(g.places)) for g in objects.groups] == [("1", 10), ("2", 20), ("3", 8)]
    assert objects.ordered and objects.few == ("4",)
    assert [(g.label, len(g.places)) for g in skills.groups] == [
        ("binding", 30),
        ("relation", 12),
        ("none", 10),
    ]
    assert skills.groups[1].places == tuple(range(12)) and not skills.ordered


@pytest.mark.parametrize(
    ("facts", "titles"),
    [
        ({"objects": [], "skills": []}, []),
        ({"objects": [2] * PROMPTS, "skills": [None] * PROMPTS}, []),
        ({"skills": []}, ["Objects that the prompt names"]),
        ({"objects": [None] * PROMPTS}, ["What the prompt asks for"]),
        (
            {"objects": [], "atoms": [3] * 20 + [5] * 20},
            ["Parts that the prompt is made of", "What the prompt asks for"],
        ),
        ({"objects": [], "skills": ["one"] * PROMPTS}, []),
    ],
)
def test_there_is_a_panel_where_prompts_differ(
    facts: dict[str, Any], titles: list[str], tmp_path: Path
) -> None:
    results = make(**facts)
    table, panels = find(results)
    assert [panel.title for panel in panels] == titles
    assert (groups.draw_groups(results, table, tmp_path) is None) == (not titles)


def test_a_group_is_compared_by_the_rule_of_the_answer() -> None:
    """Three comparisons in 8 groups: level 1 − .05/8, as independent."""
    results = make()
    table, (_, skills) = find(results)
    relation = skills.groups[1]
    found = groups.compare_group(results, table, relation, 8)
    y = {name: {s: row[:12] for s, row in rows.items()} for name, rows in table.y.items()}
    del y["untouched backbone"]
    pairs = [("b", "a"), ("c", "a")]
    expected = compare_cells(y, level=1 - 0.05 / 8, rho=0.0, pairs=pairs).comparisons
    assert [(d.cell, d.mean, d.low, d.high) for d in found] == [
        (c.cell, c.mean, c.low, c.high) for c in expected
    ]
    assert [d.differs for d in found] == [True, True]
    none = groups.compare_group(results, table, skills.groups[2], 8)
    assert abs(none[0].mean) < 0.05


def test_a_mean_has_an_interval_of_its_own() -> None:
    """All images right: no interval without width, none beyond 1; one wrong of 12 in each of three
    seeds: the same seeds and prompts give what a comparison with nothing gives."""
    results = make_sweep({"a": np.ones((3, 12)), "b": np.zeros((3, 12))}, "a", objects=[2] * 12)
    table = build_table(results, SUCCESS)
    group = groups.Group("2", tuple(range(12)))
    mean, low, high = groups.average_group(table, "a", group)
    assert (mean, high) == (1.0, 1.0) and 0.7 < low < 0.95
    assert groups.average_group(table, "b", group)[:2] == (0.0, 0.0)
    values = np.ones((3, 12))
    values[[0, 1, 2], [0, 1, 2]] = 0
    table = build_table(make_sweep({"a": values, "b": values}, "a"), SUCCESS)
    mean, low, high = groups.average_group(table, "a", group)
    pair = compare_cells([np.zeros((3, 12)), values], binary=True).comparisons[0]
    assert (mean, low) == pytest.approx((33 / 36, pair.low)) and high == min(1.0, pair.high)


def test_the_caption_names_what_differs_and_where(tmp_path: Path) -> None:
    results = make()
    picture = groups.draw_groups(results, build_table(results, SCORE), tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    assert "b in “relation”" in picture.caption and "all levels and 6 groups" in picture.caption
    assert "4 (objects that the prompt names)" in picture.caption
    alone = make(seeds=1)
    picture = groups.draw_groups(alone, build_table(alone, SCORE), tmp_path)
    assert picture is not None and "nothing of another training" in picture.caption
    assert "No level differs from the control in any group" in picture.caption


def test_few_cells_are_drawn_of_many() -> None:
    rng = np.random.default_rng(0)
    levels = {f"l{i}": rng.random((2, 10)) * 0.1 + 0.05 * i for i in range(10)}
    untouched = 0.2 + 0.01 * rng.random((2, 10))
    results = make_sweep(levels, "l4", metric=SCORE, untouched=untouched)
    drawn = groups.select_cells(results, build_table(results, SCORE))
    labels = [cell.label for cell in drawn]
    assert labels == ["untouched backbone", "l0", "l1", "l4", "l8", "l9"]


def test_a_ratio_and_prompts_of_each_seed_have_no_groups(tmp_path: Path) -> None:
    import dataclasses

    results = make()
    table = build_table(results, SCORE)
    own = dataclasses.replace(table, own_prompts=True)
    ratio = dataclasses.replace(table, metric=dataclasses.replace(SCORE, weight="objects"))
    for odd in (own, ratio, None):
        assert groups.draw_groups(results, odd, tmp_path) is None
