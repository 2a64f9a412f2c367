"""Corrected shares beside raw ones, wherever a report shows levels of what a detector calls right;
the labels are made up."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers.image_results import SCORE, SUCCESS
from helpers.image_sweeps import make_sweep

from lightning_modules.metrics import correction
from reports.answer.conclusion import conclude
from reports.answer.explain import explain_statistics
from reports.answer.files import answer_json
from reports.collect import ways_of_measuring
from reports.compare.tables import show_mean
from reports.content import images_table, measurement_blocks
from reports.correcting import correct_cells, read_errors
from reports.export import to_csv
from reports.measuring import Measuring
from reports.overview import summarize_sweep, summary_csv, summary_table
from reports.results import SweepResults
from reports.statistics import ErrorRates, correct_counts
from reports.tables import compare_cells, headline_table, mean_tables

# Of 100 that are right 90 are called right, of 200 that are wrong 190 wrong: a true difference
# appears 0.85 times as large
ERRORS = {"sensitivity": [90, 100], "specificity": [190, 200]}


def make_judged(errors: Any = ERRORS) -> SweepResults:
    """Two cells of two seeds and 20 prompts: 0.475 and 0.9 are called right, 0.5 and 1 are."""
    a, b = np.zeros((2, 20)), np.zeros((2, 20))
    a[0, :10], a[1, :9], b[:, :18] = 1, 1, 1
    results = make_sweep({"a": a, "b": b}, "a")
    for _, trial in results.trials():
        facts = {"detector": "judge", "images": 20}
        trial.facts = {"success": facts | ({"errors": errors} if errors else {})}
        assert trial.samples is not None
        trial.samples.success[:] = [bool(v) for v in trial.samples.columns["success"]]
    return results


def test_the_correction_is_that_of_the_backbones_card() -> None:
    for right, sure, rate in product((0, 3, 20, 40), (25, 31), (29, 60)):
        made = (sure, 31), (rate, 60)
        if sum(count / total for count, total in made) <= 1:
            continue
        own = correct_counts(right, 40, ErrorRates(*made), 0.95)
        assert own == pytest.approx(
            correction.correct_share((right, 40), correction.ErrorRates(*made))
        )


def test_levels_have_a_corrected_share_wherever_they_are_shown() -> None:
    results = make_judged()
    entries = compare_cells(results)
    assert [e.summary.mean for e in entries] == pytest.approx([0.475, 0.9])
    assert [e.corrected.share for e in entries] == pytest.approx([0.5, 1.0])
    low, high = entries[0].corrected[1:]
    assert low < 0.5 < high and high - low > 0.3 and entries[1].corrected.high == 1

    first = headline_table(results, entries)
    assert first.rows[0][first.columns.index("Corrected")].startswith("0.500\n[0.3")
    (means,) = mean_tables(results, entries)
    assert [row[0] for row in means.rows] == ["Success ↑ (share)", "Success, corrected ↑ (share)"]
    assert means.rows[1][1].startswith("0.500 [0.3") and means.rows[0][1].startswith("0.475")
    images = images_table(results)
    assert images and images.rows[0][1] == "19 of 40"
    assert images.rows[0][images.columns.index("Corrected")].startswith("0.500 [0.3")
    rows = [*csv.DictReader(io.StringIO(to_csv(results, entries)))]
    assert [float(row["corrected"]) for row in rows] == pytest.approx([0.5, 1.0])
    line = summarize_sweep(results, entries)
    assert "corrected 0.500" in summary_table([line]).rows[0][2]
    (row,) = csv.DictReader(io.StringIO(summary_csv([line])))
    assert float(row["control_corrected"]) == pytest.approx(0.5)
    answer = json.loads(answer_json(results, entries))["corrected"]
    assert answer["informative"] == pytest.approx(0.85) and answer["sensitivity"] == [90, 100]
    assert answer["shares"]["success"]["b"]["share"] == pytest.approx(1)
    assert show_mean(0.475, 3, ErrorRates((90, 100), (190, 200))) == "0.475\ncorrected 0.500"


def test_the_report_says_how_a_difference_scales_and_verdicts_stay_raw() -> None:
    judged, plain = make_judged(), make_judged(None)
    entries = compare_cells(judged)
    text = " ".join(explain_statistics(judged, entries, conclude(judged, entries)))
    assert "90 right (sensitivity 0.900)" in text and "190 wrong (specificity 0.950)" in text
    assert "corrected difference = raw difference / 0.850" in text
    for own, other in zip(entries, compare_cells(plain), strict=True):
        assert (own.verdict, own.summary, own.versus) == (
            other.verdict,
            other.summary,
            other.versus,
        )


@pytest.mark.parametrize(
    "errors",
    [None, {}, {"sensitivity": [1, 0], "specificity": [1, 2]}, {"sensitivity": [1, 2]}, 3],
)
def test_without_error_rates_nothing_is_said(errors: Any) -> None:
    results = make_judged(errors)
    entries = compare_cells(results)
    assert read_errors(results, SUCCESS) is None and not any(e.corrected for e in entries)
    assert "Corrected" not in headline_table(results, entries).columns
    assert len(mean_tables(results, entries)[0].rows) == 1
    assert "Corrected" not in images_table(results).columns  # type: ignore[union-attr]
    text = " ".join(explain_statistics(results, entries, conclude(results, entries)))
    assert "orrected" not in text
    assert json.loads(answer_json(results, entries))["corrected"] is None


def test_a_detector_no_better_than_chance_corrects_nothing_and_is_named() -> None:
    results = make_judged({"sensitivity": [5, 10], "specificity": [5, 10]})
    entries = compare_cells(results)
    assert correct_cells(results, SUCCESS) == {} and not any(e.corrected for e in entries)
    text = " ".join(explain_statistics(results, entries, conclude(results, entries)))
    assert "No share is corrected" in text and "says nothing" in text


def test_labels_are_no_way_of_measuring_and_the_latest_count() -> None:
    results = make_judged()
    trial = results.cells[1].trials[1]
    later = {"sensitivity": [200, 200], "specificity": [200, 200]}
    trial.facts = {"success": trial.facts["success"] | {"errors": later}}
    trial.measuring = Measuring({"judge": ("c", 5)}, {"success": "judge"})
    for _, other in results.trials():
        other.measuring = (
            other.measuring
            if other is trial
            else Measuring({"judge": ("c", 4)}, {"success": "judge"})
        )
    assert len(ways_of_measuring("success", results)) == 1
    assert read_errors(results, SUCCESS) == ErrorRates((200, 200), (200, 200))
    (_, pairs) = measurement_blocks(results)
    assert "sensitivity" not in str(pairs) and "detector judge" in str(pairs)
    assert read_errors(results, SCORE) is None
