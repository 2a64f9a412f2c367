"""Where the files of a COCO data set are. Three layouts are known, up to three folders below
``root``:

    coco       annotations/captions_<split>.json and instances_<split>.json, or one of them, of
               2014, 2017 or own splits
    karpathy   dataset_coco.json with the splits train (train and restval together, as papers mean
               it), restval, val and test; instances_*.json beside it add the masks
    roboflow   <split>/_annotations.coco.json with the images beside it

LVIS's lvis_v1_<split>.json are instances; panoptic_<split>.json with the PNG files of
panoptic_<split>/ give the masks of things. A file of another name can be named
(`data.annotations`), {split} in its name stands for the split.

Images are in a folder named as the split (``train2017/``, ``images/train2017/``,
``train2017/train2017/``) or all together in any folders. The file name in the annotations counts,
not the id; names of 2014 (``COCO_val2014_000000000042.jpg``) and of 2017 (``000000000042.jpg``)
stand for each other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from conf.describe import nearest
from datamodules.formats.index import DataError
from datamodules.formats.reader import DEPTH, Folder, digest_listed, list_folders, listing, survey

LAYOUTS = {
    "coco": "annotations/captions_<split>.json and/or instances_<split>.json, with <split>/*.jpg",
    "karpathy": "dataset_coco.json, with train2014/*.jpg and val2014/*.jpg",
    "roboflow": "<split>/_annotations.coco.json with the images beside it",
}
KNOWN = "known layouts: " + "; ".join(f"{name}: {form}" for name, form in LAYOUTS.items())
KARPATHY = ("train", "restval", "val", "test")
COCO_FILE = re.compile(r"(captions|instances|panoptic|lvis_v[\d.]+)_(.+)\.json")
PACKED = re.compile(r"(captions|instances)_(.+)\.json\.(gz|zip|bz2|xz|zst|7z|rar|tar)")
OFFICIAL = re.compile(r"(train|val)20(14|17)")
NUMBERED = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.jpg")

# (kind, path) of annotation files: captions, instances, panoptic, karpathy, roboflow, named
Files = list[tuple[str, Path]]


@dataclass(frozen=True)
class Place:
    """Where one split is: its layout, its annotation files by kind, the folders of its images, and
    annotation files of it that are packed."""

    layout: str
    files: Files
    folders: tuple[Path, ...]
    packed: tuple[Path, ...] = ()


def find(root: Path, split: str, layout: str = "auto", annotations: str = "") -> Place:
    """The place of a split; "auto" takes the first layout that has it, in the order of `LAYOUTS`;
    ``annotations`` is the name of a file below ``root`` that is taken in their place.

    Raises DataError when no layout, or none of that name, is there, or has no such split;
    ValueError on an unknown layout.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"data.layout={layout!r}: expected auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        kind = "is a file: unpack it, and" if root.is_file() else "is no folder:"
        raise DataError(f"data.root={root} {kind} name the folder of a COCO dataset; {KNOWN}")
    tree = survey(root)
    if annotations:
        path = root / annotations.replace("{split}", split)
        if not path.is_file():
            there = ", ".join(sorted(name for folder in tree for name in folder.files)[:8])
            raise DataError(f"data.annotations={annotations}: there is no {path}; found {there}")
        return Place("named", [("named", path)], image_folders(tree, "coco", split))
    splits = {name: _splits(tree, name) for name in LAYOUTS if layout in ("auto", name)}
    for name, files in splits.items():
        if split in files:
            folders, packed = image_folders(tree, name, split), _find_packed(tree, split)
            return Place(name, sorted(files[split]), folders, packed)
    if packed := _find_packed(tree, split):
        raise DataError(f"{packed[0]} is packed: unpack it")
    if any(splits.values()):
        known = "; ".join(
            f"{name} has {', '.join(sorted(files))}" for name, files in splits.items() if files
        )
        near = nearest(split, [there for files in splits.values() for there in files])
        raise DataError(
            f"{root} has no split {split!r}: {known}; set data.train_split and evaluation.splits"
            f"{near}"
        )
    kind = "COCO dataset" if layout == "auto" else f"dataset of layout {layout}"
    looked = "; ".join(LAYOUTS[name] for name in splits).replace("<split>", split)
    raise DataError(
        f"{root} holds no {kind}: looked for {looked}, up to {DEPTH} folders deep; "
        f"found {listing(tree)}; {KNOWN}"
    )


