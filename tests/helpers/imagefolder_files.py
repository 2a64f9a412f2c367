"""Images with captions in the forms in which people have them, small."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from helpers.coco_files import HEIGHT, WIDTH, picture, rectangle
from helpers.question_files import as_csv, as_lines, write_text
from PIL import Image

TEXTS = ("a red cat on a mat", "a dog beside a ball", "two birds")
NAMES = ("one.jpg", "two.jpg", "three.jpg")


def mask(path: Path, x: int, y: int, w: int, h: int) -> Path:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[y : y + h, x : x + w] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def pictures(folder: Path) -> None:
    for name in NAMES:
        picture(folder / name)


def jpeg(folder: Path) -> bytes:
    return picture(folder / "some.jpg").read_bytes()


def write_imagefolder(root: Path, form: str = "jsonl") -> Path:
    for split, names in (("train", NAMES[:2]), ("validation", NAMES[2:])):
        rows = [
            {"file_name": name, "text": text, "width": WIDTH}
            for name, text in zip(NAMES, TEXTS, strict=True)
            if name in names
        ]
        for name in names:
            picture(root / split / name)
        text = as_lines(rows) if form == "jsonl" else as_csv(rows)
        write_text(root / split / f"metadata.{form}", text)
    return root


def write_texts(root: Path) -> Path:
    pictures(root / "10_cats")
    for name, text in zip(NAMES, TEXTS, strict=True):
        write_text((root / "10_cats" / name).with_suffix(".txt"), f"{text}\n")
    return root


def write_own_lines(root: Path) -> Path:
    """Phrases with a mask file, polygons, and a box."""
    pictures(root / "images")
    mask(root / "masks" / "cat.png", 8, 8, 32, 32)
    rows: list[dict[str, Any]] = [
        {
            "image": "images/one.jpg",
            "caption": TEXTS[0],
            "phrases": [
                {"words": "red cat", "mask": "masks/cat.png"},
                {"words": [15, 18], "mask": rectangle(40, 16, 32, 32)},
            ],
        },
        {
            "image": "images/two.jpg",
            "caption": TEXTS[1],
            "phrases": [{"words": "dog", "box": [16, 16, 32, 32]}],
        },
        {"image": "images/three.jpg", "caption": TEXTS[2]},
    ]
    write_text(root / "train.jsonl", as_lines(rows))
    return root


def write_token_compose(root: Path) -> Path:
    folder = root / "train"
    pictures(folder)
    mask(folder / "seg" / "mask_one_cat.png", 8, 8, 32, 32)
    rows = [
        {
            "file_name": "one.jpg",
            "text": TEXTS[0],
            "attn_list": [["cat", "seg/mask_one_cat.png"], ["mat", None]],
        },
        {"file_name": "two.jpg", "text": TEXTS[1], "attn_list": []},
    ]
    write_text(folder / "metadata.jsonl", as_lines(rows))
    return root


def write_tables(root: Path, scratch: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    (root / "data").mkdir(parents=True)
    for split, texts in (("train", TEXTS[:2]), ("test", TEXTS[2:])):
        for i, text in enumerate(texts):
            row = {"image": {"bytes": jpeg(scratch), "path": "a.jpg"}, "text": text}
            name = f"{split}-0000{i}-of-0000{len(texts)}.parquet"
            parquet.write_table(pa.Table.from_pylist([row]), root / "data" / name)
    return root


def write_webdataset(root: Path, scratch: Path) -> Path:
    root.mkdir(parents=True)
    for number, some in enumerate((TEXTS[:2], TEXTS[2:])):
        with tarfile.open(root / f"{number:05d}.tar", "w") as shard:
            for i, text in enumerate(some):
                parts = {
                    "jpg": jpeg(scratch),
                    "txt": text.encode(),
                    "json": json.dumps({"url": "x", "file_name": "gone.jpg"}).encode(),
                }
                for ending, content in parts.items():
                    info = tarfile.TarInfo(f"{number:05d}{i:04d}.{ending}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
    return root


def write_blip(root: Path) -> Path:
    for name in NAMES:
        picture(root / "val2014" / name)
    train = [
        {"caption": text, "image": f"val2014/{name}", "image_id": "coco_1"}
        for name in NAMES[:2]
        for text in (TEXTS[0], "again")
    ]
    val = [{"image": f"val2014/{NAMES[2]}", "caption": [TEXTS[2], "some birds"]}]
    write_text(root / "annotations" / "coco_karpathy_train.json", json.dumps(train))
    write_text(root / "annotations" / "coco_karpathy_val.json", json.dumps(val))
    write_text(root / "annotations" / "coco_karpathy_val_gt.json", "{}")
    return root


def write_flickr8k(root: Path) -> Path:
    pictures(root / "Flicker8k_Dataset")
    lines = [
        f"{name}#{i}\t{text}"
        for name, text in zip(NAMES, TEXTS, strict=True)
        for i, text in enumerate((text, "another"))
    ]
    write_text(root / "Flickr8k.token.txt", "\n".join(lines) + "\n")
    write_text(root / "Flickr_8k.trainImages.txt", "one.jpg\ntwo.jpg\n")
    write_text(root / "Flickr_8k.devImages.txt", "three.jpg\n")
    return root


def write_refcoco(root: Path) -> Path:
    for name in NAMES:
        picture(root / "train2014" / name)
    instances = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(NAMES)
        ],
        "annotations": [
            {"id": 7, "image_id": 0, "category_id": 1, "segmentation": rectangle(8, 8, 32, 32)},
            {"id": 8, "image_id": 0, "category_id": 1, "segmentation": rectangle(50, 8, 32, 32)},
            {"id": 9, "image_id": 2, "category_id": 1, "segmentation": rectangle(50, 8, 32, 32)},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    refs = [
        {"ref_id": 1, "ann_id": 7, "image_id": 0, "split": "train", "sentences": ["left cat"]},
        {
            "ref_id": 2,
            "ann_id": 8,
            "image_id": 0,
            "split": "train",
            "sentences": [{"raw": "the right one", "sent": "right one"}, {"sent": "cat on right"}],
        },
        {"ref_id": 3, "ann_id": 9, "image_id": 2, "split": "testA", "sentences": ["a cat"]},
    ]
    write_text(root / "refcoco" / "instances.json", json.dumps(instances))
    write_text(root / "refcoco" / "refs.json", json.dumps(refs))
    return root
