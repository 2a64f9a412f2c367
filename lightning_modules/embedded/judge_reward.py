"""A judge's graded score of what a prompt asks for, as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_modules.embedded.judge import Judge
from lightning_modules.embedded.targets import read_target

__all__ = ["JudgeReward"]


class JudgeReward:
    """`Judge.target_scores` of the shipped judge ``name``, by the words of a prompt alone."""

    def __init__(self, name: str) -> None:
        self.judge = Judge.load(name)
        self.facts: dict[str, Any] = {"reward": name}

    def explain_unreadable(self, prompt: str) -> str:
        """Why the prompt cannot be scored; empty where it can."""
        try:
            read = read_target(prompt)
        except ValueError as error:
            return str(error)
        return "" if read.objects else f"the prompt {prompt!r} names no object that the judge knows"

    def score(self, prompts: Sequence[str], images: Tensor) -> list[float]:
        """A number in [0, 1] for each of the uint8 images [N, 3, 64, 64]. Raises ValueError as
        `read_target`, and on images of another size."""
        targets = [read_target(prompt) for prompt in prompts]
        return self.judge.target_scores(images, targets).tolist()
