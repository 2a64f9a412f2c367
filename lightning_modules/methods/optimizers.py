"""The optimiser: groups of parameters that are trained alike, each with its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from conf.schema import Trainer as TrainerConfig

__all__ = ["Group", "build_optimizer", "lr_multiplier"]


class Group(NamedTuple):
    """Parameters that are trained alike; ``learning_rate`` gives that of a step."""

    parameters: list[nn.Parameter]
    learning_rate: Callable[[int], float]
    decays: bool = True


def build_optimizer(
    groups: Sequence[Group], weight_decay: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over the groups that are not empty, and its schedule."""
    groups = [group for group in groups if group.parameters]
    # The rates are in the schedule: 1 here, so that a rate of zero in one phase does not end the
    # next.
    optimizer = torch.optim.AdamW(
        [
            {"params": group.parameters, "lr": 1.0, "weight_decay": weight_decay * group.decays}
            for group in groups
        ]
    )
    rates = [group.learning_rate for group in groups]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rates)


def lr_multiplier(
    recipe: TrainerConfig, step: int, first: int = 0, last: int | None = None
) -> float:
    """The learning rate over its peak at ``step`` of a phase from step ``first`` up to ``last``
    (the end of the training): linear warm-up, then cosine to zero, or constant."""
    last = recipe.steps if last is None else last
    if step < first + recipe.warmup:
        return (step - first + (recipe.warmup_from == "step")) / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    done = (step - first - recipe.warmup) / max(last - first - recipe.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
