"""A sweep of two factors with combinations left out, from the plan to the report, on the fake
trainer."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.command import main
from sweeps.injection_layer import SWEEP
from sweeps.sweep import UNTOUCHED

pytestmark = pytest.mark.slow

BASELINE = "stage=mid, placement=both"


def test_a_sweep_of_several_factors(output: Path, trainer: Any, mlflow: Any) -> None:
    def change(config: Any, metrics: dict[str, float]) -> dict[str, float]:
        gates = {
            "eval/gate_closed": 0.1,
            "eval/overhead": 1.25,
        }  # of which the untouched backbone has nothing to say
        return {**metrics, **({} if config.method.name == "untouched" else gates)}

    trainer.change = change
    assert main(SWEEP, [f"output={output}", "seeds=1"], train=trainer) == 0
    folder = output / "injection_layer"

    # what was planned
    ran = {
        (run.method.gate.stage, run.method.gate.placement)
        for run in trainer.ran
        if run.method.name == "maskattn"
    }
    assert (
        len(trainer.ran) == 11
        and len(ran) == 10
        and {placement for stage, placement in ran if stage == "low"} == {"both"}
    )

    # what the report says
    shown = json.loads((folder / "report.json").read_text())
    pairs = next(block["pairs"] for block in shown["blocks"] if block["kind"] == "pairs")
    assert (
        "not combined: stage=low with placement=encoder, stage=low with placement=decoder"
        in dict(pairs)["Factors"]
    )
    assert (
        BASELINE in shown["answer"] and shown["front"][1]["columns"][0] == "Gated stage × Placement"
    )
    assert "mid / both (baseline)" in [row[0] for row in shown["front"][1]["rows"]]
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")

    # what one cell lacks is a dash there, and no number anywhere
    rows = {
        (row["cell"], row["metric"]): row for row in csv.DictReader((folder / "report.csv").open())
    }
    lacking, baseline = rows[UNTOUCHED, "overhead"], rows[BASELINE, "overhead"]
    assert (lacking["n"], lacking["mean"], lacking["difference"], lacking["paired_n"]) == (
        "0",
        "",
        "",
        "0",
    )
    assert (baseline["n"], float(baseline["mean"])) == ("1", 1.25)
    tables = [
        block
        for block in shown["blocks"]
        if block["kind"] == "table" and block["columns"][1] == "untouched backbone"
    ]
    assert len(tables) == 2  # means and differences
    for table in tables:
        by_metric = {row[0]: row[1:] for row in table["rows"]}
        assert (
            by_metric["UNet time ↓ (× without gates)"][0]
            == by_metric["Gates closed (share)"][0]
            == "–"
        )
        assert "–" not in by_metric["UNet time ↓ (× without gates)"][1:]
    experiment = mlflow.get_experiment_by_name("injection_layer").experiment_id
    cells = {
        run.data.tags["cell"]: run.data.metrics
        for run in mlflow.search_runs([experiment], "tags.role = 'cell'")
    }
    assert cells[BASELINE]["agg/overhead_mean"] == 1.25 and "agg/success_mean" in cells[UNTOUCHED]
    assert not [key for key in cells[UNTOUCHED] if "overhead" in key or "gate" in key]
