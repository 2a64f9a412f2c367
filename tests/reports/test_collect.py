from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reports.collect import collect, sweeps
from reports.study import ReportError


def test_cells_stand_in_the_order_of_the_plan(study: Callable[[str], Any]) -> None:
    cells = study("threshold").cells
    assert [cell.label for cell in cells] == [
        "untouched backbone",
        "0.3",
        "0.4",
        "0.5",
        "0.6",
        "0.7",
    ]
    assert [cell.reference for cell in cells] == [True] + [False] * 5
    assert study("threshold").baseline.name == "threshold=0.5"
    assert [cell.label for cell in study("clear").levels] == [
        "hard",
        "soft",
        "top_k",
    ]  # not alphabetical, not as created
    assert study("threshold").numeric and not study("clear").numeric


def test_combinations_are_named_by_their_levels(study: Callable[[str], Any]) -> None:
    grid = study("grid")
    assert (
        len(grid.cells) == 19
        and grid.noun == "combination"
        and study("threshold").noun == "level"
        and not grid.numeric
    )
    assert [cell.label for cell in grid.cells[:3]] == [
        "untouched backbone",
        "0.0 / released / none",
        "0.0 / released / bos",
    ]
    assert (
        grid.words(grid.baseline) == "bias=2.0, surrogate=renormalised, protect=bos"
        and grid.words(grid.cells[0]) == grid.cells[0].label
    )
    assert study("threshold").words(study("threshold").baseline) == "0.5"
    assert (
        "overhead" in grid.metrics[13].key
        and grid.cells[0].per_seed("overhead") == {}
        and len(grid.baseline.per_seed("overhead")) == 3
    )


def test_combinations_that_the_plan_no_longer_holds_are_left_out(uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("grid").experiment_id
    client.set_experiment_tag(
        experiment, "without", '[{"method.gate.bias": "4.0", "method.gate.protect": "none"}]'
    )
    try:
        found = collect(uri, "grid")
    finally:
        client.set_experiment_tag(experiment, "without", "[]")
    assert len(found.cells) == 17
    assert found.left_out == [
        f"bias=4.0, surrogate={name}, protect=none" for name in ("released", "renormalised")
    ]


def test_missing_and_failed_seeds_are_named(study: Callable[[str], Any], special: str) -> None:
    by_label = {cell.label: cell for cell in study("broken").cells}
    assert by_label["0.4"].unfinished == {
        0: "failed: OutOfMemoryError: 3 GiB",
        1: "still running, or stopped hard",
    }
    assert by_label["0.6"].unfinished == {2: f"failed: RuntimeError: {special}"}
    assert list(by_label["0.4"].trials) == [2] and list(by_label["0.6"].trials) == [0, 1]
    assert not by_label["0.5"].unfinished


def test_the_last_finished_attempt_counts_and_old_levels_are_left_out(uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    name, key = "attempts", "method.gate.threshold"
    experiment = client.create_experiment(name)
    tags = {
        "sweep": name,
        "headline": "success",
        "seeds": "[0]",
        "metrics": '[{"key": "success", "label": "Success", "better": "higher"}]',
    }
    tags["factors"] = f'[{{"key": "{key}", "levels": [0.5, true, null, "mid"], "numeric": false}}]'
    for tag, value in tags.items():
        client.set_experiment_tag(experiment, tag, value)
    for text in ("0.5", "true", "null", "mid", "0.9"):
        marks = {"baseline": "true"} if text == "0.5" else {"baseline": "false"}
        cell = client.create_run(
            experiment, tags={"role": "cell", "cell": f"threshold={text}", **marks}
        ).info.run_id
        client.log_param(cell, key, text)
        attempts = (
            [("FINISHED", 0.1, 1), ("FINISHED", 0.7, 3), ("FAILED", 0.9, 4)]
            if text == "0.5"
            else [("FINISHED", 0.2, 5)]
        )
        for status, value, start in attempts:
            run = client.create_run(
                experiment, start_time=start, tags={"role": "seed", "mlflow.parentRunId": cell}
            ).info.run_id
            client.log_param(run, "seed", 0)
            client.log_metric(run, "eval/success", value)
            client.set_terminated(run, status)
    found = collect(uri, name)
    assert [cell.label for cell in found.cells] == ["0.5", "true", "null", "mid"]
    assert found.baseline.per_seed("success") == {0: 0.7} and not found.baseline.unfinished
    assert found.left_out == ["threshold=0.9"] and found.reference is None
    client.delete_experiment(experiment)
    with pytest.raises(ReportError, match="no sweep 'attempts'"):
        collect(uri, name)


def test_undefined_values_are_no_values(study: Callable[[str], Any]) -> None:
    cell = study("same").baseline
    assert cell.per_seed("fid") == {}
    cell.trials[1].metrics["odd"] = float("nan")
    cell.trials[0].metrics["odd"] = 1.0
    assert cell.per_seed("odd") == {0: 1.0}


def test_errors_are_one_line_that_helps(uri: str, tmp_path: Any) -> None:
    known = "blocks, broken, clear, eight, grid, plane, same, threshold, unstarted"
    with pytest.raises(ReportError, match=rf"no sweep 'treshold' at .*; there are: {known}$"):
        collect(uri, "treshold")
    with pytest.raises(
        ReportError, match=r"nothing of 'unstarted' has finished yet \(4 cells planned\)"
    ):
        collect(uri, "unstarted")
    with pytest.raises(ReportError, match="no MLflow database at .*elsewhere.db"):
        collect(f"sqlite:///{tmp_path}/elsewhere.db", "threshold")
    assert not (tmp_path / "elsewhere.db").exists()


def test_sweeps_are_listed_with_their_questions(uri: str) -> None:
    assert sweeps(uri)["clear"] == "Does it matter?" and "Default" not in sweeps(uri)


def test_samples_come_with_outcomes_and_images(study: Callable[[str], Any]) -> None:
    threshold = study("threshold")
    trial = threshold.baseline.trials[0]
    assert len(trial.samples.success) == len(trial.samples.ids) == len(set(trial.samples.ids)) == 32
    assert threshold.fetch(trial, trial.samples.images[0]).read_bytes().startswith(b"\x89PNG")
    assert (
        threshold.fetch(trial, "samples/none.png") is None
        and threshold.fetch(trial, "none/none.png") is None
    )
