"""The engine from plan to exit status: everything once, nothing twice, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import CELLS, everything, finished, runs, states, trials

from conf.schema import Run
from sweeps.engine.ledger import Ledger
from sweeps.engine.study import Study

ROOT = Path(__file__).parents[2]
Command = Callable[..., int]


def test_a_whole_sweep(
    sweep: Command,
    trainer: Any,
    output: Path,
    mlflow: Any,
    reports: list[str],
    capsys: pytest.CaptureFixture,
) -> None:
    assert sweep("seeds=3") == 0

    # seed by seed, the untouched backbone first, every trial with its own settings
    first = [
        ("baseline", 0.5, 0),
        ("maskattn", 0.4, 0),
        ("maskattn", 0.5, 0),
        ("maskattn", 0.6, 0),
        ("baseline", 0.5, 1),
    ]
    assert trainer.names[:5] == first
    assert len(trainer.ran) == 12 and states(output) == {"COMPLETE": 12}
    assert trials(output)[1].params == {"method.gate.threshold": 0.4} and trials(output)[
        1
    ].value == pytest.approx(0.4)

    experiment = mlflow.get_experiment_by_name("threshold")
    tags = experiment.tags
    assert (
        tags["question"] == "Does the engine work?"
        and "Does the engine work?" in tags["mlflow.note.content"]
    )
    assert json.loads(tags["factors"]) == [
        {
            "key": "method.gate.threshold",
            "label": "Gate threshold",
            "levels": [0.4, 0.5, 0.6],
            "unit": "",
            "numeric": True,
            "when": "train",
        }
    ]
    assert (tags["within"], tags["headline"], tags["seeds"]) == ("", "success", "[0, 1, 2]")
    assert (
        tags["command"] == "python -m sweeps.threshold seeds=3"
        and json.loads(tags["config"])["trainer"]["steps"] > 0
    )
    assert str(output) not in json.dumps({key: value for key, value in tags.items()})

    cells = runs(mlflow, "cell")
    assert [run.info.run_name for run in cells] == CELLS
    assert [run.data.params for run in cells] == [
        {"method.name": "untouched"},
        *(
            {"method.name": "maskattn", "method.gate.threshold": level}
            for level in ("0.4", "0.5", "0.6")
        ),
    ]
    assert [run.data.tags["reference"] for run in cells] == ["true", "false", "false", "false"]
    assert [run.data.tags["baseline"] for run in cells] == ["false", "false", "true", "false"]
    assert {run.info.status for run in cells} == {"FINISHED"}
    assert finished(mlflow) == everything(3)

    out = capsys.readouterr().out
    assert (
        "4 cells × 3 seeds = 12 trials, 0 finished" in out
        and "[12/12]" in out
        and "It does." in out
    )
    for text in (
        "python -m sweeps ui output=",
        "/#/compare-runs?runs=%5B%22",
        str(output / "threshold" / "report.pdf"),
    ):
        assert text in out
    assert reports == ["threshold"]


def test_aggregates_equal_a_calculation_by_hand(sweep: Command, mlflow: Any) -> None:
    sweep("seeds=3")
    metrics = runs(mlflow, "cell")[1].data.metrics  # 0.40, 0.41, 0.44
    assert metrics["agg/success_n"] == 3
    assert metrics["agg/success_mean"] == pytest.approx(1.25 / 3)
    sd = ((0.40 - 1.25 / 3) ** 2 + (0.41 - 1.25 / 3) ** 2 + (0.44 - 1.25 / 3) ** 2) ** 0.5 / 2**0.5
    assert metrics["agg/success_sd"] == pytest.approx(sd)
    assert metrics["agg/success_ci95"] == pytest.approx(
        4.302652729911275 * sd / 3**0.5
    )  # t(0.975, 2)
    assert metrics["agg/fid_mean"] == pytest.approx(29.0)


def test_one_seed_has_no_interval(
    sweep: Command, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    assert sweep("seeds=1") == 0
    metrics = runs(mlflow, "cell")[1].data.metrics
    assert (
        metrics["agg/success_n"] == 1
        and "agg/success_ci95" not in metrics
        and "agg/success_sd" not in metrics
    )
    assert "nan" not in capsys.readouterr().out


def test_only_two_levels_of_runs(sweep: Command, mlflow: Any) -> None:
    sweep("seeds=2")
    cells = {run.info.run_id: run.data.tags for run in runs(mlflow, "cell")}
    assert not any("mlflow.parentRunId" in tags for tags in cells.values())
    for run in runs(mlflow, "seed"):
        assert cells[run.data.tags["mlflow.parentRunId"]]["cell"] == run.data.tags["cell"]
        assert run.data.params.keys() >= {"seed"} and "eval/success" in run.data.metrics


def test_again_repeats_nothing(
    sweep: Command, trainer: Any, mlflow: Any, reports: list[str]
) -> None:
    sweep("seeds=2")
    before = {
        run.info.run_id: run.info.end_time
        for role in ("cell", "seed")
        for run in runs(mlflow, role)
    }
    assert sweep("seeds=2") == 0
    assert len(trainer.ran) == 8 and reports == ["threshold"]
    assert before == {
        run.info.run_id: run.info.end_time
        for role in ("cell", "seed")
        for run in runs(mlflow, role)
    }


def test_more_seeds_extend_and_fewer_select(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str]
) -> None:
    sweep("seeds=2")
    assert sweep("seeds=3") == 0
    assert len(trainer.ran) == 12 and {config.seed for config in trainer.ran[8:]} == {2}
    assert runs(mlflow, "cell")[1].data.metrics["agg/success_n"] == 3
    assert sweep("seeds=2") == 0
    assert len(trainer.ran) == 12 and runs(mlflow, "cell")[1].data.metrics["agg/success_n"] == 2
    assert mlflow.get_experiment_by_name("threshold").tags["seeds"] == "[0, 1]"
    assert reports == ["threshold"] * 3 and states(output) == {"COMPLETE": 12}


def test_other_levels_add_cells(sweep: Command, trainer: Any, output: Path, mlflow: Any) -> None:
    sweep("seeds=1")
    assert sweep("seeds=1", "levels=[0.8,0.4]") == 0
    assert trainer.names[4:] == [("maskattn", 0.8, 0)]
    assert [run.info.run_name for run in runs(mlflow, "cell")] == [*CELLS, "threshold=0.8"]
    assert json.loads(mlflow.get_experiment_by_name("threshold").tags["factors"])[0]["levels"] == [
        0.4,
        0.5,
        0.8,
    ]


def test_what_waits_from_a_larger_plan_is_left_alone(sweep: Command, trainer: Any) -> None:
    def stop(config: Run, count: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    trainer.before = stop
    sweep("seeds=3")
    trainer.before = lambda config, count: None
    assert sweep("seeds=1") == 0
    assert [config.seed for config in trainer.ran] == [0, 0, 0, 0, 1]


def test_other_settings_are_kept_apart(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")
    capsys.readouterr()
    assert sweep("seeds=1", "trainer.steps=7") == 0
    out = capsys.readouterr().out
    assert "settings differ" in out and "trainer.steps" in out and "→ 7" in out
    assert len(trainer.ran) == 8 and trainer.ran[-1].trainer.steps == 7
    name = next(folder.name for folder in output.iterdir() if folder.name.startswith("threshold-"))
    assert finished(mlflow, name) == everything(1) == finished(mlflow)
    assert sweep("seeds=2", "trainer.steps=7") == 0 and sweep("seeds=1") == 0
    assert len(trainer.ran) == 12 and finished(mlflow, name) == everything(2)


@pytest.mark.parametrize("words", [["retries=3"], ["trainer.log_every=5"], ["data.workers=2"]])
def test_settings_that_change_no_number_continue(
    sweep: Command, trainer: Any, words: list[str]
) -> None:
    sweep("seeds=1")
    sweep("seeds=1", *words)
    assert len(trainer.ran) == 4


def test_evaluate_only_levels_share_one_training(sweep: Command, trainer: Any) -> None:
    assert sweep("seeds=1", "when=evaluate") == 0
    reference, *others = trainer.ran
    assert reference.method.name == "untouched" and reference.evaluate_with == {}
    assert [config.evaluate_with for config in others] == [
        {"method.gate.threshold": level} for level in (0.4, 0.5, 0.6)
    ]
    assert {config.method.gate.threshold for config in others} == {0.5}


def test_interrupted_in_the_middle(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str]
) -> None:
    def stop(config: Run, count: int) -> None:
        if count == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer.before = stop
    assert sweep("seeds=3") == 128 + signal.SIGTERM
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert states(output) == {"COMPLETE": 5, "FAIL": 1, "WAITING": 6} and not reports
    assert Counter(run.info.status for run in runs(mlflow, "seed")) == {"FINISHED": 5, "KILLED": 1}
    assert not list((output / "threshold").glob(".owner-*"))

    trainer.before = lambda config, count: None
    assert sweep("seeds=3") == 0
    assert len(trainer.ran) == 13 and finished(mlflow) == everything(3)
    assert states(output) == {"COMPLETE": 12, "FAIL": 1}


def test_stopped_after_the_result_was_written(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settle", stop)
        assert sweep("seeds=1") == 128 + signal.SIGINT
    assert states(output) == {"RUNNING": 1, "WAITING": 3}
    assert sweep("seeds=1") == 0
    assert (
        len(trainer.ran) == 4
        and finished(mlflow) == everything(1)
        and states(output) == {"COMPLETE": 4}
    )


@pytest.mark.parametrize(
    ("owner", "step"),
    [(Ledger, "__init__"), (Ledger, "add_cells"), (Study, "enqueue"), (Study, "claim")],
)
def test_stopped_while_planning(
    sweep: Command,
    trainer: Any,
    output: Path,
    mlflow: Any,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
) -> None:
    original = getattr(owner, step)

    def stop(*words: Any) -> None:
        original(*words)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, stop)
        assert sweep("seeds=1") == 128 + signal.SIGINT
    assert sweep("seeds=1") == 0
    assert len(trainer.ran) == 4 and finished(mlflow) == everything(1)
    assert sorted(run.info.run_name for run in runs(mlflow, "cell")) == sorted(CELLS)


def test_a_database_that_was_left_half_made_is_not_used(
    sweep: Command, output: Path, empty_database: Path
) -> None:
    (output / "mlflow.db").unlink()
    (output / ".mlflow.db.new").write_bytes(empty_database.read_bytes()[:200_000])
    assert sweep("seeds=1") == 0
    assert {file.name for file in output.iterdir()} == {
        ".lock",
        "artifacts",
        "mlflow.db",
        "threshold",
    }


def test_an_exit_after_a_signal_is_a_stop_too(sweep: Command, trainer: Any, output: Path) -> None:
    def swallow(config: Run, count: int) -> None:  # as Lightning does
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            sys.exit(1)

    trainer.before = swallow
    assert sweep("seeds=1", "retries=0") == 128 + signal.SIGTERM
    assert len(trainer.ran) == 1 and states(output) == {"FAIL": 1, "WAITING": 3}


HARD = """
import json, os, sys
sys.path[:0] = [{root!r}, {tests!r}, {tests!r} + "/.."]
from conftest import SWEEP, Trainer, main
from reports import document
trainer = Trainer()
def fake(config, folder, tracking, progress):
    result = trainer(config, folder, tracking, progress) if {after} else None
    if config.seed == 1 and config.method.gate.threshold == 0.6:
        if {reopen}:
            from lightning_modules.tracking.mlflow import client
            run = client(tracking.uri).search_runs([tracking.experiment_id], "tags.role = 'seed'")[0]
            client(tracking.uri).update_run(run.info.run_id, status="RUNNING")
        elif not {after}:
            from lightning_modules.tracking.mlflow import SeedRun
            SeedRun(tracking)
        os._exit(9)
    return result or trainer(config, folder, tracking, progress)
