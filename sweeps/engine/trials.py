"""What is stored of trials, read without Optuna, whose import takes longer than a plan."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.engine.errors import StorageError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = [
    "DRAWN_ONLY",
    "JOURNAL",
    "Key",
    "StoredStudy",
    "StoredTrial",
    "damaged_line",
    "key_of",
    "list_studies",
    "read_facts",
    "read_identity",
    "read_journal",
    "read_trials",
]

JOURNAL = "study.journal"
DRAWN_ONLY = "DRAWN"  # Status of a trial whose images were drawn and that measured nothing
Key = tuple[str, int]  # Cell, seed


class Operation(enum.IntEnum):
    """Codes of those entries of Optuna's journal that are read here."""

    CREATE_STUDY = 0
    SET_STUDY_USER_ATTR = 2
    CREATE_TRIAL = 4
    SET_TRIAL_STATE_VALUES = 6
    SET_TRIAL_USER_ATTR = 8


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
            if code == Operation.CREATE_STUDY:
                if entry["study_name"] not in studies:
                    by_id.append(studies.setdefault(entry["study_name"], StoredStudy()))
            elif code == Operation.SET_STUDY_USER_ATTR:
                by_id[entry["study_id"]].user_attrs |= entry["user_attr"]
            elif code == Operation.CREATE_TRIAL:
                study = by_id[entry["study_id"]]
                state = State(entry.get("state", State.RUNNING.value))
                trial = StoredTrial(len(study.trials), state, entry.get("user_attrs", {}))
                trial.datetime_start = _local_time(entry["datetime_start"])
                trial.datetime_complete = _local_time(entry.get("datetime_complete"))
                study.trials.append(trial)
                trials.append(trial)
            elif code in (Operation.SET_TRIAL_STATE_VALUES, Operation.SET_TRIAL_USER_ATTR):
                _apply(entry, trials[entry["trial_id"]])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise damaged_line(path, number, error) from None
    return studies


def _apply(entry: dict[str, Any], trial: StoredTrial) -> None:
    if trial.state not in (State.RUNNING, State.WAITING):
        return
    if entry["op_code"] == Operation.SET_TRIAL_USER_ATTR:
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


def damaged_line(path: str | Path, line: int, error: Exception) -> StorageError:
    """The error for a line that is no entry."""
    return StorageError(
        f"{path} is damaged in line {line} ({error}): take the line out or the file away"
    )


def key_of(trial: FrozenTrial | StoredTrial) -> Key:
    """Cell and seed of a trial."""
    return trial.user_attrs["cell"], trial.user_attrs["seed"]


def read_trials(folder: Path, name: str, storage: str | None = None) -> Sequence[StoredTrial]:
    """The trials of the study ``name``, oldest first; none if there is no such study. Creates
    nothing. Raises StorageError."""
    if storage is None:
        study = read_journal(folder).get(name)
        return study.trials if study else []
    from sweeps.engine.postgres import Server, open_database

    if read_identity(folder, name, storage) is None:
        return []
    database = open_database(Server(storage))
    return database.get_all_trials(database.get_study_id_from_name(name))


def read_identity(folder: Path, name: str, storage: str | None = None) -> dict[str, Any] | None:
    """The identity that the study ``name`` was made with, in ``folder`` or in the database
    ``storage``; None if there is no such study. Creates nothing. Raises StorageError."""
    if storage is None:
        study = read_journal(folder).get(name)
        return study.user_attrs.get("identity") if study else None
    from sweeps.engine.postgres import Server, study_identities

    return study_identities(Server(storage), name).get(name)


def read_facts(folder: Path, name: str, storage: str | None = None) -> dict[str, Any]:
    """All that was stored with the study ``name``; nothing if there is no such study. Creates
    nothing. Raises StorageError."""
    if storage is None:
        study = read_journal(folder).get(name)
        return study.user_attrs if study else {}
    from sweeps.engine.postgres import Server, open_database

    if read_identity(folder, name, storage) is None:
        return {}
    database = open_database(Server(storage))
    facts: dict[str, Any] = database.get_study_user_attrs(database.get_study_id_from_name(name))
    return facts


def list_studies(output: Path, storage: str | None = None) -> list[str]:
    """The names of all studies below ``output`` or in the database ``storage``, sorted. Creates
    nothing. Raises StorageError."""
    if storage is None:
        return sorted(path.parent.name for path in output.glob(f"*/{JOURNAL}"))
    from sweeps.engine.postgres import Server, study_identities

    return sorted(study_identities(Server(storage)))
