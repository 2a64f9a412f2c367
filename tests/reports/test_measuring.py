"""Numbers that different code measured are never paired across, nor in one table."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reports.answer.conclusion import conclude
from reports.collect import leave_out_other_code, refuse_mixed_metrics
from reports.compare import compare
from reports.compare.content import list_unshared, warn
from reports.content import build_content, measurement_blocks
from reports.measuring import Measuring, read_values, select_latest
from reports.overview import summarize_sweep, warn_of_codes
from reports.provenance import explain_missing, fact_differences, gather_facts
from reports.results import ReportError, SweepResults
from reports.tables import compare_cells, headline_table
from reports.typeset import Picture

PICTURES = {"response": Picture("response.svg", "", "")}


def measure(results: SweepResults, code: Any, at: Any = lambda cell, seed: 1) -> SweepResults:
    """Trials whose success ``code(number of the cell, seed)`` measured (None: unknown)."""
    for i, cell in enumerate(results.cells):
        for seed, trial in cell.trials.items():
            name, time = code(i, seed), at(i, seed)
            if name is not None:
                parts = {"judge": (name, time), "distribution": ("same", time)}
                trial.measuring = Measuring(parts, {"success": "judge", "fid": "distribution"})
    leave_out_other_code(results)
    refuse_mixed_metrics(results)
    return results


def test_seeds_of_other_code_are_never_paired(changeable: Any) -> None:
    """The first seed of every cell is old."""
    results = changeable("threshold")
    seeds = results.seeds
    results = measure(results, lambda i, seed: "new" if seed else "old", lambda i, seed: seed)
    entries = compare_cells(results)
    for entry in entries:
        if entry.metric.key == "success":
            assert set(entry.cell.per_seed("success")) == set(seeds[1:])
            assert entry.versus is None or set(entry.versus.seeds) == set(seeds[1:])
        if entry.metric.key == "fid" and entry.versus:
            assert set(entry.versus.seeds) == set(seeds), "what measured it is the same"
    for _, trial in results.trials():
        if trial.samples and not trial.seed:
            assert set(trial.samples.success) == {None}


def test_a_cell_of_other_code_stands_in_no_table_beside_the_others(changeable: Any) -> None:
    results = changeable("threshold")
    last = len(results.cells) - 1
    measure(results, lambda i, s: "old" if i == last else "new", lambda i, s: i != last)
    cell, entries = results.cells[last], compare_cells(results)
    assert not cell.per_seed("success") and cell.per_seed("fid")
    row = next(row for row in headline_table(results, entries).rows if row[0] == cell.label)
    assert row[1] == "–"
    content = build_content(results, entries, conclude(results, entries), PICTURES)
    assert "Left out, since other code measured them" in content["warning"]
    assert f"Success of {cell.name} (seeds 0, 1, 2)" in content["warning"]
    assert "--remeasure" in content["warning"] and "--remeasure" in explain_missing(results)
    assert gather_facts(results)["Measured by"] == "judge new / old, distribution same"


def test_old_results_report_and_say_that_it_is_unknown(changeable: Any) -> None:
    results = changeable("threshold")
    before = {(c.name, s): dict(t.metrics) for c in results.cells for s, t in c.trials.items()}
    measure(results, lambda i, seed: None)
    after = {(c.name, s): dict(t.metrics) for c in results.cells for s, t in c.trials.items()}
    assert after == before and not results.other_code
    assert gather_facts(results)["Measured by"] == "not recorded"


def test_unknown_code_is_other_code(changeable: Any) -> None:
    results = measure(changeable("threshold"), lambda i, seed: "new" if seed else None)
    assert all(0 not in cell.per_seed("success") for cell in results.cells)
    assert gather_facts(results)["Measured by"].endswith(" by 6 of 18 trials")


def test_what_measured_is_shown(changeable: Any) -> None:
    results = measure(changeable("threshold"), lambda i, seed: "abc")
    for _, trial in results.trials():
        trial.facts = {"success": {"detector": "judge"}}
    (_, pairs) = measurement_blocks(results)
    assert ("Success", "detector judge; measuring code abc") in map(tuple, pairs["pairs"])


@pytest.fixture
def version(changeable: Any) -> SweepResults:
    """The sweep ``threshold`` of another output."""
    other = changeable("threshold")
    other.uri = "elsewhere"
    other.cells = copy.deepcopy(other.cells)
    return other


def test_two_sweeps_of_different_measuring_code_are_not_compared(
    changeable: Any, version: SweepResults
) -> None:
    left = measure(changeable("threshold"), lambda i, seed: "old")
    right = measure(version, lambda i, seed: "new")
    found = compare(("a", left), ("b", right))
    assert found.refused["Success"] == "measured by different code (old and new)"
    assert "success" not in {d.metric.key for d in found.differences}
    assert "fid" in {d.metric.key for d in found.differences}
    assert "Measured by different code, so not compared: Success" in warn(found)
    assert "--remeasure" in warn(found)
    assert ("Success", "not compared: measured by different code (old and new)") in list_unshared(
        found
    )
    left.metrics = [m for m in left.metrics if m.key == "success"]
    with pytest.raises(ReportError, match="nothing to compare.*different code"):
        compare(("a", left), ("b", right))


def test_of_two_old_sweeps_nothing_is_refused(changeable: Any, version: SweepResults) -> None:
    assert not compare(("a", changeable("threshold")), ("b", version)).refused


def test_differences_of_libraries_and_threads_are_listed(changeable: Any) -> None:
    results = changeable("threshold")
    trials = [trial for _, trial in results.trials()]
    assert fact_differences(trials) == {}
    for trial in trials:
        trial.versions = {"scipy": "1.17", "threads": 2 if trial.seed else 1, "code": trial.run_id}
    assert fact_differences(trials) == {"threads": "1 (6 trials) / 2 (12 trials)"}
    trials[0].measured_with = trials[0].versions | {"scipy": "1.18"}
    assert fact_differences(trials)["measured with scipy"] == "1.18 (1 trial) / 1.17 (17 trials)"


def test_a_run_whose_numbers_are_replaced_has_none() -> None:
    metrics = {"eval/success": 0.5, "eval/fid": 3.0, "train/loss": 1.0}
    assert read_values(metrics, {}) == {"success": 0.5, "fid": 3.0}
    assert read_values(metrics, {"measured.dropped": "fid,x"}) == {"success": 0.5}
    assert read_values(metrics, {"measured.replacing": "true"}) == {}


def test_names_are_those_that_mlflow_keeps() -> None:
    content = {"parts": {"judge": {"code": "a", "at": 3}}, "of": {"success_a+b": "judge"}}
    measuring = Measuring.read(content, 1)
    assert measuring.of_value("success_a_b") == ("a", 3)
    assert measuring.of_value("gate_closed") == ("unknown", 1)
    later = Measuring({"judge": ("b", 4)}, {"success_a_b": "judge"})
    assert select_latest([(later, ["success_a_b"]), (measuring, ["success_a_b"])]) == {
        "success_a_b": "b"
    }


def test_the_table_of_all_answers_says_which_sweeps_do_not_compare(changeable: Any) -> None:
    lines = []
    for name, code in (("threshold", "old"), ("broken", "new"), ("eight", "new")):
        results = measure(changeable(name), lambda i, seed, code=code: code)
        lines.append(summarize_sweep(results, compare_cells(results)))
    assert [line.code for line in lines] == ["old", "new", "new"]
    (warning,) = warn_of_codes(lines)
    assert "old in threshold; new in broken and eight" in warning and "--remeasure" in warning
    assert warn_of_codes(lines[1:]) == []
