"""Studies whose cells are compared within the levels of one factor, each with a baseline cell of its own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.answer import answer
from reports.collect import collect
from reports.study import ReportError
from reports.tables import entries


def test_each_cell_is_compared_with_the_baseline_of_its_own_level(
    study: Callable[[str], Any],
) -> None:
    blocks = study("blocks")
    assert [cell.name for cell in blocks.baselines] == [
        "recipe=maskattn, preset=sound",
        "recipe=mcgm, preset=sound",
    ]
    found = {entry.cell.name: entry for entry in entries(blocks)}
    for method in ("maskattn", "mcgm"):
        versus = found[f"recipe={method}, preset=released"].versus
        assert versus is not None and versus.differences == pytest.approx([-0.05] * 3)
        assert found[f"recipe={method}, preset=sound"].versus is None
    assert found["baseline: untouched backbone"].versus is None
    assert found["recipe=mcgm, preset=released"].wide.level == pytest.approx(
        0.975
    )  # of two comparisons, not of four cells


def test_the_answer_names_the_level_and_says_of_each_whether_it_helps(
    study: Callable[[str], Any],
) -> None:
    blocks = study("blocks")
    text = answer(blocks, entries(blocks)).text
    assert (
        "the largest difference is −0.050 [−0.050, −0.050] at recipe=maskattn, preset=released"
        in text
    )
    assert "differs from sound of the same method in success" in text
    for method, gain in (("maskattn", "+0.10"), ("mcgm", "+0.30")):
        assert (
            f"The method at recipe={method}, preset=sound is better than the untouched backbone in success: {gain}"
            in text
        )
    assert "(sound of the same method)" in answer(blocks, entries(blocks)).rule


def test_report_and_table_mark_every_baseline(report: Callable[[str], Path]) -> None:
    folder = report("blocks")
    shown = json.loads((folder / "report.json").read_text())
    front = shown["front"][1]
    assert [row[0] for row in front["rows"]] == [
        "untouched backbone",
        "maskattn / sound (baseline)",
        "maskattn / released",
        "mcgm / sound (baseline)",
        "mcgm / released",
    ]
    assert front["title"].endswith(
        "paired difference from the baseline combination of the same method."
    )
    assert [row[3] for row in front["rows"]] == ["–", "–", "−0.050", "–", "−0.050"]
    noise = next(
        block["text"]
        for block in shown["blocks"]
        if block["kind"] == "text" and block["text"].startswith("Noise floor")
    )
    assert (
        "0.0100 (share) (recipe=maskattn, preset=sound) and 0.0100 (share) (recipe=mcgm, preset=sound)"
        in noise
    )
    rows = {row["cell"]: row for row in csv.DictReader((folder / "report.csv").open())}
    assert [row["role"] for row in rows.values()].count("baseline") == 2
    assert float(rows["recipe=mcgm, preset=released"]["difference"]) == pytest.approx(-0.05)


def test_a_level_without_a_baseline_cell_is_said(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("blocks").experiment_id
    where = "tags.cell = 'recipe=mcgm, preset=sound'"
    run = client.search_runs([experiment], where)[0].info.run_id
    client.set_tag(run, "baseline", "false")
    try:
        with pytest.raises(
            ReportError,
            match="tag baseline=true for each recipe, .* none for recipe=mcgm, preset=sound",
        ):
            collect(uri, "blocks")
    finally:
        client.set_tag(run, "baseline", "true")
