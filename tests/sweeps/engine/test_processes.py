"""Trials in other processes, for real: drivers, workers and ranks that are killed, and what the
next start makes of it."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.driving import PROCESS, Start, alive, behave, ended, hears, ran, until
from helpers.sweep_states import everything, finished, runs, states, trials

pytestmark = pytest.mark.slow


def test_two_workers_run_everything_once(start: Start, output: Path, mlflow: Any) -> None:
    driver = start()
    out, err = ended(driver)
    assert driver.returncode == 0, err
    assert finished(mlflow) == everything(2) and states(output) == {"COMPLETE": 8}
    attempts = ran(output)
    assert len(attempts) == 8 and len({pid for _, pid, *_ in attempts}) == 2, (
        "a worker takes one trial after another"
    )
    assert "on cpu: training" in out and "[8/8]" in out and not alive(output)
    losses = [
        len(mlflow.get_metric_history(run.info.run_id, "train/loss"))
        for run in runs(mlflow, "seed")
    ]
    assert losses == [3] * 8
    log = (output / "threshold" / "trials" / "threshold=0.5-seed0" / "run.yaml").read_text()
    assert "threshold: 0.5" in log and not (output / "threshold" / "driver.json").exists()


def test_every_worker_has_its_own_slice_of_the_devices(start: Start, output: Path) -> None:
    behave(output, seconds=1.0, together=2)
    driver = start("seeds=1", CUDA_VISIBLE_DEVICES="4,5,7")
    out, err = ended(driver)
    assert driver.returncode == 0, err
    assert (
        {visible for _, _, visible, _ in ran(output)} <= {"4", "5", "7"}
        and "on gpu 4: training" in out
        and "on gpu 5: training" in out
    )
    assert len({pid for _, pid, *_ in ran(output)}) > 1
    driver = start(
        "seeds=1", "levels=[0.5]", "devices=5,7", "trainer.devices=2", CUDA_VISIBLE_DEVICES="4,5,7"
    )
    assert ended(driver)[0].count("on gpu 5,7: training") == 2 and driver.returncode == 0
    assert [visible for *_, visible, _ in ran(output)].count("5,7") == 4, "both ranks see the slice"


def test_a_launcher_of_ones_own_starts_the_ranks(start: Start, output: Path, mlflow: Any) -> None:
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=$RANKS"
    driver = start(
        "seeds=1", "trainer.devices=2", *PROCESS, "levels=[0.5]", f"launch={launch}", RANKS="2"
    )
    out, err = ended(driver)
    assert driver.returncode == 0, err
    assert "threshold=0.5, seed 0 on 2 processes: training" in out and states(output) == {
        "COMPLETE": 2
    }
    assert (
        Counter(rank for *_, rank in ran(output)) == {"0": 2, "1": 2}
        and len(runs(mlflow, "seed")) == 2
    )


def test_what_breaks_a_trial_breaks_no_other(start: Start, output: Path, mlflow: Any) -> None:
    reasons = {
        "kill": "its process was killed by SIGKILL: out of memory?",
        "memory": "MemoryError: CUDA out of memory. Tried to allocate 20.00 GiB",
        "lost disk": "OSError: [Errno 5] Input/output error",
        "nan": "ResultError: eval/success is not a number (NaN)",
    }
    trial = {"kill": ("0.5", 0), "memory": ("0.4", 1), "lost disk": ("0.6", 0), "nan": ("0.6", 1)}
    behave(output, **{f"{threshold}-{seed}": action for action, (threshold, seed) in trial.items()})
    driver = start()
    out, err = ended(driver)
    assert driver.returncode == 1, err
    assert states(output) == {"COMPLETE": 6, "FAIL": 4}
    attempts = Counter(name for name, *_ in ran(output))
    failed = {
        (run.data.tags["cell"], run.data.params["seed"]): run
        for run in runs(mlflow, "seed")
        if run.info.status == "FAILED"
    }
    for action, (threshold, seed) in trial.items():
        run = failed[f"threshold={threshold}", str(seed)]
        tries, how = 2, "try 1 of 2"
        if action in ("memory", "nan"):
            tries, how = 1, "not tried again: it would fail in the same way"
        assert run.data.tags["error"] == reasons[action]
        assert attempts[f"{threshold}-{seed}"] == tries
        assert f"threshold={threshold}, seed {seed} failed ({how}): {reasons[action]}; log: " in out
    assert len(failed) == 4 and not alive(output)
    assert len({pid for _, pid, *_ in ran(output)}) == 5, (
        "a worker that failed takes no other trial; one without a metric did not fail"
    )


def test_a_driver_that_is_killed_takes_its_workers_along(
    start: Start, output: Path, mlflow: Any
) -> None:
    behave(output, seconds=1.0, **{"0.5-0": "hang"})
    driver = start()
    until(lambda: len(ran(output)) >= 5)
    before = finished(mlflow)
    driver.kill()
    driver.wait()
    until(lambda: not alive(output))
    behave(output)
    again = start()
    _, err = ended(again)
    assert again.returncode == 0, err
    assert finished(mlflow) == everything(2) and before <= finished(mlflow)
    assert states(output)["COMPLETE"] == 8 and set(states(output)) == {"COMPLETE", "FAIL"}
    assert {run.info.status for run in runs(mlflow, "seed")} == {"FINISHED", "KILLED"}


def test_killed_again_and_again(start: Start, output: Path, mlflow: Any) -> None:
    behave(output, seconds=0.3)
    moments = random.Random(5)
    for _ in range(4):
        driver = start()
        known = len(ran(output))
        until(lambda known=known: len(ran(output)) > known)  # type: ignore[misc]
        time.sleep(moments.uniform(0.0, 1.2))
        driver.kill()
        driver.wait()
        until(lambda: not alive(output))
    last = start()
    _, err = ended(last)
    assert last.returncode == 0, err
    assert finished(mlflow) == everything(2) and states(output)["COMPLETE"] == 8
    assert Counter(
        (trial.user_attrs["cell"], trial.user_attrs["seed"])
        for trial in trials(output)
        if trial.state.name == "COMPLETE"
    ) == (Counter((cell, int(seed)) for cell, seed in everything(2)))
    assert "RUNNING" not in {run.info.status for run in runs(mlflow, "seed")}


def test_a_second_driver_only_looks(start: Start, output: Path, mlflow: Any) -> None:
    (output / "hold").touch()
    first = start()
    until(lambda: len(ran(output)) == 2)
    second = start()
    out, err = ended(second)
    assert second.returncode == 4 and err == ""
    assert f"is run by process {first.pid} on " in out and "0 of 8 done, 2 running" in out
    assert "seed 0 │ " in out and len(ran(output)) == 2
    (output / "hold").unlink()
    assert ended(first)[1] == "" and first.returncode == 0
    assert finished(mlflow) == everything(2) and states(output) == {"COMPLETE": 8}


def test_a_preempted_trial_is_given_out_again_and_is_no_try(
    start: Start, output: Path, mlflow: Any
) -> None:
    behave(output, **{"0.4-0": "preempt"})
    driver = start("seeds=1", "retries=0", *PROCESS, "workers=2")
    out, err = ended(driver)
    assert driver.returncode == 0, err
    assert "it goes on from its last checkpoint" in out and "failed" not in out
    assert finished(mlflow) == everything(1)
    assert Counter(trial for trial, *_ in ran(output))["0.4-0"] == 2


def test_ctrl_c_once_lets_running_trials_finish(start: Start, output: Path, mlflow: Any) -> None:
    (output / "hold").touch()
    driver = start()
    until(lambda: len(ran(output)) == 2)
    driver.send_signal(signal.SIGINT)
    hears(driver, "beginning no others")
    (output / "hold").unlink()
    out, _ = ended(driver)
    assert driver.returncode == 130 and "6 trials are left to run" in out
    assert sum(finished(mlflow).values()) == 2 and states(output) == {"COMPLETE": 2, "WAITING": 6}


@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_second_ctrl_c_or_another_signal_stops_at_once(
    start: Start, output: Path, mlflow: Any, last: signal.Signals
) -> None:
    behave(output, **{"untouched-0": "hang", "0.4-0": "hang"})
    driver = start()
    until(lambda: len(ran(output)) == 2)
    if last == signal.SIGINT:
        driver.send_signal(last)
        hears(driver, "beginning no others")
    driver.send_signal(last)
    _, err = ended(driver)
    assert driver.returncode == 128 + last and "stopped; the same command goes on" in err
    assert not alive(output) and states(output) == {"FAIL": 2, "WAITING": 6}
    assert {run.info.status for run in runs(mlflow, "seed")} == {"KILLED"}


def test_a_rank_that_is_killed_ends_its_trial_alone(
    start: Start, output: Path, mlflow: Any
) -> None:
    behave(output, **{"0.4-0": "kill the second"})
    driver = start("seeds=1", "trainer.devices=2", *PROCESS, "levels=[0.4]")
    out, err = ended(driver)
    assert driver.returncode == 0, err
    assert (
        "threshold=0.4, seed 0 failed (try 1 of 2): one of its 2 processes was killed by SIGKILL"
        in out
    )
    assert finished(mlflow) == everything(1, [*everything_but_06()]) and not alive(output)
    attempts = Counter(trial for trial, *_ in ran(output))
    assert attempts.pop("0.4-0") in (3, 4), "the other rank may not have begun"
    assert attempts == {"untouched-0": 2, "0.5-0": 2}


def everything_but_06() -> list[str]:
    return ["untouched backbone", "threshold=0.4", "threshold=0.5"]


def test_a_driver_that_is_killed_takes_all_ranks_along(start: Start, output: Path) -> None:
    behave(output, **{"untouched-0": "hang"})
    driver = start("seeds=1", "trainer.devices=2", *PROCESS)
    until(lambda: len(ran(output)) == 2)
    driver.kill()
    driver.wait()
    until(lambda: not alive(output))
