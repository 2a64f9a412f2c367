"""What is stored of trials, read without Optuna, whose import takes longer than a plan."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.files import read_json, write_atomically
from conf.prompts import Extent
from lightning_modules.training.progress import LOSSES
from sweeps.engine.errors import StorageError
from sweeps.engine.locks import find_owner
from sweeps.sweep import trial_folder

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = [
    "DRAWN_ONLY",
    "JOURNAL",
    "RESULT",
    "Key",
    "StoredStudy",
    "StoredTrial",
    "damaged_line",
    "key_of",
    "list_studies",
    "read_facts",
    "read_identity",
    "read_journal",
    "read_losses",
    "read_result_facts",
    "read_trials",
    "write_facts",
]

JOURNAL = "study.journal"
FACTS = "study.json"  # Beside it, by the name of the study: what it was made with, its looks, …
RESULT = "result.json"  # In a trial's folder: it has finished
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


def read_trials(folder: Path, name: str, keys: Iterable[Key] = ()) -> list[StoredTrial]:
    """The trials of the study ``name`` as their folders have them, oldest first: not those whose
    result is gone, nor those that ran in a process that is gone; with those of ``keys`` whose
    result the journal knows nothing of. Creates nothing. Raises StorageError."""
    study = read_journal(folder).get(name, StoredStudy())
    runs = find_owner(folder) is not None
    there = {path.parent.name: path for path in folder.glob(f"trials/*/{RESULT}")}
    trials = [
        trial
        for trial in study.trials
        if (trial.state is not State.RUNNING or runs)
        and (trial.state is not State.COMPLETE or trial_folder(*key_of(trial)) in there)
    ]
    known = {key_of(trial) for trial in trials if trial.state is State.COMPLETE}
    for cell, seed in keys:
        path = there.get(trial_folder(cell, seed))
        if path is None or (cell, seed) in known:
            continue
        result = read_json(path)
        if isinstance(result, dict) and result.get("metrics"):
            facts = {"cell": cell, "seed": seed, **read_result_facts(result)}
            trials.append(StoredTrial(len(trials), State.COMPLETE, facts))
    return trials


def read_losses(folder: Path) -> list[tuple[int, float]]:
    """Steps and losses that a training has written so far: at the same steps in every training."""
    path = folder / LOSSES
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = [line.split() for line in lines]
    return [(int(pair[0]), float(pair[1])) for pair in pairs if len(pair) == 2]


def read_result_facts(result: Mapping[str, Any], extends: int | None = None) -> dict[str, Any]:
    """What a study keeps of a result; ``extends``: how many prompts it had before."""
    phases = result.get("seconds" if extends is None else "added_seconds", {})
    extent = Extent.read(result)
    return {
        "seconds": sum(phases.values()),
        "phases": phases or None,
        "contents": result.get("contents"),
        "code": result.get("versions", {}).get("code"),
        **({} if extent.prompts is None else extent.facts),
    }


def read_facts(folder: Path, name: str) -> dict[str, Any]:
    """All that was stored with the study ``name``; nothing if there is no such study. Creates
    nothing. Raises StorageError."""
    if name in (known := _read_all_facts(folder)):
        return dict(known[name])
    study = read_journal(folder).get(name)  # Once they were there alone
    return study.user_attrs if study else {}


def _read_all_facts(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / FACTS
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({error}): take the file away") from None


def write_facts(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Stores all that is known of the study ``name``, beside its journal."""
    known = _read_all_facts(folder)
    if known.get(name) != facts:
        write_atomically(
            folder / FACTS, json.dumps({**known, name: facts}, ensure_ascii=False, indent=1)
        )


def read_identity(folder: Path, name: str) -> dict[str, Any] | None:
    """The identity that the study ``name`` was made with; None if there is no such study. Creates
    nothing. Raises StorageError."""
    return read_facts(folder, name).get("identity")


def list_studies(output: Path) -> list[str]:
    """The names of all studies below ``output``, sorted. Creates nothing."""
    paths = [*output.glob(f"*/{JOURNAL}"), *output.glob(f"*/{FACTS}")]
    return sorted({path.parent.name for path in paths})
