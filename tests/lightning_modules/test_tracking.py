"""A seed's run in MLflow ends as it should, holds everything, and gives away nothing about the machine."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.tracking import SeedRun, Tracking, client, describe_error, provenance, start_seed_run


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def tracking(uri: str, tmp_path: Path) -> Tracking:
    experiment = client(uri).create_experiment(tmp_path.name, artifact_location=tmp_path.as_uri())
    parent = client(uri).create_run(experiment).info.run_id
    return Tracking(uri, experiment, parent, {"seed": "3", "method.gate.threshold": "0.5"}, {"cell": "threshold=0.5", "trial": "7"})


def test_a_seed_run_is_nested_and_complete(tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    folder = tmp_path / "trial"
    (folder / "samples").mkdir(parents=True)
    for name in ("run.yaml", "result.json", "log.txt", "samples/000.png", "weights.safetensors"):
        (folder / name).write_text("x")
    with start_seed_run(tracking) as run:
        assert client(tracking.uri).get_run(run.run_id).info.status == "RUNNING"
        run.log_metrics({"train/loss": 0.5}, step=1)
        run.log_metrics({f"eval/{index}": index for index in range(1200)})
        run.log_artifacts(folder)
    assert "MLFLOW_RUN_ID" not in os.environ
    stored = client(tracking.uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED" and stored.data.params == tracking.params
    assert stored.data.tags.items() >= {"role": "seed", "mlflow.parentRunId": tracking.parent_run_id, **tracking.tags}.items()
    assert len(stored.data.metrics) == 1201 and client(tracking.uri).get_metric_history(run.run_id, "train/loss")[0].step == 1
    artifacts = {item.path for item in client(tracking.uri).list_artifacts(run.run_id)}
    assert artifacts == {"run.yaml", "result.json", "log.txt", "samples"}
    assert [item.path for item in client(tracking.uri).list_artifacts(run.run_id, "samples")] == ["samples/000.png"]


@pytest.mark.parametrize(("error", "status"), [(ValueError("a\n b"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")])
def test_an_error_is_the_runs_status_and_reason(tracking: Tracking, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), SeedRun(tracking) as run:
        raise error
    stored = client(tracking.uri).get_run(run.run_id)
    assert stored.info.status == status and stored.data.tags["error"] == describe_error(error)


def test_an_open_run_can_be_taken_up(tracking: Tracking) -> None:
    first = SeedRun(tracking)
    second = SeedRun(tracking, first.run_id)
    second.log_metrics({"eval/success": 0.5})
    second.finish()
    stored = client(tracking.uri).get_run(first.run_id)
    assert stored.info.status == "FINISHED" and stored.data.metrics == {"eval/success": 0.5}


def test_errors_on_one_line() -> None:
    assert describe_error(ValueError("a\n  b")) == "ValueError: a b"
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_provenance_names_versions_and_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = provenance()
    assert facts["python"] == platform.python_version() and {"torch", "diffusers", "lightning", "mlflow", "hardware"} <= facts.keys()
    text = json.dumps(facts)
    assert os.getcwd() not in text and str(Path.home()) not in text and platform.node() not in text
    monkeypatch.setattr("lightning_modules.tracking._git", lambda *words: {"rev-parse": "abc", "ls-files": "x", "status": " M x"}[words[0]])
    assert provenance().items() >= {"commit": "abc", "dirty": True}.items()
    monkeypatch.setattr("lightning_modules.tracking._git", lambda *words: None)
    assert not {"commit", "dirty"} & provenance().keys()
