"""Flickr30k as people have it on disk: where captions, images and Entities are below a folder, and
what the caption files say.

A file is known by what is in it, since the same content goes by many names. Images are known by
their file names without suffix.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.index import DataError, Problems

# In the order in which they are taken where several are there: what names splits comes first
LAYOUTS = {
    "karpathy": "Karpathy's dataset_flickr30k.json",
    "annotations": "flickr_annotations_30k.csv (columns raw = JSON list, split, filename)",
    "token": "results_20130124.token (1000092795.jpg#0<tab>caption)",
    "bar": "results.csv (image_name| comment_number| comment)",
    "comma": "captions.txt or a CSV (image,caption or image_name,comment_number,comment)",
    "entities": "the Sentences/ of Flickr30k Entities",
}
NAMES_SPLITS = ("karpathy", "annotations")
IMAGE_FOLDERS = (
    "flickr30k-images/, flickr30k_images/flickr30k_images/, Images/, images/ or the folder itself"
)
# What is called so holds the images, however few they are
OWN_NAMES = ("flickr30k-images", "flickr30k_images")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
DEPTH = 3  # folders below the root in which files are looked for
HEAD = 4096  # characters that tell what a file is
SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}
IMAGE_COLUMNS = ("image", "image_name", "image_id", "filename", "file_name")
CAPTION_COLUMNS = ("caption", "captions", "comment", "text")


@dataclass
class Entry:
    """What a caption file says of an image: its captions in the order of their numbers, and its
    split where the file names one."""

    captions: list[str] = field(default_factory=list)
    split: str | None = None


@dataclass(frozen=True)
class Layout:
    """What was found below a folder. ``captions`` is a file, or for the layout ``entities`` the
    folder Sentences/."""

    name: str
    captions: Path
    images: Path
    split_file: Path | None  # of a layout that names splits
    split_lists: dict[str, Path]  # train, val, test of Entities, those that are there
    sentences: Path | None  # of Entities, and so on
    boxes: Path | None
    unrelated: Path | None


# --- what is there --------------------------------------------------------------------------------


def find(root: Path, layout: str = "auto") -> Layout:
    """The files of Flickr30k below ``root``, read as ``layout`` or as the first of LAYOUTS that is
    there.

    Raises DataError that says what was looked for, what is there and which layouts are known;
    ValueError on an unknown layout.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"data.layout={layout!r}: expected auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DataError(
            f"data.root={root} is no folder: name that of Flickr30k; known layouts: {_known()}"
        )
    folders = _folders(root)
    known: dict[str, Path] = {}
    for folder, names in folders.items():
        for file in names:
            if kind := recognise(folder / file):
                known.setdefault(kind, folder / file)
    sentences = next((f / "Sentences" for f in folders if (f / "Sentences").is_dir()), None)
    if sentences:
        known["entities"] = sentences
    wanted = [layout] if layout != "auto" else list(LAYOUTS)
    name = next((one for one in wanted if one in known), None)
    if name is None:
        others = f", which is {', '.join(known)} (data.layout=auto takes it)" if known else ""
        forced = "" if layout == "auto" else f" of layout {layout}"
        raise DataError(
            f"no Flickr30k captions{forced} below {root}: looked up to {DEPTH} folders deep for {LAYOUTS.get(layout, 'any layout')}; "
            f"found {_listing(folders, root)}{others}; known layouts: {_known()}"
        )
    counts = {folder: sum(is_image(n) for n in names) for folder, names in folders.items()}
    # Of equals the least deep
    images = max(
        counts, key=lambda folder: (counts[folder] > 0 and folder.name in OWN_NAMES, counts[folder])
    )
    if not counts[images]:
        raise DataError(
            f"no images below {root}: looked for {IMAGE_FOLDERS}; found {_listing(folders, root)}"
        )
    home = [sentences.parent] if sentences else []
    lists: dict[str, Path] = {}
    for folder in (*home, *folders):
        found = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
        found = {
            split: path for split, path in found.items() if path.is_file() and _holds_ids(path)
        }
        lists = lists or found
    unrelated = (
        folder / n
        for folder in (*home, *folders)
        for n in ("UNRELATED_CAPTIONS", "UNRELATED_CAPTIONS.txt")
    )
    boxes = sentences.parent / "Annotations" if sentences else None
    return Layout(
        name,
        known[name],
        images,
        split_file=next(
            (
                known[kind]
                for kind in (name, *NAMES_SPLITS)
                if kind in NAMES_SPLITS and kind in known
            ),
            None,
        ),
        split_lists=lists,
        sentences=sentences,
        boxes=boxes if boxes and boxes.is_dir() else None,
        unrelated=next((path for path in unrelated if path.is_file()), None),
    )


