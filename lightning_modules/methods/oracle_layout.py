"""Gates by a true layout, an upper bound for gates that are trained to know it: what could gating
gain at best?

The layout must fit the noise, or gates fight what the noise has already settled. So each prompt is
first drawn by the untouched backbone; the judge says where that image has objects, and each phrase
gets the place of the object that is most like it: the same colour and shape, else one of both, else
any that is left. A missing object drawn as a second one of another kind thus gets that one's place.
Then the same noise is drawn again with each phrase's tokens acting in its place alone. The judge
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

NAMED = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")


def layout(prompt: str, found: Sequence[Detection], side: int) -> list[Phrase]:
    """The prompt's objects that have a place among ``found``, with a mask [side, side] of its box;
    the others are left out."""
    named = list(NAMED.finditer(prompt))
    places: list[Detection | None] = [None] * len(named)
    left = list(found)
    for wanted in (2, 1, 0):  # how much of colour and shape must agree
        for i, match in enumerate(named):
            alike = [d for d in left if (d.color == match[1]) + (d.label == match[2]) >= wanted]
            if places[i] is None and alike:
                places[i] = alike[0]
                left.remove(alike[0])
    return [
        Phrase(match[0], match.start(), match.end(), _box(place, side))
        for match, place in zip(named, places, strict=True)
        if place is not None
    ]


def _box(place: Detection, side: int) -> Tensor:
    x0, y0, x1, y1 = (round(value) for value in place.box)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
    return mask
