"""A seed's run in MLflow ends as it should, holds everything, and gives away nothing about the
machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lightning_modules.tracking import mlflow as module
from lightning_modules.tracking.mlflow import (
    SeedRun,
    StoreUnavailable,
    Tracking,
    client,
    describe_error,
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def tracking(uri: str, tmp_path: Path) -> Tracking:
    experiment = client(uri).create_experiment(tmp_path.name, artifact_location=tmp_path.as_uri())
    parent = client(uri).create_run(experiment).info.run_id
    return Tracking(
        uri,
        experiment,
        parent,
        {"seed": "3", "method.gate.threshold": "0.5"},
        {"cell": "threshold=0.5", "trial": "7"},
    )


def test_a_seed_run_is_nested_and_complete(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    folder = tmp_path / "trial"
    (folder / "samples").mkdir(parents=True)
    for name in ("run.yaml", "result.json", "log.txt", "samples/000.png", "weights.safetensors"):
        (folder / name).write_text("x")
    with SeedRun(tracking) as run:
        assert client(tracking.uri).get_run(run.run_id).info.status == "RUNNING"
        run.log_metrics({"train/loss": 0.5}, step=1)
        run.log_metrics({f"eval/{index}": index for index in range(1200)})
        run.log_artifacts(folder)
    assert "MLFLOW_RUN_ID" not in os.environ
    stored = client(tracking.uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED" and stored.data.params == tracking.params
    assert (
        stored.data.tags.items()
        >= {"role": "seed", "mlflow.parentRunId": tracking.parent_run_id, **tracking.tags}.items()
    )
    assert (
        len(stored.data.metrics) == 1201
        and client(tracking.uri).get_metric_history(run.run_id, "train/loss")[0].step == 1
    )
    artifacts = {item.path for item in client(tracking.uri).list_artifacts(run.run_id)}
    assert artifacts - {"changes.diff"} == {
        "environment.txt",
        "run.yaml",
        "result.json",
        "log.txt",
        "samples",
    }
    assert stored.data.tags["device"] == "cpu"
    assert [item.path for item in client(tracking.uri).list_artifacts(run.run_id, "samples")] == [
        "samples/000.png"
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("a\n b"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_an_error_is_the_runs_status_and_reason(
    tracking: Tracking, error: BaseException, status: str
) -> None:
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


def test_a_failed_run_says_why_at_the_top_of_its_page(tracking: Tracking) -> None:
    failed, stopped = SeedRun(tracking), SeedRun(tracking)
    failed.finish("FAILED", "ValueError: no luck", "first\nlast line\n" * 2000)
    stopped.finish("KILLED", "stopped by a person")
    notes = [
        client(tracking.uri).get_run(run.run_id).data.tags["mlflow.note.content"]
        for run in (failed, stopped)
    ]
    assert notes[0].startswith("**Failed:** ValueError: no luck\n\n```\n") and notes[0].endswith(
        "last line\n```"
    )
    assert len(notes[0]) < 6000 and notes[1] == "**Stopped:** stopped by a person"


def test_a_huge_log_is_stored_by_its_ends(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 40)
    (tmp_path / "log.txt").write_text("begin" + "x" * 500 + "the end")
    run = SeedRun(tracking)
    run.log_artifacts(tmp_path)
    text = Path(
        client(tracking.uri).download_artifacts(run.run_id, "log.txt", str(tmp_path))
    ).read_text()
    assert (
        text.startswith("begin")
        and text.endswith("the end")
        and "[… 472 bytes left out …]" in text
        and len(text) < 100
    )


def test_a_result_that_is_only_brought_in_keeps_its_own_provenance(tracking: Tracking) -> None:
    run = SeedRun(tracking, facts={"commit": "abc", "torch": "2.0"})
    run.finish()
    stored = client(tracking.uri).get_run(run.run_id)
    assert (stored.data.tags["commit"], stored.data.tags["version.torch"]) == (
        "abc",
        "2.0",
    ) and "device" not in stored.data.tags
    assert not client(tracking.uri).list_artifacts(run.run_id)


class Away:
    """A store that can be switched off."""

    def __init__(self, uri: str) -> None:
        self.store, self.off, self.tries = client(uri), False, 0

    def __call__(self, uri: str, patience: float = 0.0) -> Away:
        return self

    def __getattr__(self, name: str) -> Any:
        self.tries += 1
        if self.off:
            raise StoreUnavailable("the MLflow server cannot be used: Connection refused")
        return getattr(self.store, name)


@pytest.fixture
def away(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> Away:
    store = Away(tracking.uri)
    monkeypatch.setattr(module, "client", store)
    return store


def test_what_the_store_does_not_take_is_kept_and_sent_later(
    tracking: Tracking,
    away: Away,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "result.json").write_text("{}")
    run = SeedRun(tracking)
    away.off, away.tries = True, 0
    for step in range(5):
        run.log_metrics({"train/loss": float(step)}, step)
    # Asked once, then left in peace
    assert away.tries == 1 and len(caplog.messages) == 1 and "kept and sent later" in caplog.text
    run.log_image("gates/training", Image.new("L", (4, 4)), 1)
    run.log_artifacts(tmp_path)
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        run.finish()
    away.off = False
    monkeypatch.setattr(module, "PAUSE", 0.0)
    run.finish()
    history = client(tracking.uri).get_metric_history(run.run_id, "train/loss")
    assert [(entry.step, entry.value) for entry in history] == [(step, step) for step in range(5)]
    assert {item.path for item in client(tracking.uri).list_artifacts(run.run_id)} >= {
        "images",
        "result.json",
    }
    stored = client(tracking.uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED" and "lost_values" not in stored.data.tags


def test_the_next_call_after_a_pause_sends_what_was_kept(
    tracking: Tracking, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    run = SeedRun(tracking)
    away.off = True
    run.log_metrics({"train/loss": 1.0}, 1)
    away.off = False
    run.log_metrics({"train/loss": 2.0}, 2)
    assert [
        entry.step for entry in client(tracking.uri).get_metric_history(run.run_id, "train/loss")
    ] == [1, 2]


def test_what_is_kept_has_a_limit_and_the_run_says_so(
    tracking: Tracking, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_VALUES", 3)
    run = SeedRun(tracking)
    away.off = True
    for step in range(5):
        run.log_metrics({"train/loss": 0.0}, step)
    away.off = False
    run.finish()
    assert [
        entry.step for entry in client(tracking.uri).get_metric_history(run.run_id, "train/loss")
    ] == [2, 3, 4]
    assert client(tracking.uri).get_run(run.run_id).data.tags["lost_values"] == "2"


def test_an_error_is_not_hidden_by_a_store_that_is_away(tracking: Tracking, away: Away) -> None:
    with pytest.raises(ValueError, match="the cause"), SeedRun(tracking):
        away.off = True
        raise ValueError("the cause")


def test_a_value_that_mlflow_refuses_fails_the_run_and_does_not_leave_it_open(
    tracking: Tracking,
) -> None:
    with pytest.raises(Exception, match="exceeds"), SeedRun(tracking) as run:
        run.log_metrics({"a" * 300: 1.0})
    assert client(tracking.uri).get_run(run.run_id).info.status == "FAILED"
