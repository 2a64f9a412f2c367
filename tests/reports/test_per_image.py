"""What each image adds to a metric, read from scores.parquet."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.collect import read_samples
from reports.per_image import linearise, metric_values
from reports.results import ReportedMetric, Samples

ROWS: dict[str, list[Any]] = {
    "split": ["val"] * 4 + ["heldout"] * 2,
    "id": ["0", "0", "1", "1", "0", "1"],
    "prompt": list("aabbcd"),
    "noise": [1, 2, 3, 4, 5, 6],
    "number": [0, 1, 0, 1, 0, 0],
    "objects": [1, 1, 2, 2, None, 3],
    "skill": [None, None, "binding", "binding", None, "binding count"],
    "image": list("uvwxyz"),
    "sample": [None] * 6,
    "mask": [None] * 6,
    "success": [True, False, True, None, True, False],
    "turn_error": [10.0, math.nan, 40.0, 20.0, 5.0, 8.0],
    "found_targets": [1, 0, 1, 2, 1, 3],
    "remark": list("uvwxyz"),
}


def read(folder: Path, **changes: Any) -> Samples:
    pd.DataFrame(ROWS | changes).to_parquet(folder / "scores.parquet")
    return read_samples(folder / "scores.parquet", "run")


def metric(key: str, weight: str = "") -> ReportedMetric:
    return ReportedMetric(key, key, "higher", "", weight)


def test_tables_are_read_with_their_facts(tmp_path: Path):
    samples = read(tmp_path)
    assert samples.objects == [1, 1, 2, 2, None, 3] and samples.skills == ROWS["skill"]
    assert samples.columns.keys() == {"success", "turn_error", "found_targets"}
    assert samples.columns["success"] == [1, 0, 1, None, 1, 0]
    assert samples.columns["turn_error"] == [10, None, 40, 20, 5, 8]


def test_a_plain_mean_has_the_values_of_the_images_that_have_one(tmp_path: Path):
    samples = read(tmp_path)
    values = metric_values(samples, metric("success"))
    names = ["val/0#0", "val/0#1", "val/1#0", "heldout/0#0", "heldout/1#0"]
    assert values == dict(zip(names, [1, 0, 1, 1, 0], strict=True))
    assert metric_values(samples, metric("success_heldout")) == {
        "heldout/0#0": 1,
        "heldout/1#0": 0,
    }
    assert [*metric_values(samples, metric("success"), {"val/0"})] == names[:2]
    assert metric_values(samples, metric("fid")) == {}
    assert metric_values(samples, metric("fid_heldout")) == {}


def test_the_values_of_a_ratio_have_it_as_their_mean(tmp_path: Path):
    samples, turn = read(tmp_path), metric("turn_error", "found_targets")
    values = metric_values(samples, turn)
    ratio = (10 + 40 + 2 * 20 + 5 + 3 * 8) / 8
    assert len(values) == 6 and fmean(values.values()) == pytest.approx(ratio)
    assert values["val/0#1"] == pytest.approx(ratio), "nothing was found: it moves nothing"
    val = metric_values(samples, metric("turn_error_val", "found_targets"))
    assert len(val) == 4 and fmean(val.values()) == pytest.approx((10 + 40 + 40) / 4)
    assert metric_values(samples, metric("turn_error", "nowhere")) == {}


def test_the_variance_of_linearised_values_is_that_of_the_ratio():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, (2000, 60))
    values = rng.normal(10 + 3 * weights, 2)
    ratios = [np.average(x, weights=w) for x, w in zip(values, weights, strict=True)]
    linear = [linearise(*rows) for rows in zip(values.tolist(), weights.tolist(), strict=True)]
    assert np.allclose(np.mean(linear, 1), ratios)
    told = np.mean(np.var(linear, axis=1, ddof=1)) / 60
    assert told == pytest.approx(np.var(ratios), rel=0.05)
    plain = np.mean(np.var(values * weights / weights.mean(), axis=1, ddof=1)) / 60
    assert plain > 5 * told


def test_equal_weights_change_nothing():
    assert linearise([0.1, 0.7], [3, 3]) == [0.1, 0.7]
    assert linearise([None, None], [0, 0]) == []


def test_older_tables_have_the_columns_that_they_have(tmp_path: Path):
    old = {key: ROWS[key] for key in ("split", "id", "prompt", "sample", "mask", "success")}
    pd.DataFrame(old).to_parquet(tmp_path / "old.parquet")
    samples = read_samples(tmp_path / "old.parquet", "run")
    assert samples.objects == samples.skills == [None] * 6
    assert samples.columns.keys() == {"success"}
    assert metric_values(samples, metric("turn_error", "found_targets")) == {}
