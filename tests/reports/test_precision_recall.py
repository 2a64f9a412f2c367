from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import precision_recall
from reports.collect import collect
from reports.tables import listed


def test_the_front_holds_what_no_other_beats() -> None:
    assert precision_recall.front([(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1), (0.5, 0.3)]) == [
        0,
        1,
        3,
    ]
    assert precision_recall.front([(0.5, 0.5), (0.5, 0.5), (0.4, 0.5)]) == [
        0,
        1,
    ]  # equals do not beat each other
    assert precision_recall.front([(0.2, 0.2)]) == [0]


def test_the_caption_names_the_front_and_claims_nothing(
    study: Callable[[str], Any], tmp_path: Path
) -> None:
    threshold = study("threshold")
    picture = precision_recall.precision_recall(threshold, tmp_path)
    means = {
        c.name: tuple(sum(c.per_seed(key).values()) / 3 for key in ("recall", "precision"))
        for c in threshold.cells
    }
    beaten = {name for name, (x, y) in means.items() for u, v in means.values() if u > x and v > y}
    best = [threshold.words(c) for c in threshold.cells if c.name not in beaten]
    assert picture is not None and f"({listed(best)})" in picture.caption
    assert (
        "of means and claims no significance" in picture.caption
        and "N = 3 seeds" in picture.caption
    )


@pytest.mark.parametrize(
    ("spread", "said"),
    [(0.001, "bars: 95 % t-intervals."), (0.9, "recall and ±0.000 in precision, are wider")],
)
def test_bars_that_would_shrink_the_means_to_a_point_are_told(
    uri: str, tmp_path: Path, spread: float, said: str
) -> None:
    own = collect(uri, "threshold")
    with own.folder:
        for place, cell in enumerate(own.cells):
            for seed, trial in cell.trials.items():
                trial.metrics["recall"], trial.metrics["precision"] = (
                    0.5 + 0.05 * place + spread * (seed - 1),
                    0.5 + 0.01 * place,
                )
        picture = precision_recall.precision_recall(own, tmp_path)
    assert picture is not None and said.rstrip(".") in picture.caption


def test_many_cells_are_numbered(study: Callable[[str], Any], tmp_path: Path) -> None:
    from PIL import Image

    assert precision_recall.precision_recall(study("grid"), tmp_path) is not None
    assert Image.open(tmp_path / "precision_recall.png").height > 200 * 0.17 * 19


def test_without_both_metrics_there_is_none(study: Callable[[str], Any], tmp_path: Path) -> None:
    assert precision_recall.precision_recall(study("clear"), tmp_path) is None and not list(
        tmp_path.iterdir()
    )
