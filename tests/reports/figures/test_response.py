from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_results import SUCCESS, make_results
from PIL import Image

from reports import prose
from reports.figures import response, style
from reports.results import SweepResults
from reports.tables import compare_cells


def keep_trials(results: SweepResults, keep: Any) -> SweepResults:
    """Cells with the first ``keep(index)`` of their trials."""
    cells = [
        dataclasses.replace(cell, trials=dict(list(cell.trials.items())[: keep(i)]))
        for i, cell in enumerate(results.cells)
    ]
    return dataclasses.replace(results, cells=cells)


def test_a_response_may_have_gaps(results: Any, entries: Any, tmp_path: Path) -> None:
    for name, n in (("broken", "1 to 3"), ("clear", "3"), ("eight", "8")):
        picture = response.draw_response(results(name), entries(name), tmp_path / name)
        assert (tmp_path / name / picture.file).is_file() and f"N = {n} seeds" in picture.caption
    alone = keep_trials(results("clear"), lambda i: 1)
    picture = response.draw_response(alone, compare_cells(alone), tmp_path)
    assert "N = 1 seed." in picture.caption


def test_what_is_drawn_are_the_numbers(
    results: Any, entries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means, seeds, and the bounds that the answer goes by, on either axis."""
    kept: list[Any] = []
    monkeypatch.setattr(response, "save", lambda figure, folder, name: kept.append(figure))
    for name, rows in (("clear", False), ("grid", True)):
        response.draw_response(results(name), entries(name), tmp_path)
        panels = [
            {round(float(v), 9) for line in axes.lines for v in line.get_data()[0 if rows else 1]}
            for axes in kept.pop().axes
        ]
        for e in entries(name):
            if e.metric.key != "success" or e.cell.untouched:
                continue
            means = [e.summary.mean, e.summary.low, *e.cell.per_seed("success").values()]
            assert {round(v, 9) for v in means} <= panels[0]
            if e.versus:
                shift, wide = e.versus.interval, e.wide
                shifts = [shift.mean, wide.low, wide.high]
                assert {round(v, 9) for v in (*shifts, *e.versus.differences)} <= panels[1]


@pytest.mark.parametrize(
    "levels",
    [
        (0.3, 0.5, 0.5195, 0.5203, 0.7),
        (0.0001, 0.001, 0.01, 0.1),
        ("one", "two", "three"),
        ("untouched backbone", "post_softmax", "post_softmax_renormalised", "mcgm without masks"),
        pytest.param(tuple(round(0.5 + 0.001 * i, 4) for i in range(12)), marks=pytest.mark.slow),
        pytest.param(tuple(f"level {i}" for i in range(11)), marks=pytest.mark.slow),
    ],
)
def test_no_two_tick_labels_overlap(
    levels: tuple[Any, ...], results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threshold = results("threshold")
    cells = [
        dataclasses.replace(threshold.control, name=str(x), label=str(x), values={}, control=i == 2)
        for i, x in enumerate(levels)
    ]
    numeric = not isinstance(levels[0], str)
    factor = dataclasses.replace(threshold.factors[0], levels=levels, numeric=numeric)
    odd = dataclasses.replace(
        threshold, cells=cells, factors=[factor], metrics=[threshold.headline]
    )
    kept: list[Any] = []
    monkeypatch.setattr(response, "save", lambda figure, folder, name: kept.append(figure))
    picture = response.draw_response(odd, compare_cells(odd), tmp_path)
    [figure] = kept
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # Labels that are hidden leave the others where they are
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        texts = [label.get_text().strip() for label in labels]
        assert len(axes.get_xticks()) == len(levels) and str(levels[2]) in texts
        for label in labels:
            label.set_visible(False)
        ink = []
        for label in labels:
            label.set_visible(True)
            ink.append(draw_labels(figure, axes.xaxis))
            label.set_visible(False)
        assert all(own.any() for own in ink) and np.sum(ink, axis=0).max() == 1
        unnamed = [str(level) for level in levels if str(level) not in texts]
        lacking = f"for lack of room: {prose.join(unnamed)}." if unnamed else ""
        assert lacking in picture.caption and bool(lacking) == ("lack of" in picture.caption)


def draw_labels(figure: Any, axis: Any) -> np.ndarray:
    """Where the visible tick labels of an axis have ink, [H, W]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    renderer.clear()
    for label in axis.get_ticklabels():
        label.draw(renderer)
    return np.asarray(renderer.buffer_rgba())[..., 3] > 40


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("post_softmax_renormalised", 14, "post_softmax_\nrenormalised"),
        ("soft", 14, "soft"),
        ("0, 8, 9, 10, 13, 15", 8, "0, 8, 9,\n10, 13,\n15"),
        ("renormalised", 5, "renormalised"),
        ("", 5, ""),
    ],
)
def test_long_names_break_where_they_can(text: str, width: int, expected: str) -> None:
    assert style.wrap(text, width) == expected


def test_combinations_have_a_row_each(results: Any, entries: Any, tmp_path: Path) -> None:
    grid = results("grid")
    whole = response.draw_response(grid, entries("grid"), tmp_path)
    assert "combinations of start bias, surrogate and protected tokens" in whole.caption
    four = [cell for cell in grid.cells if cell.values.get("method.gate.bias") == "4.0"]
    few = dataclasses.replace(grid, cells=[grid.control, *four])
    response.draw_response(few, compare_cells(few), tmp_path / "few")
    heights = [
        Image.open(folder / "response.png").height for folder in (tmp_path, tmp_path / "few")
    ]
    assert abs(heights[0] - heights[1] - 40 * response.ROW * 11) <= 1
    hollow = keep_trials(grid, lambda i: i % 2)
    picture = response.draw_response(hollow, compare_cells(hollow), tmp_path)
    assert "N = 0 to 1 seeds" in picture.caption


def test_text_in_figures_is_not_run(
    results: Any, entries: Any, tmp_path: Path, special: str
) -> None:
    clear = results("clear")
    factor = dataclasses.replace(clear.factors[0], label=special)
    odd = dataclasses.replace(clear, factors=[factor])
    # $x$ and \alpha would be parsed as mathematics
    response.draw_response(odd, entries("clear"), tmp_path)


@pytest.mark.parametrize(
    ("levels", "scale"), [((0.001, 0.01, 0.1), "log"), ((0.0, 0.1, 1.0), "symlog")]
)
def test_a_setting_of_decades_has_a_logarithmic_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: tuple[float, ...], scale: str
) -> None:
    """As it is declared; else the axis is linear."""
    kept: list[Any] = []
    monkeypatch.setattr(response, "save", lambda figure, folder, name: kept.append(figure))
    rng = np.random.default_rng(0)
    tables = {f"{level:g}": {"success": rng.random((3, 20)).round()} for level in levels}
    results = make_results(tables, f"{levels[1]:g}", SUCCESS)
    for log in (True, False):
        results.factors[0] = dataclasses.replace(
            results.factors[0], levels=levels, numeric=True, log=log, label="Rate"
        )
        picture = response.draw_response(results, compare_cells(results), tmp_path)
        assert [axes.get_xscale() for axes in kept[-1].axes] == [scale if log else "linear"] * 2
        assert ("Rate is on a logarithmic scale" in picture.caption) == log
    places = kept[0].axes[0].transData.transform([(x, 0.5) for x in levels])[:, 0]
    steps = np.diff(places)
    assert steps[1] == pytest.approx(steps[0], rel=0.01 if scale == "log" else 0.8)
    assert {t.get_text().strip() for t in kept[0].axes[0].get_xticklabels()} == {
        f"{level:g}" for level in levels
    }
