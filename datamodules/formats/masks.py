"""Masks of annotations in COCO's form: polygons, and run lengths in either spelling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# How a mask of the pixels as they are stored is turned to lie on the image as it is shown, by EXIF
# orientation
TURNS = {
    5: lambda m: m.T,
    6: lambda m: np.rot90(m, -1),
    7: lambda m: np.rot90(m, 2).T,
    8: lambda m: np.rot90(m),
}


def usable(segmentation: Any, width: int, height: int) -> tuple[Any, str]:
    """(what of a segmentation can be decoded on an image of this size, "") or (None, what is wrong
    with it).

    Polygons lose the parts that have no area: fewer than three points, or coordinates that are no
    numbers.
    """
    if isinstance(segmentation, list) and segmentation:
        parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
        parts = [
            part
            for part in parts
            if isinstance(part, list)
            and len(part) >= 6
            and len(part) % 2 == 0
            and all(map(_number, part))
        ]
        return (parts, "") if parts else (None, "degenerate polygon")
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str):
        return None, "no mask"
    if list(segmentation.get("size") or []) != [height, width]:
        return None, "mask of another size"
    counts = segmentation["counts"]
    runs = _runs(counts) if isinstance(counts, str) else counts
    # pycocotools fills what the runs do not reach with what is in memory.
    if not all(isinstance(n, int) and n >= 0 for n in runs) or sum(runs) != width * height:
        return None, "broken mask"
    return (segmentation, "") if sum(runs[1::2]) else (None, "empty mask")


def _runs(text: str) -> list[int]:
    """The run lengths in COCO's compressed form; [-1] for what is none.

    A character holds five bits of a number, the lowest first, as its code minus 48; a sixth says
    that more follow, and the highest of the last five is the sign. From the fourth number on it is
    the difference to the number before the last that is written.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return [-1]
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return [-1] if shift else runs


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def decode(annotation: dict[str, Any], width: int, height: int) -> np.ndarray:
    """The mask of an annotation, uint8 [height, width], on an image that is shown in that size:
    polygons, or run lengths in either form."""
    from pycocotools import mask as coco_mask

    segmentation, turn = annotation["segmentation"], annotation.get("turn")
    if turn:
        width, height = height, width
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    mask = coco_mask.decode(segmentation)
    return TURNS[turn](mask) if turn else mask


def box_of(annotation: dict[str, Any], mask: np.ndarray) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) in pixels of the whole image: the annotation's own box, or that around its
    mask where it has none that fits."""
    box = annotation.get("bbox")
    if (
        not annotation.get("turn")
        and isinstance(box, list)
        and len(box) == 4
        and all(map(_number, box))
        and min(box[2:]) > 0
    ):
        x, y, w, h = box
        return x, y, x + w, y + h
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
