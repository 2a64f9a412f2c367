"""The entries of annotation files in COCO's form: what is read of them, and what is kept until all
files were read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from datamodules.formats.index import Problems, Record, compact_json
from datamodules.formats.masks import (
    Outline,
    list_of_text,
    outline,
    outline_of_text,
    text_of_numbers,
)

Raw = msgspec.Raw


class ListedImage(msgspec.Struct, gc=False):
    """What is read of an entry of ``images``."""

    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None
    coco_url: Any = None

    @property
    def name(self) -> Any:
        """Its file; LVIS has none but the end of an address (…/train2017/000000391895.jpg)."""
        if self.file_name is None and isinstance(self.coco_url, str):
            return "/".join(self.coco_url.split("/")[-2:])
        return self.file_name


class Annotation(msgspec.Struct, gc=False):
    """What is read of an entry of ``annotations``: UNSET is what it does not have, Raw its JSON."""

    id: Any = None
    image_id: Any = None
    caption: Any = msgspec.UNSET
    relation: Any = None
    phrases: Any = None
    category_id: Any = msgspec.UNSET
    segmentation: Raw | msgspec.UnsetType = msgspec.UNSET
    bbox: Raw | msgspec.UnsetType = msgspec.UNSET
    iscrowd: Any = msgspec.UNSET
    is_crowd: Any = 0
    attributes: Any = None


# What iscrowd may be in words
MANY, SINGLE = ("1", "1.0", "true"), ("", "0", "0.0", "false", "none")
KINDS: Mapping[str, type[msgspec.Struct]] = {"images": ListedImage, "annotations": Annotation}


class Entry(msgspec.Struct, gc=False):
    """What is kept of an annotation: ``caption`` and what comes with it are None where it has none,
    ``outline`` of what is no object. ``box`` and ``color`` are JSON. ``odd`` is an
    iscrowd that says neither yes nor no; what has one has no ``outline``. ``odd_color`` is a colour
    that is no word; what has one has no ``color``."""

    key: Any
    image: Any
    captioned: bool
    caption: Any = None
    relation: Any = None
    phrases: Any = None
    category: Any = None
    crowd: bool = False
    odd: str = ""
    outline: Outline | None = None
    box: str = ""
    color: str = "null"
    odd_color: str = ""

    @property
    def what(self) -> str:
        """The annotation in words."""
        return f"annotation {self.key}"

    @property
    def key_json(self) -> str:
        """The JSON of the id."""
        return str(self.key) if type(self.key) is int else compact_json(self.key)


class Lists:
    """What is kept of the lists of an annotation file in COCO's form."""

    def __init__(self) -> None:
        self.images: list[ListedImage] = []
        self.annotations: list[Entry] = []
        self.categories: list[dict[str, Any]] = []

    def take(self, name: str, entry: Any, text: str) -> None:
        """Keeps an entry: one of `KINDS`, or any object with its text."""
        if name == "annotations":
            self.annotations.append(keep(entry, text))
        elif name == "categories":
            self.categories.append(entry)
        else:
            self.images.append(entry if isinstance(entry, ListedImage) else _fields(entry))

    def names(self) -> tuple[dict[Any, str], dict[Any, list[str]]]:
        """The names of the categories by id, and apart from them those of ids of several names."""
        names: dict[Any, set[str]] = {}
        for category in self.categories:
            key, name = category.get("id"), category.get("name")
            if isinstance(key, int | str) and isinstance(name, str) and name.strip():
                names.setdefault(key, set()).add(" ".join(name.split()))
        several = {key: sorted(given) for key, given in names.items() if len(given) > 1}
        return {key: min(given) for key, given in names.items() if key not in several}, several


def _fields(image: dict[str, Any]) -> ListedImage:
    return ListedImage(*(image.get(key) for key in ListedImage.__struct_fields__))


def keep(given: Annotation | dict[str, Any], text: str = "") -> Entry:
    """What is kept of an annotation; ``text`` is its JSON where it is a dictionary."""
    if isinstance(given, Annotation):
        one = given
    else:
        one = Annotation(**{k: given[k] for k in Annotation.__struct_fields__ if k in given})
    captioned = one.caption is not msgspec.UNSET
    entry = Entry(one.id, one.image_id, captioned)
    if captioned:
        entry.caption, entry.relation, entry.phrases = one.caption, one.relation, one.phrases
    # Some tools write a category beside each caption
    masked = one.segmentation is not msgspec.UNSET or one.bbox is not msgspec.UNSET
    if one.category_id is msgspec.UNSET or (captioned and not masked):
        return entry
    entry.category = one.category_id
    # A crowd region is many objects under one mask: it is nobody's subject
    crowd = one.is_crowd if one.iscrowd is msgspec.UNSET else one.iscrowd
    if crowd != 0 and (known := str(crowd).strip().lower()) not in SINGLE:
        entry.crowd = known in MANY
        entry.odd = "" if entry.crowd else f"iscrowd is {str(crowd)[:40]!r}"
        return entry
    segmentation = None if one.segmentation is msgspec.UNSET else one.segmentation
    box = None if one.bbox is msgspec.UNSET else one.bbox
    if one is given:
        entry.outline, entry.box = outline_of_text(segmentation), list_of_text(box)
    else:
        entry.outline = outline(segmentation, text)
        entry.box = text_of_numbers(text, "bbox", "[") or compact_json(box)
    color = one.attributes.get("color") if isinstance(one.attributes, dict) else None
    if isinstance(color, str):
        if tidy := " ".join(color.split()):
            entry.color = compact_json(tidy)
    elif color is not None:
        entry.odd_color = f"color is {compact_json(color)[:40]}"
    return entry


