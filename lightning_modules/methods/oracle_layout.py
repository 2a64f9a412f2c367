"""Gates by a true layout, an upper bound for gates that are trained to know it: what could gating
gain at best?

The layout must fit the noise, or gates fight what the noise has already settled. So each prompt is
first drawn by the untouched backbone; the judge says where that image has objects, and each phrase
gets the box of the object that is most like it: the same colour and shape, else one of both, else
any that is left. A missing object drawn as a second one of another kind thus gets that one's box.
Then the same noise is drawn again with each phrase's tokens acting in its box alone. The judge
knows the embedded world only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.batch import Phrase
from datamodules.shapes.world import COLORS, SHAPES
from lightning_modules.metrics.detection import Detection

OBJECT = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")


def find_layout(prompt: str, detections: Sequence[Detection], side: int) -> list[Phrase]:
    """The prompt's objects that get one of the detected ones, with a mask [side, side] of its
    box."""
    named = list(OBJECT.finditer(prompt))
    matches: list[Detection | None] = [None] * len(named)
    left = list(detections)
    for agreeing in (2, 1, 0):  # How much of colour and shape has to agree
        for i, words in enumerate(named):
            alike = [d for d in left if (d.color == words[1]) + (d.label == words[2]) >= agreeing]
            if matches[i] is None and alike:
                matches[i] = alike[0]
                left.remove(alike[0])
    return [
        Phrase(words[0], words.start(), words.end(), _box_mask(match, side))
        for words, match in zip(named, matches, strict=True)
        if match is not None
    ]


def _box_mask(detection: Detection, side: int) -> Tensor:
    x0, y0, x1, y1 = (round(value) for value in detection.box)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
    return mask
