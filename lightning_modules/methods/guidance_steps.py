"""What guidance does before each of the sampler's steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["StepPlan", "plan_steps"]


@dataclass(frozen=True)
class StepPlan:
    """What is done before one step of the sampler: moves until the loss is at most ``threshold``
    (None: no such moves), then ``moves`` more, each ``size`` times the gradient."""

    moves: int
    size: float
    threshold: float | None = None

    @property
    def acts(self) -> bool:
        return self.moves > 0 or self.threshold is not None


def plan_steps(settings: Any, count: int) -> list[StepPlan]:
    """What guidance does before each of ``count`` steps. A share s of the steps ends before step
    ⌊s · count + 1/2⌋, counted from 0."""

    def at(share: float) -> int:
        return math.floor(share * count + 0.5 + 1e-9)

    first, last = at(settings.start), at(settings.stop)
    thresholds = {at(float(share)): loss for share, loss in settings.thresholds.items()}
    sizes: Mapping[str, Callable[[int], float]] = {
        "constant": lambda number: 1.0,
        "linear": lambda number: 1 - number / count,
        # Attend-and-Excite's
        "root": lambda number: math.sqrt(1 - 0.5 * number / max(count - 1, 1)),
    }
    shape = sizes[settings.step_schedule]
    return [
        StepPlan(
            settings.inner_steps if first <= number < last else 0,
            settings.step_size * shape(number),
            thresholds.get(number),
        )
        for number in range(count)
    ]
