from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_sweeps import SCORE, make_sweep

from reports.figures import forest
from reports.results import ReportedMetric
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN
from reports.tables import compare_cells
from reports.verdicts import COLLAPSED, IDENTICAL, POOLED, Verdict

NAN = float("nan")


def make_row(
    mean: float, low: float, high: float, verdict: str, metric: ReportedMetric = SCORE, **how: Any
) -> forest.ForestRow:
    half = (high - low) / 2
    said = Verdict(metric, "a", "b", mean, low, high, verdict, POOLED, (0, 1), 9, 3, 0.95, 3, half)
    return forest.ForestRow(how.pop("label", "a"), said, **how)


CONTROL = forest.ForestRow("control", None)


def test_a_row_is_what_the_answer_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.random((3, 40))
    levels = {"a": base, "b": base + 0.5 + 0.01 * rng.random((3, 40)), "c": base.copy()}
    results = make_sweep(levels, "a", untouched=base - 0.3, metric=SCORE)
    entries = compare_cells(results)
    rows = forest.forest_rows(results, entries)
    assert [row.label for row in rows] == ["a", "b", "c", "a against the untouched backbone"]
    assert [row.apart for row in rows] == [False, False, False, True]
    assert rows[0].verdict is None
    said = {e.cell.label: e.verdict for e in entries}
    assert rows[1].verdict == said["b"] and rows[1].verdict.verdict == DIFFERS
    assert rows[2].verdict.verdict == IDENTICAL
    # The control less the backbone, where the entry of the backbone has it the other way round
    assert rows[3].verdict.mean == pytest.approx(0.3)
    assert said["untouched backbone"].mean == pytest.approx(-0.3)
    picture = forest.draw_forest(results, entries, tmp_path)
    assert "hold for all 2 at once" in picture.caption and "family of its own" in picture.caption
    assert "b: differs: better" in picture.alt and (tmp_path / "forest.svg").is_file()
    alone = make_sweep({"a": base}, "a")
    assert forest.draw_forest(alone, compare_cells(alone), tmp_path) is None


def test_with_several_controls_each_level_has_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    factors = {"method": ["x", "y"], "preset": ["p", "q"]}
    levels = {(m, p): rng.random((3, 20)) for m in "xy" for p in "pq"}
    results = make_sweep(levels, ("x", "p"), factors=factors, within="method")
    rows = forest.forest_rows(results, compare_cells(results))
    assert [(row.verdict is None, row.group) for row in rows] == [
        (True, "x"),
        (False, "x"),
        (True, "y"),
        (False, "y"),
    ]


def test_verdicts_are_told_by_marker_as_well_as_by_colour() -> None:
    lower = ReportedMetric("fid", "FID", "lower", "", delta=0.1)
    neither = ReportedMetric("closed", "Closed", "none", "")
    looks = {
        "up": forest.find_look(make_row(0.3, 0.2, 0.4, DIFFERS).verdict),
        "down": forest.find_look(make_row(-0.3, -0.4, -0.2, DIFFERS).verdict),
        "small": forest.find_look(make_row(0.05, 0.02, 0.08, DIFFERS).verdict),
        "none": forest.find_look(make_row(0.0, -0.05, 0.05, NO_DIFFERENCE).verdict),
        "open": forest.find_look(make_row(0.0, -0.2, 0.2, OPEN).verdict),
        "collapsed": forest.find_look(make_row(-0.5, -0.9, -0.1, COLLAPSED).verdict),
        "identical": forest.find_look(make_row(0.0, 0.0, 0.0, IDENTICAL).verdict),
        "control": forest.find_look(None),
    }
    in_grey = {(look.marker, look.full, str(look.line)) for look in looks.values()}
    assert len(in_grey) == len(looks)
    assert looks["up"].color == forest.BLUE and looks["down"].color == forest.ORANGE
    assert looks["up"].full and not looks["small"].full
    worse = forest.find_look(make_row(0.3, 0.2, 0.4, DIFFERS, lower).verdict)
    assert (worse.marker, worse.color) == (">", forest.ORANGE)
    higher = forest.find_look(make_row(-0.3, -0.4, -0.2, DIFFERS, neither).verdict)
    assert (higher.marker, higher.color) == ("<", forest.BLUE)