main(SWEEP, ["output=" + {output!r}, "seeds=2"], trainer=fake)
"""


def kill(output: Path, after: bool, reopen: bool = False) -> None:
    code = HARD.format(
        root=str(ROOT),
        tests=str(Path(__file__).parent),
        output=str(output),
        after=after,
        reopen=reopen,
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


def test_killed_hard_in_a_trial(sweep: Command, trainer: Any, output: Path, mlflow: Any) -> None:
    kill(output, after=False)
    assert states(output) == {"COMPLETE": 7, "RUNNING": 1}
    assert sweep("seeds=2") == 0
    assert trainer.names == [("maskattn", 0.6, 1)]
    assert states(output) == {"COMPLETE": 8, "FAIL": 1} and finished(mlflow) == everything(2)
    assert Counter(run.info.status for run in runs(mlflow, "seed")) == {"FINISHED": 8, "KILLED": 1}


@pytest.mark.parametrize("reopen", [False, True])
def test_killed_hard_after_the_result_was_written(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reopen: bool
) -> None:
    kill(output, after=True, reopen=reopen)
    assert states(output) == {"COMPLETE": 7, "RUNNING": 1}
    assert sweep("seeds=2") == 0
    assert not trainer.ran
    assert states(output) == {"COMPLETE": 8} and finished(mlflow) == everything(2)
    assert trials(output)[-1].value == pytest.approx(0.61)


def test_a_trial_of_a_living_process_is_left_to_it(
    sweep: Command, trainer: Any, output: Path, capsys: pytest.CaptureFixture
) -> None:
    inner: list[int] = []

    def second(config: Run, count: int) -> None:
        if count == 2:
            inner.append(sweep("seeds=1"))

    trainer.before = second
    assert sweep("seeds=1") == 0 and inner == [0]
    assert len(trainer.ran) == 4 and states(output) == {"COMPLETE": 4}
    assert "1 more being run by another process" in capsys.readouterr().out


def test_a_failed_trial_is_tried_again(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    def fail(config: Run, count: int) -> None:
        if count == 2:
            raise ValueError("no such\nluck")

    trainer.before = fail
    assert sweep("seeds=1") == 0
    assert states(output) == {"COMPLETE": 4, "FAIL": 1} and finished(mlflow) == everything(1)
    assert trainer.names[-1] == ("maskattn", 0.4, 0)
    (failed,) = [run for run in runs(mlflow, "seed") if run.info.status == "FAILED"]
    assert (
        failed.data.tags["error"] == "ValueError: no such luck"
        and failed.data.tags["cell"] == "threshold=0.4"
    )
    assert [
        run.data.tags["attempt"]
        for run in runs(mlflow, "seed")
        if run.data.tags["cell"] == "threshold=0.4"
    ] == ["1", "2"]
    assert (
        "threshold=0.4, seed 0 failed (try 1 of 2): ValueError: no such luck"
        in capsys.readouterr().out
    )
    assert (
        "Traceback"
        in (output / "threshold" / "trials" / "threshold=0.4-seed0" / "log.txt").read_text()
    )


def test_what_fails_for_good_is_named_and_does_not_stop_the_rest(
    sweep: Command,
    trainer: Any,
    output: Path,
    mlflow: Any,
    reports: list[str],
    capsys: pytest.CaptureFixture,
) -> None:
    def fail(config: Run, count: int) -> None:
        if config.method.gate.threshold == 0.6:
            raise RuntimeError("out of memory")

    trainer.before = fail
    assert sweep("seeds=2") == 1
    assert "failed: threshold=0.6, seed 1: RuntimeError: out of memory" in capsys.readouterr().err
    assert states(output) == {"COMPLETE": 6, "FAIL": 4} and reports == ["threshold"]
    assert [run.info.status for run in runs(mlflow, "cell")] == [
        "FINISHED",
        "FINISHED",
        "FINISHED",
        "FAILED",
    ]

    trainer.before = lambda config, count: None
    assert sweep("seeds=2") == 0
    assert finished(mlflow) == everything(2) and {
        run.info.status for run in runs(mlflow, "cell")
    } == {"FINISHED"}


def test_a_failure_before_there_is_a_run_is_recorded_too(
    sweep: Command,
    trainer: Any,
    mlflow: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def broken(self: Any, config: Run, *rest: Any) -> dict[str, Any]:
        raise FileNotFoundError("no data")

    monkeypatch.setattr(type(trainer), "__call__", broken)
    assert sweep("seeds=1", "retries=0") == 1
    assert {(run.info.status, run.data.tags["error"]) for run in runs(mlflow, "seed")} == {
        ("FAILED", "FileNotFoundError: no data")
    }
    assert len(runs(mlflow, "seed")) == 3, "nothing is tried any more once all fail alike"
    assert (
        "the first 3 attempts all failed with: FileNotFoundError: no data"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"eval/success": float("nan")}, "ResultError: eval/success is not a number (NaN)"),
        ({"eval/fid": 3.0}, "ResultError: the result has no eval/success; it has eval/fid"),
    ],
)
def test_a_result_without_a_number_is_a_failure(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, metrics: dict[str, float], reason: str
) -> None:
    trainer.change = lambda config, known: metrics if config.method.gate.threshold == 0.4 else known
    assert sweep("seeds=1", "retries=1") == 1
    assert states(output) == {"COMPLETE": 3, "FAIL": 2}
    assert [
        run.data.tags["error"] for run in runs(mlflow, "seed") if run.info.status == "FAILED"
    ] == [reason] * 2
    assert "agg/success_mean" not in runs(mlflow, "cell")[1].data.metrics
    trainer.change = lambda config, known: known
    assert sweep("seeds=1") == 0 and finished(mlflow) == everything(1)


def test_an_undefined_metric_beside_the_headline_is_left_out_of_its_mean(
    sweep: Command, trainer: Any, mlflow: Any
) -> None:
    trainer.change = lambda config, known: (
        {**known, "eval/fid": float("nan")} if config.seed == 0 else known
    )
    assert sweep("seeds=3") == 0
    metrics = runs(mlflow, "cell")[1].data.metrics
    assert (metrics["agg/fid_n"], metrics["agg/fid_mean"], metrics["agg/success_n"]) == (
        2,
        pytest.approx(28.5),
        3,
    )


def test_mlflow_is_filled_again_from_the_folder(
    sweep: Command, trainer: Any, output: Path, empty_database: Path
) -> None:
    sweep("seeds=2")
    fresh = output / "fresh.db"
    shutil.copy(empty_database, fresh)
    assert sweep("seeds=2", f"tracking_uri=sqlite:///{fresh}") == 0
    from lightning_modules.tracking.mlflow import client

    assert len(trainer.ran) == 8 and finished(client(f"sqlite:///{fresh}")) == everything(2)


def test_a_result_lost_everywhere_is_made_again(
    sweep: Command, trainer: Any, output: Path, empty_database: Path
) -> None:
    sweep("seeds=1")
    fresh = output / "fresh.db"
    shutil.copy(empty_database, fresh)
    shutil.rmtree(output / "threshold" / "trials" / "threshold=0.6-seed0")
    assert sweep("seeds=1", f"tracking_uri=sqlite:///{fresh}") == 0
    assert trainer.names[4:] == [("maskattn", 0.6, 0)]


def test_an_experiment_of_another_folder_is_not_touched(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, tmp_path: Path
) -> None:
    sweep("seeds=1")
    shutil.move(output / "threshold", tmp_path / "away")
    assert sweep("seeds=1") == 0
    assert len(trainer.ran) == 8 and finished(mlflow) == everything(1)
    assert not (output / "threshold").exists()


def test_a_deleted_cell_or_experiment_comes_back(sweep: Command, trainer: Any, mlflow: Any) -> None:
    sweep("seeds=1")
    mlflow.delete_run(runs(mlflow, "cell")[1].info.run_id)
    assert sweep("seeds=1") == 0
    mlflow.delete_experiment(mlflow.get_experiment_by_name("threshold").experiment_id)
    assert sweep("seeds=1") == 0
    assert (
        len(trainer.ran) == 4
        and mlflow.get_experiment_by_name("threshold").lifecycle_stage == "active"
    )
    assert {run.data.metrics["agg/success_n"] for run in runs(mlflow, "cell")} == {1}


def test_a_report_that_fails_leaves_the_sweep_finished(
    sweep: Command, trainer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from reports import document
    from reports.study import ReportError

    def broken(*_: Any) -> None:
        raise ReportError("no fonts")

    with monkeypatch.context() as patch:
        patch.setattr(document, "write", broken)
        assert sweep("seeds=1") == 1
    assert (
        "no report: no fonts; to try again: python -m reports threshold" in capsys.readouterr().err
    )
    assert sweep("seeds=1") == 0 and len(trainer.ran) == 4
