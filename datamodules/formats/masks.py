"""Masks of annotations in COCO's form: polygons, and run lengths in either spelling."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from operator import mul
from typing import Any

import msgspec
import numpy as np

from datamodules.formats.index import compact_json

POLYGONS = msgspec.json.Decoder(list[list[float]])
BOX = msgspec.json.Decoder(list[float])
BLANK = b" \t\n\r"
# Pixels from 0 beyond which no image reaches; pycocotools crashes on what is much farther
FAR = 2.0**20
# Points above which the triangle of three of them is looked at before the whole
FEW = 20


class Outline(msgspec.Struct, gc=False):
    """A segmentation as text, and what is asked of it before anybody looks at the mask: parsed, it
    takes ten times as much memory.

    ``wrong`` is what is wrong with it on an image of any size; ``bounds`` (x0, y0, x1, y1) are
    those of polygons, ``odd_ends`` (x, y) how far they reach where they have parts that cannot be
    used, and ``size`` (height, width) is what run lengths say. Polygons that are ``slight`` are
    so thin that perhaps no pixel is in them.
    """

    text: str
    wrong: str = ""
    bounds: tuple[float, float, float, float] | None = None
    odd_ends: tuple[float, float] | None = None
    size: Any = None
    slight: bool = False

    @property
    def ends(self) -> tuple[float, float] | None:
        """How far polygons reach (x, y), with the parts that cannot be used."""
        return self.odd_ends or (self.bounds[2:] if self.bounds else None)

    def check(self, width: int, height: int) -> tuple[str, str]:
        """`usable`, of text."""
        if self.wrong:
            return "", self.wrong
        if self.bounds:
            wrong = _misplaced(self.bounds, width, height)
            left, top, right, bottom = self.bounds
            cut = left < -1 or top < -1 or right > width + 1 or bottom > height + 1
            if not wrong and (self.slight or cut):
                parts = json.loads(self.text)
                if self.slight or not _reach_inside(parts, width, height):
                    wrong = _find_empty(parts, width, height)
            return ("", wrong) if wrong else (self.text, "")
        _, wrong = usable(json.loads(self.text), width, height)
        return ("", wrong) if wrong else (self.text, "")


PAIRS = "polygon of points [[x, y], …], expected [[x, y, x, y, …]]"


def outline_of_text(text: msgspec.Raw | None) -> Outline:
    """`outline` of the JSON of a segmentation, whose numbers are kept as they are written; None
    stands for no segmentation."""
    try:
        parts = POLYGONS.decode(text) if text is not None else []
    except (msgspec.MsgspecError, RecursionError):
        parts = []
    if parts and all(len(part) >= 6 and len(part) % 2 == 0 for part in parts):
        written = bytes(text).translate(None, BLANK).decode()  # type: ignore[arg-type]
        bounds = _bounds(parts)
        return Outline(written, "", bounds, slight=_slight(parts, bounds))
    return outline(None if text is None else json.loads(bytes(text)))


def outline(segmentation: Any, source: str = "") -> Outline:
    """A segmentation as it is kept while annotation files are read; ``source`` is the JSON of the
    annotation that it comes from."""
    if isinstance(segmentation, list) and segmentation:
        parts = _polygons(segmentation)
        whole = parts == segmentation
        ends = None if whole else _ends(segmentation)
        if not parts:
            return Outline("", _name_fault(segmentation), None, ends)
        bounds = _bounds(parts)
        text = (whole and text_of_numbers(source, "segmentation", "[[")) or compact_json(parts)
        return Outline(text, "", bounds, ends, slight=_slight(parts, bounds))
    if not isinstance(segmentation, dict):
        return Outline("", "no mask")
    size = segmentation.get("size")
    if not isinstance(segmentation.get("counts"), list | str):
        return Outline("", "no mask", size=size)
    return Outline(compact_json(segmentation), size=size)


def box_polygon(box: Sequence[float]) -> list[list[float]]:
    """The outline of a box [x, y, width, height]."""
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def outline_of_box(text: str) -> Outline:
    """That of a box in JSON, [x, y, width, height]; "no mask" where it is none."""
    try:
        box = BOX.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        box = []
    good = len(box) == 4 and math.isfinite(sum(box)) and min(box[2:]) > 0
    return outline(box_polygon(box)) if good else Outline("", "no mask")


def usable(segmentation: Any, width: int, height: int) -> tuple[Any, str]:
    """(what of a segmentation can be decoded on an image of this size, "") or (None, what is wrong
    with it).

    Polygons lose the parts that have no area: fewer than three points, or coordinates that are no
    numbers.
    """
    if isinstance(segmentation, list) and segmentation:
        if not (parts := _polygons(segmentation)):
            return None, _name_fault(segmentation)
        wrong = _misplaced(_bounds(parts), width, height) or _find_empty(parts, width, height)
        return (None, wrong) if wrong else (parts, "")
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str):
        return None, "no mask"
    if segmentation.get("size") != [height, width]:
        return None, "mask of another size"
    runs = read_runs(segmentation["counts"], width, height)
    if not runs:
        return None, "broken mask"
    return (segmentation, "") if sum(runs[1::2]) else (None, "empty mask")


def text_of_numbers(source: str, name: str, opening: str) -> str:
    """The text of the lists of numbers that an annotation, of which ``source`` is the JSON, has
    under ``name``, without spaces; "" where it is not plain which part of the annotation that is.
    ``opening`` is "[" or, for a list of lists, "[["."""
    at = source.find(f'"{name}": {opening}')
    # A name within a text or an object of the annotation is another one
    if at < 0 or "\\" in source or source.count(f'"{name}"') != 1:
        return ""
    closing = "]" * len(opening)
    begin = at + len(name) + 4
    text = source[begin : source.find(closing, begin) + len(closing)]
    plain = '"' not in text and "{" not in text and (opening != "[" or text.count("[") == 1)
    return text.replace(" ", "") if plain else ""


def list_of_text(text: msgspec.Raw | None) -> str:
    """The JSON of a list of numbers as it is written, without spaces, and of anything else as
    Python writes it; null for None."""
    content = b"null" if text is None else bytes(text).translate(None, BLANK)
    plain = content[:1] == b"[" and content.count(b"[") == 1
    if plain and b'"' not in content and b"{" not in content:
        return content.decode()
    return compact_json(json.loads(b"null" if text is None else bytes(text)))


def _polygons(segmentation: list[Any]) -> list[list[float]]:
    """The parts that have an area."""
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return [
        part
        for part in parts
        if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and _all_numbers(part)
    ]


def _name_fault(segmentation: list[Any]) -> str:
    """What is wrong with polygons of which none has an area."""
    points = [
        part[0] if part[:1] and isinstance(part[0], list) else part
        for part in segmentation
        if isinstance(part, list)
    ]
    if len(segmentation) == len(points) and all(len(p) == 2 and _all_numbers(p) for p in points):
        return PAIRS
    return "degenerate polygon"


def _all_numbers(part: list[Any]) -> bool:
    try:
        # Of numbers whose sum is finite each is finite: that is asked faster
        return math.isfinite(sum(part)) or all(map(_number, part))
    except OverflowError:
        return False
    except TypeError:
        return all(map(_number, part))


def _bounds(parts: list[list[float]]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1)."""
    part = parts[0] if len(parts) == 1 else [n for part in parts for n in part]
    xs, ys = part[::2], part[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _ends(segmentation: list[Any]) -> tuple[float, float]:
    """How far the numbers of all parts reach."""
    parts = [part for part in segmentation if isinstance(part, list)]
    x, y = (
        max((n for part in parts for n in part[i::2] if isinstance(n, int | float)), default=0)
        for i in (0, 1)
    )
    return x, y


def _misplaced(bounds: tuple[float, float, float, float], width: int, height: int) -> str:
    """What is wrong with polygons of which nothing is in the image, or all in its first pixel."""
    left, top, right, bottom = bounds
    if right > FAR or bottom > FAR or left < -FAR or top < -FAR:
        return "polygon far outside the image"
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return "polygon outside the image"
    if right <= 1 < width and bottom <= 1 < height:
        return "polygon in fractions of the image, not in pixels"
    return ""


def _slight(parts: list[list[float]], bounds: tuple[float, float, float, float]) -> bool:
    """Whether polygons may have no pixel in them: all are lines, or nearly. Where three of many
    points span an area, that is enough: outlines are drawn once around."""
    wide, high = bounds[2] - bounds[0], bounds[3] - bounds[1]
    if wide < 2 or high < 2:
        return True
    long = wide if wide > high else high
    for part in parts:
        if len(part) > 2 * FEW:
            i = len(part) // 6 * 2
            x, y, j = part[0], part[1], 2 * i
            cross = (part[i] - x) * (part[j + 1] - y) - (part[j] - x) * (part[i + 1] - y)
            if abs(cross) >= 2 * long:
                return False
        if _area(part) >= long:
            return False
    return True


def _reach_inside(parts: list[list[float]], width: int, height: int) -> bool:
    """Whether a point of polygons lies within an image, away from its edge."""
    return any(
        1 < x < width - 1 and 1 < y < height - 1
        for part in parts
        for x, y in zip(part[::2], part[1::2], strict=True)
    )


def _area(part: Sequence[float]) -> float:
    """The area within a polygon, parts that it goes around the other way taken off."""
    xs, ys = part[::2], part[1::2]
    across = sum(map(mul, xs, ys[1:])) + xs[-1] * ys[0]
    return abs(across - sum(map(mul, xs[1:], ys)) - xs[0] * ys[-1]) / 2


def _find_empty(parts: list[list[float]], width: int, height: int) -> str:
    """What is wrong with polygons of which no pixel of the image is; "" where one is."""
    from pycocotools import mask as coco_mask

    if coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(parts, height, width))):
        return ""
    long = max(1.0, *(abs(n) for part in parts for n in part))
    lines = all(_area(part) <= 1e-9 * long * long for part in parts)
    return "polygon without area" if lines else "polygon without a pixel of the image"


