from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import curves
from reports.tables import entries


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The histories that were asked for: run id, metric."""
    from mlflow import MlflowClient

    found: list[tuple[str, str]] = []
    ask = MlflowClient.get_metric_history
    monkeypatch.setattr(
        MlflowClient,
        "get_metric_history",
        lambda own, run, key: found.append((run, key)) or ask(own, run, key),
    )
    return found


def test_one_request_a_run_and_metric(
    study: Callable[[str], Any], tmp_path: Path, asked: list[tuple[str, str]]
) -> None:
    threshold = study("threshold")
    picture = curves.curves(threshold, entries(threshold), tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    runs = {trial.run_id for cell in threshold.levels for trial in cell.trials.values()}
    assert sorted(asked) == sorted(
        (run, key) for run in runs for key in ("train/loss", "train/gate_closed")
    )
    assert "N = 3 seeds a line" in picture.caption and "No line" not in picture.caption


def test_the_mean_is_over_steps_that_all_seeds_logged(study: Callable[[str], Any]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    curves._line(axes, [{10: 1.0, 20: 3.0}, {20: 1.0, 30: 9.0}, {}], "black", "-")
    assert [list(zip(*line.get_data(), strict=True)) for line in axes.lines] == [
        [(10, 1.0), (20, 3.0)],
        [(20, 1.0), (30, 9.0)],
        [(20, 2.0)],
    ]


def test_a_step_that_was_done_twice_counts_once(
    study: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    logged = [
        Metric("train/loss", value, time, step)
        for value, time, step in ((0.3, 5, 20), (0.5, 1, 10), (0.9, 2, 20), (float("nan"), 9, 30))
    ]
    monkeypatch.setattr(MlflowClient, "get_metric_history", lambda own, run, key: logged)
    threshold = study("threshold")
    assert threshold.history(threshold.baseline.trials[0], "loss") == {10: 0.5, 20: 0.3}


def test_cells_that_share_an_adapter_have_one_curve(
    study: Callable[[str], Any], tmp_path: Path
) -> None:
    plane = study("plane")
    early, late = plane.factors[0], dataclasses.replace(plane.factors[1], when="evaluate")
    shared = dataclasses.replace(plane, factors=[early, late])
    found = curves.adapters(shared)
    assert [(adapter.label, len(adapter.cells), len(adapter.trials)) for adapter in found] == [
        ("0.0", 3, 3), ("1.0", 3, 3), ("2.0", 3, 3), ("4.0", 2, 2),
    ]  # fmt: skip
    caption = curves.curves(shared, entries(shared), tmp_path).caption
    assert (
        "Cells that differ in Kept share alone share one adapter" in caption
        and "N = 2 to 3 seeds a line" in caption
    )
    # trained twice at a seed: the settings differ in training after all
    twice = dataclasses.replace(
        plane, factors=[dataclasses.replace(factor, when="evaluate") for factor in plane.factors]
    )
    assert len(curves.adapters(twice)) == len(plane.levels)


def test_cells_without_a_training_of_their_own_are_named(
    study: Callable[[str], Any], tmp_path: Path
) -> None:
    plane = study("plane")
    caption = curves.curves(plane, entries(plane), tmp_path).caption
    assert (
        "No line: 0.0 / 0.25, 0.0 / 0.75, 1.0 / 0.75, 2.0 / 0.25, 2.0 / 0.75 and 4.0 / 0.25, which took an adapter"
        in caption
    )


def test_of_many_the_baseline_and_the_extremes_are_drawn(
    study: Callable[[str], Any], tmp_path: Path
) -> None:
    threshold = study("threshold")
    base, keep = threshold.baseline, threshold.headline.key

    def at(level: int) -> Any:
        trials = {
            s: dataclasses.replace(t, metrics={keep: abs(level - 4.2)})
            for s, t in base.trials.items()
        }
        return dataclasses.replace(
            base, name=f"t={level}", label=f"{level}", baseline=level == 4, trials=trials
        )

    many = dataclasses.replace(threshold, cells=[at(level) for level in range(10)])
    many = dataclasses.replace(
        many,
        cells=[
            dataclasses.replace(c, values={"method.gate.threshold": c.label}) for c in many.cells
        ],
    )
    drawn = curves.chosen(many, entries(many), curves.adapters(many))
    # means rise with the distance from 4.2: 4, 5, 3, 6, 2, 7, 1, 8, 0, 9; the baseline 4 is the lowest
    assert [adapter.label for adapter in drawn] == ["0", "3", "4", "5", "8", "9"]
    caption = curves.curves(many, entries(many), tmp_path).caption
    assert (
        "Of 10 levels 1 with a baseline cell are drawn, and the 5 with the lowest and the highest mean of success"
        in caption
    )


def test_where_nothing_was_trained_there_is_no_figure(
    study: Callable[[str], Any], tmp_path: Path, asked: list[tuple[str, str]]
) -> None:
    assert curves.curves(study("clear"), entries(study("clear")), tmp_path) is None
    assert not asked and not list(tmp_path.iterdir())
