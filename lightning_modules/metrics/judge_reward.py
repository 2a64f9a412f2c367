"""The score of the embedded world's judge for rewards, which training may have seen: it says how
well a method has pleased its reward, not how good its images are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from datamodules.shapes.rendering import SIZE
from lightning_modules.embedded.judge import REWARDS
from lightning_modules.embedded.judge_reward import JudgeReward
from lightning_modules.metrics.registry import Columns, ScoringContext

if TYPE_CHECKING:
    from lightning_modules.evaluation.plan import Prompt

KEY = "reward_judge"


def build(context: ScoringContext) -> list[JudgeRewardScorer]:
    """The scorer. Raises ValueError where no prompt says what an image must show in the words of
    the embedded world."""
    reward = JudgeReward(REWARDS)
    if context.prompts and all(reward.explain_unreadable(p.text) for p in context.prompts):
        why = reward.explain_unreadable(context.prompts[0].text)
        raise ValueError(
            f"evaluation.metrics names judge_reward, which knows only the embedded world ({why}): "
            "leave it out"
        )
    return [JudgeRewardScorer(reward)]


class JudgeRewardScorer:
    """``reward_judge``: the graded score of what each prompt names; None where it names nothing
    that can be judged."""

    def __init__(self, reward: JudgeReward) -> None:
        self.reward = reward
        self.scores: list[float] = []
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`. Raises ValueError on images of another size."""
        if images.shape[-1] != SIZE:
            raise ValueError(
                f"judge_reward sees images of {SIZE} pixels, not {images.shape[-1]}: leave it out "
                "of evaluation.metrics"
            )
        rows = [i for i, p in enumerate(prompts) if not self.reward.explain_unreadable(p.text)]
        found = self.reward.score([prompts[i].text for i in rows], images[rows]) if rows else []
        self.scores += found
        column: list[float | None] = [None] * len(prompts)
        for row, score in zip(rows, found, strict=True):
            column[row] = score
        return {KEY: column}

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        if not self.scores:
            return {}
        self.facts = {KEY: {**self.reward.facts, "images": len(self.scores)}}
        return {KEY: sum(self.scores) / len(self.scores)}
