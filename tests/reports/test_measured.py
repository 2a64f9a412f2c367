"""What numbers were measured with: said in the report, and never mixed in one column."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.collect import _refuse, _samples
from reports.images import image_grid
from reports.sections import _images_table, measured
from reports.study import ReportError, Samples, Study


@pytest.fixture
def told(study: Callable[[str], Any]) -> Callable[..., Study]:
    """The sweep ``threshold`` with facts that ``facts(cell number, seed)`` gives of each trial."""

    def make(facts: Callable[[int, int], dict[str, Any]]) -> Study:
        changed = copy(study("threshold"))
        changed.cells, changed.refused = [copy(cell) for cell in changed.cells], {}
        for i, cell in enumerate(changed.cells):
            cell.trials = {seed: copy(trial) for seed, trial in cell.trials.items()}
            for seed, trial in cell.trials.items():
                trial.facts = facts(i, seed)
        return changed

    return make


def test_one_way_of_measuring_is_said_once_for_all_its_metrics(told: Callable[..., Study]):
    way = {"extractor": "judge", "n_real": 64, "k": 3}
    study = told(lambda i, seed: {"fid": way, "recall": way, "success": {"detector": "judge"}})
    _refuse(study)
    heading, pairs = measured(study)
    assert heading["text"] == "How it was measured" and not study.refused
    labels = {metric.key: metric.label for metric in study.metrics}
    said = {frozenset(names.split(", ")): text for names, text in pairs["pairs"]}
    assert said[frozenset({labels["recall"], labels["fid"]})] == "extractor judge; n real 64; k 3"
    assert [labels["success"], "detector judge"] in pairs["pairs"]
    assert measured(told(lambda i, seed: {})) == []


def test_fids_of_different_n_never_stand_in_one_column(told: Callable[..., Study]):
    study = told(
        lambda i, seed: {
            "fid": {"extractor": "judge", "n_fake": 64 if i == 2 and seed == 1 else 128}
        }
    )
    label = next(metric.label for metric in study.metrics if metric.key == "fid")
    _refuse(study)
    assert "fid" not in [metric.key for metric in study.metrics]
    assert study.refused == {
        label: "measured in different ways (n_fake 128 and 64), which cannot stand in one column"
    }
    assert [label, f"not shown: {study.refused[label]}"] in measured(study)[1]["pairs"]


def test_facts_that_some_trials_lack_are_a_difference_too(told: Callable[..., Study]):
    study = told(lambda i, seed: {"fid": {"extractor": "judge"}} if i else {})
    _refuse(study)
    assert "fid" not in [metric.key for metric in study.metrics]


def test_a_headline_of_different_ways_leaves_no_answer(told: Callable[..., Study]):
    study = told(lambda i, seed: {"success": {"detector": "judge" if i else "another"}})
    study.headline = next(metric for metric in study.metrics if metric.key == "success")
    with pytest.raises(
        ReportError, match='detector "another" and "judge".*: run it with one way of measuring'
    ):
        _refuse(study)


def test_several_images_of_a_prompt_count_as_their_mean():
    nothing: list[None] = [None] * 3
    samples = Samples(
        ["val/1#0", "val/1#1", "val/2#0"],
        ["a", "a", "b"],
        ["val"] * 3,
        nothing,
        [True, False, True],
        nothing,
        nothing,
    )
    assert samples.by_prompt() == {"val/1": 0.5, "val/2": 1.0}


def test_images_that_nobody_judged_are_neither_right_nor_wrong(
    tmp_path: Path, study: Callable[[str], Any]
):
    columns = {"split": "val", "id": ["1", "2", "3"], "prompt": "a", "sample": None, "mask": None}
    pd.DataFrame(columns | {"success": pd.Series([True, None, False], dtype=object)}).to_parquet(
        tmp_path / "some.parquet"
    )
    pd.DataFrame(columns).to_parquet(tmp_path / "none.parquet")
    some, none = (_samples(tmp_path / f"{name}.parquet", "run") for name in ("some", "none"))
    assert some.success == [True, None, False] and some.by_prompt() == {"val/1": 1.0, "val/3": 0.0}
    assert none.success == [None] * 3 and none.by_prompt() == {}


def test_a_sweep_without_a_judge_has_a_report(study: Callable[[str], Any], tmp_path: Path):
    changed = copy(study("threshold"))
    changed.cells = [copy(cell) for cell in changed.cells]
    for cell in changed.cells:
        cell.trials = {seed: copy(trial) for seed, trial in cell.trials.items()}
        for trial in cell.trials.values():
            trial.samples = replace(trial.samples, success=[None] * len(trial.samples.ids))
    assert _images_table(changed) is None
    picture = image_grid(changed, tmp_path)
    assert picture is not None and "✓" not in picture.caption
