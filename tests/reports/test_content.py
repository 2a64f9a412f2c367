"""What stands in a report beside tables and figures, which have their own tests."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_sweeps import SCORE, make_sweep
from helpers.stored_sweeps import MemoryClient, StoredSweep, store

from reports import collect as collect_module
from reports.content import _context_blocks, images_table, measurement_blocks, select_front
from reports.export import to_csv
from reports.results import ReportedMetric
from reports.tables import compare_cells, headline_table, mean_tables


def test_one_way_of_measuring_is_named_once_for_all_its_metrics(changeable: Any) -> None:
    results = changeable("threshold")
    assert measurement_blocks(results) == []
    way = {"extractor": "judge", "n_real": 64}
    for _, trial in results.trials():
        trial.facts = {"fid": way, "recall": way, "success": {"detector": "judge"}}
    results.refused = {"KID": "measured in different ways"}
    heading, pairs = measurement_blocks(results)
    ways = {frozenset(names.split(", ")): text for names, text in pairs["pairs"]}
    assert heading["text"] == "How it was measured"
    assert ways[frozenset({"Recall", "FID"})] == "extractor judge; n real 64"
    assert ways[frozenset({"Success"})] == "detector judge"
    assert ways[frozenset({"KID"})] == "not shown: measured in different ways"


def test_images_are_counted_and_compared_one_by_one(results: Any) -> None:
    threshold = results("threshold")
    table = images_table(threshold)
    assert table is not None and table.marks == {0: "untouched", 3: "control"}
    cell, control = threshold.levels[-1], threshold.control
    pairs = [
        (a, b)
        for seed in cell.trials
        for a, b in zip(
            cell.trials[seed].samples.success, control.trials[seed].samples.success, strict=True
        )
    ]
    won, lost = pairs.count((True, False)), pairs.count((False, True))
    assert won != lost
    row = next(row for row in table.rows if row[0] == cell.label)
    assert row[1] == f"{sum(a for a, _ in pairs)} of 96" and row[3] == f"{won} / {lost}"
    assert float(row[4].replace("−", "-")) == pytest.approx((won - lost) / 96, abs=5e-4)


def test_page_one_has_what_was_compared_and_a_second_figure_where_there_is_room(
    results: Any, changeable: Any
) -> None:
    all_of_them = dict.fromkeys(("forest", "response", "heatmap"))
    numeric, named, plane = results("threshold"), results("clear"), results("plane")
    assert select_front(numeric, all_of_them) == ["forest", "response"]
    assert select_front(named, all_of_them) == ["forest"]
    assert select_front(plane, all_of_them) == ["forest", "heatmap"]
    many = changeable("threshold")
    many.cells = [*many.cells, *many.levels, *many.levels]
    assert select_front(many, all_of_them) == ["forest"]
    without = {"response": None, "heatmap": None}
    assert select_front(numeric, without) == ["response"]
    assert select_front(plane, without) == ["heatmap"]


def test_the_table_says_how_often_images_are_better() -> None:
    """Of 2 seeds and 4 prompts three images are better and one worse: (3 + 4/2) / 8."""
    base = np.full((2, 4), 0.5)
    other = base + np.array([[0.1, 0.2, 0.0, -0.3], [0.1, 0.0, 0.0, 0.0]])
    sweep = make_sweep({"a": base, "b": other}, "a", metric=SCORE, untouched=base)
    entries = compare_cells(sweep)
    table = headline_table(sweep, entries)
    at = table.columns.index("P(better)")
    assert [row[at].partition("\n")[0] for row in table.rows] == ["–", "–", "0.625"]
    lines = {row["cell"]: row for row in csv.DictReader(io.StringIO(to_csv(sweep, entries)))}
    assert float(lines["b"]["p_better"]) == pytest.approx(0.625)
    low, high = (float(lines["b"][f"p_better_{end}95"]) for end in ("low", "high"))
    assert low < 0.625 < high and lines["a"]["p_better"] == ""
    neither = make_sweep(
        {"a": base, "b": other}, "a", metric=ReportedMetric("closed", "Closed", "none", "")
    )
    assert "P(better)" not in headline_table(neither, compare_cells(neither)).columns


@pytest.mark.parametrize("name", ["embedded", "embedded_strong", "sdxl"])
def test_numbers_of_the_embedded_backbones_are_kept_apart_from_the_papers(
    changeable: Any, name: str
) -> None:
    results = changeable("threshold")
    results.config["backbone"] = {"name": name}
    said = _context_blocks(results)[0]["text"]
    assert f"“{name}”" in said
    assert ("not comparable with those of any paper" in said) == (name != "sdxl")


def test_published_numbers_fit_the_page_and_break_between_pages(changeable: Any) -> None:
    results = changeable("threshold")
    results.published = [{"what": "SDXL", "metric": "FID", "data": "a long word " * 9}] * 40
    table = _context_blocks(results)[1]
    # Widths of their own left none for the data, which stood on what is beside it
    assert "auto" not in table["widths"] and table["tall"]
    assert sum(width for width in table["widths"] if width != "fill") < 15


def test_without_a_judge_no_image_is_counted(changeable: Any) -> None:
    results = changeable("threshold")
    for _, trial in results.trials():
        trial.samples.success[:] = [None] * 32
    assert images_table(results) is None


def test_the_details_say_what_a_reviewer_asks(quick_report: Any, words_of: Any) -> None:
    text = words_of(quick_report("threshold") / "report.json")
    for part in (
        "cannot give a p below 1, whatever",
        "widened to hold for all 4 comparisons at once",
        "Noise floor",
        "24.57",
        "not comparable with those of any paper",
        "python -m sweeps.threshold",
        "0123456789abcdef, without uncommitted changes",
        "torch 2.13.0",
        "2 CPU cores",
        "method.gate.bias = 2.0",
        "64 prompts per split",
        "Nothing: every cell has all 3 seeds",
        "noncentral t",
        "with probability 80 %",
        "0.5 (control)",
    ):
        assert part in text, part


def test_special_signs_are_printed_and_missing_seeds_named(
    quick_report: Any, words_of: Any, special: str
) -> None:
    folder = quick_report("broken")
    text = words_of(folder / "report.json")
    assert text.count(special.replace("漢", "[U+6F22]")) >= 4  # Question, origin, number, error
    for part in (
        "Unfinished: 3 of 12 trials missing",
        "Made by several versions of the code (all c0ffee00 / 0b501e7e)",
        "threshold=0.4, seed 0: failed: OutOfMemoryError",
        "threshold=0.4, seed 1: still running",
    ):
        assert part in text, part
    assert "0.4 lacks seed 0, 1; 0.6 lacks seed 2" in (folder / "report.md").read_text("utf-8")


def test_no_interval_of_a_share_lies_beyond_0_and_1(tmp_path: Path) -> None:
    values = {
        None: (0.5, 0.6, 0.55),
        0.4: (0.02, 0.2, 0.01),
        0.5: (0.99, 0.9, 1.0),
        0.6: (1, 0, 1),
    }
    client = MemoryClient()
    stored = StoredSweep("shares", lambda metric, level, seed: float(values[level][seed]))
    store(client, stored, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_module, "connect", lambda uri: client)
        results = collect_module.collect("shares:", "shares")
    entries = compare_cells(results)
    for entry in entries:
        summary, shift, wide = entry.intervals
        assert 0 <= summary.low <= summary.high <= 1
        assert all(-1 <= part.low <= part.high <= 1 for part in (shift, wide) if part)
    (table,) = mean_tables(results, entries)
    assert "0.077 [0.000, 0.342]" in table.rows[0] and "0.550 ± 0.124" in table.rows[0]
    assert "ends at 0 or 1" in table.title
