"""The score of the judge for rewards, as a metric."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf.schema import Evaluation
from conf.spec import measured_metrics
from lightning_modules.embedded.judge import REWARDS, Judge
from lightning_modules.embedded.targets import read_target
from lightning_modules.metrics.judge_reward import KEY, build

TEXTS = ["a red circle", "a photo", "a blue square and a cyan ring"]


def scorer(texts: list[str]) -> Any:
    prompts: Any = [SimpleNamespace(text=text) for text in texts]
    return prompts, build(SimpleNamespace(prompts=prompts))[0]  # type: ignore[arg-type]


def test_it_is_measured_where_it_is_named() -> None:
    assert "judge_reward" not in measured_metrics(Evaluation())
    assert "judge_reward" in measured_metrics(Evaluation(metrics=["judge_reward"]))


def test_scores_are_those_of_the_judge_for_rewards() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (3, 3, 64, 64), generator=generator).to(torch.uint8)
    prompts, own = scorer(TEXTS)
    column = own.add(prompts, images, ["0", "1", "2"])[KEY]
    targets = [read_target(TEXTS[0]), read_target(TEXTS[2])]
    wanted = Judge.load(REWARDS).target_scores(images[[0, 2]], targets).tolist()
    assert column == [wanted[0], None, wanted[1]]
    assert own.finish() == {KEY: sum(wanted) / 2}
    assert own.facts == {KEY: {"reward": REWARDS, "images": 2}}


def test_other_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="judge_reward, which knows only the embedded world"):
        scorer(["a photo of a cat"])
    prompts, own = scorer(TEXTS)
    with pytest.raises(ValueError, match="sees images of 64 pixels, not 32"):
        own.add(prompts, torch.zeros(3, 3, 32, 32, dtype=torch.uint8), ["0", "1", "2"])
