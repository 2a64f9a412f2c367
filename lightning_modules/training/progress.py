"""How far a run is: the clock of its phases, the line of a training step, and the files in its
folder by which it speaks with the process that started it. Imports nothing heavy."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

__all__ = [
    "DRAWN",
    "FAILED",
    "LOSSES",
    "PROGRESS",
    "PRUNE",
    "Clock",
    "Step",
    "format_duration",
    "format_step",
    "read_step",
]

# While a run lasts: {"text", "share"}
PROGRESS = "progress.json"
# Where it failed: {"reason"}
FAILED = "failed.json"
# Where its images were drawn and nothing was measured: {"drawn": {"images", "manifest"}}
DRAWN = "drawn.json"
# Asks its training to stop
PRUNE = "prune"
# A line "step loss" every ``trainer.log_every`` steps, at the same steps on any machine
LOSSES = "losses.txt"

STEP = re.compile(r"step (\d+)/(\d+)(?:, loss ([^\s,]+))?")


class Clock:
    """Sums up the seconds of each phase: a call adds the time since the call before to the phase
    that it names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._mark = time.monotonic()

    def __call__(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._mark, 2)
        self._mark = now


class Step(NamedTuple):
    """``step`` of ``steps``, and the loss where there is one."""

    step: int
    steps: int
    loss: float | None


def format_step(label: str, step: Step, pace: float) -> str:
    """label: step 20/60, loss 0.0812, 0.10 s a step, 4 s left; ``pace`` in seconds a step."""
    loss = f", loss {step.loss:.4f}" if step.loss is not None else ""
    left = format_duration(pace * (step.steps - step.step))
    return f"{label}: step {step.step}/{step.steps}{loss}, {pace:.2f} s a step, {left} left"


def read_step(line: str) -> Step | None:
    """The step in a line of ``format_step``; None for any other line."""
    match = STEP.search(line)
    if match is None:
        return None
    return Step(int(match[1]), int(match[2]), float(match[3]) if match[3] else None)


def format_duration(seconds: float) -> str:
    """8 s, 3 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
