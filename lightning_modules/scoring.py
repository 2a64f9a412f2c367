"""What looks at the stored images of an evaluation: each scorer gives columns, a value for each image, and numbers over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from lightning_modules.metrics.composition import Composition
from lightning_modules.metrics.detection import judge_image
from lightning_modules.metrics.distribution import FeatureDistance
from lightning_modules.prompts import Prompt, real_rows

if TYPE_CHECKING:
    from lightning_modules.metrics.judge import Judge

CHUNK = 64  # images that are looked at at once

Columns = dict[str, list[Any]]


class Scorer(Protocol):
    """``add`` sees all images once, in order; ``finish`` comes after the last. ``facts`` say of each number what it was measured with."""

    facts: dict[str, dict[str, Any]]

    def add(self, prompts: Sequence[Prompt], images: Tensor) -> Columns:
        """``images`` are uint8 [n, 3, H, W], one for each of the prompts."""
        ...

    def finish(self) -> dict[str, float]: ...


class Judged:
    """The embedded world: objects, colours and places as its judge sees them (`metrics.detection`), over all images and by split."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.whole, self.parts = Composition(), {}  # type: ignore[var-annotated]
        self.scores: list[float] = []
        self.facts = {"success": {"detector": "judge"}, "score": {"detector": "judge", "scale": "probability of the least sure object"}}

    def add(self, prompts: Sequence[Prompt], images: Tensor) -> Columns:
        wanted = [prompt.target for prompt in prompts]
        detections = self.judge.detect(images)
        scores = self.judge.target_scores(images, wanted).tolist()
        self.whole.update(detections, wanted)
        for prompt, found in zip(prompts, detections, strict=True):
            self.parts.setdefault(prompt.split, Composition()).update([found], [prompt.target])
        self.scores += scores
        verdicts = [judge_image(found, target) for found, target in zip(detections, wanted, strict=True)]
        return {
            "success": [verdict.success for verdict in verdicts],
            "score": [round(score, 6) for score in scores],
            "wanted_objects": [verdict.wanted for verdict in verdicts],
            "right_objects": [verdict.objects for verdict in verdicts],
            "extra_objects": [verdict.extra for verdict in verdicts],
        }

    def finish(self) -> dict[str, float]:
        by_split = {f"success_{split}": part.compute()["success"] for split, part in self.parts.items()}
        return {**self.whole.compute(), "score": sum(self.scores) / len(self.scores), **by_split}


class Distances:
    """FID and precision / recall between the images and the real ones behind the same prompts."""

    def __init__(self, datamodule: Any, prompts: Sequence[Prompt], judge: Judge, k: int) -> None:
        self.judge, self.metric = judge, FeatureDistance(k)
        self.facts: dict[str, dict[str, Any]] = {}
        for split, rows in real_rows(prompts).items():
            dataset = datamodule.eval_sets[split]
            for start in range(0, len(rows), CHUNK):
                self.metric.update(judge.features(torch.stack([dataset.pixels(row) for row in rows[start : start + CHUNK]])), real=True)

    def add(self, prompts: Sequence[Prompt], images: Tensor) -> Columns:
        self.metric.update(self.judge.features(images), real=False)
        return {}

    def finish(self) -> dict[str, float]:
        found = self.metric.compute()
        return {key: found[key] for key in ("fid", "precision", "recall")}
