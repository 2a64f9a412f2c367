"""Metrics by the names of their files: what they declare, and one that a user adds as two files, as
the README says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.readme import read_readme_files

import conf.metric
import lightning_modules.metrics
from conf import load, spec
from conf.schema import Evaluation, Run
from lightning_modules.training.checks import check
from lightning_modules.training.run import run


@pytest.fixture
def brightness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The two files, where the packages find them."""
    sources = read_readme_files("Add a metric").values()
    for package, text in zip((conf.metric, lightning_modules.metrics), sources, strict=True):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "brightness.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.brightness", raising=False)
    spec._declared.cache_clear()
    yield
    spec._declared.cache_clear()


def test_an_added_metric_is_found_and_measured_in_a_run(brightness: Any, base: Run, tmp_path: Path):
    changes = {"method": "untouched", "evaluation.metrics": ["brightness"], "evaluation.prompts": 2}
    changes |= {"evaluation.detector": "none", "evaluation.extractor": "none"}
    result = run(load.replace(base, changes), tmp_path / "trial")
    (found,) = (key for key in result["metrics"] if key == "eval/brightness")
    column = pd.read_parquet(tmp_path / "trial" / "scores.parquet")["brightness"]
    assert column.between(0, 255).all() and len(column) == 4
    assert result["metrics"][found] == pytest.approx(column.mean())
    assert result["facts"]["brightness"] == {"images": 4}
    assert "brightness" not in spec.measured_metrics(Evaluation())


def test_an_unknown_metric_is_refused_early(base: Run):
    with pytest.raises(ValueError, match="no metric 'brightnes'.*expected some of"):
        check(load.replace(base, {"evaluation.metrics": ["brightnes"]}))


def test_metrics_are_measured_by_the_settings():
    def measured(**settings: Any) -> set[str]:
        asked = set(spec.measured_metrics(Evaluation(**settings)))
        return {name for name in asked if not spec.metrics()[name].by_methods}

    assert measured() == {"judge", "distribution"}
    assert measured(detector="none", extractor="none") == set()
    assert measured(detector="d.jsonl", aligners=["clip"]) == {
        "geneval",
        "t2i_spatial",
        "distribution",
        "alignment",
    }
    more = {"follow_masks": True, "attention": True, "costs": True}
    assert measured(**more) - measured() == {"mask_adherence", "attention_maps", "cost"}


def test_every_declared_value_has_one_meaning():
    """A key that several metrics give is the same value: label, unit and direction agree."""
    known: dict[str, spec.Metric] = {}
    for metric in spec.metrics().values():
        for output in metric.outputs:
            assert known.setdefault(output.key, output) == output
        assert set(metric.by_split) <= {output.key for output in metric.outputs}
