"""Small copies of Flickr30k in the layouts that people have: four images, five captions each, with
the traps of the real files inside."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CAPTIONS = {
    "1000092795": [
        "Two young , White males are outside near many bushes .",
        'A sign says " Wet paint " .',
        "A man in a blue shirt , standing in a garden",
        "a boy 's friend does n't wave",
        "Runner # 7 | number 7 , is tired .",
    ],
    "10002456": [f"Men work on machine number {i} ." for i in range(5)],
    "2199200615": [*(f"Dog {i} runs ." for i in range(4)), "A dog runs across the grass ."],
    "36979": [f"A group of {i} people ." for i in range(5)],
}
# As of the real 769, nothing is said of 36979
KARPATHY = {"1000092795": "train", "10002456": "train", "2199200615": "val"}
ENTITIES = {"train": ["1000092795", "36979"], "val": ["2199200615"], "test": ["10002456"]}


def write_images(
    folder: Path, names: Iterable[str] = CAPTIONS, size: tuple[int, int] = (96, 64)
) -> Path:
    """JPEGs of ``size`` (width, height), red but for the blue square in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 255
    left = (width - height) // 2
    pixels[:, left : left + height] = (0, 0, 255)
    for name in names:
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
    return folder


def rows() -> list[tuple[str, int, str]]:
    return [
        (f"{name}.jpg", i, caption)
        for name, captions in CAPTIONS.items()
        for i, caption in enumerate(captions)
    ]


def write_token(path: Path, between: str = "\t", end: str = "\n") -> Path:
    return write(path, [f"{name}#{i}{between}{caption}" for name, i, caption in rows()], end)


def write_bar(
    path: Path,
    header: bool = True,
    blank: str = " ",
    end: str = "\n",
    broken: bool = True,
    last: bool = True,
) -> Path:
    """``broken``: with the row that has lost its second bar, as in the original."""
    lines = [f"image_name|{blank}comment_number|{blank}comment"] if header else []
    lines += [f"{name}|{blank}{i}|{blank}{caption}" for name, i, caption in rows()]
    if broken:
        wrong = lines.index(f"2199200615.jpg|{blank}4|{blank}A dog runs across the grass .")
        lines[wrong] = f"2199200615.jpg|{blank}4   A dog runs across the grass ."
    return write(path, lines, end, last)


def write_comma(path: Path, numbered: bool = False, quoted: bool = False, end: str = "\n") -> Path:
    """``quoted``: by the rules of CSV; else as people write it who know of none."""
    header = ["image_name", "comment_number", "comment"] if numbered else ["image", "caption"]
    cells = [
        [name, str(i), caption] if numbered else [name, caption] for name, i, caption in rows()
    ]
    if not quoted:
        return write(path, [",".join(line) for line in [header, *cells]], end)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end).writerows([header, *cells])
    return path


def write_annotations(path: Path, python: bool = False) -> Path:
    """``python``: lists as pandas writes them that has read them as lists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["raw", "sentids", "split", "filename", "img_id"])
        for i, (name, captions) in enumerate(CAPTIONS.items()):
            if name in KARPATHY:
                raw = repr(captions) if python else json.dumps(captions)
                out.writerow([raw, str(list(range(5))), KARPATHY[name], f"{name}.jpg", i])
    return path


def write_karpathy(path: Path, captions: Mapping[str, list[str]] = CAPTIONS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {
            "sentids": list(range(5)),
            "imgid": i,
            "sentences": [
                {"tokens": text.lower().split(), "raw": text, "imgid": i, "sentid": j}
                for j, text in enumerate(captions[name])
            ],
            "split": split,
            "filename": f"{name}.jpg",
        }
        for i, (name, split) in enumerate(KARPATHY.items())
    ]
    path.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    return path


SENTENCES = {
    "1000092795": [
        "[/EN#1/people Two young , White males] are outside near [/EN#2/other many bushes] .",
        'A [/EN#3/other/scene sign] says " [/EN#0/notvisual Wet paint] " .',
        (
            "[/EN#1/people A man] in [/EN#4/clothing a blue shirt] , standing in "
            "[/EN#5/scene a garden]"
        ),
        "[/EN#1/people a boy 's friend] does n't wave",
        "[/EN#1/people Runner # 7 | number 7] , is tired .",
    ],
    "36979": [*(f"[/EN#7/people A group of {i} people] ." for i in range(4)), "broken image"],
}


def write_sentences(folder: Path, names: Iterable[str] = SENTENCES) -> Path:
    (folder / "Sentences").mkdir(parents=True, exist_ok=True)
    for name in names:
        write(folder / "Sentences" / f"{name}.txt", SENTENCES[name])
    return folder


def write_boxes(folder: Path, name: str, objects: str, size: tuple[int, int] = (96, 64)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    inside = (
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}"
    )
    path = folder / f"{name}.xml"
    path.write_text(f"<annotation><filename>{name}.jpg</filename>{inside}</annotation>")
    return path


def thing(*chains: int, box: tuple[int, int, int, int] | None = None) -> str:
    """An <object> of Entities; ``box`` counts pixels from 1, both ends within it."""
    names = "".join(f"<name>{chain}</name>" for chain in chains)
    if box is None:
        return f"<object>{names}<scene>1</scene><nobndbox>0</nobndbox></object>"
    sides = "".join(
        f"<{side}>{value}</{side}>"
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object>{names}<bndbox>{sides}</bndbox></object>"


def write_entities(folder: Path) -> Path:
    """Sentences, boxes, lists of the splits and the captions to leave out. The square crop of the
    images is columns 16 to 80."""
    write_sentences(folder)
    boxes = [
        thing(1, box=(17, 1, 32, 16)),
        thing(1, 4, box=(41, 33, 56, 64)),  # one box of two chains, and the second box of chain 1
        thing(2, box=(1, 1, 10, 64)),  # wholly left of the crop
        thing(5),
        thing(3, box=(80, 60, 300, 90)),  # reaches beyond the image
    ]
    write_boxes(folder / "Annotations", "1000092795", "".join(boxes))
    write_boxes(folder / "Annotations", "36979", thing(7, box=(17, 1, 80, 64)))
    for split, names in ENTITIES.items():
        write(
            folder / f"{split}.txt", names, "\r\n" if split == "val" else "\n", last=split != "test"
        )
    write(folder / "UNRELATED_CAPTIONS", ["# format: <imageID> <sentence number>", "36979 5"])
    return folder


def write(path: Path, lines: list[str], end: str = "\n", last: bool = True) -> Path:
    """``last``: with an end of line behind the last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + (end if last else "")).encode())
    return path
