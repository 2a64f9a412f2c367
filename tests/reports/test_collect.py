from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.stored_sweeps import KEY, SWEEPS, UNTOUCHED, MemoryClient

from reports import collect as collect_module
from reports import prose
from reports.collect import (
    collect,
    connect,
    list_sweeps,
    read_history,
    read_samples,
    refuse_mixed_metrics,
)
from reports.provenance import explain_missing
from reports.results import ReportError, Samples, SweepResults, hide_password
from reports.tables import note_missing_seeds

MEMORY = "memory:"


@pytest.fixture
def altered(memory: MemoryClient) -> Iterator[MemoryClient]:
    """The stored sweeps, for a test to change."""
    other = copy.deepcopy(memory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_module, "connect", lambda uri: other)
        yield other


def test_cells_stand_in_the_order_of_the_plan(results: Any) -> None:
    cells = results("threshold").cells
    assert [cell.label for cell in cells] == [
        "untouched backbone",
        "0.3",
        "0.4",
        "0.5",
        "0.6",
        "0.7",
    ]
    assert [cell.untouched for cell in cells] == [True] + [False] * 5
    assert results("threshold").control.name == "threshold=0.5"
    levels = [cell.label for cell in results("clear").levels]
    assert levels == ["hard", "soft", "top_k"]  # Not alphabetical, not as created
    assert results("threshold").numeric and not results("clear").numeric


def test_combinations_are_named_by_their_levels(results: Any) -> None:
    grid, threshold = results("grid"), results("threshold")
    assert len(grid.cells) == 19 and not grid.numeric
    assert (grid.noun, threshold.noun) == ("combination", "level")
    assert [cell.label for cell in grid.cells[:2]] == [
        "untouched backbone",
        "0.0 / released / none",
    ]
    assert prose.name_cell(grid, grid.control) == "bias=2.0, surrogate=renormalised, protect=bos"
    assert prose.name_cell(grid, grid.cells[0]) == "untouched backbone"
    assert prose.name_cell(threshold, threshold.control) == "0.5"
    assert not grid.cells[0].per_seed("overhead") and len(grid.control.per_seed("overhead")) == 3


def test_combinations_that_the_plan_no_longer_holds_are_left_out(altered: MemoryClient) -> None:
    without = [{"method.gate.bias": "4.0", "method.gate.protect": "none"}]
    altered.experiments["grid"].tags["without"] = json.dumps(without)
    grid = collect(MEMORY, "grid")
    names = [f"bias=4.0, surrogate={name}, protect=none" for name in ("released", "renormalised")]
    assert len(grid.cells) == 17 and grid.left_out == names


def test_missing_and_failed_seeds_are_named(results: Any, special: str) -> None:
    cells = {cell.label: cell for cell in results("broken").cells}
    running = "still running, or stopped hard"
    assert cells["0.4"].unfinished == {0: "failed: OutOfMemoryError: 3 GiB", 1: running}
    assert cells["0.6"].unfinished == {2: f"failed: RuntimeError: {special}"}
    assert list(cells["0.4"].trials) == [2] and list(cells["0.6"].trials) == [0, 1]
    assert not cells["0.5"].unfinished and results("broken").count_trials() == (9, 12)


def test_the_last_finished_attempt_counts_and_old_levels_are_left_out(
    altered: MemoryClient,
) -> None:
    factor = {"key": KEY, "levels": [0.5, True, None, "mid"], "numeric": False}
    tags = {"sweep": "attempts", "headline": "success", "seeds": "[0]"}
    tags["metrics"] = '[{"key": "success", "label": "Success", "better": "higher"}]'
    experiment = altered.create_experiment("attempts", tags | {"factors": json.dumps([factor])})
    for text in ("0.5", "true", "null", "mid", "0.9"):
        own = {"role": "cell", "cell": f"threshold={text}", "baseline": str(text == "0.5").lower()}
        cell = altered.create_run(experiment, text, own).info.run_id
        altered.log_param(cell, KEY, text)
        attempts = [("FINISHED", 0.2)]
        if text == "0.5":
            attempts = [("FINISHED", 0.1), ("FINISHED", 0.7), ("FAILED", 0.9)]
        for status, value in attempts:
            parent = {"role": "seed", "mlflow.parentRunId": cell}
            run = altered.create_run(experiment, "seed", parent).info.run_id
            altered.log_param(run, "seed", "0")
            altered.log_metric(run, "eval/success", value)
            altered.set_terminated(run, status)
    found = collect(MEMORY, "attempts")
    assert [cell.label for cell in found.cells] == ["0.5", "true", "null", "mid"]
    assert found.control.per_seed("success") == {0: 0.7} and not found.control.unfinished
    assert found.left_out == ["threshold=0.9"] and found.untouched is None
    altered.experiments["attempts"].lifecycle_stage = "deleted"
    with pytest.raises(ReportError, match="no sweep 'attempts'"):
        collect(MEMORY, "attempts")


