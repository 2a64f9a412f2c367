"""Two factors with combinations left out, from the plan to the report, on the fake trainer."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import runs

from sweeps.command import main
from sweeps.injection_layer import SWEEP
from sweeps.sweep import UNTOUCHED

pytestmark = pytest.mark.slow

CONTROL = "stage=mid, placement=both"
OVERHEAD = "UNet time ↓ (× without gates)"


def test_a_sweep_of_several_factors(output: Path, trainer: Any, mlflow: Any) -> None:
    def change(config: Any, metrics: dict[str, float]) -> dict[str, float]:
        # Of which the untouched backbone has nothing to say
        gates = {"eval/gate_closed": 0.1, "eval/overhead": 1.25}
        return {**metrics, **({} if config.method.name == "untouched" else gates)}

    trainer.change = change
    assert main(SWEEP, [f"output={output}", "seeds=1"], train=trainer) == 0
    folder = output / "injection_layer"

    # What was planned
    gates = [run.method.gate for run in trainer.ran if run.method.name == "maskattn"]
    ran = {(gate.stage, gate.placement) for gate in gates}
    assert len(trainer.ran) == 11 and len(ran) == 10
    assert {placement for stage, placement in ran if stage == "low"} == {"both"}

    # What the report says
    report = json.loads((folder / "report.json").read_text())
    pairs = next(block["pairs"] for block in report["blocks"] if block["kind"] == "pairs")
    left_out = "stage=low with placement=encoder, stage=low with placement=decoder"
    assert f"not combined: {left_out}" in dict(pairs)["Factors"] and CONTROL in report["answer"]
    table = report["front"][1]
    assert table["columns"][0] == "Gated stage × Placement"
    assert "mid / both (control)" in [row[0] for row in table["rows"]]
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")

    # What one cell lacks is a dash there, and no number anywhere
    with (folder / "report.csv").open() as file:
        rows = {(row["cell"], row["metric"]): row for row in csv.DictReader(file)}
    lacking, control = rows[UNTOUCHED, "overhead"], rows[CONTROL, "overhead"]
    names = ("n", "mean", "difference", "paired_n")
    assert [lacking[name] for name in names] == ["0", "", "", "0"]
    assert (control["n"], float(control["mean"])) == ("1", 1.25)
    tables = [block for block in report["blocks"] if block["kind"] == "table"]
    tables = [block for block in tables if block["columns"][1] == UNTOUCHED]
    for metric in (OVERHEAD, "Gates closed (share)"):
        shown = [row[1:] for table in tables for row in table["rows"] if row[0] == metric]
        assert len(shown) == 2  # Means and differences
        assert all(row[0] == "–" and "–" not in row[1:] for row in shown)
    cells = {run.data.tags["cell"]: run.data.metrics for run in runs(mlflow, "cell", SWEEP.name)}
    assert cells[CONTROL]["agg/overhead_mean"] == 1.25 and "agg/success_mean" in cells[UNTOUCHED]
    assert not [key for key in cells[UNTOUCHED] if "overhead" in key or "gate" in key]
