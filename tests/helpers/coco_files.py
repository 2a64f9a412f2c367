"""Small COCO datasets in the layouts that people have, and the traps that go with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [
    {"id": 1, "name": "person"},
    {"id": 18, "name": "dog"},
    {"id": 90, "name": "toothbrush"},
]
WIDTH, HEIGHT = 96, 64
ROTATED = 6  # EXIF orientation of a camera that was held upright


def picture(
    path: Path, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), turn: int = 1
) -> Path:
    """An image whose left half, as it is stored, is dark and whose right half is bright; ``turn``
    is its EXIF orientation."""
    width, height = size
    values = np.full((height, width), 40, np.uint8)
    values[:, width // 2 :] = 200
    image = Image.fromarray(values).convert("RGB").convert(mode)
    exif = Image.Exif()
    if turn != 1:
        exif[0x0112] = turn
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    return path


def rectangle(x: int, y: int, w: int, h: int) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def listed(ids: Sequence[int], pattern: str = "{:012d}.jpg") -> list[dict[str, Any]]:
    return [
        {"id": i, "file_name": pattern.format(i), "width": WIDTH, "height": HEIGHT} for i in ids
    ]


def objects(
    image: int, category: int = 18, segmentation: Any = None, key: int = 1, **extra: Any
) -> dict[str, Any]:
    found = rectangle(40, 16, 16, 24) if segmentation is None else segmentation
    return {
        "id": key,
        "image_id": image,
        "category_id": category,
        "segmentation": found,
        "bbox": [40, 16, 16, 24],
        "iscrowd": 0,
    } | extra


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_captions(
    folder: Path,
    split: str,
    images: list[dict[str, Any]],
    each: int = 5,
    more: Sequence[dict[str, Any]] = (),
) -> Path:
    """``captions_<split>.json``: "caption <n> of <image>" for each image, and whatever ``more``
    annotations."""
    captions = [
        {"id": 10 * k + n, "image_id": image["id"], "caption": f"caption {n} of {image['id']}"}
        for k, image in enumerate(images)
        for n in range(each)
    ]
    return write(
        folder / f"captions_{split}.json", {"images": images, "annotations": [*captions, *more]}
    )


def write_instances(
    folder: Path,
    split: str,
    images: list[dict[str, Any]],
    annotations: Sequence[dict[str, Any]] | None = None,
) -> Path:
    """``instances_<split>.json``: one dog on each image unless ``annotations`` are given."""
    found = (
        [objects(image["id"], key=k) for k, image in enumerate(images)]
        if annotations is None
        else list(annotations)
    )
    return write(
        folder / f"instances_{split}.json",
        {"images": images, "annotations": found, "categories": CATEGORIES},
    )


def write_coco(
    root: Path,
    split: str,
    ids: Sequence[int],
    pattern: str = "{:012d}.jpg",
    images: str | None = None,
) -> Path:
    """A split of COCO with captions and instances; its pictures lie in the folder ``images``
    (default: that of the split's name)."""
    entries = listed(ids, pattern)
    for entry in entries:
        picture(root / (split if images is None else images) / entry["file_name"])
    write_captions(root / "annotations", split, entries)
    write_instances(root / "annotations", split, entries)
    return root


def write_karpathy(path: Path, splits: dict[int, tuple[str, str]]) -> Path:
    """``dataset_coco.json`` of images by id, each with its folder (train2014, val2014) and its
    split."""
    images = [
        {
            "filepath": folder,
            "filename": f"COCO_{folder}_{i:012d}.jpg",
            "cocoid": i,
            "imgid": n,
            "split": split,
            "sentids": [5 * n],
            "sentences": [
                {"raw": f"caption 0 of {i}", "tokens": ["caption"], "imgid": n, "sentid": 5 * n}
            ],
        }
        for n, (i, (folder, split)) in enumerate(splits.items())
    ]
    return write(path, {"images": images, "dataset": "coco"})


def write_captioned_split(root: Path, captions: list[str], masked: int) -> Path:
    """A COCO split "train" of an image for each caption; the first ``masked`` show a dog."""
    entries = listed(range(1, len(captions) + 1))
    for entry in entries:
        picture(root / "train" / entry["file_name"])
    spoken = [
        {"id": k, "image_id": entry["id"], "caption": text}
        for k, (entry, text) in enumerate(zip(entries, captions, strict=True))
    ]
    write_captions(root / "annotations", "train", entries, each=0, more=spoken)
    if masked:
        dogs = [objects(entry["id"], key=k) for k, entry in enumerate(entries[:masked])]
        write_instances(root / "annotations", "train", entries, dogs)
    return root
