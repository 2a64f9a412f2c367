"""MLflow's side of a sweep is true whoever was killed, and whoever else is at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lightning_modules.tracking.mlflow import SeedRun, Tracking
from lightning_modules.tracking.store import client
from sweeps.engine.ledger import Ledger, ServerError, check_server
from sweeps.engine.pages import VIEW_TAG, pages, view
from sweeps.sweep import REFERENCE, Cell

TAGS = {
    "sweep": "threshold", "headline": "success", "factor_keys": json.dumps(["method.gate.threshold"]),
    "metrics": json.dumps([{"key": "fid"}, {"key": "success"}, {"key": "centre_error"}]),
}  # fmt: skip
CELLS = [
    Cell(REFERENCE, {"method.name": "untouched"}, reference=True),
    Cell("threshold=0.4", {"method.gate.threshold": 0.4}),
    Cell("threshold=0.5", {"method.gate.threshold": 0.5}, baseline=True),
]
RESULT: dict[str, Any] = {
    "metrics": {"eval/success": 0.5, "eval/fid": 30.0},
    "versions": {"commit": "abc", "torch": "2.0"},
}


@pytest.fixture
def ledger(output: Path) -> Ledger:
    names = {REFERENCE: "baseline", "masks=on": "mcgm"}
    method_of: Any = lambda cell: names.get(cell.text, "maskattn")  # noqa: E731
    found = Ledger(
        f"sqlite:///{output / 'mlflow.db'}",
        "threshold",
        output / "artifacts",
        TAGS,
        "note",
        method_of,
    )
    found.add_cells(CELLS)
    return found


@pytest.fixture
def cell() -> Cell:
    return CELLS[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "trial"
    found.mkdir()
    for name in ("run.yaml", "log.txt", "result.json"):
        (found / name).write_text(f"{name}: all of it\n")
    return found


def attempts(ledger: Ledger, status: str | None = None) -> list[Any]:
    runs = client(ledger.uri).search_runs(
        [ledger.experiment_id], "tags.role = 'seed'", order_by=["attributes.start_time ASC"]
    )
    return [run for run in runs if status in (None, run.info.status)]


def files(ledger: Ledger, run: Any) -> set[str]:
    return {item.path for item in client(ledger.uri).list_artifacts(run.info.run_id)}


def test_a_trial_settled_twice_has_one_finished_run(
    ledger: Ledger, cell: Cell, folder: Path
) -> None:
    tracking = ledger.tracking(cell, 0, 5, 1)
    ledger.settle(tracking, RESULT, folder)
    ledger.settle(tracking, RESULT, folder)
    (run,) = attempts(ledger)
    assert run.info.status == "FINISHED" and run.data.metrics == RESULT["metrics"]
    # made elsewhere: what this process runs on is not what the result came from
    assert (
        run.data.tags["commit"] == "abc"
        and run.data.tags["version.torch"] == "2.0"
        and "environment.txt" not in files(ledger, run)
    )


def test_two_processes_that_settle_at_once_leave_one_finished_run(
    ledger: Ledger, cell: Cell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking, original = ledger.tracking(cell, 0, 5, 1), Ledger._attempts
    calls: list[int] = []

    def other_first(self: Ledger, wanted: Tracking) -> list[Any]:
        found = original(self, wanted)
        calls.append(1)
        if len(calls) == 1:  # after this one has looked, and before it has made its run
            ledger.settle(tracking, RESULT, folder)
        return found

    monkeypatch.setattr(Ledger, "_attempts", other_first)
    ledger.settle(tracking, RESULT, folder)
    (run,) = attempts(ledger, "FINISHED")
    assert run.info.run_id == attempts(ledger)[-1].info.run_id  # the last one, as readers take it
    (other,) = attempts(ledger, "KILLED")
    assert other.data.tags["error"] == "another run of the same cell and seed counts"
    assert ledger.seeds() == {cell.text: {0: {"success": 0.5, "fid": 30.0}}}


def test_settling_takes_up_the_run_of_its_own_trial_and_no_other(
    ledger: Ledger, cell: Cell, folder: Path
) -> None:
    other, own = SeedRun(ledger.tracking(cell, 0, 4, 1)), SeedRun(ledger.tracking(cell, 0, 5, 2))
    own.log_metrics({"eval/success": 0.5})
    ledger.settle(ledger.tracking(cell, 0, 5, 2), RESULT, folder)
    store = client(ledger.uri)
    assert (
        store.get_run(other.run_id).info.status == "RUNNING"
    )  # whose trial that is will say what becomes of it
    assert store.get_run(own.run_id).info.status == "FINISHED" and len(attempts(ledger)) == 2
    assert len(store.get_metric_history(own.run_id, "eval/success")) == 1


def test_a_run_that_a_server_made_twice_does_not_stay_open(
    ledger: Ledger, cell: Cell, folder: Path
) -> None:
    tracking = ledger.tracking(cell, 0, 5, 1)
    SeedRun(tracking)
    SeedRun(tracking).finish()
    ledger.settle(tracking, RESULT, folder)
    assert [run.info.status for run in attempts(ledger)] == ["KILLED", "FINISHED"]
    for _ in range(2):
        SeedRun(ledger.tracking(cell, 1, 6, 1))
    ledger.fail(ledger.tracking(cell, 1, 6, 1), "FAILED", "ValueError: no luck", folder)
    assert [run.info.status for run in attempts(ledger)[2:]] == ["FAILED", "FAILED"]


def test_a_failed_trial_shows_reason_log_and_settings(
    ledger: Ledger, cell: Cell, folder: Path
) -> None:
    run = SeedRun(ledger.tracking(cell, 0, 5, 1, code="f00"))
    ledger.fail(ledger.tracking(cell, 0, 5, 1), "FAILED", "ValueError: no luck", folder)
    ledger.fail(
        ledger.tracking(cell, 1, 6, 1), "KILLED", "stopped by a person", folder / "nowhere"
    )  # did not get as far as a run
    (failed,), (killed,) = attempts(ledger, "FAILED"), attempts(ledger, "KILLED")
    assert (
        failed.info.run_id == run.run_id
        and failed.data.tags["error"] == "ValueError: no luck"
        and failed.data.tags["code"] == "f00"
    )
    assert files(ledger, failed) - {"changes.diff"} == {"environment.txt", "run.yaml", "log.txt"}
    note = failed.data.tags["mlflow.note.content"]
    assert note.startswith("**Failed:** ValueError: no luck") and "log.txt: all of it" in note
    assert (
        killed.data.tags["trial"] == "6"
        and not files(ledger, killed)
        and "version.python" in killed.data.tags
    )


def test_stale_runs_are_closed_and_living_ones_are_not(ledger: Ledger, cell: Cell) -> None:
    stale, alive = SeedRun(ledger.tracking(cell, 0, 5, 1)), SeedRun(ledger.tracking(cell, 1, 6, 1))
    ledger.close_stale([6])
    store = client(ledger.uri)
    assert [store.get_run(run.run_id).info.status for run in (stale, alive)] == [
        "KILLED",
        "RUNNING",
    ]
    assert (
        store.get_run(stale.run_id).data.tags["error"] == "the process ended before the trial did"
    )


def test_a_trial_that_begins_or_ends_meanwhile_is_not_taken_for_stale(
    ledger: Ledger, cell: Cell
) -> None:
    """Another driver claims a trial after MLflow was asked, and ends one before it is looked at again."""
    ending, begun = SeedRun(ledger.tracking(cell, 0, 5, 1)), []

    def running() -> Iterator[int]:
        begun.append(SeedRun(ledger.tracking(cell, 1, 6, 1)))
        ending.finish()
        return iter([6])

    ledger.close_stale(running)
    store = client(ledger.uri)
    assert store.get_run(begun[0].run_id).info.status == "RUNNING"
    assert (
        store.get_run(ending.run_id).info.status == "FINISHED"
        and "error" not in store.get_run(ending.run_id).data.tags
    )


def test_of_several_finished_runs_the_last_stays(ledger: Ledger, cell: Cell, folder: Path) -> None:
    runs = [SeedRun(ledger.tracking(cell, 0, trial, 1)) for trial in (5, 6)]
    other = SeedRun(ledger.tracking(cell, 1, 7, 1))
    for run in (*runs, other):
        run.finish()
    ended = client(ledger.uri).get_run(runs[0].run_id).info.end_time
    ledger.close_stale([])
    infos = [client(ledger.uri).get_run(run.run_id).info for run in (*runs, other)]
    assert [info.status for info in infos] == ["KILLED", "FINISHED", "FINISHED"] and infos[
        0
    ].end_time == ended


def test_a_driver_that_read_fewer_seeds_has_not_the_last_word(
    ledger: Ledger, cell: Cell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.settle(ledger.tracking(cell, 0, 5, 1), RESULT, folder)
    original = Ledger._aggregate
    calls: list[int] = []

    def meanwhile(self: Ledger, *words: Any) -> None:
        calls.append(1)
        if (
            len(calls) == 1
        ):  # another process finishes a seed and writes the mean of both before this one writes that of one
            ledger.settle(
                ledger.tracking(cell, 1, 6, 1), {**RESULT, "metrics": {"eval/success": 0.7}}, folder
            )
            ledger.aggregate(cell.text, [0, 1])
        original(self, *words)

    monkeypatch.setattr(Ledger, "_aggregate", meanwhile)
    ledger.aggregate(cell.text, [0, 1])
    run = client(ledger.uri).get_run(ledger.runs[cell.text])
    assert run.data.metrics["agg/success_n"] == 2 and run.data.metrics[
        "agg/success_mean"
    ] == pytest.approx(0.6)
    assert run.info.status == "FINISHED"


def test_mlflow_compares_by_the_headline_first(ledger: Ledger, cell: Cell, folder: Path) -> None:
    ledger.settle(
        ledger.tracking(cell, 0, 5, 1),
        {"metrics": {"eval/centre_error": 1.0, "eval/success": 0.5}},
        folder,
    )
    ledger.aggregate(cell.text, [0])
    assert (
        next(iter(client(ledger.uri).get_run(ledger.runs[cell.text]).data.metrics))
        == "agg/success_mean"
    )
    shown = json.loads(client(ledger.uri).get_experiment(ledger.experiment_id).tags[VIEW_TAG])
    assert [chart["metricKey"] for chart in shown["compareRunCharts"]] == [
        "agg/success_mean", "agg/fid_mean", "agg/centre_error_mean"
    ]  # fmt: skip
    assert shown["selectedColumns"][:2] == [
        "params.`method.gate.threshold`",
        "metrics.`agg/success_mean`",
    ]


def test_the_view_of_many_metrics_fits_into_a_tag() -> None:
    many = json.dumps(
        [{"key": f"success/split_number_{index}/with_a_long_name"} for index in range(50)]
    )
    shown = (
        view({**TAGS, "headline": "success/split_number_7/with_a_long_name", "metrics": many}) or ""
    )
    assert len(shown) < 5000
    assert [name.split("_")[-1] for name in json.loads(shown)["selectedColumns"][1:]] == [
        "mean`",
        "ci95`",
        "n`",
    ] + ["mean`"] * 4
    assert view({"sweep": "an older one"}) is None


def test_a_cell_whose_process_ended_before_its_params_gets_them(ledger: Ledger, cell: Cell) -> None:
    store = client(ledger.uri)
    store.delete_run(ledger.runs[cell.text])
    store.create_run(
        ledger.experiment_id,
        tags={"role": "cell", "cell": cell.text, "baseline": "false", "reference": "false"},
    )
    ledger.add_cells(CELLS)
    assert store.get_run(ledger.runs[cell.text]).data.params == {
        "method.gate.threshold": "0.4",
        "method.name": "maskattn",
    }


def test_every_run_says_its_method(ledger: Ledger, cell: Cell) -> None:
    store, preset = client(ledger.uri), Cell("method=soft", {"method": "soft"})
    ledger.add_cells(
        [*CELLS, preset, Cell("masks=on", {"masks": "on"}, training={"method": "steered"})]
    )
    params = {name: store.get_run(run_id).data.params for name, run_id in ledger.runs.items()}
    assert (
        params[REFERENCE] == {"method.name": "untouched"}
        and params[cell.text]["method.name"] == "maskattn"
    )
    assert params["method=soft"] == {"method": "soft", "method.name": "maskattn"}
    assert params["masks=on"] == {"masks": "on", "method.name": "mcgm"}
    assert ledger.tracking(cell, 3, 5, 1).params == {
        "seed": "3",
        "method.name": "maskattn",
        "method.gate.threshold": "0.4",
    }


def test_links_are_what_to_type_and_where_to_look(
    ledger: Ledger,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(output.parent)  # whose `runs` is the default output
    found = dict(ledger.links())
    assert found["MLflow"] == "python -m sweeps ui"
    assert (
        "workflowType=machine_learning" in found["table"]
        and "compareRunsMode=CHART&viewStateShareKey=sweep" in found["charts"]
    )
    assert json.dumps(list(ledger.runs.values()), separators=(",", ":")) in unquote(
        found["compare"]
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert dict(ledger.links())["MLflow"] == f"python -m sweeps ui output={output}"
    monkeypatch.chdir(output.parents[1])
    assert (
        dict(ledger.links())["MLflow"]
        == f"python -m sweeps ui output={output.relative_to(output.parents[1])}"
    )
    ledger.uri = "http://user:secret@server:5000/"
    assert "MLflow" not in dict(ledger.links()) and dict(ledger.links())["charts"].startswith(
        "http://server:5000/#/experiments/"
    )
    assert "viewStateShareKey" not in dict(pages("http://server", "1", [], viewed=False))["table"]


def test_a_server_is_checked_in_seconds(ledger: Ledger) -> None:
    check_server(ledger.uri)
    with pytest.raises(
        ServerError,
        match=r"^no MLflow server answers at tracking_uri=http://127.0.0.1:9: .*refused$",
    ):
        check_server("http://user:secret@127.0.0.1:9")
