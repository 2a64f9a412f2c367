from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers.stored_sweeps import KEY, MemoryClient

from reports.figures import curves
from reports.tables import compare_cells


@pytest.fixture
def asked(memory: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The histories that are asked for from here on: run id, metric."""
    requests: list[tuple[str, str]] = []
    ask = memory.get_metric_history

    def record(run: str, key: str) -> Any:
        requests.append((run, key))
        return ask(run, key)

    monkeypatch.setattr(memory, "get_metric_history", record)
    return requests


def draw(results: Any, folder: Path) -> Any:
    return curves.draw_curves(results, compare_cells(results), folder)


def test_one_request_a_run_and_metric(results: Any, tmp_path: Path, asked: Any) -> None:
    threshold = results("threshold")
    picture = draw(threshold, tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    runs = {trial.run_id for cell in threshold.levels for trial in cell.trials.values()}
    metrics = ("train/loss", "train/gate_closed")
    assert sorted(asked) == sorted((run, metric) for run in runs for metric in metrics)
    assert "N = 3 seeds a line" in picture.caption and "No line" not in picture.caption


def test_the_mean_is_over_steps_that_all_seeds_logged() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    style = {"color": "black", "linestyle": "-"}
    curves.draw_mean_line(axes, [{10: 1.0, 20: 3.0}, {20: 1.0, 30: 9.0}, {}], style)
    lines = [list(zip(*line.get_data(), strict=True)) for line in axes.lines]
    assert lines == [[(10, 1.0), (20, 3.0)], [(20, 1.0), (30, 9.0)], [(20, 2.0)]]


def test_cells_that_share_an_adapter_have_one_curve(results: Any, tmp_path: Path) -> None:
    plane = results("plane")
    late = [dataclasses.replace(factor, when="evaluate") for factor in plane.factors]
    shared = dataclasses.replace(plane, factors=[plane.factors[0], late[1]])
    adapters = curves.group_by_adapter(shared)
    counts = [(adapter.label, len(adapter.cells), len(adapter.trials)) for adapter in adapters]
    assert counts == [("0.0", 3, 3), ("1.0", 3, 3), ("2.0", 3, 3), ("4.0", 2, 2)]
    caption = draw(shared, tmp_path).caption
    assert "Cells that differ in Kept share alone share one adapter" in caption
    assert "N = 2 to 3 seeds a line" in caption
    # Trained twice at a seed: the settings differ in training after all
    twice = curves.group_by_adapter(dataclasses.replace(plane, factors=late))
    assert len(twice) == len(plane.levels)


def test_cells_without_a_training_of_their_own_are_named(results: Any, tmp_path: Path) -> None:
    caption = draw(results("plane"), tmp_path).caption
    labels = "0.0 / 0.25, 0.0 / 0.75, 1.0 / 0.75, 2.0 / 0.25, 2.0 / 0.75 and 4.0 / 0.25"
    assert f"No line: {labels}, which took an adapter" in caption


def test_of_many_the_control_and_the_extremes_are_drawn(results: Any, tmp_path: Path) -> None:
    threshold = results("threshold")
    cells = []
    for level in range(10):
        trials = {
            seed: dataclasses.replace(trial, metrics={"success": abs(level - 4.2)})
            for seed, trial in threshold.control.trials.items()
        }
        name = {"name": f"t={level}", "label": str(level), "values": {KEY: str(level)}}
        marks = {"control": level == 4, "trials": trials}
        cells.append(dataclasses.replace(threshold.control, **name, **marks))
    many = dataclasses.replace(threshold, cells=cells)
    drawn = curves.select_adapters(many, compare_cells(many), curves.group_by_adapter(many))
    # Means rise with the distance from 4.2: 4, 5, 3, 6, 2, 7, 1, 8, 0, 9; the control is the lowest
    assert [adapter.label for adapter in drawn] == ["0", "3", "4", "5", "8", "9"]
    caption = draw(many, tmp_path).caption
    assert "Drawn are 6 of 10 levels: 1 with a control cell, and those with the lowest" in caption


def test_where_nothing_was_trained_there_is_no_figure(
    results: Any, tmp_path: Path, asked: Any
) -> None:
    assert draw(results("clear"), tmp_path) is None
    assert not asked and not list(tmp_path.iterdir())
