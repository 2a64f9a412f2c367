"""Optuna's journal file, written so that no way to die and no full disk makes it unreadable.

Optuna itself appends behind a line that was written in part, after which the file can never be read
again. Here such a line is cut off first, and a line that cannot be written as a whole is taken
back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from sweeps.engine.trials import damaged_line

__all__ = ["Journal"]

BLOCK = 4096  # Bytes


class Journal(JournalFileBackend):
    """The file ``path``, which is created. One process writes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        with _open_to_append(path) as file:
            _cut_unfinished_line(file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        logs = []
        try:
            for log in super().read_logs(log_number_from):
                logs.append(log)
        except ValueError as error:
            line = log_number_from + len(logs) + 1
            raise damaged_line(self._file_path, line, error) from None
        return iter(logs)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with _open_to_append(self._file_path) as file:
            end = _cut_unfinished_line(file)
            try:
                rest = memoryview(text.encode())
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise


def _open_to_append(path: str | Path) -> Any:
    # Appending, so that a program with another lock loses nothing; never created, since a journal
    # that was taken away is not begun a second time
    return open(
        path, "a+b", buffering=0, opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT)
    )


def _cut_unfinished_line(file: Any) -> int:
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
