"""A real server goes away while a run logs, and comes back: everything is there afterwards, and
once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.mlflow_server import Server
from PIL import Image

from lightning_modules.tracking import mlflow as module
from lightning_modules.tracking.mlflow import (
    SeedRun,
    StoreUnavailable,
    Tracking,
    client,
    describe_error,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    found.start()
    try:
        found.wait()
        yield found
    finally:
        found.kill()


@pytest.mark.slow
def test_an_outage_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = client(server.url)
    experiment = store.create_experiment("outage")
    parent = store.create_run(experiment).info.run_id
    tracking = Tracking(server.url, experiment, parent, {"seed": "0"}, {"trial": "0"})
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "log.txt").write_text("all of it")
    with SeedRun(tracking) as run:
        run.log_metrics({"train/loss": 0.0}, 0)
        server.kill()

        # Longer than a call waits: a training goes on meanwhile
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            for step in range(1, 4):
                run.log_metrics({"train/loss": float(step)}, step)
            run.log_image("gates/training", Image.new("L", (8, 8)), 3)
            with pytest.raises(StoreUnavailable) as caught:
                run.finish()
            line = describe_error(caught.value)
            assert line == (
                f"StoreUnavailable: the MLflow server {server.url} cannot be used: "
                "Connection refused"
            )
            with pytest.raises(KeyboardInterrupt), SeedRun(tracking, run.run_id):
                raise KeyboardInterrupt  # leaves at once, not after minutes

        # shorter than a call waits: the call itself takes until the server is there
        back = threading.Timer(1.0, server.start)
        back.start()
        monkeypatch.setattr(module, "PAUSE", 0.0)
        run._outbox._next_try = 0.0
        run.log_metrics({"train/loss": 4.0}, 4)
        back.join()
        run.log_artifacts(tmp_path / "trial")
    stored = store.get_run(run.run_id)
    assert (
        stored.info.status == "FINISHED"
        and stored.data.params == {"seed": "0"}
        and "error" not in stored.data.tags
    )
    history = store.get_metric_history(run.run_id, "train/loss")
    assert [(entry.step, entry.value) for entry in history] == [(step, step) for step in range(5)]
    assert {item.path for item in store.list_artifacts(run.run_id)} >= {
        "log.txt",
        "images",
        "environment.txt",
    }
    assert (
        len(
            [
                item
                for item in store.list_artifacts(run.run_id, "images")
                if item.path.endswith(".png")
            ]
        )
        == 1
    )
    assert len(store.search_runs([experiment], "tags.role = 'seed'")) == 1
