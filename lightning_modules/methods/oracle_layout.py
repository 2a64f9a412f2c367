"""Gates by a true layout, an upper bound for gates that are trained to know it: what could gating
gain at best?

The layout must fit the noise, or gates fight what the noise has already settled. So each prompt is
first drawn by the untouched backbone; the judge says where that image has objects, and each phrase
gets the box of the object that is most like it: the same colour and shape, else one of both, else
any that is left; a phrase of several equal objects gets so many boxes. A missing object drawn as a
second one of another kind thus gets that one's box. Then the same noise is drawn again with each
phrase's tokens acting in its box alone. The judge knows the embedded world only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.batch import Phrase
from datamodules.shapes.reading import read_prompt
from lightning_modules.metrics.detection import Detection


def find_layout(prompt: str, detections: Sequence[Detection], side: int) -> list[Phrase]:
    """The prompt's objects that get one of the detected ones, with a mask [side, side] of its
    box, or of their boxes where a phrase names several."""
    named = read_prompt(prompt).mentions
    matches: list[list[Detection]] = [[] for _ in named]
    left = list(detections)
    for agreeing in (2, 1, 0):  # How much of colour and shape has to agree
        for words, own in zip(named, matches, strict=True):
            alike = [
                d for d in left if (d.color == words.color) + (d.label == words.shape) >= agreeing
            ]
            for detection in alike[: (words.number or 2) - len(own)]:
                own.append(detection)
                left.remove(detection)
    return [
        Phrase(
            prompt[words.start : words.end],
            words.start,
            words.end,
            torch.stack([_box_mask(match, side) for match in own]).any(0),
        )
        for words, own in zip(named, matches, strict=True)
        if own
    ]


def _box_mask(detection: Detection, side: int) -> Tensor:
    x0, y0, x1, y1 = (round(value) for value in detection.box)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
    return mask