def test_a_search_has_the_levels_that_it_tried(altered: MemoryClient) -> None:
    altered.experiments["eight"].tags["mode"] = "search"
    for run in altered.runs.values():
        if run.data.tags.get("cell") == "threshold=0.6":
            run.data.params[KEY] = "0.55"
    assert collect(MEMORY, "eight").factors[0].levels == (0.5, 0.55)


@pytest.mark.parametrize(
    ("sweep", "tag", "message"),
    [
        ("blocks", "false", "tag baseline=true for each recipe, .* none for recipe=mcgm"),
        ("eight", "true", "exactly one cell run with the tag baseline=true"),
    ],
)
def test_controls_must_be_clear(altered: MemoryClient, sweep: str, tag: str, message: str) -> None:
    names = ("recipe=mcgm, preset=sound", "threshold=0.6")
    place = altered.experiments[sweep].experiment_id
    for run in altered.runs.values():
        if run.data.tags.get("cell") in names and run.info.experiment_id == place:
            run.data.tags["baseline"] = tag
    with pytest.raises(ReportError, match=message):
        collect(MEMORY, sweep)


def test_undefined_values_are_no_values(changeable: Any) -> None:
    cell = changeable("same").control
    assert cell.per_seed("fid") == {}
    cell.trials[1].metrics["odd"], cell.trials[0].metrics["odd"] = float("nan"), 1.0
    assert cell.per_seed("odd") == {0: 1.0}


def test_what_is_undefined_is_left_out_and_named(altered: MemoryClient, results: Any) -> None:
    threshold = results("threshold")
    cell, metric = threshold.control, threshold.metrics[-1]
    runs = [altered.runs[cell.trials[seed].run_id] for seed in (0, 1)]
    key = f"eval/{metric.key}"
    runs[0].data.metrics[key] = 1.7976931348623157e308  # What MLflow makes of infinity
    runs[1].data.metrics[key] = float("nan")
    again = collect(MEMORY, "threshold")
    cell = again.control
    assert cell.per_seed(metric.key).keys() == cell.trials.keys() - {0, 1}
    assert cell.without_value(metric.key) == {0: "infinite", 1: "NaN"}
    text = explain_missing(again)
    assert f"{metric.label} of {cell.label} is undefined for seed 0, 1 (infinite; NaN)" in text
    assert "is undefined" in note_missing_seeds(again)


def test_errors_are_one_line_that_helps(memory: MemoryClient, tmp_path: Path) -> None:
    known = ", ".join(sorted(sweep.name for sweep in SWEEPS))
    with pytest.raises(
        ReportError,
        match=rf"no sweep 'treshold' at .*; there are: {known}; did you mean threshold\?$",
    ):
        collect(MEMORY, "treshold")
    with pytest.raises(ReportError, match="nothing of 'unstarted' has finished yet .4 cells"):
        collect(MEMORY, "unstarted")
    with pytest.raises(ReportError, match="no MLflow database at .*elsewhere.db"):
        connect(f"sqlite:///{tmp_path}/elsewhere.db")
    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("tag", ["factors", "metrics", "headline", "seeds"])
def test_what_no_sweep_planned_is_refused(altered: MemoryClient, tag: str) -> None:
    del altered.experiments["same"].tags[tag]
    with pytest.raises(ReportError, match=f"lacks the tag.* {tag}"):
        collect(MEMORY, "same")


def test_sweeps_are_listed_with_their_questions(memory: MemoryClient) -> None:
    assert list_sweeps(MEMORY)["clear"] == "Does it matter?"


def test_a_trial_has_the_times_of_its_run(results: Any, memory: MemoryClient) -> None:
    trial = results("threshold").control.trials[0]
    info = memory.runs[trial.run_id].info
    assert trial.started == info.start_time
    assert trial.minutes * 60_000 == pytest.approx(info.end_time - info.start_time)
    assert trial.seconds == {"data": 1.5, "train": 20.0, "evaluate": 12.0}


def test_samples_come_with_outcomes_and_images(results: Any) -> None:
    threshold = results("threshold")
    trial = threshold.control.trials[0]
    samples = trial.samples
    assert len(samples.success) == len(samples.ids) == len(set(samples.ids)) == 32
    assert threshold.fetch(trial, samples.images[0]).read_bytes().startswith(b"\x89PNG")
    assert threshold.fetch(trial, "samples/none.png") is None
    assert threshold.fetch(trial, "none/none.png") is None


