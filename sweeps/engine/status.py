"""How far a plan is, and how long the rest will take. Runs and creates nothing, and needs none of
the heavy libraries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conf.describe import show_count
from conf.prompts import Extent
from lightning_modules.training.progress import format_duration
from sweeps.engine.eta import EtaEstimator, recorded_run, recorded_seconds
from sweeps.engine.executors.base import count_places
from sweeps.engine.plan import kinds_of, seconds_of
from sweeps.engine.prompts import find_lacking, is_wanted
from sweeps.engine.request import Request
from sweeps.engine.stopping import check_primary, fixed_primary
from sweeps.engine.studies import find_study
from sweeps.engine.trials import DRAWN_ONLY, Key, key_of, read_facts, read_trials

if TYPE_CHECKING:
    from sweeps.engine.looks import History
    from sweeps.engine.trials import StoredTrial

__all__ = ["PlanStatus", "TrialCounts", "read_status"]


class TrialCounts:
    """What folders and study say of a plan's trials: (cell, seed) that are ``done``,
    ``running`` or ``failed``, or whose images are ``drawn`` and not measured; and what those have
    that have finished with fewer prompts than are asked for, ``lacking``."""

    def __init__(
        self,
        trials: Sequence[StoredTrial],
        planned: Collection[Key] | None = None,
        lacking: Mapping[Key, Extent] | None = None,
        asked: Mapping[Key, int | None] | None = None,
    ) -> None:
        """``planned``: the trials of the plan; all that the study has if not given. ``lacking``,
        ``asked``: see `find_lacking`."""
        last: dict[Key, StoredTrial] = {}
        states: dict[str, set[Key]] = {}
        self.lacking = lacking or {}
        for trial in trials:
            key = key_of(trial)
            if trial.state.name in ("WAITING", "RUNNING") and not is_wanted(trial, self.lacking):
                continue
            if planned is None or key in planned:
                states.setdefault(trial.state.name, set()).add(key)
                if trial.state.name in ("FAIL", "COMPLETE"):
                    last[key] = trial
        self.planned = set(planned) if planned is not None else set().union(*states.values())
        self.running = states.get("RUNNING", set())
        self.done = states.get("COMPLETE", set()) - self.lacking.keys()
        # The last attempt failed by itself, and was not stopped
        failed = {key for key, t in last.items() if t.user_attrs.get("status") == "FAILED"}
        drawn = {
            key
            for key, t in last.items()
            if t.user_attrs.get("status") == DRAWN_ONLY
            and not (asked and Extent.read(t.user_attrs).lacks(asked[key]))
        }
        self.failed, self.drawn = (some - self.done - self.running for some in (failed, drawn))

    def text(self) -> str:
        """3 of 8 done, 1 running, 1 failed."""
        parts = [f"{len(self.done)} of {len(self.planned)} done"]
        parts += [f"{len(self.running)} running"] if self.running else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.drawn)} only drawn"] if self.drawn else []
        return ", ".join(parts)


@dataclass(frozen=True)
class PlanStatus:
    """What the folder of a plan says. ``waiting`` maps the (cell, seed) to come to their kind."""

    name: str
    folder: Path
    counts: TrialCounts
    waiting: Mapping[Key, str]
    eta: EtaEstimator
    # Seconds of a trial by its kind, if none of the plan's own has finished
    recorded: Mapping[str, float] | None
    notes: tuple[str, ...] = ()  # What else a person should know
    history: History | None = None  # The looks at it
    separate_devices: bool = False  # Whether each slot has a device of its own

    @property
    def remaining_seconds(self) -> float | None:
        """How long the rest takes; None if nothing tells."""
        if self.recorded is None:
            return self.eta.remaining(self.waiting.values())
        longest = max(self.recorded.values())
        seconds = sum(self.recorded.get(kind, longest) for kind in self.waiting.values())
        # It was made with all cores of a CPU, which more workers only share; devices do add up
        return seconds / (self.eta.slots if self.separate_devices else 1)

    @property
    def finished_seconds(self) -> float:
        """Seconds that the finished trials took, one after another."""
        return sum(map(sum, self.eta.seconds.values()))

    def describe_rest(self) -> str:
        """The estimate in words, and what it rests on."""
        count, slots, seconds = len(self.waiting), self.eta.slots, self.remaining_seconds
        if not count:
            return "nothing is left to run"
        if self.recorded is not None:
            run = recorded_run()
            return (
                f"about {format_duration(seconds or 0)} to come, by a run of {run['date']} on "
                f"{run['hardware']}"
            )
        if seconds is None:
            return (
                f"{show_count(count, 'trial')} to run, {slots} at a time; how long "
                f"{'it takes' if count == 1 else 'they take'} is known once one has finished"
            )
        own = self.eta.seconds
        means = ", ".join(f"{kind} {format_duration(sum(s) / len(s))}" for kind, s in own.items())
        return (
            f"about {format_duration(seconds)} left, {slots} at a time (a trial takes {means}; "
            f"from {sum(map(len, own.values()))} finished)"
        )


def read_status(request: Request) -> PlanStatus:
    """How far the plan of a request is. Raises LaunchError if its trials cannot run here."""
    from sweeps.engine.until import add_looks  # It needs NumPy and SciPy, which a list does not

    config = request.config
    notes: list[str] = []
    name, exists = find_study(request.sweep, config, request, notes)
    folder = Path(config.output) / name
    trials = read_trials(folder, name, request.keys) if exists else []
    facts = read_facts(folder, name) if exists else {}
    finished = sum(trial.state.name == "COMPLETE" for trial in trials)
    primary = check_primary(config, fixed_primary(facts), finished)
    history = add_looks(request, facts, trials, primary)
    asked = {key: request.prompts(key) for key in request.keys}
    identity = facts.get("identity", {"config": {}})
    counts = TrialCounts(
        trials, request.keys, find_lacking(request, trials, asked, identity["config"]), asked
    )
    waiting = [key for key in request.keys if key not in counts.done]
    places, separate = count_places(config) if waiting else (1, False)
    eta = EtaEstimator(places)
    for kind, seconds in seconds_of(trials):
        eta.add(kind, seconds)
    return PlanStatus(
        name=name,
        folder=folder,
        counts=counts,
        waiting=kinds_of(request, waiting, counts.done, counts.lacking) if waiting else {},
        eta=eta,
        recorded=None if eta.seconds else recorded_seconds(request.sweep, config),
        notes=tuple(notes),
        history=history,
        separate_devices=separate,
    )
