"""How long the rest of a sweep takes: by its own finished trials, or by a recorded run of all
sweeps."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conf import load as conf
from conf import schema
from sweeps.engine.studies import result_settings
from sweeps.sweep import Sweep

__all__ = ["EtaEstimator", "recorded_run", "recorded_seconds"]

TIMES = Path(__file__).with_name("times.json")
# Kind -> those that tell how long it takes where none of its own has finished, at most
LIKE = {"extended": ("shared", "untrained")}
MIN_SHARE = 0.1  # From this share on, the first trial says how long the others will take


class EtaEstimator:
    """Estimates from finished trials of the same kind: those that train, those that share an
    adapter which is there, those that train nothing, and those that get more prompts."""

    def __init__(self, slots: int = 1) -> None:
        """``slots`` trials run at once."""
        self.slots = slots
        self.seconds: dict[str, list[float]] = {}

    def add(self, kind: str, seconds: float) -> None:
        """A trial has finished."""
        self.seconds.setdefault(kind, []).append(seconds)

    def mean(self, kind: str, guess: float | None = None) -> float | None:
        """Seconds that a trial of this kind takes; ``guess`` if none has finished at all."""
        every = [second for seconds in self.seconds.values() for second in seconds]
        known = (self.seconds.get(name) for name in (kind, *LIKE.get(kind, ())))
        own = next(filter(None, known), every)
        return sum(own) / len(own) if own else guess

    def remaining(
        self, waiting: Iterable[str], running: Iterable[tuple[str, float, float]] = ()
    ) -> float | None:
        """Seconds for the waiting trials (kinds) and the rest of those that run, each (kind,
        seconds so far, share done); None if nothing tells yet."""
        running = list(running)
        totals = [elapsed / share for _, elapsed, share in running if share > MIN_SHARE]
        guess = sum(totals) / len(totals) if totals else None
        rests, total = [0.0], 0.0
        for kind, elapsed, share in running:
            mean = self.mean(kind, guess)
            if mean is None:
                return None
            # One that takes longer than others did goes by its own pace
            own = elapsed * (1 - share) / max(share, MIN_SHARE)
            rests.append(mean - elapsed if mean > elapsed else own)
        for kind in waiting:
            mean = self.mean(kind, guess)
            if mean is None:
                return None
            total += mean
        return max((total + sum(rests)) / self.slots, *rests)


@functools.cache
def recorded_run() -> dict[str, Any]:
    """A run of all sweeps with their own settings: its ``date`` and ``hardware``, and of each of
    ``sweeps`` the seconds of a trial by its kind."""
    if not TIMES.is_file():
        return {"sweeps": {}}
    return json.loads(TIMES.read_text(encoding="utf-8"))


def recorded_seconds(sweep: Sweep, config: schema.Sweep) -> Mapping[str, float] | None:
    """Seconds of a trial by its kind in the recorded run; None if the settings are not the sweep's
    own."""
    seconds = recorded_run()["sweeps"].get(sweep.name)
    if seconds is None or config.mode == "search":
        return None
    own = conf.load([], sweep.preset)
    same = result_settings(sweep, own) == result_settings(sweep, config)
    return seconds if same and own.evaluation.prompts == config.evaluation.prompts else None
