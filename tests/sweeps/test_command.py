"""One command from plan to exit status: everything once, nothing twice, whatever stops it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.printed_commands import check_printed
from helpers.sweep_states import CELLS, everything, finished, runs, states, trials

from conf.schema import Run
from lightning_modules.tracking.mlflow import SeedRun
from lightning_modules.tracking.store import client
from reports import report
from reports.results import ReportError
from sweeps.command import BUSY
from sweeps.engine import mlflow_mirror
from sweeps.engine.driver import Driver
from sweeps.engine.locks import DriverLock
from sweeps.engine.mlflow_mirror import MlflowMirror
from sweeps.engine.queue import TrialQueue

Command = Callable[..., int]


def at(number: int, action: Callable[[], object]) -> Callable[[Run, int], None]:
    """What a trainer does before its ``number``th trial."""

    def before(config: Run, count: int) -> None:
        if count == number:
            action()

    return before


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def nothing(config: Run, count: int) -> None:
    """Every trial goes well."""


def test_a_whole_sweep(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str], capsys: Any
) -> None:
    assert sweep("seeds=3") == 0

    # Seed by seed, the untouched backbone first, every trial with its own settings
    first = [("untouched", 0.5, 0), *(("maskattn", level, 0) for level in (0.4, 0.5, 0.6))]
    assert trainer.names[:5] == [*first, ("untouched", 0.5, 1)]
    assert len(trainer.ran) == 12 and states(output) == {"COMPLETE": 12}
    trial = trials(output)[1]
    assert trial.params == {"method.gate.threshold": 0.4} and trial.value == pytest.approx(0.4)

    tags = mlflow.get_experiment_by_name("threshold").tags
    assert tags["question"] == "Does the engine work?" in tags["mlflow.note.content"]
    (factor,) = json.loads(tags["factors"])
    assert (factor["key"], factor["levels"]) == ("method.gate.threshold", [0.4, 0.5, 0.6])
    assert (tags["within"], tags["headline"], tags["seeds"]) == ("", "success", "[0, 1, 2]")
    assert tags["command"] == "python -m sweeps.threshold seeds=3"
    check_printed(tags["command"])
    assert json.loads(tags["config"])["trainer"]["steps"] > 0
    assert str(output) not in json.dumps(dict(tags))

    cells = runs(mlflow, "cell")
    assert [run.info.run_name for run in cells] == CELLS
    levels = [{"method.gate.threshold": level} for level in ("0.4", "0.5", "0.6")]
    expected = [
        {"method.name": "untouched"},
        *({"method.name": "maskattn", **level} for level in levels),
    ]
    assert [run.data.params for run in cells] == expected
    assert [run.data.tags["reference"] for run in cells] == ["true", "false", "false", "false"]
    assert [run.data.tags["baseline"] for run in cells] == ["false", "false", "true", "false"]
    assert {run.info.status for run in cells} == {"FINISHED"}
    assert finished(mlflow) == everything(3)
    parents = {run.info.run_id: run.data.tags for run in cells}
    assert not any("mlflow.parentRunId" in tags for tags in parents.values())
    for run in runs(mlflow, "seed"):
        parent = parents[run.data.tags["mlflow.parentRunId"]]
        assert parent["cell"] == run.data.tags["cell"]
        assert "seed" in run.data.params and "eval/success" in run.data.metrics

    printed = capsys.readouterr().out
    assert "4 cells × 3 seeds = 12 trials, 0 finished" in printed and "[12/12]" in printed
    assert "It does." in printed and "where the time of 12 trials went" in printed
    assert "python -m sweeps ui output=" in printed and "/#/compare-runs?runs=%5B%22" in printed
    assert str(output / "threshold" / "report.pdf") in printed and reports == ["threshold"]


@pytest.mark.parametrize("undefined", ["nan", "inf"])
def test_aggregates_equal_a_calculation_by_hand(
    sweep: Command, trainer: Any, mlflow: Any, undefined: str, capsys: Any
) -> None:
    def without_first_fid(config: Run, known: dict[str, float]) -> dict[str, float]:
        return {**known, "eval/fid": float(undefined)} if config.seed == 0 else known

    trainer.change = without_first_fid
    assert sweep("seeds=3", "levels=[0.4]") == 0
    metrics = runs(mlflow, "cell")[1].data.metrics
    values = (0.40, 0.41, 0.44)
    mean = sum(values) / 3
    sd = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    assert metrics["agg/success_n"] == 3 and metrics["agg/success_mean"] == pytest.approx(mean)
    assert metrics["agg/success_sd"] == pytest.approx(sd)
    half = 4.302652729911275 * sd / 3**0.5  # t(0.975, 2)
    assert metrics["agg/success_ci95"] == pytest.approx(half)
    # A metric that is undefined in one seed is left out of its mean
    assert (metrics["agg/fid_n"], metrics["agg/fid_mean"]) == (2, pytest.approx(28.5))
    assert "28.500 (n=2)" in capsys.readouterr().out
    first = next(run for run in runs(mlflow, "seed") if run.data.params["seed"] == "0")
    assert "eval/fid" not in first.data.metrics
    assert first.data.tags["undefined"].startswith("eval/fid: ")


def test_one_seed_has_no_interval(sweep: Command, mlflow: Any, capsys: Any) -> None:
    assert sweep("seeds=1") == 0
    metrics = runs(mlflow, "cell")[1].data.metrics
    assert metrics["agg/success_n"] == 1
    assert "agg/success_ci95" not in metrics and "agg/success_sd" not in metrics
    assert "nan" not in capsys.readouterr().out


def test_again_repeats_nothing(
    sweep: Command, trainer: Any, mlflow: Any, reports: list[str]
) -> None:
    def ends() -> dict[str, Any]:
        every = [run for role in ("cell", "seed") for run in runs(mlflow, role)]
        return {run.info.run_id: run.info.end_time for run in every}

    sweep("seeds=1")
    before = ends()
    for words in ([], ["retries=3"], ["trainer.log_every=5"], ["data.workers=2"]):
        assert sweep("seeds=1", *words) == 0
    assert len(trainer.ran) == 4 and reports[0] == "threshold" and before == ends()


def test_more_seeds_extend_and_fewer_select(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str]
) -> None:
    sweep("seeds=1")
    assert sweep("seeds=2") == 0
    assert len(trainer.ran) == 8 and {config.seed for config in trainer.ran[4:]} == {1}
    assert runs(mlflow, "cell")[1].data.metrics["agg/success_n"] == 2
    assert sweep("seeds=1") == 0
    assert len(trainer.ran) == 8 and runs(mlflow, "cell")[1].data.metrics["agg/success_n"] == 1
    assert mlflow.get_experiment_by_name("threshold").tags["seeds"] == "[0]"
    assert reports == ["threshold"] * 3 and states(output) == {"COMPLETE": 8}


def test_other_levels_add_cells(sweep: Command, trainer: Any, mlflow: Any) -> None:
    sweep("seeds=1")
    assert sweep("seeds=1", "levels=[0.8,0.4]") == 0
    assert trainer.names[4:] == [("maskattn", 0.8, 0)]
    assert [run.info.run_name for run in runs(mlflow, "cell")] == [*CELLS, "threshold=0.8"]
    tags = mlflow.get_experiment_by_name("threshold").tags
    assert json.loads(tags["factors"])[0]["levels"] == [0.4, 0.5, 0.8]


def test_what_waits_from_a_larger_plan_is_left_alone(sweep: Command, trainer: Any) -> None:
    trainer.before = at(5, interrupt)
    sweep("seeds=3")
    trainer.before = nothing
    assert sweep("seeds=1") == 0
    assert [config.seed for config in trainer.ran] == [0, 0, 0, 0, 1]


def test_other_settings_are_kept_apart(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: Any
) -> None:
    sweep("seeds=1")
    capsys.readouterr()
    assert sweep("seeds=1", "trainer.steps=7") == 0
    printed = capsys.readouterr().out
    assert "settings differ" in printed and "trainer.steps" in printed and "→ 7" in printed
    assert len(trainer.ran) == 8 and trainer.ran[-1].trainer.steps == 7
    name = next(folder.name for folder in output.glob("threshold-*"))
    assert finished(mlflow, name) == everything(1) == finished(mlflow)
    assert sweep("seeds=1", "trainer.steps=7") == 0 and sweep("seeds=1") == 0
    assert len(trainer.ran) == 8


def test_evaluate_only_levels_share_one_training(sweep: Command, trainer: Any) -> None:
    assert sweep("seeds=1", "when=evaluate") == 0
    untouched, *others = trainer.ran
    assert untouched.method.name == "untouched" and untouched.evaluate_with == {}
    late = [config.evaluate_with["method.gate.threshold"] for config in others]
    assert late == [0.4, 0.5, 0.6]
    assert {config.method.gate.threshold for config in others} == {0.5}


# Stopped, killed, and gone on with


def test_interrupted_in_the_middle(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer.before = at(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert sweep("seeds=2") == 128 + signal.SIGTERM
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert states(output) == {"COMPLETE": 2, "FAIL": 1, "WAITING": 5} and not reports
    assert Counter(run.info.status for run in runs(mlflow, "seed")) == {"FINISHED": 2, "KILLED": 1}
    assert not (output / "threshold" / "driver.json").exists()
    trainer.before = nothing
    assert sweep("seeds=2") == 0
    assert len(trainer.ran) == 9 and finished(mlflow) == everything(2)
    assert states(output) == {"COMPLETE": 8, "FAIL": 1}


def test_the_first_ctrl_c_lets_the_running_trial_finish(
    sweep: Command, trainer: Any, output: Path, capsys: Any
) -> None:
    trainer.before = at(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert sweep("seeds=1") == 128 + signal.SIGINT
    assert states(output) == {"COMPLETE": 2, "WAITING": 2}
    printed = capsys.readouterr()
    assert "beginning no others" in printed.err and "2 trials are left to run" in printed.out


def test_an_exit_after_a_signal_is_a_stop_too(sweep: Command, trainer: Any, output: Path) -> None:
    def swallow() -> None:  # As Lightning does
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            sys.exit(1)

    trainer.before = at(1, swallow)
    assert sweep("seeds=1", "retries=0") == 128 + signal.SIGTERM
    assert len(trainer.ran) == 1 and states(output) == {"FAIL": 1, "WAITING": 3}


def test_stopped_after_the_result_was_written(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowMirror, "settle", interrupt)
        assert sweep("seeds=1") == 128 + signal.SIGINT
    assert states(output) == {"RUNNING": 1, "WAITING": 3}
    assert sweep("seeds=1") == 0
    assert len(trainer.ran) == 4 and finished(mlflow) == everything(1)
    assert states(output) == {"COMPLETE": 4}


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (MlflowMirror, "__init__"),
        (MlflowMirror, "add_cells"),
        (TrialQueue, "enqueue"),
        (TrialQueue, "claim"),
    ],
)
def test_stopped_while_planning(
    sweep: Command, trainer: Any, mlflow: Any, monkeypatch: Any, owner: type, step: str
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


class Killed(BaseException):
    """Stands for the end of a process: nobody tidies up. Real ones end in test_processes."""


def kill_at_the_end(
    sweep: Command, trainer: Any, monkeypatch: Any, after: bool, reopen: bool = False
) -> None:
    """The process of the last trial dies: with its result written, or before; ``reopen``: before
    its MLflow run was ended."""

    def run(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
        result = original(trainer, config, folder, tracking, progress) if after else {}
        if config.method.gate.threshold != 0.6:
            return result or original(trainer, config, folder, tracking, progress)
        if reopen:
            last = client(tracking.uri).search_runs([tracking.experiment_id], "tags.role = 'seed'")
            client(tracking.uri).update_run(last[-1].info.run_id, status="RUNNING")
        elif not after:
            SeedRun(tracking)
        raise Killed

    original = type(trainer).__call__
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer), "__call__", lambda self, *words: run(*words))
        patch.setattr(Driver, "_stop_all", lambda self: None)
        with pytest.raises(Killed):
            sweep("seeds=1")


def test_killed_in_a_trial(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, monkeypatch: Any
) -> None:
    kill_at_the_end(sweep, trainer, monkeypatch, after=False)
    assert states(output) == {"COMPLETE": 3, "RUNNING": 1}
    assert sweep("seeds=1") == 0
    assert len(trainer.ran) == 4 and trainer.names[-1] == ("maskattn", 0.6, 0)
    assert states(output) == {"COMPLETE": 4, "FAIL": 1} and finished(mlflow) == everything(1)
    assert Counter(run.info.status for run in runs(mlflow, "seed")) == {"FINISHED": 4, "KILLED": 1}


@pytest.mark.parametrize("reopen", [False, True])
def test_killed_after_the_result_was_written(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, monkeypatch: Any, reopen: bool
) -> None:
    kill_at_the_end(sweep, trainer, monkeypatch, after=True, reopen=reopen)
    assert states(output) == {"COMPLETE": 3, "RUNNING": 1}
    assert sweep("seeds=1") == 0 and len(trainer.ran) == 4
    assert states(output) == {"COMPLETE": 4} and finished(mlflow) == everything(1)
    assert trials(output)[-1].value == pytest.approx(0.6)


def test_a_second_driver_only_looks(
    sweep: Command, trainer: Any, output: Path, capsys: Any
) -> None:
    inner: list[int] = []
    trainer.before = at(2, lambda: inner.append(sweep("seeds=1")))
    assert sweep("seeds=1") == 0 and inner == [BUSY]
    assert len(trainer.ran) == 4 and states(output) == {"COMPLETE": 4}
    printed = capsys.readouterr().out
    assert f"is run by process {os.getpid()} on " in printed and "runs nothing" in printed
    assert "1 of 4 done, 1 running" in printed and "threshold=0.4, seed 0 │ training" in printed
    assert not (output / "threshold" / "driver.json").exists()
    for flag in ("--remeasure", "--replay-pruning"):
        with_lock = DriverLock(output / "threshold")
        assert sweep("seeds=1", flag) == BUSY
        with_lock.release()


# What fails


def test_a_failed_trial_is_tried_again(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: Any
) -> None:
    def fail() -> None:
        raise RuntimeError("no such\nluck")

    trainer.before = at(2, fail)
    assert sweep("seeds=1") == 0
    assert states(output) == {"COMPLETE": 4, "FAIL": 1} and finished(mlflow) == everything(1)
    assert trainer.names[-1] == ("maskattn", 0.4, 0)
    own = [run for run in runs(mlflow, "seed") if run.data.tags["cell"] == "threshold=0.4"]
    assert [run.data.tags["attempt"] for run in own] == ["1", "2"]
    assert [run.info.status for run in own] == ["FAILED", "FINISHED"]
    assert own[0].data.tags["error"] == "RuntimeError: no such luck"
    expected = "threshold=0.4, seed 0 failed (try 1 of 2): RuntimeError: no such luck"
    assert expected in capsys.readouterr().out
    log = output / "threshold" / "trials" / "threshold=0.4-seed0" / "log.txt"
    assert "Traceback" in log.read_text()


def test_what_fails_for_good_is_named_and_does_not_stop_the_rest(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str], capsys: Any
) -> None:
    def fail(config: Run, count: int) -> None:
        if config.method.gate.threshold == 0.6:
            raise RuntimeError("no such luck")

    trainer.before = fail
    assert sweep("seeds=1") == 1
    assert "failed: threshold=0.6, seed 0: RuntimeError: no such luck" in capsys.readouterr().err
    assert states(output) == {"COMPLETE": 3, "FAIL": 2} and reports == ["threshold"]
    assert [run.info.status for run in runs(mlflow, "cell")] == ["FINISHED"] * 3 + ["FAILED"]
    trainer.before = nothing
    assert sweep("seeds=1") == 0
    assert finished(mlflow) == everything(1)
    assert {run.info.status for run in runs(mlflow, "cell")} == {"FINISHED"}


def test_a_sweep_ends_if_all_trials_fail_alike(
    sweep: Command, trainer: Any, mlflow: Any, monkeypatch: Any, capsys: Any
) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise FileNotFoundError("no data")  # Before there is a run in MLflow

    monkeypatch.setattr(type(trainer), "__call__", broken)
    assert sweep("seeds=1", "retries=0") == 1
    ends = {(run.info.status, run.data.tags["error"]) for run in runs(mlflow, "seed")}
    assert ends == {("FAILED", "FileNotFoundError: no data")}
    assert len(runs(mlflow, "seed")) == 3, "nothing is tried any more"
    expected = "the first 3 attempts all failed with: FileNotFoundError: no data"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"eval/success": float("nan")}, "eval/success is not a number (NaN)"),
        ({"eval/success": float("inf")}, "eval/success is not a number (infinite)"),
        ({"eval/fid": 3.0}, "the result has no eval/success; it has eval/fid"),
    ],
)
def test_a_result_without_a_number_is_a_failure(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, metrics: Any, reason: str
) -> None:
    trainer.change = lambda config, known: metrics if config.method.gate.threshold == 0.4 else known
    assert sweep("seeds=1", "retries=1") == 1
    assert states(output) == {"COMPLETE": 3, "FAIL": 1}
    failed = [run for run in runs(mlflow, "seed") if run.info.status == "FAILED"]
    assert [run.data.tags["error"] for run in failed] == [f"ResultError: {reason}"]
    assert "agg/success_mean" not in runs(mlflow, "cell")[1].data.metrics
    trainer.change = lambda config, known: known
    assert sweep("seeds=1") == 0 and finished(mlflow) == everything(1)


def test_a_report_that_fails_leaves_the_sweep_finished(
    sweep: Command, trainer: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def broken(*_: Any) -> None:
        raise ReportError("no fonts")

    with monkeypatch.context() as patch:
        patch.setattr(report, "write_report", broken)
        assert sweep("seeds=1") == 1
    expected = "no report: no fonts; to try again: python -m reports threshold"
    said = capsys.readouterr().err
    assert expected in said
    check_printed(said)
    assert sweep("seeds=1") == 0 and len(trainer.ran) == 4


# What was lost


@pytest.mark.parametrize("lost", [[], ["threshold=0.6-seed0"]])
def test_mlflow_is_filled_again_from_the_folders(
    sweep: Command, trainer: Any, output: Path, lost: list[str]
) -> None:
    sweep("seeds=1")
    for name in lost:  # A result that is nowhere any more is made again
        shutil.rmtree(output / "threshold" / "trials" / name)
    other = f"sqlite:///{output / 'fresh.db'}"
    assert sweep("seeds=1", f"tracking_uri={other}") == 0
    assert trainer.names[4:] == [("maskattn", 0.6, 0)] * len(lost)
    assert finished(client(other)) == everything(1)


@pytest.mark.parametrize("lost", ["study.journal", "its trials"])
def test_the_study_is_filled_again_from_the_folders(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, lost: str, capsys: Any
) -> None:
    trainer.before = at(7, interrupt)
    sweep("seeds=2")
    path = output / "threshold" / "study.journal"
    done = [trial for trial in trials(output) if trial.state.name == "COMPLETE"]
    path.rename(output / "away")
    if lost == "its trials":  # As they were stored before the first had ended
        whole = (output / "away").read_text()
        path.write_text(whole[: whole.index('"state":0')].rpartition("\n")[0] + "\n")
    capsys.readouterr()
    assert sweep("seeds=2", "--plan") == 0
    assert "6 of 8 done" in capsys.readouterr().out
    trainer.before = nothing
    assert sweep("seeds=2") == 0
    assert len(trainer.ran) == 9 and finished(mlflow) == everything(2)
    again = [trial for trial in trials(output) if trial.state.name == "COMPLETE"]
    assert len(again) == 8
    for one, other in zip(done, again, strict=False):
        assert (one.params, one.value) == (other.params, other.value)
        # The tests' results do not say what code made them
        assert one.user_attrs == other.user_attrs | {"code": one.user_attrs["code"]}


def test_a_result_that_is_gone_is_made_again(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: Any
) -> None:
    sweep("seeds=1")
    shutil.rmtree(output / "threshold" / "trials" / "threshold=0.4-seed0")
    capsys.readouterr()
    assert sweep("seeds=1", "--plan") == 0
    assert "3 of 4 done" in capsys.readouterr().out
    assert sweep("seeds=1") == 0
    assert trainer.names[4:] == [("maskattn", 0.4, 0)] and finished(mlflow) == everything(1)


def test_means_of_a_machine_whose_clock_is_slow_count(
    sweep: Command, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep("seeds=1")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_mirror.time, "time", lambda: 1e9)
        sweep("seeds=2")
    for run in runs(mlflow, "cell"):
        for key, value in run.data.metrics.items():
            last = max(
                mlflow.get_metric_history(run.info.run_id, key),
                key=lambda metric: (metric.step, metric.timestamp, metric.value),
            )
            assert last.value == value, key
        assert run.data.metrics["agg/success_n"] == 2


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
    assert len(trainer.ran) == 4
    assert mlflow.get_experiment_by_name("threshold").lifecycle_stage == "active"
    assert {run.data.metrics["agg/success_n"] for run in runs(mlflow, "cell")} == {1}


@pytest.mark.slow
def test_a_database_that_was_left_half_made_is_not_used(
    sweep: Command, output: Path, empty_database: Path
) -> None:
    (output / "mlflow.db").unlink()
    (output / ".mlflow.db.new").write_bytes(empty_database.read_bytes()[:200_000])
    assert sweep("seeds=1") == 0
    names = {file.name for file in output.iterdir()}
    assert names == {".lock", "artifacts", "cache", "mlflow.db", "threshold"}
