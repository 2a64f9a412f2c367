"""What the embedded world's judge sees in the images: objects, colours and places (`detection` has
the definitions), over all images and by split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_modules.embedded.judge import Judge
from lightning_modules.embedded.judge_labels import read_error_rates
from lightning_modules.metrics.detection import (
    STATED,
    Verdict,
    at_least_columns,
    composition_rates,
    judge_image,
    why_not_at_least,
)
from lightning_modules.metrics.registry import Columns, ScoringContext

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.evaluation.plan import Prompt


def build(context: ScoringContext) -> list[JudgeScorer]:
    """The scorer with the shipped judge."""
    return [JudgeScorer(Judge.load())]


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why no prompt gives it."""
    targets = [prompt.target for prompt in prompts]
    related = (
        any(target.relation for target in targets),
        "no prompt states where one object is from another",
    )
    stated = {
        "relation_rate": related,
        "relation_given_success": related,
        "size_rate": (any(target.sizes for target in targets), "no prompt states a size"),
        "pattern_rate": (any(target.patterns for target in targets), "no prompt states a pattern"),
        "count_rate": (any(target.counted for target in targets), "no prompt counts objects"),
    }
    reasons = why_not_at_least(len(target.objects) for target in targets)
    return reasons | {key: reason for key, (given, reason) in stated.items() if not given}


class JudgeScorer:
    """`composition_rates` of all images, ``success`` by split, and ``score``, the judge's graded
    success."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.splits: list[str] = []
        self.verdicts: list[Verdict] = []
        self.scores: list[float] = []
        self.columns: Columns = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; rates are of the objects that the image should show. Those of what a prompt
        may state besides are None where it states nothing of the kind, ``relation_given_success``
        also where an object is missing."""
        targets = [prompt.target for prompt in prompts]
        detections = self.judge.detect(images)
        scores = self.judge.target_scores(images, targets).tolist()
        verdicts = [
            judge_image(seen, target) for seen, target in zip(detections, targets, strict=True)
        ]
        self.splits += [prompt.split for prompt in prompts]
        self.verdicts += verdicts
        self.scores += scores
        return {
            "success": [verdict.success for verdict in verdicts],
            "score": scores,
            "wanted_objects": [verdict.wanted for verdict in verdicts],
            "right_objects": [verdict.objects for verdict in verdicts],
            "object_rate": [verdict.objects / verdict.wanted for verdict in verdicts],
            "color_rate": [verdict.colors / verdict.wanted for verdict in verdicts],
            "shape_rate": [verdict.shapes / verdict.wanted for verdict in verdicts],
            **{
                rate: [getattr(verdict, key) for verdict in verdicts]
                for key, rate in STATED.items()
            },
            "extra_objects": [verdict.extra for verdict in verdicts],
        }

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        values = composition_rates(self.verdicts)
        self.columns = {**at_least_columns([(v.objects, v.wanted) for v in self.verdicts])}
        values["score"] = sum(self.scores) / len(self.scores)
        count = dict.fromkeys((key for key in values if key != "n_images"), len(self.scores))
        for key, column in self.columns.items():
            count[key] = sum(value is not None for value in column)
        for split in dict.fromkeys(self.splits):
            successes = [
                verdict.success
                for verdict, its_split in zip(self.verdicts, self.splits, strict=True)
                if its_split == split
            ]
            values[f"success_{split}"] = sum(successes) / len(successes)
            count[f"success_{split}"] = len(successes)
        self.facts = {key: {"detector": "judge", "images": n} for key, n in count.items()}
        if errors := read_error_rates():
            for key in ("success", *(f"success_{split}" for split in self.splits)):
                self.facts[key]["errors"] = {
                    name: list(of) for name, of in errors._asdict().items()
                }
        return values
