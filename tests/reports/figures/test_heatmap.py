from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports import prose
from reports.figures import heatmap
from reports.results import SweepResults
from reports.statistics import DIFFERS
from reports.tables import compare_cells

Written = list[tuple[float, float, str]]


def draw(results: SweepResults, folder: Path) -> Any:
    return heatmap.draw_heatmap(results, compare_cells(results), folder)


def test_each_cell_has_its_numbers(
    results: Any, entries: Any, tmp_path: Path, written: Written
) -> None:
    picture = heatmap.draw_heatmap(results("plane"), entries("plane"), tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    texts = [text for _, _, text in written]
    finished = [e for e in entries("plane") if e.summary and not e.cell.untouched]
    for e in finished:
        assert f"{e.summary.mean:.3f}" in texts, e.cell.name
        if e.versus and e.wide:
            mark = f" {heatmap.MARK}" if e.verdict.verdict == DIFFERS else ""
            assert prose.show_signed(e.versus.interval.mean, 3) + mark in texts
            assert f"± {e.wide.half:.3f}" in texts
    marked = [text for text in texts if heatmap.MARK in text]
    assert (
        len(marked) == sum(bool(e.verdict and e.verdict.verdict == DIFFERS) for e in finished) > 0
    )
    assert [texts.count(text) for text in ("control", "missing", "n = 2")] == [2, 2, 1]
    # Numbers rise to the top: the control's bias 2.0 is in the second of four rows, the failed one
    # in the third; 4.0 / 0.75 is blank
    places = {text: {(x, y) for x, y, t in written if t == text} for text in ("control", "missing")}
    assert places == {"control": {(1, 1)}, "missing": {(0, 2)}}
    assert not [text for x, y, text in written if (x, y) == (2, 0) and text]


def test_colors_follow_the_numbers(
    results: Any, entries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(heatmap, "save", lambda figure, folder, name: kept.append(figure))
    heatmap.draw_heatmap(results("plane"), entries("plane"), tmp_path)
    means, shifts = (axes.images[0].get_array() for axes in kept[0].axes)
    worst = next(e for e in entries("plane") if e.cell.label == "0.0 / 0.25")
    assert means[3, 0] == worst.summary.mean and shifts[3, 0] == worst.versus.interval.mean
    assert shifts[1, 1] == 0


def test_the_caption_explains_every_sign(results: Any, tmp_path: Path) -> None:
    plane = results("plane")
    caption = draw(plane, tmp_path).caption
    for part in ("◆: it differs.", "Hatched: ", "Untouched backbone: 0.7"):
        assert part in caption
    assert "for all 9 combinations at once" in caption and "N = 0 to 3 seeds" in caption
    level = [cell for cell in plane.cells if cell.values.get("method.gate.bias") == "2.0"]
    assert "which none does" in draw(dataclasses.replace(plane, cells=level), tmp_path).caption


def test_with_a_control_for_each_level_all_of_them_are_framed(
    results: Any, tmp_path: Path, written: Written
) -> None:
    plane = results("plane")
    cells = [
        dataclasses.replace(cell, control=cell.values.get("method.gate.keep") == "0.5")
        for cell in plane.cells
    ]
    picture = draw(dataclasses.replace(plane, cells=cells, within="method.gate.bias"), tmp_path)
    texts = [text for _, _, text in written]
    # One of them lacks a seed, too, in the means
    assert texts.count("control") == 2 * 4 - 1 and "control, n = 2" in texts
    assert "the control combination of its own level" in picture.caption


def test_page_one_shows_it_for_long_factors_alone(
    results: Any, entries: Any, tmp_path: Path
) -> None:
    plane = results("plane")
    assert heatmap.is_main_figure(plane)
    down, across = plane.factors
    two = dataclasses.replace(across, levels=(0.25, 0.5))
    short = dataclasses.replace(plane, factors=[down, two])
    assert heatmap.is_drawable(short) and not heatmap.is_main_figure(short)
    crossed = [c for c in plane.cells if c.untouched or {"2.0", "0.5"} & set(c.values.values())]
    half = dataclasses.replace(plane, cells=crossed)  # One factor at a time: half stays blank
    assert not heatmap.is_main_figure(half) and draw(half, tmp_path) is not None
    none = tmp_path / "none"
    assert draw(dataclasses.replace(plane, tags={"mode": "search"}), none) is None
    for name in ("threshold", "grid"):
        assert not heatmap.is_main_figure(results(name))
        assert heatmap.draw_heatmap(results(name), entries(name), none) is None
    assert not none.exists()


def enlarge(plane: SweepResults, rows: int, columns: int) -> SweepResults:
    """A grid of so many cells, all like the control."""
    down, across = plane.factors
    factors = [
        dataclasses.replace(down, levels=tuple(range(rows))),
        dataclasses.replace(across, levels=tuple(range(columns))),
    ]
    values = [{down.key: str(i), across.key: str(k)} for i in range(rows) for k in range(columns)]
    cells = [
        dataclasses.replace(plane.control, name=str(i), values=v, control=i == 0)
        for i, v in enumerate(values)
    ]
    return dataclasses.replace(plane, factors=factors, cells=cells)


@pytest.mark.parametrize("size", [(3, 14), pytest.param((28, 6), marks=pytest.mark.slow)], ids=str)
def test_many_levels_stay_on_a_page(size: tuple[int, int], results: Any, tmp_path: Path) -> None:
    draw(enlarge(results("plane"), *size), tmp_path)
    assert Image.open(tmp_path / "heatmap.png").height <= 40 * heatmap.PAGE
    for other in ((29, 2), (15, 7), (1, 5)):
        assert not heatmap.is_drawable(enlarge(results("plane"), *other))


@pytest.mark.parametrize("stops", [heatmap.DIVERGING, heatmap.SEQUENTIAL])
def test_numbers_stay_readable_on_every_color(stops: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    def luminance(color: Any) -> float:
        rgb = np.array(to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    shades = LinearSegmentedColormap.from_list("reports", list(stops))
    for color in shades(np.linspace(0, 1, 101)):
        low, high = sorted((luminance(color[:3]), luminance(heatmap.readable_ink(color))))
        assert (high + 0.05) / (low + 0.05) >= 4.5
    ends = [luminance(color) for _, color in stops]
    assert abs(ends[0] - ends[-1]) > 0.25, "the ends differ in grey"
