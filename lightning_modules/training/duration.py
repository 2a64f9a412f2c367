"""Spans of time: taken, and as people say them."""

from __future__ import annotations

import time

__all__ = ["Clock", "duration"]


class Clock:
    """Adds up where time goes: a call gives what has passed since the call before to the phase it
    names. `seconds` maps phases to sums."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._mark = time.monotonic()

    def __call__(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._mark, 2)
        self._mark = now


def duration(seconds: float) -> str:
    """8 s, 3 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
