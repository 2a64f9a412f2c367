"""The tests' sweep, and what queue and MLflow say of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from sweeps.sweep import UNTOUCHED, Factor, Metric, Sweep

SWEEP = Sweep(
    name="threshold",
    question="Does the engine work?",
    origin="a test",
    factors=[Factor("method.gate.threshold", [0.4, 0.5, 0.6], label="Gate threshold")],
    control={"method.gate.threshold": 0.5},
    metrics=[Metric("success", "Success"), Metric("fid", "FID", "lower", per_image=False)],
    headline="success",
    preset={"method": "maskattn"},
)

CELLS = [UNTOUCHED, "threshold=0.4", "threshold=0.5", "threshold=0.6"]


def trials(
    output: Path, name: str = "threshold", study: str | None = None
) -> list[optuna.trial.FrozenTrial]:
    """Of the study ``study`` in the folder ``name``, as Optuna itself reads them."""
    backend = optuna.storages.journal.JournalFileBackend(str(output / name / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name=study or name, storage=storage).trials


def states(output: Path, name: str = "threshold") -> Counter[str]:
    return Counter(trial.state.name for trial in trials(output, name))


def runs(mlflow: Any, role: str, name: str = "threshold") -> list[Any]:
    experiment = mlflow.get_experiment_by_name(name)
    return mlflow.search_runs(
        [experiment.experiment_id], f"tags.role = '{role}'", order_by=["attributes.start_time ASC"]
    )


def finished(mlflow: Any, name: str = "threshold") -> Counter[tuple[str, str]]:
    return Counter(
        (run.data.tags["cell"], run.data.params["seed"])
        for run in runs(mlflow, "seed", name)
        if run.info.status == "FINISHED"
    )


def everything(seeds: int, cells: list[str] = CELLS) -> Counter[tuple[str, str]]:
    return Counter((cell, str(seed)) for cell in cells for seed in range(seeds))
