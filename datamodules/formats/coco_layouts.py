"""Where the files of a COCO dataset are. People have it in many shapes; below ``root``, up to three
folders deep, these are known:

    coco       annotations/captions_<split>.json, annotations/instances_<split>.json, or one of them (2014, 2017, or splits of one's own)
    karpathy   dataset_coco.json with the splits train (train and restval together, as papers mean it), restval, val and test;
               instances_*.json beside it add the masks
    roboflow   <split>/_annotations.coco.json with the images beside it

Images lie in a folder named as the split (``train2017/``, ``images/train2017/``,
``train2017/train2017/``) or all together in any folders. The file name in the annotations counts,
not the id; names of 2014 (``COCO_val2014_000000000042.jpg``) and of 2017 (``000000000042.jpg``) are
taken for each other.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.formats.index import DataError

DEPTH = 3
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz")
NESTED = 8  # folders deep that images are looked for below theirs: links may lead in circles
LAYOUTS = {
    "coco": "annotations/captions_<split>.json and/or instances_<split>.json, with <split>/*.jpg",
    "karpathy": "dataset_coco.json, with train2014/*.jpg and val2014/*.jpg",
    "roboflow": "<split>/_annotations.coco.json with the images beside it",
}
KARPATHY = ("train", "restval", "val", "test")
ROBOFLOW = "_annotations.coco.json"
COCO_FILE = re.compile(r"(captions|instances)_(.+)\.json")
OFFICIAL = re.compile(r"(train|val)20(14|17)")
NUMBERED = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.jpg")


@dataclass(frozen=True)
class Folder:
    """What lies in one folder, not below it: JSON files and archives, how many images, the
    folders."""

    path: Path
    files: tuple[str, ...]
    images: int
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where one split is: its layout, its annotation files by kind (captions, instances, karpathy,
    roboflow), the folders of its images."""

    root: Path
    layout: str
    split: str
    files: tuple[tuple[str, Path], ...]
    folders: tuple[Path, ...]


