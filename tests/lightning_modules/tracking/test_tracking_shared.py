"""Four processes write to one fresh SQLite database, and every value is there afterwards."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_modules.tracking.mlflow import Tracking, client

ROOT = Path(__file__).parents[3]
WORKERS, BATCHES = 4, 100
WORKER = """
import json, sys, time
from pathlib import Path
from PIL import Image
from lightning_modules.tracking.mlflow import SeedRun, Tracking
tracking, folder, go = Tracking(**json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
(folder / "ready").touch()
while not go.exists():
    time.sleep(0.01)
with SeedRun(tracking) as run:
    for step in range(int(sys.argv[4])):
        values = {"train/loss": 1 / (step + 1), "train/share": step / 100}
        values["train/norm"] = float(step)
        run.log_metrics(values, step)
        if step % 25 == 0:
            run.log_image("gates/training", Image.new("L", (8, 8), step), step)
            (folder / "log.txt").write_text(f"step {step}")
            run.log_artifacts(folder)
    run.log_metrics({f"eval/{index}": float(index) for index in range(50)})
"""


@pytest.mark.slow
def test_four_processes_lose_nothing(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = client(uri)
    experiment = store.create_experiment(
        "shared", artifact_location=(tmp_path / "artifacts").as_uri()
    )
    parent = store.create_run(experiment).info.run_id
    store.set_terminated(parent)
    go, processes = tmp_path / "go", []
    for seed in range(WORKERS):
        folder = tmp_path / f"trial-{seed}"
        folder.mkdir()
        tracking = Tracking(uri, experiment, parent, {"seed": str(seed)}, {"trial": str(seed)})
        words = [json.dumps(dataclasses.asdict(tracking)), str(folder), str(go), str(BATCHES)]
        # with system metrics twice a second, more than there would ever be
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.5",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *words], env=env, stderr=subprocess.PIPE, text=True
            )
        )
    while not all(
        (tmp_path / f"trial-{seed}" / "ready").exists() or processes[seed].poll()
        for seed in range(WORKERS)
    ):
        time.sleep(0.01)
    go.touch()
    for process in processes:
        said = process.communicate()[1]
        assert process.returncode == 0 and "Traceback" not in said, said

    runs = store.search_runs([experiment], "tags.trial != ''")
    assert len(runs) == WORKERS and {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        for key, value in (("train/loss", lambda step: 1 / (step + 1)), ("train/norm", float)):
            history = store.get_metric_history(run.info.run_id, key)
            assert sorted((entry.step, entry.value) for entry in history) == [
                (step, value(step)) for step in range(BATCHES)
            ]
        assert {
            key: value for key, value in run.data.metrics.items() if key.startswith("eval/")
        } == {f"eval/{i}": i for i in range(50)}
        assert {item.path for item in store.list_artifacts(run.info.run_id)} >= {
            "log.txt",
            "environment.txt",
            "images",
        }
        assert (
            len(
                [
                    item
                    for item in store.list_artifacts(run.info.run_id, "images")
                    if item.path.endswith(".png")
                ]
            )
            == 4
        )
        assert "system/cpu_utilization_percentage" in run.data.metrics