def _folders(root: Path) -> dict[Path, list[str]]:
    """The folders below ``root`` and the names of their files, the least deep first; Entities'
    folders of many small files left out."""
    folders: dict[Path, list[str]] = {}
    level = [root]
    for _ in range(DEPTH + 1):
        below = []
        for folder in level:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            entries = [e for e in entries if not e.name.startswith((".", "__MACOSX"))]
            folders[folder] = [e.name for e in entries if e.is_file()]
            below += [
                folder / e.name
                for e in entries
                if e.is_dir() and e.name not in ("Sentences", "Annotations")
            ]
        level = below
    return folders


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _listing(folders: dict[Path, list[str]], root: Path) -> str:
    """A few words on what there is."""
    inside = [
        (f"{f.relative_to(root)}/ ({len(names)} files)")
        for f, names in folders.items()
        if f != root
    ]
    files = folders[root]
    parts = [
        *inside[:6],
        *(["…"] if len(inside) > 6 else []),
        *files[:6],
        *([f"… ({len(files)} files)"] if len(files) > 6 else []),
    ]
    return ", ".join(parts) or "nothing"


def _known() -> str:
    return "; ".join(f"{name}: {form}" for name, form in LAYOUTS.items())


def _holds_ids(path: Path) -> bool:
    return re.fullmatch(r"\d+(\.jpg)?", _first_line(path).strip()) is not None


