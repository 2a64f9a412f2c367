"""Target masks in an evaluation: where objects should be, and what a method is given of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conf.schema import Evaluation
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.methods.mask_targets import PromptMasks, rotate_mask


def target_masks(prompts: Sequence[Prompt], config: Evaluation) -> list[list[Tensor]]:
    """For each prompt the masks, bool [H, W], that its phrases' objects should fill: those of the
    real image, mirrored and turned as ``config`` says."""

    def move(mask: Tensor) -> Tensor:
        plane = (mask.flip(-1) if config.mirror else mask) > 0.5
        return rotate_mask(plane, config.turn) if config.turn else plane

    return [[move(phrase.mask) for phrase in prompt.phrases] for prompt in prompts]


def mask_guidance(
    prompts: Sequence[Prompt], masks: Sequence[Sequence[Tensor]], config: Evaluation
) -> list[PromptMasks] | None:
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