def _splits(tree: Sequence[Folder], layout: str) -> dict[str, Files]:
    """The annotation files of each split that a layout has; of several of one name the first."""
    paths: dict[str, list[Path]] = {}
    for folder in tree:
        for name in folder.files:
            paths.setdefault(name, []).append(folder.path / name)
    splits: dict[str, Files] = {}
    if layout == "roboflow":
        for path in paths.get("_annotations.coco.json", []):
            # An export that was not split is in one folder, at the root
            name = "all" if path.parent == tree[0].path else path.parent.name
            splits.setdefault(name, [("roboflow", path)])
        return splits
    named = [
        (match, first[0]) for name, first in paths.items() if (match := COCO_FILE.fullmatch(name))
    ]
    if layout == "coco":
        for match, path in named:
            kind = "instances" if match[1].startswith("lvis") else match[1]
            splits.setdefault(match[2], []).append((kind, path))
        for files in splits.values():
            if any(kind == "instances" for kind, _ in files):  # The same things
                files[:] = [one for one in files if one[0] != "panoptic"]
    elif "dataset_coco.json" in paths:
        masks = [
            ("instances", path)
            for match, path in named
            if match[1] == "instances" and OFFICIAL.fullmatch(match[2])
        ]
        for name in KARPATHY:
            splits[name] = [("karpathy", paths["dataset_coco.json"][0]), *masks]
    return splits


def _find_packed(tree: Sequence[Folder], split: str) -> tuple[Path, ...]:
    """The annotation files of a split in COCO's layout that are packed, each by itself."""
    return tuple(
        folder.path / name
        for folder in tree
        for name in folder.files
        if (match := PACKED.fullmatch(name)) and match[2] == split
    )


def image_folders(tree: Sequence[Folder], layout: str, split: str) -> tuple[Path, ...]:
    """The folders in which, or below which, the images of a split are: those of its name, else all
    that hold images."""
    if layout == "roboflow" and split == "all":
        return (tree[0].path,)
    holding = [folder.path for folder in tree if folder.images]
    named = [
        folder.path
        for folder in tree
        if folder.path.name == split
        or (layout == "karpathy" and OFFICIAL.fullmatch(folder.path.name))
    ]
    named = [path for path in named if any(path in (other, *other.parents) for other in holding)]
    outermost: list[Path] = []
    for path in sorted(set(named or holding or [tree[0].path]), key=lambda p: (len(p.parts), p)):
        if not any(other in path.parents for other in outermost):
            outermost.append(path)
    return tuple(outermost)


class Images:
    """The files below some folders, found by the names that annotations give them.

    ``digest`` changes with every file that is added, removed, renamed or replaced by another one;
    whether one is written to in place, only its own state says (`Records.images_changed`).
    ``ambiguous`` counts names that were found in several places; the first in the order of the
    paths was taken.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.ambiguous = 0
        # Of each folder the folders in it: path, names and inodes of the files
        self._listed = [(str(folder), list(list_folders(folder))) for folder in folders]
        self.digest = digest_listed(self._listed)

    @cached_property
    def _files(self) -> list[tuple[int, list[tuple[str, str]]]]:
        """(characters of a folder's path, path and name of each file below it, in order)."""
        found = []
        for folder, inner in self._listed:
            files = []
            for path, _, lines in inner:
                names = [line[: line.index("\0")] for line in lines]
                files += [(f"{path}{os.sep}{n}", n) for n in names if not n.endswith(".json")]
            found.append((len(folder) + 1, sorted(files)))
        return found

    @cached_property
    def below(self) -> dict[str, str]:
        """The files by their paths below one of the folders."""
        below: dict[str, str] = {}
        for begin, files in self._files:
            for path, _ in files:
                below.setdefault(path[begin:].replace(os.sep, "/"), path)
        return below

    @cached_property
    def named(self) -> dict[str, list[str]]:
        """The files by name."""
        named: dict[str, list[str]] = {}
        for _, files in self._files:
            for path, name in files:
                named.setdefault(name, []).append(path)
        return named

    def __len__(self) -> int:
        return sum(len(paths) for paths in self.named.values())

    def find(self, name: str) -> Path | None:
        """The file that an annotation calls ``name``, which may begin with folders."""
        if path := self.below.get(name):
            return Path(path)
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
