"""Target masks in an evaluation: what a method is given, and how well its images follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conf.schema import Evaluation
from lightning_modules.embedded.judge import Judge
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.methods.mask_targets import Given, turned
from lightning_modules.metrics.functional import mask_iou
from lightning_modules.metrics.identity import JudgeFeatures, masked_similarity
from lightning_modules.metrics.masks import MaskFollowing
from lightning_modules.metrics.segmentation import ColorSegmenter


def target_masks(prompts: Sequence[Prompt], config: Evaluation) -> list[list[Tensor]]:
    """For each prompt the masks, bool [H, W], that its phrases' objects shall fill: those of the
    real image, mirrored and turned as ``config`` says."""

    def moved(mask: Tensor) -> Tensor:
        plane = (mask.flip(-1) if config.mirror else mask) > 0.5
        return turned(plane, config.turn) if config.turn else plane

    return [[moved(phrase.mask) for phrase in prompt.phrases] for prompt in prompts]


def as_given(
    prompts: Sequence[Prompt], masks: Sequence[Sequence[Tensor]], config: Evaluation
) -> list[Given] | None:
    """What a method's `generate` is given: the targets, blank masks, none at all, or masks that are
    wrong (each half a turn about the middle of the image away)."""
    if config.masks == "none":
        return None
    change = {
        "target": lambda mask: mask,
        "blank": torch.zeros_like,
        "wrong": lambda mask: mask.rot90(2),
    }[config.masks]
    return [
        [
            ((phrase.start, phrase.end), change(mask))
            for phrase, mask in zip(prompt.phrases, sample, strict=True)
        ]
        for prompt, sample in zip(prompts, masks, strict=True)
    ]


def following(
    judge: Judge,
    images: Tensor,
    real: Tensor,
    prompts: Sequence[Prompt],
    targets: Sequence[Sequence[Tensor]],
) -> dict[str, float]:
    """`MaskFollowing` of what the segmenter finds against the targets, by split too, and
    ``identity``: how alike the objects look to those of the ``real`` images, mean over the subjects
    that were found. Images are uint8 [N, 3, H, W]. Nothing without a target.
    """
    judged = ColorSegmenter(judge).segment(images, [prompt.names for prompt in prompts])
    subjects = [
        (i, found, wanted, phrase.mask > 0.5)
        for i, (prompt, masks, goals) in enumerate(zip(prompts, judged, targets, strict=True))
        for phrase, found, wanted in zip(prompt.phrases, masks, goals, strict=True)
        if bool(wanted.any())  # a mask that was turned out of the image asks for nothing
    ]
    if not subjects:
        return {}
    metric = MaskFollowing(sync_on_compute=False)  # one process alone comes here
    metric.update(
        [[found] for _, found, _, _ in subjects], [[wanted] for _, _, wanted, _ in subjects]
    )
    values = {key: value for key, value in metric.compute().items() if not key.startswith("n_")}
    for split in dict.fromkeys(prompt.split for prompt in prompts):
        overlaps = [
            float(mask_iou(found, wanted))
            for i, found, wanted, _ in subjects
            if prompts[i].split == split
        ]
        values |= {f"mask_iou_{split}": sum(overlaps) / len(overlaps)} if overlaps else {}
    kept = [(i, found, known) for i, found, _, known in subjects if bool(found.any())]
    if kept:
        at = [i for i, _, _ in kept]
        features = JudgeFeatures(judge)
        seen, known = features.maps(images)[at], features.maps(real)[at]
        alike = masked_similarity(
            seen,
            torch.stack([mask for _, mask, _ in kept]),
            known,
            torch.stack([mask for _, _, mask in kept]),
        )
        values["identity"] = float(alike.mean())
    return values
