"""One driver per sweep: a lock on a file of the sweep's folder, which the kernel releases however
its holder ends, and beside it who holds it. Each other command only looks."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from conf.files import read_json, to_json, write_atomically
from sweeps.engine.errors import SweepBusy

__all__ = ["DriverLock", "Owner", "find_owner"]

LOCK, OWNER = ".driver.lock", "driver.json"
PATIENCE = 2.0  # Seconds: a look at the lock holds it for a moment


@dataclass(frozen=True)
class Owner:
    """Who runs a sweep."""

    host: str = "another machine"
    process: int = 0
    since: str = ""  # Local time

    def describe(self) -> str:
        """process 12 on host since 2030-01-02 03:04:05."""
        process = f"process {self.process} on " if self.process else ""
        return f"{process}{self.host}{f' since {self.since}' if self.since else ''}"


class DriverLock:
    """The right to run the sweep in ``folder``. A child process never keeps it, forked or
    started."""

    def __init__(self, folder: Path) -> None:
        """Raises SweepBusy where another process has it."""
        folder.mkdir(parents=True, exist_ok=True)
        # Not the thread's: the one that ends the driver releases it
        self._lock = FileLock(folder / LOCK, timeout=PATIENCE, thread_local=False)
        self._owner = folder / OWNER
        try:
            self._lock.acquire(poll_interval=0.05)
        except Timeout:
            raise SweepBusy(folder, _read_owner(folder)) from None
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = Owner(platform.node(), os.getpid(), now)
        write_atomically(self._owner, to_json(asdict(owner)))

    def release(self) -> None:
        """The sweep is free; may be repeated."""
        if self._lock.is_locked:
            self._owner.unlink(missing_ok=True)
            self._lock.release()


def find_owner(folder: Path) -> Owner | None:
    """Who runs the sweep in ``folder`` now, None if nobody does. Creates nothing."""
    if not (folder / LOCK).exists():
        return None
    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except Timeout:
        return _read_owner(folder)
    except OSError:  # Another's folder
        return _read_owner(folder) if (folder / OWNER).exists() else None


def _read_owner(folder: Path) -> Owner:
    known = read_json(folder / OWNER)
    return Owner(**known) if isinstance(known, dict) else Owner()
