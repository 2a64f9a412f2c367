"""Locks on files; those of a PostgreSQL server are tested with the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import Timeout
from helpers.driving import until

from sweeps.engine.errors import StorageError
from sweeps.engine.locks import FileLocks, open_locks

ROOT = Path(__file__).parents[3]
DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from sweeps.engine.locks import FileLocks
locks = FileLocks(Path(sys.argv[1]))
locks.hold("driver")
with locks.exclusive("queue"):
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    child = subprocess.Popen(["sleep", "60"], **quiet, close_fds=sys.argv[2] == "True")
    fork = os.fork()
    if not fork:
        time.sleep(60)
        os._exit(0)
    print(child.pid, fork, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("close_fds", [True, False])
def test_a_killed_driver_is_dead_at_once_though_its_children_live(
    tmp_path: Path, close_fds: bool
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(close_fds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    children = [int(word) for word in driver.stdout.readline().split()]
    try:
        locks = FileLocks(tmp_path)
        assert locks.alive("driver")
        driver.kill()
        driver.wait()
        until(
            lambda: not locks.alive("driver"), 10
        )  # the fork lets go of its copy as soon as it gets a turn
        assert not list(tmp_path.glob(".owner-*"))
        with locks.exclusive("queue"):
            for child in children:
                os.kill(child, 0)  # still there
    finally:
        driver.kill()
        driver.wait()
        for child in children:
            os.kill(child, signal.SIGKILL)
        driver.stdout.close()


def test_who_lives(tmp_path: Path) -> None:
    mine, others = FileLocks(tmp_path), open_locks(tmp_path, "queue")
    assert not others.alive("a")
    mine.hold("a")
    mine.hold("b")
    assert mine.alive("a") and others.alive("a") and mine.refresh()
    mine.release("a")
    assert not mine.alive("a") and not others.alive("a") and others.alive("b")
    mine.close()
    assert not others.alive("b") and not list(tmp_path.glob(".owner-*"))


def test_a_file_that_nobody_holds_is_no_life(tmp_path: Path) -> None:
    (tmp_path / ".owner-a").touch()
    assert not FileLocks(tmp_path).alive("a") and not (tmp_path / ".owner-a").exists()


def test_a_token_has_one_holder(tmp_path: Path) -> None:
    FileLocks(tmp_path).hold("a")  # dropped at once, which lets go too
    first, second = FileLocks(tmp_path), FileLocks(tmp_path)
    first.hold("a")
    with pytest.raises(Timeout):
        second.hold("a")
    first.close()
    second.hold("a")
    second.close()


def test_one_thread_is_inside(tmp_path: Path) -> None:
    locks, inside, most = FileLocks(tmp_path), 0, []

    def work() -> None:
        nonlocal inside
        for _ in range(20):
            with locks.exclusive("queue"), locks.exclusive("queue"):
                inside += 1
                most.append(inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_names_are_apart(tmp_path: Path) -> None:
    with FileLocks(tmp_path).exclusive("queue"), FileLocks(tmp_path).exclusive("plan"):
        pass


def test_other_storages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="hands one queued trial to two workers"):
        open_locks(tmp_path, "queue", "sqlite:///study.db")
