"""The lock of a sweep's driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.driving import until

from sweeps.engine.errors import SweepBusy
from sweeps.engine.locks import DriverLock, find_owner

ROOT = Path(__file__).parents[3]
DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from sweeps.engine.locks import DriverLock
lock = DriverLock(Path(sys.argv[1]))
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
        assert find_owner(tmp_path) is not None
        driver.kill()
        driver.wait()
        # The fork lets go of its copy as soon as it gets a turn
        until(lambda: find_owner(tmp_path) is None, 10)
        DriverLock(tmp_path).release()
        for child in children:
            os.kill(child, 0)  # Still there
    finally:
        driver.kill()
        driver.wait()
        for child in children:
            os.kill(child, signal.SIGKILL)
        driver.stdout.close()


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    assert find_owner(folder) is None and not folder.exists()
    first = DriverLock(folder)
    owner = find_owner(folder)
    assert owner is not None and owner.process == os.getpid()
    with pytest.raises(SweepBusy, match=f"sweep is run by process {os.getpid()} on .* since "):
        DriverLock(folder)
    first.release()
    first.release()
    assert find_owner(folder) is None
    DriverLock(folder).release()


def test_a_lock_that_nobody_holds_is_no_owner(tmp_path: Path) -> None:
    (tmp_path / ".driver.lock").touch()
    (tmp_path / "driver.json").write_text(json.dumps({"host": "gone", "process": 1, "since": ""}))
    assert find_owner(tmp_path) is None
    DriverLock(tmp_path).release()
    assert not (tmp_path / "driver.json").exists()
