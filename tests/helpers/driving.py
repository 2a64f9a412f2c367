"""Drivers in processes of their own, which tests start, kill and wait for."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).parents[1] / "sweeps" / "driver_program.py"
PROCESS = ["launcher=process", "trainer.accelerator=cpu"]
WORDS = ["seeds=2", "workers=2", *PROCESS]
Start = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def starting(output: Path) -> Iterator[Start]:
    """Starts drivers; what is left of them at the end is killed."""
    begun: list[subprocess.Popen[str]] = []

    def run(*words: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(DRIVER), f"output={output}", *(words or WORDS)]
        streams: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(
            subprocess.Popen(
                command, **streams, text=True, env=os.environ | environment, start_new_session=True
            )
        )
        return begun[-1]

    try:
        yield run
    finally:
        for process in begun:
            if process.poll() is None:
                process.kill()
                process.wait()


def behave(output: Path, **what: Any) -> None:
    """What the trials of `trial_program` do."""
    (output / "behaviour.json").write_text(json.dumps(what))


def ran(output: Path) -> list[list[str]]:
    """(trial, process id, visible devices, rank) of each attempt."""
    return (
        [line.split(" ") for line in (output / "ran.txt").read_text().splitlines()]
        if (output / "ran.txt").exists()
        else []
    )


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def hears(driver: subprocess.Popen[str], words: str, seconds: float = 60.0) -> None:
    """Reads what it says of problems until `words` came; what comes later is for `ended`."""
    assert driver.stderr is not None
    heard, end = "", time.monotonic() + seconds
    while words not in heard:
        ready, _, _ = select.select([driver.stderr], [], [], max(end - time.monotonic(), 0.0))
        said = os.read(driver.stderr.fileno(), 1 << 16).decode() if ready else ""
        assert said, f"it did not say {words!r}, but: {heard}"
        heard += said


def alive(output: Path) -> list[int]:
    """Process ids of trials that still run; a zombie does not."""
    found = []
    for _, pid, *_ in ran(output):
        status = Path(f"/proc/{pid}/status")
        try:
            if "State:\tZ" not in status.read_text():
                found.append(int(pid))
        except OSError:
            continue
    return found


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed, once it has ended and no trial runs any more."""
    return process.communicate(timeout=120)