def test_several_images_of_a_prompt_count_as_their_mean() -> None:
    none: list[None] = [None] * 3
    ids = ["val/1#0", "val/1#1", "val/2#0"]
    samples = Samples(ids, ["a", "a", "b"], ["val"] * 3, none, [True, False, True], none, none)
    assert samples.success_by_prompt() == {"val/1": 0.5, "val/2": 1.0}


def test_images_that_nobody_judged_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    columns = {"split": "val", "id": ["1", "2", "3"], "prompt": "a", "sample": None, "mask": None}
    judged = pd.Series([True, None, False], dtype=object)
    pd.DataFrame(columns | {"success": judged}).to_parquet(tmp_path / "some.parquet")
    pd.DataFrame(columns).to_parquet(tmp_path / "none.parquet")
    pd.DataFrame({"split": ["val"]}).to_parquet(tmp_path / "other.parquet")
    some, none = (read_samples(tmp_path / f"{name}.parquet", "run") for name in ("some", "none"))
    assert some.success == [True, None, False]
    assert some.success_by_prompt() == {"val/1": 1.0, "val/3": 0.0}
    assert none.success == [None] * 3 and none.success_by_prompt() == {}
    with pytest.raises(ReportError, match="no column 'id'"):
        read_samples(tmp_path / "other.parquet", "run")


def test_a_step_that_was_done_twice_counts_once(altered: MemoryClient, results: Any) -> None:
    threshold = results("threshold")
    trial = threshold.control.trials[0]
    altered.histories.clear()
    for value, step in ((0.5, 10), (0.9, 20), (0.3, 20), (float("nan"), 30)):
        altered.log_metric(trial.run_id, "train/loss", value, step)
    assert read_history(threshold, trial, "loss") == {10: 0.5, 20: 0.3}


@pytest.fixture
def measured(changeable: Any) -> Callable[..., SweepResults]:
    """The sweep ``threshold`` with facts that ``facts(cell number, seed)`` gives of each trial."""

    def make(facts: Callable[[int, int], dict[str, Any]]) -> SweepResults:
        results = changeable("threshold")
        for i, cell in enumerate(results.cells):
            for seed, trial in cell.trials.items():
                trial.facts = facts(i, seed)
        return results

    return make


@pytest.mark.parametrize(
    ("facts", "differing"),
    [
        (lambda i, seed: {"fid": {"n": 64 if (i, seed) == (2, 1) else 128}}, "n 128 and 64"),
        (
            lambda i, seed: {"fid": {"extractor": "judge"}} if i else {},
            'extractor null and "judge"',
        ),
    ],
)
def test_what_was_measured_in_different_ways_never_stands_in_one_column(
    measured: Any, facts: Any, differing: str
) -> None:
    results = measured(facts)
    refuse_mixed_metrics(results)
    assert "fid" not in [metric.key for metric in results.metrics]
    assert f"({differing}), which cannot stand in one column" in results.refused["FID"]


def test_a_headline_of_different_ways_leaves_no_answer(measured: Any) -> None:
    results = measured(lambda i, seed: {"success": {"detector": "judge" if i else "another"}})
    with pytest.raises(ReportError, match='detector "another" and "judge".*: run it with one way'):
        refuse_mixed_metrics(results)


def test_a_database_of_an_earlier_version_still_reports(uri: str) -> None:
    """Tags ``baseline`` and ``reference``, the old name of the untouched backbone, in MLflow."""
    pair = collect(uri, "pair")
    assert [cell.name for cell in pair.cells] == [UNTOUCHED, "threshold=0.5", "threshold=0.6"]
    assert [cell.mark for cell in pair.cells] == ["untouched", "control", ""]
    assert pair.control.label == "0.5" and pair.untouched is pair.cells[0]
    assert pair.config["method"]["name"] == "maskattn" and pair.count_trials() == (6, 6)
    trial = pair.control.trials[1]
    assert trial.samples is not None and trial.training == {"loss", "gate_closed"}
    assert list(read_history(pair, trial, "gate_closed")) == [10, 20, 30, 40, 50, 60]
    assert list_sweeps(uri).keys() == {"pair", "left_off", "unstarted"}
    left_off = collect(uri, "left_off")
    assert left_off.levels[-1].unfinished == {1: "still running, or stopped hard"}


def test_a_password_is_not_shown() -> None:
    assert hide_password("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert hide_password("runs") == "runs"
