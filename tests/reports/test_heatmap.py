from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import heatmap
from reports.tables import entries, signed


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, str]]:
    """What is written into the cells: x, y, text."""
    from matplotlib.axes import Axes

    said: list[tuple[float, float, str]] = []
    write = Axes.text
    monkeypatch.setattr(
        Axes,
        "text",
        lambda axes, x, y, text, **how: (
            said.append((x, round(y), text)) or write(axes, x, y, text, **how)
        ),
    )
    return said


def test_each_cell_says_its_numbers(
    study: Callable[[str], Any], tmp_path: Path, written: list[tuple[float, float, str]]
) -> None:
    plane = study("plane")
    found = entries(plane)
    picture = heatmap.heatmap(plane, found, tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    texts = [text for _, _, text in written]
    finished = [e for e in found if e.summary and not e.cell.reference]
    for e in finished:
        assert f"{e.summary.mean:.3f}" in texts, e.cell.name
        if e.versus and e.wide:
            shown = signed(e.versus.interval.mean, 3)
            assert (
                shown + (" ◆" if e.wide.excludes_zero else "") in texts
                and f"± {e.wide.half:.3f}" in texts
            )
    marked = [text for text in texts if heatmap.MARK in text]
    assert len(marked) == sum(bool(e.wide and e.wide.excludes_zero) for e in finished) > 0
    assert (
        texts.count("baseline") == 2 and texts.count("missing") == 2 and texts.count("n = 2") == 1
    )
    # numbers rise to the top: the baseline bias 2.0 stands in the second of four rows, the failed one in the third; 4.0 / 0.75 is blank
    assert {(x, y) for x, y, text in written if text == "baseline"} == {(1, 1)}
    assert {(x, y) for x, y, text in written if text == "missing"} == {(0, 2)}
    assert not [text for x, y, text in written if (x, y) == (2, 0) and text]


def test_the_caption_explains_every_sign(study: Callable[[str], Any], tmp_path: Path) -> None:
    plane = study("plane")
    caption = heatmap.heatmap(plane, entries(plane), tmp_path).caption
    for part in (
        "◆: that interval excludes zero.",
        "Hatched: combinations that are not part",
        "Untouched backbone: 0.7",
        "N = 0 to 3 seeds",
    ):
        assert part in caption
    assert "for all 9 combinations at once" in caption
    flat = dataclasses.replace(
        plane, cells=[c for c in plane.cells if c.values.get("method.gate.bias") == "2.0"]
    )
    assert "which none does" in heatmap.heatmap(flat, entries(flat), tmp_path).caption


def test_with_a_baseline_for_each_level_all_of_them_are_framed(
    study: Callable[[str], Any], tmp_path: Path, written: list[tuple[float, float, str]]
) -> None:
    plane = study("plane")
    cells = [
        dataclasses.replace(c, baseline=c.values.get("method.gate.keep") == "0.5")
        for c in plane.cells
    ]
    within = dataclasses.replace(plane, cells=cells, within="method.gate.bias")
    found = entries(within)
    picture = heatmap.heatmap(within, found, tmp_path)
    assert [text for _, _, text in written].count(
        "baseline"
    ) == 2 * 4 - 1  # one of them says that a seed is missing, too, in the means
    assert (
        "baseline, n = 2" in [text for _, _, text in written]
        and "the baseline combination of its own level" in picture.caption
    )


def test_page_one_shows_it_for_long_factors_alone(
    study: Callable[[str], Any], tmp_path: Path
) -> None:
    plane = study("plane")
    assert heatmap.leads(plane)
    short = dataclasses.replace(
        plane, factors=[plane.factors[0], dataclasses.replace(plane.factors[1], levels=(0.25, 0.5))]
    )
    assert heatmap.drawable(short) and not heatmap.leads(short)
    alone = [
        c
        for c in plane.cells
        if c.reference or c.baseline or "2.0" in c.values.values() or "0.5" in c.values.values()
    ]
    crossed = dataclasses.replace(
        plane, cells=alone
    )  # one factor at a time: half of the map stays blank
    assert (
        not heatmap.leads(crossed)
        and heatmap.heatmap(crossed, entries(crossed), tmp_path) is not None
    )
    searched = dataclasses.replace(plane, tags=plane.tags | {"mode": "search"})
    assert heatmap.heatmap(searched, entries(searched), tmp_path / "none") is None
    for name in ("threshold", "grid"):
        assert (
            not heatmap.leads(study(name))
            and heatmap.heatmap(study(name), entries(study(name)), tmp_path / "none") is None
        )
    assert not (tmp_path / "none").exists()


def test_many_levels_stay_on_a_page(study: Callable[[str], Any], tmp_path: Path) -> None:
    from PIL import Image

    plane = study("plane")
    first, second = plane.factors

    def long(rows: int, columns: int) -> Any:
        factors = [
            dataclasses.replace(first, levels=tuple(range(rows))),
            dataclasses.replace(second, levels=tuple(range(columns))),
        ]
        values = [
            {first.key: str(i), second.key: str(k)} for i in range(rows) for k in range(columns)
        ]
        cells = [
            dataclasses.replace(plane.baseline, name=str(i), values=v, baseline=i == 0)
            for i, v in enumerate(values)
        ]
        return dataclasses.replace(plane, factors=factors, cells=cells)

    for rows, columns in ((3, 14), (28, 6)):
        heatmap.heatmap(long(rows, columns), entries(long(rows, columns)), tmp_path)
        assert Image.open(tmp_path / "heatmap.png").height <= 200 * heatmap.PAGE
    assert (
        not heatmap.drawable(long(29, 2))
        and not heatmap.drawable(long(15, 7))
        and not heatmap.drawable(long(1, 5))
    )


@pytest.mark.parametrize("stops", [heatmap.DIVERGING, heatmap.SEQUENTIAL])
def test_numbers_stay_readable_on_every_colour(stops: Any) -> None:
    from matplotlib.colors import to_rgb

    def luminance(color: Any) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
        ]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    for color in heatmap._shades(stops)(np.linspace(0, 1, 101)):
        low, high = sorted((luminance(color[:3]), luminance(heatmap.ink(color))))
        assert (high + 0.05) / (low + 0.05) >= 4.5
    ends = [luminance(color) for _, color in stops]
    assert abs(ends[0] - ends[-1]) > 0.25, "the ends differ in grey"
