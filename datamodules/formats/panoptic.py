"""Panoptic annotations of COCO: a PNG for each image, whose colours say which segment a pixel is
of, R + 256 G + 65536 B (Kirillov et al. 2019). Things count, as in instances; stuff does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from datamodules.formats.coco_entries import Entry, ListedImage, NamedEntry
from datamodules.formats.index import DataError, Problems, Record, compact_json
from datamodules.formats.masks import Outline, outline

if TYPE_CHECKING:
    from datamodules.formats.coco_annotations import CocoReader

__all__ = ["Segment", "open_segments", "read_panoptic"]


class Segment(NamedTuple):
    """A thing of an image, by its number in a PNG that was not opened yet."""

    label: str
    path: Path
    number: int
    box: Any


def read_panoptic(path: Path, reader: CocoReader, problems: Problems) -> int:
    """Adds the images of a file and their things, whose masks lie in the folder of its name; how
    many segments are of stuff. Raises DataError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {one["id"]: (one["name"], one.get("isthing", 1)) for one in content["categories"]}
        images, annotations = content["images"], content["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no panoptic annotations ({error!r}): download it again") from None
    folder = path.parent / path.stem
    if not folder.is_dir():
        raise DataError(f"{path}: its masks are not in {folder}: unpack {path.stem}.zip there")
    for image in images:
        fields = (image.get(key) for key in ListedImage.__struct_fields__)
        reader.list_image(path, ListedImage(*fields), problems, True)
    reader.notes["categories"] = [name for name, thing in names.values() if thing]
    stuff = 0
    for one in annotations:
        record = reader.listed.find(one.get("image_id"), f"the masks {one.get('file_name')}")
        if record is None:
            problems.add("annotation of no image", path, f"names image {one.get('image_id')!r}")
            continue
        for segment in one.get("segments_info") or ():
            name, thing = names.get(segment.get("category_id"), ("", 1))
            if not name:
                detail = f"image {record.id} names category {segment.get('category_id')!r}"
                problems.add("unknown category", path, detail)
            elif not thing:
                stuff += 1
            elif segment.get("iscrowd"):
                reader.notes["crowds"] += 1
            else:
                reader.given += 1
                place = folder / str(one["file_name"])
                record.annotations.append(Segment(name, place, segment["id"], segment.get("bbox")))
    return stuff


def open_segments(record: Record, problems: Problems) -> None:
    """Puts masks in the place of the segments of an image, whose PNG is opened once."""
    if not any(isinstance(one, Segment) for one in record.annotations):
        return
    planes: dict[Path, np.ndarray | None] = {}
    things: list[Any] = []
    for one in record.annotations:
        if not isinstance(one, Segment):
            things.append(one)
            continue
        if one.path not in planes:
            planes[one.path] = _read_plane(one.path, problems)
        plane = planes[one.path]
        shape = None if plane is None else _outline(plane == one.number)
        known = shape if shape is not None else Outline("", "no mask")
        entry = Entry(one.number, record.id, False, outline=known, box=compact_json(one.box))
        things.append(NamedEntry(one.label, entry))
    record.annotations = things


def _outline(mask: np.ndarray) -> Outline:
    from pycocotools import mask as coco_mask

    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return outline({"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")})


def _read_plane(path: Path, problems: Problems) -> np.ndarray | None:
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB")).astype(np.int64)
    except Exception as error:  # Pillow's decoders raise errors of any kind
        problems.add("mask that cannot be read", path, str(error))
        return None
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