def is_box(text: str, width: int, height: int) -> bool:
    """Whether the JSON of an annotation's box is none, or one of [x, y, w, h] of which a part is in
    the image."""
    if text in ("null", "[]"):
        return True
    try:
        box = BOX.decode(text)
    except msgspec.MsgspecError:
        return False
    if len(box) != 4:
        return False
    x, y, w, h = box
    return 0 < w < FAR and 0 < h < FAR and -w < x < width and -h < y < height


def read_runs(counts: str | list[int], width: int, height: int) -> list[int]:
    """The run lengths of a mask in either form; [] where they are not those of a mask of this size:
    pycocotools fills what they do not reach with what is in memory."""
    runs = _runs(counts) if isinstance(counts, str) else counts
    fill = all(isinstance(n, int) and n >= 0 for n in runs) and sum(runs) == width * height
    return runs if fill else []


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
    """The mask of an annotation, uint8 [height, width], on an image that is read in that size:
    polygons, or run lengths in either form."""
    from pycocotools import mask as coco_mask

    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(segmentation)


def box_of(annotation: dict[str, Any], mask: np.ndarray) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) in pixels of the whole image: the annotation's own box, or that around its
    mask where it has none that fits."""
    box = annotation.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(map(_number, box)) and min(box[2:]) > 0:
        x, y, w, h = box
        return x, y, x + w, y + h
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
