"""What the annotation files of a COCO dataset say, one file at a time, and the masks that are
encoded in them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.batch import Caption
from datamodules.concepts import with_article
from datamodules.formats.coco_layouts import Place
from datamodules.formats.index import DataError, Problems

# How a mask of the pixels as they are stored is turned to lie on the image as it is shown, by EXIF
# orientation.
TURNS = {
    5: lambda m: m.T,
    6: lambda m: np.rot90(m, -1),
    7: lambda m: np.rot90(m, 2).T,
    8: lambda m: np.rot90(m),
}


@dataclass
class Listed:
    """One image as the annotation files list it. ``size`` is (width, height), where they say it."""

    id: int | str
    name: str
    size: tuple[int, int] | None
    captions: list[Caption] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Content:
    """All images of a split by id, the names of its categories by ascending id, how many regions
    are crowds, and other remarks."""

    images: dict[int | str, Listed] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    crowds: int = 0
    notes: list[str] = field(default_factory=list)


def read(place: Place, problems: Problems) -> Content:
    """The content of a split's annotation files. Where no caption is given at all, the objects of
    an image are named in one.

    Raises DataError on a file that is no such JSON and on a split without images.
    """
    content = Content()
    if place.layout == "karpathy":
        _read_karpathy(dict(place.files)["karpathy"], place.split, content, problems)
        if place.split == "train":
            content.notes.append("train holds Karpathy's train and restval images")
        _join_instances(
            [path for kind, path in place.files if kind == "instances"], content, problems
        )
    else:
        for _, path in place.files:
            found = load(path)
            _list_images(path, found["images"], content, problems)
            _add_annotations(path, found, content, problems)
            del found  # the next one may take gigabytes as well
    if not content.images:
        raise DataError(f"{place.files[0][1]}: split {place.split!r} is empty: it lists no image")
    if not any(kind in ("captions", "karpathy") for kind, _ in place.files) and not any(
        i.captions for i in content.images.values()
    ):
        for image in content.images.values():
            image.captions += _named(image)
        content.notes.append(
            "captions are made of the names of the objects, for there are none in the files"
        )
    return content


def load(path: Path) -> dict[str, Any]:
    """The JSON of an annotation file. Raises DataError on anything without a list of images."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}): download it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: has no list of images: expected annotations in COCO's form")
    return content


def _list_images(
    path: Path, images: Iterable[dict[str, Any]], content: Content, problems: Problems
) -> None:
    for image in images:
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            problems.add("image without id or file name", path, f"id {key!r}, file_name {name!r}")
            continue
        known = content.images.setdefault(key, Listed(key, name, None))
        known.size = known.size or _size(image)
        if known.name.split("/")[-1] != name.split("/")[-1]:
            problems.add("id given twice", path, f"image {key} is {known.name} and {name}")


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (int(width), int(height)) if width and height else None


def _add_annotations(
    path: Path, found: dict[str, Any], content: Content, problems: Problems
) -> None:
    names = {
        c["id"]: str(c["name"]) for c in found.get("categories", []) if "id" in c and "name" in c
    }
    content.categories = content.categories or [names[i] for i in sorted(names)]
    for annotation in found.get("annotations", []):
        key = annotation.get("image_id")
        image = content.images.get(key) if isinstance(key, int | str) else None
        what = f"annotation {annotation.get('id')}"
        if image is None:
            problems.add("annotation of no image", path, f"{what} names image {key!r}")
            continue
        if "caption" in annotation:
            _add_caption(
                path, what, annotation["caption"], annotation.get("relation"), image, problems
            )
        if "category_id" not in annotation:
            continue
        # A crowd region is many objects under one mask: it is nobody's subject.
        if str(annotation.get("iscrowd", annotation.get("is_crowd", 0))) in (
            "1",
            "1.0",
            "True",
            "true",
        ):
            content.crowds += 1
        elif annotation["category_id"] not in names:
            problems.add(
                "unknown category", path, (f"{what} names category {annotation['category_id']!r}")
            )
        else:
            attributes = annotation.get("attributes")
            color = attributes.get("color") if isinstance(attributes, dict) else None
            kept = {
                "id": annotation.get("id"),
                "label": names[annotation["category_id"]],
                "segmentation": annotation.get("segmentation"),
            }
            image.annotations.append(kept | {"bbox": annotation.get("bbox"), "color": color})


def _add_caption(
    path: Path, what: str, text: Any, relation: str | None, image: Listed, problems: Problems
) -> None:
    words = " ".join(text.split()) if isinstance(text, str) else ""
    if words:
        image.captions.append(Caption(words, relation))
    else:
        problems.add("blank caption", path, what)


def _read_karpathy(path: Path, split: str, content: Content, problems: Problems) -> None:
    wanted = ("train", "restval") if split == "train" else (split,)
    for entry in load(path)["images"]:
        if entry.get("split") not in wanted:
            continue
        key, name = entry.get("cocoid", entry.get("imgid")), entry.get("filename")
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            problems.add(
                "image without id or file name", path, f"cocoid {key!r}, filename {name!r}"
            )
            continue
        folder = entry.get("filepath")
        image = content.images.setdefault(
            key, Listed(key, f"{folder}/{name}" if folder else name, None)
        )
        for sentence in entry.get("sentences", []):
            _add_caption(
                path,
                f"sentence {sentence.get('sentid')}",
                sentence.get("raw"),
                None,
                image,
                problems,
            )


def _join_instances(paths: list[Path], content: Content, problems: Problems) -> None:
    """Adds the objects of the images from official instance files, each image's from one of them:
    2014 and 2017 hold the same ones."""
    folders = {image.name.split("/")[0] for image in content.images.values()}
    missing = set(content.images)
    for path in sorted(
        paths, key=lambda p: (p.stem.removeprefix("instances_") not in folders, p.name)
    ):
        if not missing:
            break
        found = load(path)
        here = {image.get("id"): image for image in found["images"] if image.get("id") in missing}
        for key, image in here.items():
            content.images[key].size = _size(image)
        found["annotations"] = [
            a for a in found.get("annotations", []) if a.get("image_id") in here
        ]
        _add_annotations(path, found, content, problems)
        missing -= here.keys()
        del found
    if missing and paths:
        content.notes.append(
            f"{len(missing)} images are in none of the instance files: they have no masks"
        )


def _named(image: Listed) -> list[Caption]:
    """A caption that names each kind of object of the image once, or none."""
    names = [with_article(name) for name in dict.fromkeys(a["label"] for a in image.annotations)]
    if not names:
        return []
    return [
        Caption(
            "a photo of "
            + (f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0])
        )
    ]


# --- masks --------------------------------------------------------------------------------


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
    # pycocotools fills what the runs do not reach with whatever is in memory.
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
