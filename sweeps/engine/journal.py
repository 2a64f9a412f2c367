"""Optuna's journal file, such that no way to die and no full disk makes it unreadable.

Optuna itself appends behind a line that was written in part, after which the file can never be read again. Here such a line is cut off
first, and a line that cannot be written as a whole is taken back. Readers take the lock too, so that nobody reads what is taken back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from sweeps.engine.storage import StorageError

__all__ = ["Journal"]

BLOCK = 4096  # bytes


class Journal(JournalFileBackend):
    """The file `path`, every access under `lock`. Without a lock it may only be read, must be there, and stays as it is."""

    def __init__(self, path: Path, lock: AbstractContextManager[Any] | None = None) -> None:
        self._exclusive = lock or nullcontext()
        with self._exclusive:
            super().__init__(str(path))
            if lock is not None:
                with _opened(path) as file:
                    _cut(file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The entries from the given one on. Raises StorageError for a line that is none."""
        logs = []
        with self._exclusive:
            try:
                for log in super().read_logs(log_number_from):
                    logs.append(log)
            except ValueError as error:
                line = log_number_from + len(logs) + 1
                raise StorageError(f"{self._file_path} is damaged in line {line} ({error}): take the line out or the file away") from None
        return iter(logs)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries, all or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._exclusive, _opened(self._file_path) as file:
            end = _cut(file)
            try:
                rest = memoryview(text.encode())
                while rest:
                    rest = rest[file.write(rest):]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise


def _opened(path: str | Path) -> Any:
    # appending, so that a program with another lock loses nothing; never created, since a journal that was taken away has no heir
    return open(path, "a+b", buffering=0, opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT))


def _cut(file: Any) -> int:
    """Cut an unfinished last line off; returns where the file ends, in bytes."""
    size = keep = file.seek(0, os.SEEK_END)
    while keep:
        start = max(0, keep - BLOCK)
        file.seek(start)
        newline = file.read(keep - start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep < size:
        file.truncate(keep)
    return keep
