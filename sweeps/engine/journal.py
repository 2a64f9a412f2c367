"""Optuna's journal file: written so that no way to die and no full disk makes it unreadable, and
read without Optuna, whose import takes longer than a plan.

Optuna itself appends behind a line that was written in part, after which the file can never be read
again. Here such a line is cut off first, and a line that cannot be written as a whole is taken
back.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.engine.errors import StorageError

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

__all__ = ["JOURNAL", "StoredStudy", "StoredTrial", "open_journal", "read_journal"]

JOURNAL = "study.journal"
BLOCK = 4096  # Bytes


class State(enum.Enum):
    """Optuna's states of a trial."""

    RUNNING = 0
    COMPLETE = 1
    PRUNED = 2
    FAIL = 3
    WAITING = 4


@dataclass
class StoredTrial:
    """What an ``optuna.trial.FrozenTrial`` says of a trial, by the same names, but its
    parameters."""

    number: int
    state: State = State.RUNNING
    user_attrs: dict[str, Any] = field(default_factory=dict)
    datetime_start: datetime | None = None
    datetime_complete: datetime | None = None


@dataclass
class StoredStudy:
    """Facts and trials of one study of a journal, oldest trial first."""

    user_attrs: dict[str, Any] = field(default_factory=dict)
    trials: list[StoredTrial] = field(default_factory=list)


def read_journal(folder: Path) -> dict[str, StoredStudy]:
    """The studies of a folder's journal by name; none if there is no journal. Writes nothing.

    Does what Optuna does: entries about a trial that has ended, and about a trial that is taken
    already, count for nothing. An unfinished last line is left out. Raises StorageError.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return {}
    lines = path.read_bytes().split(b"\n")[:-1]
    studies: dict[str, StoredStudy] = {}
    by_id: list[StoredStudy] = []
    trials: list[StoredTrial] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            code = entry["op_code"]
            if code == 0:
                if entry["study_name"] not in studies:
                    by_id.append(studies.setdefault(entry["study_name"], StoredStudy()))
            elif code == 2:
                by_id[entry["study_id"]].user_attrs |= entry["user_attr"]
            elif code == 4:
                study = by_id[entry["study_id"]]
                state = State(entry.get("state", State.RUNNING.value))
                trial = StoredTrial(len(study.trials), state, entry.get("user_attrs", {}))
                trial.datetime_start = _local_time(entry["datetime_start"])
                trial.datetime_complete = _local_time(entry.get("datetime_complete"))
                study.trials.append(trial)
                trials.append(trial)
            elif code in (6, 8):
                _apply(entry, trials[entry["trial_id"]])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise damaged(path, number, error) from None
    return studies


def _apply(entry: dict[str, Any], trial: StoredTrial) -> None:
    if trial.state not in (State.RUNNING, State.WAITING):
        return
    if entry["op_code"] == 8:
        trial.user_attrs = trial.user_attrs | entry["user_attr"]
        return
    state = State(entry["state"])
    if state is State.RUNNING:
        if trial.state is State.RUNNING:
            return
        trial.datetime_start = _local_time(entry["datetime_start"])
    elif state is not State.WAITING:
        trial.datetime_complete = _local_time(entry["datetime_complete"])
    trial.state = state


def _local_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None) if text else None


def damaged(path: str | Path, line: int, error: Exception) -> StorageError:
    """The error for a line that is no entry."""
    return StorageError(
        f"{path} is damaged in line {line} ({error}): take the line out or the file away"
    )


def open_journal(folder: Path, lock: AbstractContextManager[Any]) -> JournalStorage:
    """Optuna's storage on a folder's journal, which is created; every access is under ``lock``.

    Readers take the lock too, so that nobody reads what is taken back.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        def __init__(self, path: Path) -> None:
            with lock:
                super().__init__(str(path))
                with _open_to_append(path) as file:
                    _cut_unfinished_line(file)

        def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
            logs = []
            with lock:
                try:
                    for log in super().read_logs(log_number_from):
                        logs.append(log)
                except ValueError as error:
                    line = log_number_from + len(logs) + 1
                    raise damaged(self._file_path, line, error) from None
            return iter(logs)

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with lock, _open_to_append(self._file_path) as file:
                end = _cut_unfinished_line(file)
                try:
                    rest = memoryview(text.encode())
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except BaseException:
                    file.truncate(end)
                    raise

    return JournalStorage(Journal(folder / JOURNAL))


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
