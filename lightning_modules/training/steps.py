"""The line that tells a step of training, written and read in one place."""

from __future__ import annotations

import re
from typing import NamedTuple

from lightning_modules.training.duration import duration

__all__ = ["Step", "read_step", "step_line"]

STEP = re.compile(r"step (\d+)/(\d+)(?:, loss ([^\s,]+))?")


class Step(NamedTuple):
    """``step`` of ``steps``, and the loss where there is one."""

    step: int
    steps: int
    loss: float | None


def step_line(label: str, step: Step, pace: float) -> str:
    """``pace`` is in seconds a step: label: step 20/60, loss 0.0812, 0.10 s a step, 4 s left."""
    loss = f", loss {step.loss:.4f}" if step.loss is not None else ""
    left = duration(pace * (step.steps - step.step))
    return f"{label}: step {step.step}/{step.steps}{loss}, {pace:.2f} s a step, {left} left"


def read_step(line: str) -> Step | None:
    """The step that a line tells; None in a line of anything else."""
    found = STEP.search(line)
    return (
        Step(int(found[1]), int(found[2]), float(found[3]) if found[3] else None) if found else None
    )
