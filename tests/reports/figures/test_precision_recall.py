from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports import prose
from reports.figures import precision_recall
from reports.figures.precision_recall import draw_precision_recall, pareto_front


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1), (0.5, 0.3)], [0, 1, 3]),
        ([(0.5, 0.5), (0.5, 0.5), (0.4, 0.5)], [0, 1]),  # Equals do not beat each other
        ([(0.2, 0.2)], [0]),
    ],
)
def test_the_front_holds_what_no_other_beats(points: Any, front: list[int]) -> None:
    assert pareto_front(points) == front


def test_the_caption_names_the_front_and_claims_nothing(results: Any, tmp_path: Path) -> None:
    threshold = results("threshold")
    picture = draw_precision_recall(threshold, tmp_path)
    means = {
        cell.name: [sum(cell.per_seed(key).values()) / 3 for key in ("recall", "precision")]
        for cell in threshold.cells
    }
    beaten = {name for name, (x, y) in means.items() for u, v in means.values() if u > x and v > y}
    best = [prose.name_cell(threshold, cell) for cell in threshold.cells if cell.name not in beaten]
    assert picture is not None and f"({prose.join(best)})" in picture.caption
    assert "claims no significance" in picture.caption and "N = 3 seeds" in picture.caption


@pytest.mark.parametrize(
    ("spread", "expected"),
    [(0.001, "bars: 95 % t-intervals"), (0.9, "±0.000 in precision, are wider than this panel")],
)
def test_bars_that_would_shrink_the_means_are_described(
    changeable: Any, tmp_path: Path, spread: float, expected: str
) -> None:
    results = changeable("threshold")
    for i, cell in enumerate(results.cells):
        for seed, trial in cell.trials.items():
            trial.metrics["recall"] = 0.5 + 0.05 * i + spread * (seed - 1)
            trial.metrics["precision"] = 0.5 + 0.01 * i
    picture = draw_precision_recall(results, tmp_path)
    assert picture is not None and expected in picture.caption


def test_recall_lies_on_the_x_axis(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(precision_recall, "save", lambda figure, folder, name: kept.append(figure))
    draw_precision_recall(results("threshold"), tmp_path)
    [axes] = kept[0].axes
    points = [(x, y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)]
    means = [
        [np.mean(list(cell.per_seed(key).values())) for key in ("recall", "precision")]
        for cell in results("threshold").cells
    ]
    for mean in means:
        assert any(np.allclose(point, mean) for point in points)
    for text in axes.texts:  # Names stand beside their points
        assert any(np.allclose(text.xy, mean) for mean in means)


def test_many_cells_are_numbered(results: Any, tmp_path: Path) -> None:
    assert draw_precision_recall(results("grid"), tmp_path) is not None
    assert Image.open(tmp_path / "precision_recall.png").height > 40 * 0.17 * 19


def test_without_both_metrics_there_is_none(results: Any, tmp_path: Path) -> None:
    assert draw_precision_recall(results("clear"), tmp_path) is None
    assert not list(tmp_path.iterdir())
