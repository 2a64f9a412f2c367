"""Trials as SLURM jobs; submitit's own processes stand for a cluster."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.driving import behave, ran, until
from helpers.sweep_states import SWEEP, everything, finished, states, trials

from conf import load as conf
from sweeps.command import main
from sweeps.engine.errors import LaunchError
from sweeps.engine.executors import slurm
from sweeps.engine.executors.base import make_executor
from sweeps.engine.executors.slurm import SlurmExecutor, job_parameters, write_script

PROGRAM = (str(Path(__file__).parents[1] / "trial_program.py"),)
WORDS = ["executor=slurm", "seeds=1", "workers=2", "trainer.accelerator=cpu"]


def test_a_job_asks_for_devices_cores_and_time(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    words = ["trainer.devices=8", "slurm.nodes=2", "slurm.cpus=3", "slurm.memory=64"]
    options = ["slurm.partition=gpu", "slurm.options={account: lab}", "slurm.minutes=90"]
    setup = 'slurm.setup=["module load cuda"]'
    config = conf.load([*words, *options, setup, f"output={tmp_path}", "trainer.accelerator=gpu"])
    text = write_script(config, "threshold", 5).read_text()
    for line in (
        *("--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=1", "--cpus-per-task=12"),
        *("--mem=64GB", "--partition=gpu", "--account=lab", "--time=90", "--requeue"),
        *("--signal=USR1@120", "--array=0-4%5"),
    ):
        assert f"#SBATCH {line}\n" in text, line
    assert "module load cuda" in text and "srun" in text
    assert "gpus_per_node" not in job_parameters(conf.load(["trainer.accelerator=cpu"]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer.devices=3", "slurm.nodes=2"], "as many devices on each node"),
        (["launch=srun torchrun"], "leave it out with executor=slurm"),
        (["workers=0"], "workers=0: expected auto or a number"),
        ([], "there is no program sbatch on this machine"),
    ],
)
def test_what_cannot_be_submitted_is_said(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(LaunchError, match=expected):
        make_executor(conf.load(["executor=slurm", *words]))


def test_without_submitit_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(LaunchError, match=r"needs submitit; .*\[slurm\]"):
        make_executor(conf.load(["executor=slurm"]))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, reports: list[str]) -> Iterator[None]:
    """submitit's processes are the jobs; those that a test leaves are ended."""
    pytest.importorskip("submitit")
    local = functools.partial(SlurmExecutor, cluster="local")
    monkeypatch.setattr(slurm, "SlurmExecutor", local)
    yield
    for process in psutil.Process().children(recursive=True):
        process.kill()


def run(output: Path, *words: str) -> int:
    return main(SWEEP, [f"output={output}", *WORDS, *words], program=PROGRAM)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_jobs_run_everything_once(output: Path, mlflow: Any, capsys: Any) -> None:
    behave(output, **{"0.4-0": "lost disk"})
    assert run(output) == 0
    assert finished(mlflow) == everything(1) and states(output) == {"COMPLETE": 4, "FAIL": 1}
    printed = capsys.readouterr().out
    assert "threshold=0.5, seed 0 on slurm: training" in printed
    assert "failed (try 1 of 2): OSError: [Errno 5]" in printed
    assert not list((output / "threshold").glob("trials/*/slurm.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_job_that_is_preempted_goes_on(output: Path, mlflow: Any) -> None:
    """submitit queues it again by itself, so that the driver sees one trial."""
    behave(output, **{"0.4-0": "hang"})

    def preempt() -> None:
        until(lambda: any(trial == "0.4-0" for trial, *_ in ran(output)))
        trial = next(int(pid) for trial, pid, *_ in ran(output) if trial == "0.4-0")
        job = psutil.Process(trial).parent()
        assert job is not None and "submitit" in " ".join(job.cmdline())
        os.kill(job.pid, signal.SIGUSR1)

    thread = threading.Thread(target=preempt)
    thread.start()
    assert run(output) == 0
    thread.join()
    assert finished(mlflow) == everything(1) and states(output) == {"COMPLETE": 4}
    assert [trial for trial, *_ in ran(output)].count("0.4-0") == 2
    assert {trial.user_attrs["seed"] for trial in trials(output)} == {0}
