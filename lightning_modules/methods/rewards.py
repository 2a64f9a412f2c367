"""What scores drawn images for their captions; ``conf/method/reward_finetune.py`` declares the same
names.

A reward is any object with the methods of `Reward`: another one is a line here and one there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from lightning_modules.embedded.judge import MEASURES, REWARDS
from lightning_modules.embedded.judge_reward import JudgeReward

__all__ = ["BUILDERS", "Reward", "build_reward"]


class Reward(Protocol):
    """Scores images for prompts; higher is better, and at least 0. ``facts`` say which model it
    is."""

    facts: dict[str, Any]

    def explain_unreadable(self, prompt: str) -> str:
        """Why the prompt cannot be scored; empty where it can."""
        ...

    def score(self, prompts: Sequence[str], images: Tensor) -> list[float]:
        """A number for each of the uint8 images [N, 3, H, W]."""
        ...


BUILDERS: dict[str, Callable[[], Reward]] = {
    "judge_reward": lambda: JudgeReward(REWARDS),
    "judge": lambda: JudgeReward(MEASURES),
}


def build_reward(name: str) -> Reward:
    """The reward of that name, loaded."""
    return BUILDERS[name]()
