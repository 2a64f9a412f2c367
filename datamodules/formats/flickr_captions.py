"""The caption files of Flickr30k: their rows, image by image.

Images are known by their file names without suffix.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.flickr_layouts import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    LAYOUTS,
    split_columns,
)
from datamodules.formats.index import DataError, Problems
from datamodules.formats.reader import is_image

SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}


class Row(NamedTuple):
    """What one row of a file says: ``number`` is that of a caption among those of its image."""

    image: str
    captions: list[str]
    number: int | None = None
    split: str | None = None


@dataclass
class CaptionedImage:
    """What a caption file says of an image: its captions in the order of their numbers, and its
    split where the file names one."""

    captions: list[str] = field(default_factory=list)
    split: str | None = None


def read_captions(path: Path, layout: str, problems: Problems) -> dict[str, CaptionedImage]:
    """The captions of each image, as the file has them, blank ones too. Rows that cannot be read
    are problems.

    A row whose second separator is missing is mended, and counted in the manifest. Raises DataError
    on a file that is not text at all.
    """
    numbered: dict[str, list[tuple[int, str]]] = {}
    splits: dict[str, str | None] = {}
    for row in READERS[layout](path, problems):
        image = stem(row.image)
        splits[image] = row.split or splits.get(image)
        numbers = numbered.setdefault(image, [])
        numbers += [
            (len(numbers) if row.number is None else row.number, caption)
            for caption in row.captions
        ]
    return {
        image: CaptionedImage(
            [caption for _, caption in sorted(numbers, key=lambda pair: pair[0])], splits[image]
        )
        for image, numbers in numbered.items()
    }


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
    # Not splitlines(): captions may hold other characters that Unicode counts as the end of a line
    return [line.rstrip("\r") for line in _text(path).split("\n")]


def _unreadable(problems: Problems, path: Path, line: int | str, row: Any) -> None:
    problems.add("row that cannot be read", f"{path}, {line}", repr(row)[:120])


def _split(name: Any) -> str | None:
    word = str(name or "").strip().lower()
    return SPLIT_NAMES.get(word, word) or None


def _karpathy(path: Path, problems: Problems) -> Iterator[Row]:
    text = _text(path)
    try:
        images = json.loads(text)["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no {LAYOUTS['karpathy']} ({error!r}): expected {{'images': "
            f"[{{'filename', 'split', …}}]}}"
        ) from error
    for i, image in enumerate(images):
        try:
            captions = [
                sentence.get("raw") or " ".join(sentence.get("tokens", []))
                for sentence in image.get("sentences", [])
            ]
            yield Row(image["filename"], captions, split=_split(image.get("split")))
        except (AttributeError, KeyError, TypeError):
            _unreadable(problems, path, f"image {i}", image)


def _annotations(path: Path, problems: Problems) -> Iterator[Row]:
    csv.field_size_limit(1 << 24)
    for i, row in enumerate(csv.DictReader(_lines(path)), 2):
        try:
            # pandas writes a list that it has read as one the way Python does
            python = row["raw"].startswith("['")
            captions = ast.literal_eval(row["raw"]) if python else json.loads(row["raw"])
            if not row["filename"] or not all(isinstance(caption, str) for caption in captions):
                raise ValueError
            yield Row(row["filename"], captions, split=_split(row.get("split")))
        except (ValueError, TypeError, SyntaxError, AttributeError):
            _unreadable(problems, path, f"row {i}", row)


def _token(path: Path, problems: Problems) -> Iterator[Row]:
    for i, line in enumerate(_lines(path), 1):
        # The file has a tab, copies of it that went through a browser have blanks; captions hold
        # "#" too
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
    return _separated(path, problems, ",", _unquote)


def _separated(
    path: Path, problems: Problems, separator: str, clean: Callable[[str], str]
) -> Iterator[Row]:
    """Rows of an image, perhaps a number, and a caption, in which nothing marks quotes and
    separators: CSV readers fail on them."""
    lines = _lines(path)
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    columns = split_columns(lines[start], separator)
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
        problems.notes["mended_rows"] = mended


def _unquote(text: str) -> str:
    """A field without the quotes of CSV. Quotes that are not doubled inside are the caption's
    own."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    if not quoted or '"' in text[1:-1].replace('""', ""):
        return text
    return text[1:-1].replace('""', '"')


READERS: dict[str, Callable[[Path, Problems], Iterator[Row]]] = {
    "karpathy": _karpathy,
    "annotations": _annotations,
    "token": _token,
    "bar": _bar,
    "comma": _comma,
}
