"""Where images with captions are below a folder, in the forms of `LAYOUTS`: which files list those
of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.describe import nearest
from datamodules.formats.index import DataError
from datamodules.formats.listed import CAPTIONS, IMAGES, SPLITS, find_key
from datamodules.formats.prompt_rows import read_rows
from datamodules.formats.reader import DEPTH, Folder, listing, survey
from datamodules.formats.unpacking import has_images

__all__ = ["KNOWN", "LAYOUTS", "Found", "find"]

LAYOUTS = {
    "flickr8k": "Flickr8k.token.txt with Flickr_8k.trainImages.txt and the others",
    "karpathy": "BLIP's *_karpathy_<split>.json (image, caption)",
    "refcoco": "refs*.json or .parquet (image_id, ann_id, sentences, split), with instances.json",
    "lines": "metadata.jsonl, .csv or .parquet, or <split>.jsonl, of file_name and text; with "
    "phrases and masks: your own lines, or TokenCompose's attn_list",
    "tables": "parquet or Arrow shards with a column of images (hub data sets)",
    "webdataset": "*.tar shards of name.jpg with name.txt or name.json",
    "texts": "name.jpg with name.txt beside it",
}
KNOWN = "known layouts: " + "; ".join(f"{name}: {form}" for name, form in LAYOUTS.items())
SHARD = re.compile(r"(.+?)[-_]\d+(?:-of-\d+)?(?:-[0-9a-f]+)?")
ONLY_NUMBER = re.compile(r"\d+")
BLIP = re.compile(r".*_karpathy_(train|val|test)(?:_gt)?\.json")
FLICKR8K = {"trainImages": "train", "devImages": "val", "testImages": "test"}
LINES = (".jsonl", ".csv", ".tsv", ".json", ".parquet")
ALL = "all"  # The split of every image


@dataclass(frozen=True)
class Found:
    """The files that list the images of each split, by the names that splits have in files; a file
    may list several. ``folders`` hold the images."""

    layout: str
    splits: dict[str, tuple[Path, ...]]
    folders: tuple[Path, ...]


def find(root: Path, layout: str = "auto", annotations: str = "") -> Found:
    """The first layout that is there, in the order of `LAYOUTS`, or the one that is named;
    ``annotations`` is a file of rows, {split} in its name stands for the split.

    Raises DataError that says what was looked for and what is there; ValueError on an unknown
    layout.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"data.layout={layout!r}: expected auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        kind = "is a file: unpack it, and" if root.is_file() else "is no folder:"
        raise DataError(f"data.root={root} {kind} name the folder of images with captions; {KNOWN}")
    tree = survey(root)
    if annotations:
        return _find_named(root, annotations)
    for name in [layout] if layout != "auto" else LAYOUTS:
        if splits := FINDERS[name](tree):
            return Found(name, {key: tuple(files) for key, files in splits.items()}, (root,))
    pickles = [
        folder.path / name
        for folder in tree
        for name in folder.files
        if name.startswith("refs") and name.endswith((".p", ".pkl", ".pickle"))
    ]
    if pickles:
        raise DataError(
            f"{pickles[0]}: a pickle, which can run code when it is opened, and is not read: "
            'convert it where you trust it: python -c "import json, pickle; json.dump(pickle.load('
            f"open('{pickles[0].name}', 'rb')), open('refs.json', 'w'))\""
        )
    looked = "; ".join(LAYOUTS[name] for name in ([layout] if layout != "auto" else LAYOUTS))
    raise DataError(
        f"{root} holds no images with captions that are known: looked for {looked}, down "
        f"to level {DEPTH}; found {listing(tree)}"
    )


def _find_named(root: Path, annotations: str) -> Found:
    """Files by the name that is given, of one split or of each."""
    if "{split}" not in annotations:
        path = root / annotations
        if not path.is_file():
            raise DataError(f"data.annotations={annotations}: there is no {path}")
        return Found("lines", {ALL: (path,)}, (root,))
    before, _, behind = annotations.partition("{split}")
    splits: dict[str, tuple[Path, ...]] = {}
    for path in sorted(root.glob(f"{before}*{behind}")):
        name = path.relative_to(root).as_posix()[len(before) :]
        splits[name.removesuffix(behind)] = (path,)
    if not splits:
        raise DataError(f"data.annotations={annotations}: there is no such file below {root}")
    return Found("lines", splits, (root,))


