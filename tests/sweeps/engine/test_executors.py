"""What the driver makes of an executor: trials that outlive it, and trials in great number."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.sweep_states import everything, finished, runs, states

from conf import load as conf
from lightning_modules.tracking.mlflow import SeedRun, Tracking
from sweeps.engine import session
from sweeps.engine.driver import Driver
from sweeps.engine.executors import slurm
from sweeps.engine.executors.node import NodeTrial, split_devices
from sweeps.engine.plan import Job
from sweeps.engine.slots import Outcome

PROGRAM = (str(Path(__file__).parents[1] / "trial_program.py"),)


class Cluster:
    """Stands for an executor whose trials go on without a driver. Each ends at its second look."""

    def __init__(self) -> None:
        self.at_once, self.notes = 2, []  # type: int, list[str]
        self.report: Any = None
        self.looks: dict[Any, int] = {}
        self.submitted: list[Any] = []
        self.dies = False

    def resume(self, job: Job) -> bool:
        return job.key in self.looks

    def place(self, job: Job) -> str:
        return "cluster"

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.submitted.append(job.key)
            self.looks[job.key] = 0
            SeedRun(job.tracking)

    def poll(self, job: Job) -> Outcome | None:
        if self.dies and len(self.submitted) == 4:
            raise Killed
        self.looks[job.key] += 1
        if self.looks[job.key] < 2:
            return None
        result = {"metrics": {"eval/success": 0.5, "eval/fid": 1.0}, "seconds": {"train": 1.0}}
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "result.json").write_text(json.dumps(result))
        del self.looks[job.key]
        return Outcome(result)

    def progress(self, job: Job) -> tuple[str, float]:
        return "training: step 1/2", 0.5

    def stop(self, jobs: Sequence[Job]) -> None:
        """They go on."""

    def close(self) -> None:
        """They go on."""


class Killed(BaseException):
    """Stands for the end of the driver's process."""


def test_trials_that_outlive_their_driver_are_taken_over(
    sweep: Callable[..., int], output: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    monkeypatch.setattr(session, "make_executor", lambda *words: cluster)
    cluster.dies = True
    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_stop_all", lambda self: None)
        with pytest.raises(Killed):
            sweep("seeds=1")
    assert states(output) == {"COMPLETE": 2, "RUNNING": 2}
    cluster.dies = False
    assert sweep("seeds=1") == 0
    assert len(cluster.submitted) == 4, "none began twice"
    assert states(output) == {"COMPLETE": 4} and finished(mlflow) == everything(1)
    assert len(runs(mlflow, "seed")) == 4


def test_a_lost_cluster_has_its_trials_again(
    sweep: Callable[..., int], output: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    monkeypatch.setattr(session, "make_executor", lambda *words: cluster)
    cluster.dies = True
    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_stop_all", lambda self: None)
        with pytest.raises(Killed):
            sweep("seeds=1")
    cluster.dies, cluster.looks = False, {}
    assert sweep("seeds=1") == 0 and len(cluster.submitted) == 6
    assert states(output) == {"COMPLETE": 4, "FAIL": 2} and finished(mlflow) == everything(1)


class FakeJob:
    """A job of SLURM as submitit has it."""

    state = "NODE_FAIL"
    ended = False

    def __init__(self, folder: Path, job_id: str, tasks: Sequence[int]) -> None:
        self.job_id = job_id

    def done(self, force_check: bool = False) -> bool:
        return self.ended


def test_a_job_of_an_earlier_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    config = conf.load([f"output={tmp_path}", "executor=slurm", "trainer.accelerator=cpu"])
    executor = slurm.SlurmExecutor(config, ("-m", "x"), cluster="local")
    monkeypatch.setattr(executor, "_slurm", SimpleNamespace(job_class=FakeJob))
    job: Any = SimpleNamespace(key=("a", 0), folder=tmp_path, extends=None)
    assert not executor.resume(job)
    (tmp_path / "slurm.json").write_text('{"job": "12_0"}')
    assert executor.resume(job) and executor.poll(job) is None
    monkeypatch.setattr(FakeJob, "ended", True)
    assert executor.poll(job) == Outcome(None, "its SLURM job 12_0 ended as NODE_FAIL", True)
    assert not (tmp_path / "slurm.json").exists()
    (tmp_path / "slurm.json").write_text('{"job": "12_0"}')
    assert not executor.resume(job)


def test_ranks_of_several_nodes_meet_at_the_first(tmp_path: Path, monkeypatch: Any) -> None:
    started: dict[str, Any] = {}

    def popen(command: list[str], **words: Any) -> Any:
        started.update(command=command, **words)
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr("sweeps.engine.executors.node.subprocess.Popen", popen)
    trial = NodeTrial(str(tmp_path / "run.yaml"), "{}", split_devices(8, 2, "x"), 2, ("-m", "w"))
    trial.start("10.0.0.1", "job-7")
    assert started["command"][1:] == ["-m", "w", "torchrun", "4", str(tmp_path / "run.yaml")]
    environment = started["env"]
    assert (environment["PET_NNODES"], environment["PET_RDZV_ID"]) == ("2", "job-7")
    assert environment["PET_RDZV_ENDPOINT"] == "10.0.0.1:29500" and trial.wait() == 0


@pytest.mark.slow
def test_ranks_of_two_nodes_are_one_trial(output: Path, mlflow: Any) -> None:
    """Two parts on this machine stand for two nodes."""
    from helpers.driving import ran

    folder = output / "trial"
    config = conf.as_run(conf.load([f"output={output}", "trainer.devices=2"]))
    conf.write(config, folder / "run.yaml")
    key = mlflow.create_experiment("two")
    parent = mlflow.create_run(key).info.run_id
    tracking = Tracking(f"sqlite:///{output / 'mlflow.db'}", key, parent, {"seed": "0"}, {})
    words = (str(folder / "run.yaml"), json.dumps(dataclasses.asdict(tracking)), 1, 2, PROGRAM)
    parts = [NodeTrial(*words) for _ in range(2)]
    for part in parts:
        part.start("127.0.0.1", "two")
    assert [part.wait(120) for part in parts] == [0, 0], (folder / "log.txt").read_text()
    assert sorted(rank for *_, rank in ran(output)) == ["0", "1"]
    assert json.loads((folder / "result.json").read_text())["metrics"]["eval/fid"] == 30.0
