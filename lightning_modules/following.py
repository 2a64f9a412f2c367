"""Target masks in an evaluation: what a method is given, and how well its images follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from conf.schema import Evaluation
from lightning_modules.metrics.identity import JudgeFeatures, masked_similarity
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.masks import MaskFollowing
from lightning_modules.metrics.segmentation import ColorSegmenter
from lightning_modules.target_masks import Given, turned

if TYPE_CHECKING:
    from lightning_modules.evaluate import Prompt


def target_masks(prompts: Sequence[Prompt], config: Evaluation) -> list[list[Tensor]]:
    """For each prompt the masks, bool [H, W], that its phrases' objects shall fill: those of the real image, mirrored and turned as
    ``config`` says."""

    def moved(mask: Tensor) -> Tensor:
        plane = mask.flip(-1) if config.mirror else mask
        return turned(plane, config.turn) if config.turn else plane

    return [[moved(phrase.mask) for phrase in prompt.phrases] for prompt in prompts]


def as_given(prompts: Sequence[Prompt], masks: Sequence[Sequence[Tensor]], config: Evaluation) -> list[Given] | None:
    """What a method's `generate` is given: the targets, blank masks, none at all, or masks that are wrong (each half a turn about the
    middle of the image away)."""
    if config.masks == "none":
        return None
    change = {"target": lambda mask: mask, "blank": torch.zeros_like, "wrong": lambda mask: mask.rot90(2)}[config.masks]
    return [
        [((phrase.start, phrase.end), change(mask)) for phrase, mask in zip(prompt.phrases, sample, strict=True)]
        for prompt, sample in zip(prompts, masks, strict=True)
    ]


def following(
    judge: Judge, images: Tensor, real: Tensor, prompts: Sequence[Prompt], targets: Sequence[Sequence[Tensor]]
) -> dict[str, float]:
    """`MaskFollowing` of what the segmenter finds against the targets, by split too, and ``identity``: how alike the objects look to those
    of the ``real`` images, mean over the subjects that were found. Images are uint8 [N, 3, H, W]. Nothing without phrases that have masks.
    """
    rows = [i for i, sample in enumerate(targets) if sample]
    if not rows:
        return {}
    found = ColorSegmenter(judge).segment(images[rows], [prompts[i].names for i in rows])
    wanted = [targets[i] for i in rows]
    values = _following(found, wanted)
    for split in dict.fromkeys(prompts[i].split for i in rows):
        part = [k for k, i in enumerate(rows) if prompts[i].split == split]
        values[f"mask_iou_{split}"] = _following([found[k] for k in part], [wanted[k] for k in part])["mask_iou"]
    features = JudgeFeatures(judge)
    seen, known = features.maps(images[rows]), features.maps(real[rows])
    alike = []
    for k, masks in enumerate(found):
        for mask, phrase in zip(masks, prompts[rows[k]].phrases, strict=True):
            if bool(mask.any()):
                alike.append(float(masked_similarity(seen[k : k + 1], mask[None], known[k : k + 1], (phrase.mask > 0.5)[None])))
    alike = [value for value in alike if not math.isnan(value)]
    return values | ({"identity": sum(alike) / len(alike)} if alike else {})


def _following(found: Sequence[Sequence[Tensor]], wanted: Sequence[Sequence[Tensor]]) -> dict[str, float]:
    metric = MaskFollowing()
    metric.update(found, wanted)
    return {key: value for key, value in metric.compute().items() if not key.startswith("n_")}
