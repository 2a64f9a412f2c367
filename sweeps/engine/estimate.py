"""How far the plan of a command is and how long the rest will take: by its own finished trials, or by a recorded run of the catalogue."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf import schema
from lightning_modules.training.progress import format_duration
from sweeps.engine.launch import slots_for
from sweeps.engine.place import find, kept_apart
from sweeps.engine.plan import group_of, kinds_of, seconds_of
from sweeps.engine.resolve import seeds_of, trial_config
from sweeps.engine.study import Key, Study, key_of
from sweeps.sweep import Cell, Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeps.engine.display import Pace

__all__ = ["Look", "Progress", "look", "record"]

TIMES = Path(__file__).with_name("times.json")


class Progress:
    """What the queue of a study says of a plan's trials."""

    def __init__(self, trials: Sequence[FrozenTrial], wanted: Collection[Key] | None = None) -> None:
        """`wanted`: the trials of the plan; all that are in the queue where not given."""
        planned = {key_of(trial) for trial in trials} if wanted is None else set(wanted)
        self.wanted = planned
        self.trials = [trial for trial in trials if key_of(trial) in planned]
        self.done = self._keys("COMPLETE") - self._keys("WAITING", "RUNNING")
        self.running = self._keys("RUNNING")
        self.failed = {key for key in self._keys("FAIL") if self._reason(key)} - self.done - self.running

    def _keys(self, *states: str) -> set[Key]:
        return {key_of(trial) for trial in self.trials if trial.state.name in states}

    def _reason(self, key: Key) -> bool:
        """Whether the last attempt failed by itself, and was not stopped."""
        last = [trial for trial in self.trials if key_of(trial) == key and trial.state.name == "FAIL"][-1]
        return last.user_attrs.get("status") == "FAILED"

    def text(self) -> str:
        parts = [f"{len(self.done)} of {len(self.wanted)} done"]
        parts += [f"{len(self.running)} running"] if self.running else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Look:
    """What a plan's folder says. `groups` maps (cell, seed) to the digest of its training, `waiting` those to come to what they cost."""

    name: str
    folder: Path
    found: Progress
    groups: Mapping[Key, str]
    waiting: Mapping[Key, str]
    pace: Pace
    recorded: Mapping[str, float] | None  # seconds of a trial by its kind, where none of the plan's own has finished
    devices: bool = False  # whether each slot has a device of its own

    @property
    def seconds(self) -> float | None:
        """How long the rest takes; None where nothing tells."""
        if self.recorded is None:
            return self.pace.left(self.waiting.values())
        seconds = sum(self.recorded.get(kind, max(self.recorded.values())) for kind in self.waiting.values())
        # it was made with all cores of a CPU, which more workers only share out; devices do add up
        return seconds / (self.pace.slots if self.devices else 1)

    @property
    def spent(self) -> float:
        """Seconds that the finished trials took, one after another."""
        return sum(map(sum, self.pace.seconds.values()))

    def text(self) -> str:
        """The estimate in words, and what it rests on."""
        count, slots = len(self.waiting), self.pace.slots
        if not count:
            return "nothing is left to run"
        if self.recorded is not None:
            return f"about {format_duration(self.seconds or 0)} to come, by a run of {record()['date']} on {record()['hardware']}"
        if self.seconds is None:
            return f"{count} trials to run, {slots} at a time; how long they take is known once one has finished"
        own = self.pace.seconds
        means = ", ".join(f"{kind} {format_duration(sum(found) / len(found))}" for kind, found in own.items())
        counted = sum(map(len, own.values()))
        return f"about {format_duration(self.seconds)} left, {slots} at a time (a trial takes {means}; from {counted} finished)"


def look(sweep: Sweep, config: schema.Sweep, cells: Sequence[Cell]) -> Look:
    """Reads what is there of the resolved `sweep`; runs and writes nothing."""
    from sweeps.engine.display import Pace

    seeds, (name, there) = seeds_of(config), find(sweep, config)
    wanted = [(cell.text, seed) for seed in seeds for cell in cells]
    folder = Path(config.output) / name
    trials = Study.read(folder, name, config.storage) if there else []
    found = Progress(trials, wanted)
    runs = {cell.text: trial_config(config, cell, seeds[0]) for cell in cells}
    groups = {(text, seed): group_of(dataclasses.replace(run, seed=seed)) for seed in seeds for text, run in runs.items()}
    waiting = {key: groups[key] for key in wanted if key not in found.done}
    slots = slots_for(config)
    pace = Pace(len(slots))
    for kind, seconds in seconds_of(trials):
        pace.add(kind, seconds)
    recorded = None if pace.seconds else _recorded(sweep, config)
    kinds = kinds_of(waiting, {groups[key] for key in found.done})
    return Look(name, folder, found, groups, kinds, pace, recorded, devices=slots[0].device.startswith("gpu"))


@functools.cache
def record() -> dict[str, Any]:
    """The recorded run of the catalogue: its `date` and `hardware`, and of `sweeps` the digest of the settings (`place.kept_apart`) and the
    `seconds` of a trial by its kind."""
    found: dict[str, Any] = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.is_file() else {"sweeps": {}}
    return found


def _recorded(sweep: Sweep, config: schema.Sweep) -> Mapping[str, float] | None:
    """Seconds by kind, where the settings are those that the record was made with."""
    known = record()["sweeps"].get(sweep.name, {})
    return known["seconds"] if known.get("digest") == conf.digest(kept_apart(sweep, config)) and config.mode != "search" else None
