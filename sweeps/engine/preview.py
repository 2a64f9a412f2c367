"""What a command would do: its cells, what is done of them, what they share, and how long the rest will take. Runs and writes nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf import schema
from lightning_modules.duration import duration
from sweeps.engine.launch import slots_for
from sweeps.engine.place import find
from sweeps.engine.plan import group_of, kinds_of, seconds_of
from sweeps.engine.resolve import seeds_of, trial_config
from sweeps.engine.study import Key, Study, key_of
from sweeps.sweep import Cell, Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.table import Table

    from sweeps.engine.display import Pace

__all__ = ["Progress", "preview"]


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


def preview(sweep: Sweep, config: schema.Sweep, cells: Sequence[Cell]) -> None:
    """Prints it."""
    from rich.console import Console

    from sweeps.engine.display import Pace, say

    console = Console(width=None if sys.stdout.isatty() else 160)
    seeds, (name, there) = seeds_of(config), find(sweep, config)
    wanted = [(cell.text, seed) for seed in seeds for cell in cells]
    folder = Path(config.output) / name
    trials = Study.read(folder, name, config.storage) if there else []
    found = Progress(trials, wanted)
    groups = {(cell.text, seed): group_of(trial_config(config, cell, seed)) for cell in cells for seed in seeds}
    say(console, f"{sweep.name}: {len(cells)} cells × {len(seeds)} seeds = {len(wanted)} trials; {found.text()}; {folder}")
    if config.mode == "search":
        said = f"search: {config.candidates} candidates in all, proposed by {config.sampler}, each × {len(seeds)} seeds"
        say(console, f"{said}; the cells below come first, and are all that the estimate knows")
    say(console, _table(cells, seeds, found, groups))
    for line in _sharing(cells, seeds, groups):
        say(console, line)
    slots = len(slots_for(config))
    pace = Pace(slots)
    for kind, seconds in seconds_of(trials):
        pace.add(kind, seconds)
    waiting = {key: groups[key] for key in wanted if key not in found.done}
    kinds = kinds_of(waiting, {groups[key] for key in found.done})
    say(console, _estimate(pace, list(kinds.values()), slots))


def _table(cells: Sequence[Cell], seeds: Sequence[int], found: Progress, groups: dict[Key, str]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("cell")
    for name in ("done", "running", "failed"):
        table.add_column(name, justify="right")
    table.add_column("")
    for cell in cells:
        keys = {(cell.text, seed) for seed in seeds}
        counts = [len(keys & part) for part in (found.done, found.running, found.failed)]
        role = "baseline: the others are compared with it" if cell.baseline else "trains nothing" if not groups[cell.text, seeds[0]] else ""
        table.add_row(cell.text, f"{counts[0]}/{len(seeds)}", *(str(count or "") for count in counts[1:]), role)
    return table


def _sharing(cells: Sequence[Cell], seeds: Sequence[int], groups: dict[Key, str]) -> list[str]:
    trained = [group for group in groups.values() if group]
    adapters = Counter(trained)
    if not trained:
        return ["nothing is trained"]
    lines = [f"{len(trained)} trials with a method, {len(adapters)} adapters to train for them"]
    if len(adapters) < len(trained):
        together: dict[str, list[str]] = {}
        for cell in cells:
            if group := groups[cell.text, seeds[0]]:
                together.setdefault(group, []).append(cell.text)
        lines += [f"  one adapter a seed serves {'; '.join(names)}" for names in together.values() if len(names) > 1]
    return lines


def _estimate(pace: Pace, kinds: Sequence[str], slots: int) -> str:
    if not kinds:
        return "nothing is left to run"
    seconds, counted = pace.left(kinds), sum(map(len, pace.seconds.values()))
    if seconds is None:
        return f"{len(kinds)} trials to run, {slots} at a time; how long they take is known once one has finished"
    means = ", ".join(f"{kind} {duration(sum(found) / len(found))}" for kind, found in pace.seconds.items())
    return f"about {duration(seconds)} left, {slots} at a time (a trial takes {means}; from {counted} finished)"