@pytest.mark.parametrize(
    ("rows", "delta", "limits"),
    [
        # δ and every end, with a twentieth of the width on either side
        ([CONTROL, make_row(0.1, -0.2, 0.4, OPEN)], 0.05, (-0.23, 0.43)),
        ([CONTROL, make_row(0.0, -0.01, 0.01, NO_DIFFERENCE)], 0.05, (-0.055, 0.055)),
        # The middle half-width is .1, so that a bar of ±9 is cut at ±.3
        (
            [make_row(0.0, -x, x, OPEN) for x in (0.1, 0.1, 9.0)],
            0.05,
            (-0.33, 0.33),
        ),
        ([CONTROL, make_row(0.2, NAN, NAN, OPEN)], None, (-0.01, 0.21)),
        ([CONTROL, make_row(0.0, 0.0, 0.0, IDENTICAL)], None, (-1.0, 1.0)),
    ],
)
def test_the_axis_reaches_as_far_as_can_be_told_apart(
    rows: list[forest.ForestRow], delta: float | None, limits: tuple[float, float]
) -> None:
    assert forest.find_limits(rows, delta) == pytest.approx(limits)


def test_what_is_drawn_are_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(forest, "save", lambda figure, folder, name: kept.append(figure))
    rows = [
        CONTROL,
        make_row(0.3, 0.2, 0.4, DIFFERS, label="one"),
        make_row(0.0, -9.0, 9.0, OPEN, label="two"),
        make_row(0.01, -0.02, 0.04, NO_DIFFERENCE, label="three"),
        make_row(0.2, NAN, NAN, OPEN, label="four", apart=True),
    ]
    forest.draw_rows(rows, "Difference", 0.1, tmp_path)
    [axes] = kept.pop().axes
    bars = [line.get_xdata() for line in axes.lines if line.get_linestyle() in ("-", "--")]
    spans = {tuple(map(float, bar)) for bar in bars if len(bar) == 2}
    assert (0.2, 0.4) in spans and (-0.02, 0.04) in spans
    left, right = axes.get_xlim()
    assert not any(low < left or high > right for low, high in spans - {(0.0, 1.0)})
    marked = [line for line in axes.lines if line.get_marker() in ("<", ">", "o", "s")]
    points = [float(line.get_xdata()[0]) for line in marked if line.get_markersize() == 6]
    assert points == [0.3, 0.0, 0.01, 0.2]
    texts = [text.get_text() for text in axes.texts]
    assert "+0.300 [+0.200, +0.400]" in texts and "0.000 [−9.000, +9.000]" in texts
    assert texts.count("control") == 1 and "+0.200" in texts
    words = ["differs: better", "open", "no difference that matters"]
    assert [t for t in texts if t in words] == [words[0], words[1], words[2], words[1]]
    said = " ".join(forest.explain_marks([row.verdict for row in rows if row.verdict]))
    assert "δ = 0.1" in said and "triangle" in said and "square" in said
    assert "cross" not in said and "hollow triangle" not in said


@pytest.mark.parametrize("count", [1, 4, 9, 26])
@pytest.mark.parametrize("metric", [SCORE, ReportedMetric("kid", "KID", "lower", "")])
def test_any_number_of_rows_fits_a_page(count: int, metric: Any, tmp_path: Path) -> None:
    from PIL import Image

    long = "method.gate.supervision=post_softmax_renormalised / encoder and decoder"
    rows = [CONTROL] + [
        make_row(0.01 * i, 0.01 * i - 0.1, 0.01 * i + 0.1, OPEN, metric, label=f"{long} {i}")
        for i in range(count)
    ]
    forest.draw_rows(rows, "Difference", metric.delta, tmp_path)
    width, height = Image.open(tmp_path / "forest.png").size
    assert height <= forest.PAGE * 40 + 1 and width == round(forest.WIDTH * 40)
