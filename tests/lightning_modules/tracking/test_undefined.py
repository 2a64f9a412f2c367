"""NaN and infinity are nowhere stored as numbers, and what is undefined is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf.files import to_json
from lightning_modules.evaluation.evaluate import EvaluationResult
from lightning_modules.evaluation.images import ImageStore
from lightning_modules.metrics.alignment import AlignmentScorer
from lightning_modules.tracking.mlflow import SeedRun, Tracking, client
from lightning_modules.tracking.undefined import is_defined, split_undefined
from lightning_modules.training.run import _write
from reports.results import split_undefined as split_stored
from sweeps.engine.bookkeeping import ResultError, metric_of

INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


def tracked(tmp_path: Path, uri: str) -> Tracking:
    experiment = client(uri).create_experiment(
        tmp_path.name, artifact_location=(tmp_path / "a").as_uri()
    )
    return Tracking(uri, experiment, client(uri).create_run(experiment).info.run_id, {"seed": "0"})


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_a_store_gives_back_numbers_alone(
    tmp_path: Path, scheme: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking = tracked(tmp_path, database if scheme == "sqlite" else tmp_path.as_uri())
    with SeedRun(tracking) as run:
        run.log_metrics({"train/loss": 0.5, "train/overlap": NAN}, step=10)
        run.log_metrics({"train/loss": 0.4, "train/overlap": INF}, step=20)
        run.log_metrics({"eval/success": 0.5, "eval/fid": INF, "eval/kid": -INF, "eval/x": NAN})
        run.mark_undefined({"eval/x": "NaN: no image has a score"})
        run._log_system({"system/power": NAN, "system/memory": 3.0}, 1)
    stored = client(tracking.uri).get_run(run.run_id).data
    assert stored.metrics == {"train/loss": 0.4, "eval/success": 0.5, "system/memory": 3.0}
    assert stored.tags["undefined"] == (
        "train/overlap: NaN at step 10 and 1 more time; eval/fid: infinite; "
        "eval/kid: -infinite; eval/x: NaN: no image has a score"
    )


def test_what_a_store_makes_of_infinity_is_no_number(tmp_path: Path, database: str) -> None:
    tracking = tracked(tmp_path, database)
    store = client(tracking.uri)
    for key, value in (("inf", INF), ("low", -INF), ("nan", NAN), ("one", 1.0)):
        store.log_metric(tracking.parent_run_id, key, value)
    metrics = store.get_run(tracking.parent_run_id).data.metrics
    assert math.isfinite(metrics["inf"]), "if not, the store has learnt it"
    finite, undefined = split_stored(metrics)
    assert finite == {"one": 1.0} and undefined.keys() == {"inf", "low", "nan"}
    assert {key for key, value in metrics.items() if is_defined(value)} == {"one"}


def test_a_result_is_json_that_says_what_is_undefined(tmp_path: Path) -> None:
    metrics = {"eval/success": 0.5, "eval/clip_score": NAN, "eval/fid": INF}
    facts = {"clip_score": {"images": 0, "undefined": "no image has a score"}, "fid": {"n": NAN}}
    numbers, reasons = EvaluationResult(metrics, facts, {}).split_undefined()
    _write({"metrics": numbers, "undefined": reasons, "facts": facts}, tmp_path)

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert result["metrics"] == {"eval/success": 0.5} and result["facts"]["fid"] == {"n": None}
    assert result["undefined"] == {
        "eval/clip_score": "NaN: no image has a score",
        "eval/fid": "infinite",
    }
    with pytest.raises(ResultError, match="eval/clip_score is undefined .NaN: no image"):
        metric_of(result, "clip_score")
    for value in (NAN, INF, 1.7976931348623157e308):  # As older results and stores have them
        with pytest.raises(ResultError, match="eval/fid is not a number"):
            metric_of({"metrics": {"eval/fid": value}}, "fid")


def test_no_image_with_a_score_has_no_mean() -> None:
    """max(0, nan) is 0."""

    class NoParts:
        name, facts, floor = "CLIP", {}, "mean"

        def __call__(self, images: Any, texts: Any) -> torch.Tensor:
            return torch.tensor([NAN] * len(texts))

    scorer = AlignmentScorer(NoParts(), "clip_score")
    scorer.add([SimpleNamespace(text="a")], torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"])
    assert math.isnan(scorer.finish()["clip_score"])
    assert scorer.facts["clip_score"]["undefined"] == "no image has a score"


def test_statistics_of_nothing_are_undefined(tmp_path: Path) -> None:
    images = ImageStore(tmp_path, {"sampling": {"image_format": "png"}}, ["one", "two"])
    images.write_stats([0, 1], {"gate_closed": [(0, 0)] * 2, "shut": [(1, 2), (0, 2)]})
    stats = images.stats
    assert stats is not None and math.isnan(stats["gate_closed"]) and stats["shut"] == 0.25
    assert split_undefined(stats) == ({"shut": 0.25}, {"gate_closed": "NaN"})


def test_what_is_measured_of_a_method_says_what_it_lacks() -> None:
    keys = ["gates_reopened", "gates_shut", "gate_closed", "gate_closed_kind/word"]
    _, reasons = EvaluationResult({f"eval/{key}": NAN for key in keys}, {}, {}).split_undefined()
    assert reasons["eval/gates_reopened"] == "NaN: no free gate was closed before training"
    assert reasons["eval/gates_shut"] == "NaN: no free gate was open before training"
    assert reasons["eval/gate_closed"] == reasons["eval/gate_closed_kind/word"]
    assert reasons["eval/gate_closed"].startswith("NaN: none of these gates is free")


def test_json_has_null_for_what_is_undefined() -> None:
    assert json.loads(to_json({"a": [NAN, 1.0, (INF,)], "b": {"c": -INF, "d": True}})) == {
        "a": [None, 1.0, [None]],
        "b": {"c": None, "d": True},
    }
