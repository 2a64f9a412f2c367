"""The first sweep for real and very small: backbone, gates, judge, Optuna, MLflow and report, then
the same command again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.command import main
from sweeps.threshold import SWEEP

pytestmark = pytest.mark.slow


def test_from_an_empty_folder_to_a_report_and_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    output = tmp_path / "runs"
    small = [
        "seeds=2",
        "levels=[0.4]",
        "trainer.steps=3",
        "trainer.warmup=1",
        "trainer.batch=4",
        "data.train_images=16",
    ]
    small += [
        "data.eval_images=8",
        "evaluation.prompts=8",
        "evaluation.steps=3",
        "evaluation.keep_images=2",
    ]
    assert main(SWEEP, [*small, f"output={output}"]) == 0
    printed = capfd.readouterr().out
    assert (
        "2 seeds = 6 trials, 0 finished" in printed
        and "report.pdf" in printed
        and "compare-runs?runs=" in printed
    )

    # What the report says is what MLflow holds.
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("threshold")
    assert experiment is not None
    cells = client.search_runs([experiment.experiment_id], "tags.role = 'cell'")
    assert {run.data.tags["cell"] for run in cells} == {
        "untouched backbone",
        "threshold=0.4",
        "threshold=0.5",
    }
    means = sorted(round(run.data.metrics["agg/success_mean"], 9) for run in cells)
    rows = list(csv.DictReader((output / "threshold" / "report.csv").open()))
    assert (
        sorted(round(float(row["mean"]), 9) for row in rows if row["metric"] == "success") == means
    )
    assert (output / "threshold" / "report.pdf").read_bytes().startswith(b"%PDF")

    results = {
        path: path.stat().st_mtime_ns for path in output.glob("threshold/trials/*/result.json")
    }
    written = (output / "threshold" / "report.pdf").stat().st_mtime_ns
    assert len(results) == 6
    assert main(SWEEP, [*small, f"output={output}"]) == 0
    assert "6 trials, 6 finished" in capfd.readouterr().out
    assert results == {
        path: path.stat().st_mtime_ns for path in output.glob("threshold/trials/*/result.json")
    }
    assert (output / "threshold" / "report.pdf").stat().st_mtime_ns == written