def select_split(found: Found, root: Path, split: str) -> tuple[Path, ...]:
    """The files that list the images of a split; those of files that hold several are told by their
    rows. Raises DataError for a split that is not there."""
    if split in found.splits:
        return found.splits[split]
    known = {SPLITS.get(name.lower(), name): name for name in found.splits}
    if (usual := SPLITS.get(split.lower(), split)) in known:
        return found.splits[known[usual]]
    if ALL in found.splits:
        return found.splits[ALL]
    if split == ALL:
        return tuple(dict.fromkeys(path for files in found.splits.values() for path in files))
    near = nearest(split, [*found.splits])
    raise DataError(
        f"{root} has no split {split!r}: as {found.layout} it has {', '.join(found.splits)}; set "
        f"data.train_split and evaluation.splits{near}"
    )


# --- one layout -----------------------------------------------------------------------------------

Files = dict[str, list[Path]]


def _named(tree: Sequence[Folder]) -> list[Path]:
    return [folder.path / name for folder in tree for name in folder.files]


def _split_of(path: Path, tree: Sequence[Folder], stem: str) -> str:
    """By the name of a file, or of the folder that it is in; else of all images."""
    words = re.split(r"[-_.]", stem.lower())
    for word in words:
        if (known := SPLITS.get(word, word)) in ("train", "val", "test"):
            return known
    parent = path.parent
    while parent != tree[0].path:
        if (known := SPLITS.get(parent.name.lower(), parent.name)) in ("train", "val", "test"):
            return known
        parent = parent.parent
    return ALL


def _flickr8k(tree: Sequence[Folder]) -> Files:
    files = _named(tree)
    captions = [path for path in files if path.name.lower() == "flickr8k.token.txt"]
    if not captions:
        return {}
    splits: Files = {ALL: captions[:1]}
    for path in files:
        split = FLICKR8K.get(path.stem.partition(".")[2])
        if split and path.name.startswith("Flickr_8k."):
            splits[split] = [captions[0], path]
    return splits


def _karpathy(tree: Sequence[Folder]) -> Files:
    splits: Files = {}
    for path in _named(tree):
        if (match := BLIP.fullmatch(path.name)) and "_gt" not in path.name:
            splits.setdefault(match[1], []).append(path)
    return splits


def _refcoco(tree: Sequence[Folder]) -> Files:
    files = [
        path
        for path in _named(tree)
        if path.suffix in (".json", ".parquet") and path.name.lower().startswith("refs")
    ]
    return {ALL: files[:1]} if files else {}


def _lines(tree: Sequence[Folder]) -> Files:
    named: Files = {}
    for path in _named(tree):
        stem, suffix = path.stem.lower(), path.suffix.lower()
        if suffix not in LINES or not (
            stem == "metadata"
            or SPLITS.get(stem, stem) in ("train", "val", "test", "captions", "annotations", "data")
        ):
            continue
        if _lists_images(path):
            named.setdefault(_split_of(path, tree, "" if stem == "metadata" else stem), []).append(
                path
            )
    return named


def _lists_images(path: Path) -> bool:
    """Whether the first rows of a file name an image and a caption."""
    if path.suffix.lower() == ".parquet" and has_images(path):
        return False
    try:
        rows = read_rows(path)
    except DataError:
        return False
    first = next((row.content for row in rows if isinstance(row.content, dict)), None)
    keys = [*(first or ())]
    return bool(find_key(keys, IMAGES) and find_key(keys, CAPTIONS))


def _tables(tree: Sequence[Folder]) -> Files:
    splits: Files = {}
    for path in _named(tree):
        if path.suffix.lower() in (".parquet", ".arrow") and has_images(path):
            splits.setdefault(_split_of(path, tree, path.stem), []).append(path)
    return splits


def _webdataset(tree: Sequence[Folder]) -> Files:
    splits: Files = {}
    for path in _named(tree):
        if path.suffix.lower() == ".tar":
            match = SHARD.fullmatch(path.stem)
            stem = "" if ONLY_NUMBER.fullmatch(path.stem) else match[1] if match else path.stem
            splits.setdefault(_split_of(path, tree, stem), []).append(path)
    return splits


def _texts(tree: Sequence[Folder]) -> Files:
    """Folders in which each image has a text beside it."""
    splits: Files = {}
    for folder in tree:
        texts = {Path(name).stem for name in folder.files if name.lower().endswith(".txt")}
        if texts & {Path(name).stem for name in folder.images}:
            splits.setdefault(_split_of(folder.path / "x", tree, ""), []).append(folder.path)
    return splits


FINDERS = {
    "flickr8k": _flickr8k,
    "karpathy": _karpathy,
    "refcoco": _refcoco,
    "lines": _lines,
    "tables": _tables,
    "webdataset": _webdataset,
    "texts": _texts,
}