def find(root: Path, split: str, layout: str = "auto") -> Place:
    """The place of a split. With ``auto`` the first layout that has it is taken, in the order in
    which they are listed above.

    Raises DataError when no layout, or none of that name, is there, or has no such split;
    ValueError on an unknown layout.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"data.layout={layout!r}: expected auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        kind = "is a file: unpack it, and" if root.is_file() else "is no folder:"
        raise DataError(
            f"data.root={root} {kind} name the folder of a COCO dataset; known layouts: {_known()}"
        )
    tree = survey(root)
    files = {name: _files(tree, name) for name in LAYOUTS if layout in ("auto", name)}
    for name, splits in files.items():
        if split in splits:
            return Place(root, name, split, tuple(splits[split]), image_folders(tree, name, split))
    there = "; ".join(f"{name} has {', '.join(splits)}" for name, splits in files.items() if splits)
    if there:
        raise DataError(
            f"{root} has no split {split!r}: {there}; set data.train_split and evaluation.splits"
        )
    names = {
        "coco": (f"captions_{split}.json, instances_{split}.json"),
        "karpathy": "dataset_coco.json",
        "roboflow": f"{split}/{ROBOFLOW}",
    }
    kind, looked = (
        ("COCO dataset", ", ".join(names.values()))
        if layout == "auto"
        else (f"dataset of layout {layout}", names[layout])
    )
    raise DataError(
        f"{root} holds no {kind}: looked for {looked}, up to {DEPTH} folders deep; "
        f"found {listing(tree)}; known layouts: {_known()}"
    )


def survey(root: Path) -> list[Folder]:
    """The folders of a dataset, the shallowest first; hidden ones are left out."""
    tree, level = [], [root]
    for _ in range(DEPTH + 1):
        found = [_look(path) for path in level]
        tree += found
        level = [folder.path / name for folder in found for name in folder.folders]
    return tree


def _look(path: Path) -> Folder:
    files, images, folders = [], 0, []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(SUFFIXES):
                images += 1
            elif entry.name.lower().endswith((".json", *ARCHIVES)):
                files.append(entry.name)
            elif entry.is_dir():
                folders.append(entry.name)
    return Folder(path, tuple(sorted(files)), images, tuple(sorted(folders)))


def _files(tree: Sequence[Folder], layout: str) -> dict[str, list[tuple[str, Path]]]:
    """(kind, path) of the annotation files of each split; of several of one name the shallowest."""
    splits: dict[str, list[tuple[str, Path]]] = {}
    instances: dict[str, Path] = {}
    for folder in tree:
        for name in folder.files:
            path, match = folder.path / name, COCO_FILE.fullmatch(name)
            if layout == "roboflow" and name == ROBOFLOW:
                # An export that was not split lies in one folder, at the root.
                splits.setdefault(
                    folder.path.name if folder is not tree[0] else "all", [("roboflow", path)]
                )
            elif layout == "karpathy" and name == "dataset_coco.json" and not splits:
                splits = {split: [("karpathy", path)] for split in KARPATHY}
            elif layout == "coco" and match:
                found = splits.setdefault(match[2], [])
                if match[1] not in dict(found):
                    found.append((match[1], path))
            elif (
                layout == "karpathy"
                and match
                and match[1] == "instances"
                and OFFICIAL.fullmatch(match[2])
            ):
                instances.setdefault(name, path)
    if layout == "karpathy":
        for found in splits.values():
            found += [("instances", instances[name]) for name in sorted(instances)]
    return {split: sorted(found) for split, found in sorted(splits.items())}


def image_folders(tree: Sequence[Folder], layout: str, split: str) -> tuple[Path, ...]:
    """The folders in which, or below which, the images of a split are: those of its name, else all
    that hold images."""
    named = [
        f.path
        for f in tree
        if f.path.name == split or (layout == "karpathy" and OFFICIAL.fullmatch(f.path.name))
    ]
    holding = [f.path for f in tree if f.images]
    if layout == "roboflow" and split == "all":
        return (tree[0].path,)
    named = [path for path in named if any(path in (other, *other.parents) for other in holding)]
    return _outermost(named or holding or [tree[0].path])


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda p: (len(p.parts), p)):
        if not any(other in path.parents for other in kept):
            kept.append(path)
    return tuple(kept)


class Images:
    """The files below some folders, found by the names that annotations give them.

    ``digest`` changes with every file that is added, removed or replaced. ``ambiguous`` counts
    names that were found in several places; the first in the order of the paths was taken.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        facts: list[str] = []
        self.below: dict[str, str] = {}  # by path below one of the folders
        self.named: dict[str, list[str]] = {}
        self.ambiguous = 0
        for folder in folders:
            for path, name, size, time in sorted(_walk(str(folder))):
                relative = os.path.relpath(path, folder).replace(os.sep, "/")
                self.below.setdefault(relative, path)
                self.named.setdefault(name, []).append(path)
                facts.append(f"{relative} {size} {time}")
        self.digest = hashlib.sha256("\n".join(facts).encode(errors="surrogateescape")).hexdigest()[
            :16
        ]

    def __len__(self) -> int:
        return sum(len(paths) for paths in self.named.values())

    def find(self, name: str) -> Path | None:
        """The file that an annotation calls ``name``, which may begin with folders."""
        parts = name.replace("\\", "/").removeprefix("./").split("/")
        for i in range(len(parts)):
            if path := self.below.get("/".join(parts[i:])):
                return Path(path)
        names = [parts[-1]]
        if match := NUMBERED.fullmatch(parts[-1]):
            names += [
                f"{match[1]}.jpg",
                *(f"COCO_{part}2014_{match[1]}.jpg" for part in ("train", "val", "test")),
            ]
        for one in names:
            if paths := self.named.get(one):
                self.ambiguous += len(paths) > 1
                return Path(paths[0])
        return None


def _walk(folder: str, depth: int = NESTED) -> Iterable[tuple[str, str, int, int]]:
    """(path, name, bytes, time) of the files below a folder, hidden ones and JSON left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".json"):
                continue
            if entry.is_dir():
                if depth:
                    yield from _walk(entry.path, depth - 1)
            elif entry.is_file():
                facts = entry.stat()
                yield entry.path, entry.name, facts.st_size, facts.st_mtime_ns


def listing(tree: Sequence[Folder]) -> str:
    """What a dataset folder holds, in a few words for a person."""
    said = []
    for folder in tree:
        name = "." if folder is tree[0] else f"{folder.path.relative_to(tree[0].path)}/"
        files = ", ".join(folder.files[:4]) + (
            f" and {len(folder.files) - 4} more" if len(folder.files) > 4 else ""
        )
        content = [
            part for part in (f"{folder.images} images" if folder.images else "", files) if part
        ]
        if content:
            said.append(f"{name} ({'; '.join(content)})")
    if not said:
        return (
            ("only the folders " + ", ".join(tree[0].folders[:8])) if tree[0].folders else "nothing"
        )
    return ", ".join(said[:8]) + (f" and {len(said) - 8} more folders" if len(said) > 8 else "")


def _known() -> str:
    return "; ".join(f"{name}: {form}" for name, form in LAYOUTS.items())