class NamedEntry(NamedTuple):
    """An object of an image, while files are read."""

    label: str
    entry: Entry


def drop_repeated(things: list[NamedEntry]) -> tuple[list[NamedEntry], list[NamedEntry]]:
    """The annotations of an image, each once, and those that say the same again: id, category,
    mask and box."""
    keys = {one.entry.key for one in things if type(one.entry.key) is int}
    if len(keys) == len(things):
        return things, []
    kept: list[NamedEntry] = []
    repeated: list[NamedEntry] = []
    for thing in things:
        label, entry = thing
        again = entry.key is not None and any(
            (label, entry.key, entry.outline, entry.box)
            == (one.label, one.entry.key, one.entry.outline, one.entry.box)
            for one in kept
        )
        (repeated if again else kept).append(thing)
    return kept, repeated


class ImagesById(dict[int | str, Record]):
    """The images of a split by id, while files are read; the path of each is the name that the
    files give. Some tools write an id as text in one place and as a number in another:
    ``reworded`` counts such entries, and ``first_reworded`` is one of them in words."""

    def __init__(self) -> None:
        self.reworded, self.first_reworded = 0, ""

    def find(self, key: Any, what: str) -> Record | None:
        """The image of an id, in either form; ``what`` names it."""
        if isinstance(key, int | str) and (record := self.get(key)) is not None:
            return record
        other = other_form(key)
        record = None if other is None else self.get(other)
        if record is not None:
            self.reworded += 1
            self.first_reworded = self.first_reworded or f"{what} names {key!r}, not {other!r}"
        return record

    def add(self, key: Any, name: Any, path: Path, problems: Problems) -> Record | None:
        """The image of an id, which is new or was added before; None where it has no id or no
        name. ``path`` is the file that lists it."""
        key = other_form(key) if isinstance(key, float) else key  # 1.0 is 1
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            problems.add("image without id or file name", path, f"id {key!r}, file_name {name!r}")
            return None
        if not is_path(name):
            problems.add("file name that no file can have", path, f"image {key}: {name[:80]!r}")
            return None
        record = self.get(key)
        known = None if record is not None else self.get(other_form(key) or key)
        if known is not None and base_name(str(known.path)) == base_name(name):
            return self.find(key, f"the list of {path.name}")
        if record is None:
            record = self[key] = Record(key, Path(name))
        return record


def is_path(name: str) -> bool:
    """Whether a file can have a name: no NUL, and nothing that no encoding has."""
    try:
        return "\0" not in name and (name.isascii() or bool(os.fsencode(name)))
    except UnicodeEncodeError:
        return False


def other_form(key: Any) -> int | str | None:
    """An id as a number where it is text, and the other way round; None without another form."""
    if isinstance(key, str):
        return int(key) if key.isascii() and key.isdecimal() and len(key) < 20 else None
    if isinstance(key, float) and key.is_integer():
        return int(key)
    return str(key) if type(key) is int else None


def name_of(names: dict[Any, str], category: Any) -> str | None:
    label = names.get(category) if isinstance(category, int | str | float) else None
    return label or names.get(other_form(category))


def base_name(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def numbers_first(key: int | str) -> tuple[bool, int | str]:
    return isinstance(key, str), key


def size_of(image: ListedImage) -> tuple[int, int]:
    """(width, height), 0 where the files do not say it, or not in numbers."""
    try:
        width, height = (float(side or 0) for side in (image.width, image.height))
    except (TypeError, ValueError, OverflowError):
        return 0, 0
    known = width >= 1 and height >= 1 and math.isfinite(width + height)
    return (int(width), int(height)) if known else (0, 0)


def mask_size(outlines: list[Outline]) -> tuple[int, int] | None:
    """(width, height) of the first mask of run lengths; None without one."""
    for size in (one.size for one in outlines):
        if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size):
            return size[1], size[0]
    return None


def reach(outlines: list[Outline], size: tuple[int, int]) -> tuple[int, int]:
    """``size`` (width, height), or how far polygons reach where that is well beyond it: they were
    drawn on a larger image."""
    reached = [one.ends for one in outlines if one.ends]
    ends = [max((end[i] for end in reached), default=0) for i in (0, 1)]
    beyond = any(end > 1.05 * side + 2 for end, side in zip(ends, size, strict=True))
    return (int(ends[0]), int(ends[1])) if beyond else size
