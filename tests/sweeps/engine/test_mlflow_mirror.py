"""MLflow's side of a sweep is right whichever process was killed, and whichever else is at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from helpers.printed_commands import check_printed

from lightning_modules.tracking.mlflow import SeedRun, Tracking
from sweeps.engine.mlflow_mirror import Experiment, MlflowMirror
from sweeps.engine.mlflow_view import VIEW_TAG, page_links, view_tag
from sweeps.sweep import UNTOUCHED, Cell

TAGS = {
    "sweep": "threshold",
    "headline": "success",
    "factor_keys": json.dumps(["method.gate.threshold"]),
    "metrics": json.dumps([{"key": "fid"}, {"key": "success"}, {"key": "centre_error"}]),
}
CELLS = [
    Cell(UNTOUCHED, {"method.name": "untouched"}, untouched=True),
    Cell("threshold=0.4", {"method.gate.threshold": 0.4}),
    Cell("threshold=0.5", {"method.gate.threshold": 0.5}, control=True),
]
CELL = CELLS[1]
METRICS = {"eval/success": 0.5, "eval/fid": 30.0}
RESULT: dict[str, Any] = {"metrics": METRICS, "versions": {"commit": "abc", "torch": "2.0"}}


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
def mirror(output: Path) -> MlflowMirror:
    names = {UNTOUCHED: "untouched", "masks=on": "mcgm"}
    uri, artifacts = f"sqlite:///{output / 'mlflow.db'}", output / "artifacts"

    def method_of(cell: Cell) -> str:
        return names.get(cell.text, "maskattn")

    mirror = MlflowMirror(uri, "threshold", artifacts, TAGS, "note", method_of)
    mirror.add_cells(CELLS)
    return mirror


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "trial"
    folder.mkdir()
    for name in ("run.yaml", "log.txt", "result.json"):
        (folder / name).write_text(f"{name}: all of it\n")
    return folder


def seed_run(mirror: MlflowMirror, seed: int, trial: int, **tags: str) -> SeedRun:
    return SeedRun(mirror.tracking(CELL, seed, trial, 1, **tags))


def status(mirror: MlflowMirror, run: SeedRun) -> str:
    return mirror.client.get_run(run.run_id).info.status


def attempts(mirror: MlflowMirror, state: str | None = None) -> list[Any]:
    runs = mirror.experiment.runs("seed")
    return [run for run in runs if state in (None, run.info.status)]


def files(mirror: MlflowMirror, run: Any) -> set[str]:
    return {item.path for item in mirror.client.list_artifacts(run.info.run_id)}


def test_a_trial_settled_twice_has_one_finished_run(mirror: MlflowMirror, folder: Path) -> None:
    for _ in range(2):
        mirror.settle(mirror.tracking(CELL, 0, 5, 1), RESULT, folder)
    (run,) = attempts(mirror)
    assert run.info.status == "FINISHED" and run.data.metrics == METRICS
    # Made elsewhere: this process's environment is not what the result came from
    assert run.data.tags["commit"] == "abc" and run.data.tags["version.torch"] == "2.0"
    assert "environment.txt" not in files(mirror, run)


def test_two_processes_that_settle_at_once_leave_one_finished_run(
    mirror: MlflowMirror, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking, original = mirror.tracking(CELL, 0, 5, 1), Experiment.attempts
    calls: list[int] = []

    def other_first(self: Experiment, of: Tracking) -> list[Any]:
        runs = original(self, of)
        calls.append(1)
        if len(calls) == 1:  # After this one has looked, and before it has made its run
            mirror.settle(tracking, RESULT, folder)
        return runs

    monkeypatch.setattr(Experiment, "attempts", other_first)
    mirror.settle(tracking, RESULT, folder)
    (run,), (other,) = attempts(mirror, "FINISHED"), attempts(mirror, "KILLED")
    assert run.info.run_id == attempts(mirror)[-1].info.run_id  # The last one, as readers take it
    assert other.data.tags["error"] == "another run of the same cell and seed counts"
    assert mirror.seeds() == {CELL.text: {0: {"success": 0.5, "fid": 30.0}}}


def test_settling_takes_up_the_run_of_its_own_trial_and_no_other(
    mirror: MlflowMirror, folder: Path
) -> None:
    other, own = seed_run(mirror, 0, 4), seed_run(mirror, 0, 5)
    own.log_metrics({"eval/success": 0.5})
    mirror.settle(mirror.tracking(CELL, 0, 5, 2), RESULT, folder)
    # What becomes of the other trial is for its own process to say
    assert (status(mirror, other), status(mirror, own)) == ("RUNNING", "FINISHED")
    assert len(attempts(mirror)) == 2
    assert len(mirror.client.get_metric_history(own.run_id, "eval/success")) == 1


def test_a_run_that_a_server_made_twice_does_not_stay_open(
    mirror: MlflowMirror, folder: Path
) -> None:
    seed_run(mirror, 0, 5)
    seed_run(mirror, 0, 5).finish()
    mirror.settle(mirror.tracking(CELL, 0, 5, 1), RESULT, folder)
    assert [run.info.status for run in attempts(mirror)] == ["KILLED", "FINISHED"]
    for _ in range(2):
        seed_run(mirror, 1, 6)
    mirror.fail(mirror.tracking(CELL, 1, 6, 1), "FAILED", "ValueError: no luck", folder)
    assert [run.info.status for run in attempts(mirror)[2:]] == ["FAILED", "FAILED"]


def test_a_failed_trial_shows_reason_log_and_settings(mirror: MlflowMirror, folder: Path) -> None:
    run = seed_run(mirror, 0, 5, code="f00")
    mirror.fail(mirror.tracking(CELL, 0, 5, 1), "FAILED", "ValueError: no luck", folder)
    # This one did not get as far as a run
    mirror.fail(mirror.tracking(CELL, 1, 6, 1), "KILLED", "stopped", folder / "nowhere")
    (failed,), (killed,) = attempts(mirror, "FAILED"), attempts(mirror, "KILLED")
    assert failed.info.run_id == run.run_id and failed.data.tags["code"] == "f00"
    assert failed.data.tags["error"] == "ValueError: no luck"
    expected = {"environment.txt", "run.yaml", "log.txt"}
    assert files(mirror, failed) - {"changes.diff"} == expected
    note = failed.data.tags["mlflow.note.content"]
    assert note.startswith("**Failed:** ValueError: no luck") and "log.txt: all of it" in note
    assert killed.data.tags["trial"] == "6" and not files(mirror, killed)
    assert "version.python" in killed.data.tags


def test_stale_runs_are_closed(mirror: MlflowMirror) -> None:
    stale, done = seed_run(mirror, 0, 5), seed_run(mirror, 1, 6)
    done.finish()
    mirror.close_stale()
    assert [status(mirror, run) for run in (stale, done)] == ["KILLED", "FINISHED"]
    error = mirror.client.get_run(stale.run_id).data.tags["error"]
    assert error == "the process ended before the trial did"
    assert "error" not in mirror.client.get_run(done.run_id).data.tags


def test_of_several_finished_runs_the_last_stays(mirror: MlflowMirror) -> None:
    runs = [seed_run(mirror, 0, 5), seed_run(mirror, 0, 6), seed_run(mirror, 1, 7)]
    for run in runs:
        run.finish()
    ended = mirror.client.get_run(runs[0].run_id).info.end_time
    mirror.close_stale()
    assert [status(mirror, run) for run in runs] == ["KILLED", "FINISHED", "FINISHED"]
    assert mirror.client.get_run(runs[0].run_id).info.end_time == ended


def test_mlflow_compares_by_the_headline_first(mirror: MlflowMirror, folder: Path) -> None:
    result = {"metrics": {"eval/centre_error": 1.0, "eval/success": 0.5}}
    mirror.settle(mirror.tracking(CELL, 0, 5, 1), result, folder)
    mirror.aggregate(CELL.text, [0])
    metrics = mirror.client.get_run(mirror.runs[CELL.text]).data.metrics
    assert next(iter(metrics)) == "agg/success_mean"
    view = json.loads(mirror.client.get_experiment(mirror.experiment.id).tags[VIEW_TAG])
    charts = [chart["metricKey"] for chart in view["compareRunCharts"]]
    assert charts == ["agg/success_mean", "agg/fid_mean", "agg/centre_error_mean"]
    columns = ["params.`method.gate.threshold`", "metrics.`agg/success_mean`"]
    assert view["selectedColumns"][:2] == columns


def test_the_view_of_many_metrics_fits_into_a_tag() -> None:
    keys = [f"success/split_number_{index}/with_a_long_name" for index in range(50)]
    metrics = json.dumps([{"key": key} for key in keys])
    view = view_tag({**TAGS, "headline": keys[7], "metrics": metrics}) or ""
    endings = [name.split("_")[-1] for name in json.loads(view)["selectedColumns"][1:]]
    assert (
        len(view) < 5000 and endings == ["mean`", "ci95`", "n`", "tags.`verdict`"] + ["mean`"] * 4
    )
    assert view_tag({"sweep": "an older one"}) is None


def test_a_cell_whose_process_ended_before_its_params_gets_them(mirror: MlflowMirror) -> None:
    mirror.client.delete_run(mirror.runs[CELL.text])
    tags = {"role": "cell", "cell": CELL.text, "baseline": "false", "reference": "false"}
    mirror.client.create_run(mirror.experiment.id, tags=tags)
    mirror.add_cells(CELLS)
    params = mirror.client.get_run(mirror.runs[CELL.text]).data.params
    assert params == {"method.gate.threshold": "0.4", "method.name": "maskattn"}


def test_every_run_says_its_method(mirror: MlflowMirror) -> None:
    others = [Cell("method=soft", {"method": "soft"}), Cell("masks=on", {"masks": "on"})]
    mirror.add_cells([*CELLS, *others])
    params = {text: mirror.client.get_run(run).data.params for text, run in mirror.runs.items()}
    assert params[UNTOUCHED] == {"method.name": "untouched"}
    assert params["method=soft"] == {"method": "soft", "method.name": "maskattn"}
    assert params["masks=on"] == {"masks": "on", "method.name": "mcgm"}
    expected = {"seed": "3", "method.name": "maskattn", "method.gate.threshold": "0.4"}
    assert mirror.tracking(CELL, 3, 5, 1).params == expected


def test_links_are_what_to_type_and_where_to_look(
    mirror: MlflowMirror, output: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    monkeypatch.chdir(output.parent)  # Whose `runs` is the default output
    links = dict(mirror.links())
    assert links["MLflow"] == "python -m sweeps ui"
    assert "workflowType=machine_learning" in links["table"]
    assert "compareRunsMode=CHART&viewStateShareKey=sweep" in links["charts"]
    runs = json.dumps(list(mirror.runs.values()), separators=(",", ":"))
    assert runs in unquote(links["compare"])
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert dict(mirror.links())["MLflow"] == f"python -m sweeps ui output={output}"
    check_printed(dict(mirror.links())["MLflow"])
    monkeypatch.chdir(output.parents[1])
    relative = output.relative_to(output.parents[1])
    assert dict(mirror.links())["MLflow"] == f"python -m sweeps ui output={relative}"
    mirror.uri = "http://user:secret@server:5000/"
    links = dict(mirror.links())
    assert "MLflow" not in links
    assert links["charts"].startswith("http://server:5000/#/experiments/")
    table = dict(page_links("http://server", "1", [], viewed=False))["table"]
    assert "viewStateShareKey" not in table