def _head(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read(HEAD)


def _first_line(path: Path) -> str:
    return next((line for line in _head(path).split("\n") if line.strip()), "")


def recognise(path: Path) -> str | None:
    """The layout of a caption file, None where it is something else."""
    suffix, stem = path.suffix.lower(), path.stem.lower()
    if suffix == ".json":
        # Karpathy's files of COCO and Flickr come in one archive; only those of COCO name a folder
        # for each image.
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
        columns = _columns(line, separator)
        if kind == "comma" and "raw" in columns and "filename" in columns:
            return "annotations"
        named = columns[-1] in CAPTION_COLUMNS and any(
            column in IMAGE_COLUMNS for column in columns
        )
        if named or (len(columns) > 1 and is_image(columns[0])):
            return kind
    return None


def _columns(line: str, separator: str) -> list[str]:
    return [column.strip(' \t\r\n"').lower() for column in line.split(separator)]


# --- what the files say ---------------------------------------------------------------------------


def read_captions(path: Path, layout: str, problems: Problems) -> dict[str, Entry]:
    """The captions of each image, as the file has them, blank ones too. Rows that cannot be read
    are problems.

    A row whose second separator is missing is mended, and counted in the manifest. Raises DataError
    on a file that is not text at all.
    """
    readers: dict[str, Callable[[Path, Problems], Iterator[Row]]] = {
        "karpathy": _karpathy,
        "annotations": _annotations,
        "token": _token,
        "bar": _bar,
        "comma": _comma,
    }
    entries: dict[str, Entry] = {}
    numbered: dict[str, list[tuple[int, str]]] = {}
    for row in readers[layout](path, problems):
        image = stem(row.image)
        entry = entries.setdefault(image, Entry())
        entry.split = row.split or entry.split
        numbers = numbered.setdefault(image, [])
        numbers += [
            (len(numbers) if row.number is None else row.number, caption)
            for caption in row.captions
        ]
    for image, entry in entries.items():
        entry.captions = [
            caption for _, caption in sorted(numbered[image], key=lambda pair: pair[0])
        ]
    return entries


class Row(NamedTuple):
    image: str
    captions: list[str]
    number: int | None = None
    split: str | None = None


def stem(name: str) -> str:
    """An image's name without folders, those of Windows either, and without suffix."""
    base = name.strip().replace("\\", "/").rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[0] if is_image(base) else base


def read_ids(path: Path) -> list[str]:
    """The images of a list of Entities: one id a line, with or without .jpg."""
    return [stem(line) for line in _lines(path) if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error


def _lines(path: Path) -> list[str]:
    # Not splitlines(): captions may hold other characters that Unicode counts as the end of a line.
    return [line.rstrip("\r") for line in _text(path).split("\n")]


def _unreadable(problems: Problems, path: Path, line: int | str, row: Any) -> None:
    problems.add("row that cannot be read", f"{path}, {line}", repr(row)[:120])


def _split(name: Any) -> str | None:
    word = str(name or "").strip().lower()
    return SPLIT_NAMES.get(word, word) or None


def _karpathy(path: Path, problems: Problems) -> Iterator[Row]:
    try:
        images = json.loads(_text(path))["images"]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is no {LAYOUTS['karpathy']} ({error!r}): expected {{'images': "
            f"[{{'filename', 'split', …}}]}}"
        ) from error
    for i, image in enumerate(images):
        try:
            said = [
                s.get("raw") or " ".join(s.get("tokens", [])) for s in image.get("sentences", [])
            ]
            yield Row(image["filename"], said, split=_split(image.get("split")))
        except (AttributeError, KeyError, TypeError):
            _unreadable(problems, path, f"image {i}", image)


def _annotations(path: Path, problems: Problems) -> Iterator[Row]:
    csv.field_size_limit(1 << 24)
    for i, row in enumerate(csv.DictReader(_lines(path)), 2):
        try:
            # pandas writes a list that it has read as one the way Python does.
            captions = (
                json.loads(row["raw"])
                if not row["raw"].startswith("['")
                else ast.literal_eval(row["raw"])
            )
            if not row["filename"] or not all(isinstance(caption, str) for caption in captions):
                raise ValueError
            yield Row(row["filename"], captions, split=_split(row.get("split")))
        except (ValueError, TypeError, SyntaxError, AttributeError):
            _unreadable(problems, path, f"row {i}", row)


def _token(path: Path, problems: Problems) -> Iterator[Row]:
    for i, line in enumerate(_lines(path), 1):
        # The file has a tab, copies of it that went through a browser have blanks; captions hold
        # "#" too.
        match = re.match(r"([^\t]+)#(\d+)[ ]*\t(.*)", line) or re.match(
            r"(\S+)#(\d+)(?:\s+(.*)|$)", line
        )
        if match:
            yield Row(match[1], [match[3] or ""], int(match[2]))
        elif line.strip():
            _unreadable(problems, path, f"line {i}", line)


def _bar(path: Path, problems: Problems) -> Iterator[Row]:
    return _separated(path, problems, "|", str.strip)


def _comma(path: Path, problems: Problems) -> Iterator[Row]:
    return _separated(path, problems, ",", _unquoted)


def _separated(
    path: Path, problems: Problems, separator: str, clean: Callable[[str], str]
) -> Iterator[Row]:
    """Rows of an image, perhaps a number, and a caption, in which nothing marks quotes and
    separators: CSV readers fail on them."""
    lines = _lines(path)
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    columns = _columns(lines[start], separator)
    if columns[-1] in CAPTION_COLUMNS:
        start += 1
        before = next(i for i, column in enumerate(columns) if column in IMAGE_COLUMNS)
        numbered = len(columns) - before > 2
    else:
        before, numbered = 0, len(columns) > 2 and columns[1].isdecimal()
    bar, mended = re.escape(separator), 0
    number = rf'\s*"?(\d+)"?(?:\s*{bar}(.*)|(\s+\S.*))' if numbered else r"()(.*)()"
    for i, line in enumerate(lines[start:], start + 1):
        if not line.strip():
            continue
        image, *rest = line.split(separator, before + 1)[before:]
        match = re.fullmatch(number, rest[0]) if rest else None
        image = image.strip(' \t"')
        if match is None or not image:
            _unreadable(problems, path, f"line {i}", line)
            continue
        mended += bool(match[3])
        yield Row(image, [clean(match[3] or match[2])], int(match[1]) if numbered else None)
    if mended:
        problems.note("mended_rows", mended)


def _unquoted(text: str) -> str:
    """A field without the quotes of CSV. Quotes that are not doubled inside are the caption's
    own."""
    text = text.strip()
    inner = text[1:-1].replace('""', "")
    return (
        text[1:-1].replace('""', '"')
        if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner
        else text
    )
