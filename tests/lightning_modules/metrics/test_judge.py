"""What the judge's scorer counts, by split and over all images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics import Detection, Target
from lightning_modules.metrics.correction import ErrorRates
from lightning_modules.metrics.judge import JudgeScorer

RING = Target([("red", "ring")])


def seen(color: str) -> Detection:
    return Detection("ring", (0, 0, 9, 9), 0.9, color=color)


def test_the_scorer_counts_by_split_and_over_all_images():
    answers: dict[str, list] = {"found": [], "scores": []}
    judge: Any = SimpleNamespace(
        detect=lambda images: answers["found"],
        target_scores=lambda images, targets: torch.tensor(answers["scores"]),
    )
    scorer = JudgeScorer(judge)
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    rows = [Prompt(split, i, i, "a red ring", RING, i) for i, split in enumerate("aaab")]
    answers |= {"found": [[seen("red")], [seen("blue")]], "scores": [0.75, 0.25]}
    columns = scorer.add(rows[:2], images, ["0", "1"])
    assert columns == {
        "success": [True, False],
        "score": [0.75, 0.25],
        "wanted_objects": [1, 1],
        "right_objects": [1, 0],
        "object_rate": [1.0, 0.0],
        "color_rate": [1.0, 0.0],
        "shape_rate": [1.0, 1.0],
        "relation_rate": [None, None],
        "relation_given_success": [None, None],
        "size_rate": [None, None],
        "pattern_rate": [None, None],
        "count_rate": [None, None],
        "extra_objects": [0, 1],
    }
    answers |= {"found": [[seen("red"), seen("blue")], []], "scores": [1.0, 0.0]}
    scorer.add(rows[2:], images, ["2", "3"])
    values = scorer.finish()
    assert (values["success"], values["success_a"], values["success_b"]) == (
        0.5,
        pytest.approx(2 / 3),
        0,
    )
    assert (values["score"], values["extra_objects"], values["n_images"]) == (0.5, 0.5, 4)
    assert values["at_least_1"] == 0.5 and "at_least_2" not in values
    assert scorer.columns == {"at_least_1": [True, False, True, False]}
    facts = {key: about["images"] for key, about in scorer.facts.items()}
    assert facts["success"] == facts["score"] == 4 and facts["success_a"] == 3
    assert "n_images" not in facts and scorer.facts["success"]["detector"] == "judge"


def test_success_says_how_often_the_judge_is_wrong(monkeypatch: pytest.MonkeyPatch):
    judge: Any = SimpleNamespace(
        detect=lambda images: [[seen("red")]] * len(images),
        target_scores=lambda images, targets: torch.ones(len(images)),
    )
    rows = [Prompt(split, 0, 0, "a red ring", RING, 0) for split in "ab"]
    rates = ErrorRates((90, 100), (190, 200))
    for known in (rates, None):
        monkeypatch.setattr("lightning_modules.metrics.judge.read_error_rates", lambda k=known: k)
        scorer = JudgeScorer(judge)
        scorer.add(rows, torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ["0", "1"])
        scorer.finish()
        having = {key for key, facts in scorer.facts.items() if "errors" in facts}
        assert having == ({"success", "success_a", "success_b"} if known else set())
    scored = {"sensitivity": [90, 100], "specificity": [190, 200]}
    monkeypatch.setattr("lightning_modules.metrics.judge.read_error_rates", lambda: rates)
    scorer.finish()
    assert scorer.facts["success"]["errors"] == scored
