"""Splits of the embedded world on disk, in COCO's form.

A split is ``<split>/000000000000.png``, ``annotations/instances_<split>.json`` (compressed RLE
masks, category = shape, ``attributes`` color, size and pattern) and
``annotations/captions_<split>.json`` (several captions an image, each with the ``relation`` that it
states, or null, and its ``phrases``: [start, end, ids of the annotations] of the words that name
things). ``annotations/made_<split>.json`` says what it was made of.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from conf.data.shapes import WEB, Careless
from conf.describe import show_count
from conf.files import drop, named_when_full, read_json, write_atomically
from datamodules.shapes.captions import draw_captions
from datamodules.shapes.rendering import SIZE, render
from datamodules.shapes.scenes import sample_scene
from datamodules.shapes.vocabulary import SHAPES

VERSION = 2  # Of the world: splits of another one are rendered again


def write_dataset(
    root: Path,
    counts: dict[str, int],
    seed: int = 0,
    careless: Careless = WEB,
    zipf: float = 0.0,
) -> None:
    """Renders ``counts[split]`` scenes of each split below ``root`` unless a complete copy is
    there. ``careless`` says how captions of ``train`` are written (`captions`), ``zipf`` how
    unequally frequent combinations are in it (`sample_scene`).

    Each split is written into a folder beside its place and moved there whole, so that an
    interrupted call leaves nothing half done.
    """
    for split, count in counts.items():
        stamp = {"split": split, "count": count, "seed": seed, "size": SIZE, "version": VERSION}
        if split == "train":
            stamp |= {"careless": dataclasses.asdict(careless), "zipf": zipf}
        marker = root / "annotations" / f"made_{split}.json"
        made = read_json(marker, then="rendered again")
        if isinstance(made, dict):
            written, now = made.pop("bytes", 0), _size(root, split)  # Older markers have none
            if made == stamp and now >= written:
                continue
            if made == stamp:
                reason = f"{show_count(now, 'byte')} of {written:,}"
                drop(root / split, None, reason, "rendered again")
        scratch = root / f".{split}.{os.getpid()}"
        scratch.mkdir(parents=True)
        try:
            with named_when_full(root / split):
                instances, captions = _coco_json(scratch, split, count, seed, careless, zipf)
            # An older marker must not vouch for what is being replaced.
            marker.unlink(missing_ok=True)
            marker.parent.mkdir(exist_ok=True)
            shutil.rmtree(root / split, ignore_errors=True)
            scratch.rename(root / split)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _write_json(root / "annotations" / f"instances_{split}.json", instances)
        _write_json(root / "annotations" / f"captions_{split}.json", captions)
        _write_json(marker, stamp | {"bytes": _size(root, split)})


def _size(root: Path, split: str) -> int:
    """Bytes of all files of a split."""
    names = [root / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "captions")]
    total = sum(path.stat().st_size for path in names if path.exists())
    if (root / split).is_dir():
        total += sum(entry.stat().st_size for entry in os.scandir(root / split))
    return total


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, json.dumps(content))


def _coco_json(
    folder: Path, split: str, count: int, seed: int, careless: Careless, zipf: float
) -> tuple[dict, dict]:
    """Writes the images of one split into ``folder``; returns its instances and captions in COCO's
    JSON form."""
    from pycocotools import mask as coco_mask

    images: list[dict] = []
    annotations: list[dict] = []
    captions: list[dict] = []
    for index in range(count):
        scene = sample_scene(split, index, seed, zipf=zipf)
        pixels, masks = render(scene)
        name = f"{index:012d}.png"
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        images.append({"id": index, "file_name": name, "width": SIZE, "height": SIZE})
        first = len(annotations) + 1
        for thing, mask in zip(scene.things, masks, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            x0, y0, x1, y1 = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": SHAPES.index(thing.shape) + 1,
                    "attributes": {
                        "color": thing.color,
                        "size": thing.size,
                        "pattern": thing.pattern,
                    },
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "bbox": [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
        for caption in draw_captions(split, index, scene, seed, careless):
            captions.append(
                {
                    "id": len(captions) + 1,
                    "image_id": index,
                    "caption": caption.text,
                    "relation": caption.relation,
                    "phrases": [
                        [start, end, [first + i for i in things]]
                        for start, end, things in caption.phrases
                    ],
                }
            )
    categories = [
        {"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)
    ]
    info = {"description": "coloured shapes", "split": split, "seed": seed}
    return (
        {"info": info, "images": images, "annotations": annotations, "categories": categories},
        {"info": info, "images": images, "annotations": captions},
    )
