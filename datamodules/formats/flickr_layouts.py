"""Flickr30k as people have it on disk: where captions, images and Entities are below a folder.

A file is recognised by its content, since the same content has many names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from datamodules.formats.index import DataError
from datamodules.formats.reader import DEPTH, is_image, listing, survey

# In the order in which they are taken where several are there: files that name splits come first
LAYOUTS = {
    "karpathy": "Karpathy's dataset_flickr30k.json",
    "annotations": "flickr_annotations_30k.csv (columns raw = JSON list, split, filename)",
    "token": "results_20130124.token (1000092795.jpg#0<tab>caption)",
    "bar": "results.csv (image_name| comment_number| comment)",
    "comma": "captions.txt or a CSV (image,caption or image_name,comment_number,comment)",
    "entities": "the Sentences/ of Flickr30k Entities",
}
KNOWN = "known layouts: " + "; ".join(f"{name}: {form}" for name, form in LAYOUTS.items())
NAMES_SPLITS = ("karpathy", "annotations")
IMAGE_FOLDERS = (
    "flickr30k-images/, flickr30k_images/flickr30k_images/, Images/, images/ or the folder itself"
)
# A folder of this name holds the images, however few they are
OWN_NAMES = ("flickr30k-images", "flickr30k_images")
# Characters that tell what a file is
HEAD = 4096
IMAGE_COLUMNS = ("image", "image_name", "image_id", "filename", "file_name")
CAPTION_COLUMNS = ("caption", "captions", "comment", "text")


@dataclass(frozen=True)
class Layout:
    """What is below a folder. ``captions`` is a file, or for the layout ``entities`` the folder
    Sentences/; ``split_file`` is a file that names splits; the others belong to Entities."""

    name: str
    captions: Path
    images: Path
    split_file: Path | None
    split_lists: dict[str, Path]
    sentences: Path | None
    boxes: Path | None
    unrelated: Path | None


def find(root: Path, layout: str = "auto") -> Layout:
    """The files of Flickr30k below ``root``, read as ``layout`` or as the first of `LAYOUTS` that
    is there.

    Raises DataError that says what was looked for, what is there and which layouts are known;
    ValueError on an unknown layout.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"data.layout={layout!r}: expected auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DataError(f"data.root={root} is no folder: name that of Flickr30k; {KNOWN}")
    # Entities' folders hold tens of thousands of small files
    tree = survey(root, skip=("Sentences", "Annotations"))
    known: dict[str, Path] = {}
    for folder in tree:
        for file in folder.files:
            if kind := recognise(folder.path / file):
                known.setdefault(kind, folder.path / file)
    homes = [folder.path for folder in tree]
    sentences = next((home / "Sentences" for home in homes if (home / "Sentences").is_dir()), None)
    if sentences:
        known["entities"] = sentences
        homes.insert(0, sentences.parent)
    name = next((one for one in LAYOUTS if one in known and layout in ("auto", one)), None)
    if name is None:
        others = f", which is {', '.join(known)} (data.layout=auto takes it)" if known else ""
        forced = "" if layout == "auto" else f" of layout {layout}"
        raise DataError(
            f"no Flickr30k captions{forced} below {root}: looked up to {DEPTH} folders deep for "
            f"{LAYOUTS.get(layout, 'any layout')}; found {listing(tree)}{others}; {KNOWN}"
        )
    # Of equals the least deep
    images = max(tree, key=lambda f: (bool(f.images) and f.path.name in OWN_NAMES, len(f.images)))
    if not images.images:
        raise DataError(
            f"no images below {root}: looked for {IMAGE_FOLDERS}; found {listing(tree)}"
        )
    boxes = next((home / "Annotations" for home in homes if (home / "Annotations").is_dir()), None)
    if sentences:
        boxes = sentences.parent / "Annotations"
    unrelated = (
        home / file
        for home in homes
        for file in ("UNRELATED_CAPTIONS", "UNRELATED_CAPTIONS.txt")
        if (home / file).is_file()
    )
    namers = [kind for kind in (name, *NAMES_SPLITS) if kind in NAMES_SPLITS and kind in known]
    return Layout(
        name,
        known[name],
        images.path,
        split_file=known[namers[0]] if namers else None,
        split_lists=next(filter(None, map(_split_lists, homes)), {}),
        sentences=sentences,
        boxes=boxes if boxes and boxes.is_dir() else None,
        unrelated=next(unrelated, None),
    )


def _split_lists(folder: Path) -> dict[str, Path]:
    """Entities' train.txt, val.txt, test.txt, those that are in a folder and list images."""
    paths = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
    return {
        split: path
        for split, path in paths.items()
        if path.is_file() and re.fullmatch(r"\d+(\.jpg)?", _first_line(path).strip())
    }


def _head(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read(HEAD)


def _first_line(path: Path) -> str:
    return next((line for line in _head(path).split("\n") if line.strip()), "")


def recognise(path: Path) -> str | None:
    """The layout of a caption file, None where it is something else."""
    suffix, stem = path.suffix.lower(), path.stem.lower()
    if suffix == ".json":
        # Karpathy's files of COCO and Flickr come in one archive; only that of COCO names a folder
        # for each image
        head = _head(path)
        return "karpathy" if '"sentences"' in head and '"filepath"' not in head else None
    if suffix not in (".token", ".csv", ".tsv", ".txt") or (
        suffix == ".txt" and not re.search("caption|result|token", stem)
    ):
        return None
    line = _first_line(path)
    if re.match(r"\S+#\d+\s", line):
        return "token"
    for separator, kind in (("|", "bar"), (",", "comma")):
        columns = split_columns(line, separator)
        if kind == "comma" and "raw" in columns and "filename" in columns:
            return "annotations"
        named = columns[-1] in CAPTION_COLUMNS and any(
            column in IMAGE_COLUMNS for column in columns
        )
        if named or (len(columns) > 1 and is_image(columns[0])):
            return kind
    return None


def split_columns(line: str, separator: str) -> list[str]:
    """The cells of a header line, in lower case, without quotes."""
    return [column.strip(' \t\r\n"').lower() for column in line.split(separator)]
