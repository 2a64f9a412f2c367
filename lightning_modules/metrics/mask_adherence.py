"""How well the objects in the images fill the masks that they should, as the embedded world's judge
and colours show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from conf.spec import metrics
from lightning_modules.embedded.judge import Judge
from lightning_modules.evaluation.mask_adherence import target_masks
from lightning_modules.evaluation.plan import real_images
from lightning_modules.metrics.functional import mask_iou
from lightning_modules.metrics.masks import (
    centre_error,
    has_direction,
    masked_similarity,
    orientation_error,
    turn_error,
)
from lightning_modules.metrics.registry import Columns, ScoringContext
from lightning_modules.metrics.segmentation import ColorSegmenter

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.evaluation.plan import Prompt


@dataclass(frozen=True)
class Adherence:
    """How one predicted mask compares with its target."""

    iou: float  # 0 if the subject was not found
    found: bool
    centre: float | None = None  # Pixels
    # Degrees in [0, 90]; None also where the masks have no long axis
    orientation: float | None = None
    turn: float | None = None  # Degrees in [0, 180]


class Subject(NamedTuple):
    """An object that has a target mask: the place of its image among all, and how the object in it
    compares with the target (``adherence``) and looks (``identity``; None if it was not found)."""

    image: int
    adherence: Adherence
    identity: float | None


def compare_masks(pred: Tensor, target: Tensor) -> Adherence:
    """All measures of one subject, masks bool [H, W]; an empty ``pred`` is a subject that was not
    found. Raises ValueError if ``target`` is empty."""
    if not bool(target.any()):
        raise ValueError(
            "a target mask is empty, so nothing can follow it: leave that subject out of both lists"
        )
    iou = float(mask_iou(pred, target))
    if not bool(pred.any()):
        return Adherence(iou, False)
    return Adherence(
        iou,
        True,
        centre_error(pred, target),
        orientation_error(pred, target),
        turn_error(pred, target),
    )


def mean_adherence(subjects: Sequence[Adherence]) -> dict[str, float]:
    """Means over all subjects of all images:

    * ``mask_iou``: over all subjects; one that was not found counts 0
    * ``found``: share of all subjects that were found (predicted mask not empty)
    * ``centre_error`` (pixels), ``turn_error`` (degrees in [0, 180]): over the subjects that were
      found
    * ``orientation_error`` (degrees in [0, 90]): over the found subjects whose two masks both have
      a long axis

    A mean over no subject at all is absent. The errors leave out what was not found: read them
    beside ``found``. Raises ValueError if there is no subject.
    """
    if not subjects:
        raise ValueError("no subject was measured: give at least one")
    found = [subject for subject in subjects if subject.found]
    values = {
        "mask_iou": sum(subject.iou for subject in subjects) / len(subjects),
        "found": len(found) / len(subjects),
    }
    if found:
        values["centre_error"] = sum(subject.centre or 0.0 for subject in found) / len(found)
        values["turn_error"] = sum(subject.turn or 0.0 for subject in found) / len(found)
    angles = [subject.orientation for subject in found if subject.orientation is not None]
    if angles:
        values["orientation_error"] = sum(angles) / len(angles)
    return values


def find_subjects(
    judge: Judge,
    images: Tensor,
    real: Tensor,
    prompts: Sequence[Prompt],
    targets: Sequence[Sequence[Tensor]],
) -> list[Subject]:
    """What the segmenter finds in the images, uint8 [N, 3, 64, 64], for each target, and how alike
    it looks to the same object of the ``real`` images. A mask that was turned out of the image asks
    for nothing."""
    found = ColorSegmenter(judge).segment(images, [prompt.names for prompt in prompts])
    asked = [
        (i, pred, target, phrase.mask > 0.5)
        for i, (prompt, *masks) in enumerate(zip(prompts, found, targets, strict=True))
        for phrase, pred, target in zip(prompt.phrases, *masks, strict=True)
        if bool(target.any())
    ]
    identities: list[float] = []
    kept = [(i, pred, known) for i, pred, _, known in asked if bool(pred.any())]
    if kept:
        rows, preds, known = zip(*kept, strict=True)
        identities = masked_similarity(
            judge.local_features(images)[list(rows)],
            torch.stack(preds),
            judge.local_features(real)[list(rows)],
            torch.stack(known),
        ).tolist()
    each = iter(identities)
    return [
        Subject(i, compare_masks(pred, target), next(each) if bool(pred.any()) else None)
        for i, pred, target, _ in asked
    ]


def measure_adherence(
    judge: Judge,
    images: Tensor,
    real: Tensor,
    prompts: Sequence[Prompt],
    targets: Sequence[Sequence[Tensor]],
) -> dict[str, float]:
    """`average_subjects` of `find_subjects`."""
    return average_subjects(find_subjects(judge, images, real, prompts, targets), prompts)


def average_subjects(subjects: Sequence[Subject], prompts: Sequence[Prompt]) -> dict[str, float]:
    """`mean_adherence`, ``mask_iou`` by split too, and ``identity``: how alike the objects look to
    those of the real images, mean over the subjects that were found. Nothing without a subject."""
    if not subjects:
        return {}
    values = mean_adherence([subject.adherence for subject in subjects])
    for split in dict.fromkeys(prompt.split for prompt in prompts):
        overlaps = [one.adherence.iou for one in subjects if prompts[one.image].split == split]
        if overlaps:
            values[f"mask_iou_{split}"] = sum(overlaps) / len(overlaps)
    identities = [subject.identity for subject in subjects if subject.identity is not None]
    if identities:
        values["identity"] = float(torch.tensor(identities).mean())
    return values


def tabulate_subjects(subjects: Sequence[Subject], images: int) -> Columns:
    """Columns of scores.parquet for so many images: the means over each image's subjects, None
    where there is none to measure, and what they are weighted by in the means over all:
    ``targets``, of these ``found_targets``, and of these the ``oriented_targets``, with a long
    axis."""
    columns: Columns = {}
    by_image: list[list[Subject]] = [[] for _ in range(images)]
    for subject in subjects:
        by_image[subject.image].append(subject)
    for own in by_image:
        adherences = [subject.adherence for subject in own]
        found = [one for one in adherences if one.found]
        angles = [one.orientation for one in found if one.orientation is not None]
        same = [subject.identity for subject in own if subject.identity is not None]
        row = {
            "targets": len(own),
            "found_targets": len(found),
            "oriented_targets": len(angles),
            "mask_iou": _mean([one.iou for one in adherences]),
            "found": len(found) / len(own) if own else None,
            "centre_error": _mean([one.centre or 0.0 for one in found]),
            "turn_error": _mean([one.turn or 0.0 for one in found]),
            "orientation_error": _mean(angles),
            "identity": _mean(same),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def build(context: ScoringContext) -> list[MaskAdherenceScorer]:
    """The scorer with the shipped judge."""
    return [MaskAdherenceScorer(Judge.load(), context)]


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why no prompt gives it."""
    targets = [
        (prompt.split, mask)
        for prompt, masks in zip(prompts, target_masks(prompts, evaluation), strict=True)
        for mask in masks
        if bool(mask.any())
    ]
    splits, found = dict.fromkeys(p.split for p in prompts), {split for split, _ in targets}
    why = "no object of the prompts has a target mask in the image"
    reasons = {f"mask_iou_{split}": why for split in splits if split not in found}
    if not targets:
        return reasons | {metric.key: why for metric in metrics()["mask_adherence"].outputs}
    if not any(has_direction(mask) for _, mask in targets):
        reasons["orientation_error"] = "no target mask has a long axis"
    return reasons


class MaskAdherenceScorer:
    """`measure_adherence` of all images, with the masks of the real images as targets."""

    def __init__(self, judge: Judge, context: ScoringContext) -> None:
        self.judge, self.context = judge, context
        self.images: list[Tensor] = []
        self.columns: Columns = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; all is measured in the end."""
        self.images.append(images)
        return {}

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        prompts, evaluation = self.context.prompts, self.context.evaluation
        real = real_images(self.context.datamodule, prompts)
        real = real.repeat_interleave(evaluation.noise_seeds or 1, 0)
        targets = target_masks(prompts, evaluation)
        images = torch.cat(self.images)
        subjects = find_subjects(self.judge, images, real, prompts, targets)
        self.columns = tabulate_subjects(subjects, len(images))
        return average_subjects(subjects, prompts)
