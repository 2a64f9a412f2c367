"""The entries of annotation files in COCO's form: what is read of them, and what is kept until all
files were read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from datamodules.formats.index import compact_json
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


class Annotation(msgspec.Struct, gc=False):
    """What is read of an entry of ``annotations``: UNSET is what it does not have, Raw its JSON."""

    id: Any = None
    image_id: Any = None
    caption: Any = msgspec.UNSET
    relation: Any = None
    category_id: Any = msgspec.UNSET
    segmentation: Raw | msgspec.UnsetType = msgspec.UNSET
    bbox: Raw | msgspec.UnsetType = msgspec.UNSET
    iscrowd: Any = msgspec.UNSET
    is_crowd: Any = 0
    attributes: Any = None


KINDS: Mapping[str, type[msgspec.Struct]] = {"images": ListedImage, "annotations": Annotation}


class Entry(msgspec.Struct, gc=False):
    """What is kept of an annotation: ``caption`` and what comes with it are None where it has none,
    ``outline`` of what is no object. ``box`` and ``color`` are JSON."""

    key: Any
    image: Any
    captioned: bool
    caption: Any = None
    relation: Any = None
    category: Any = None
    crowd: bool = False
    outline: Outline | None = None
    box: str = ""
    color: str = "null"

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

    def names(self) -> dict[Any, str]:
        """The names of the categories by id, without ids of several names."""
        names: dict[Any, set[str]] = {}
        for category in self.categories:
            key, name = category.get("id"), category.get("name")
            if isinstance(key, int | str) and isinstance(name, str) and name.strip():
                names.setdefault(key, set()).add(name)
        return {key: given.pop() for key, given in names.items() if len(given) == 1}


def _fields(image: dict[str, Any]) -> ListedImage:
    return ListedImage(*(image.get(key) for key in ListedImage.__struct_fields__))


def keep(given: Annotation | dict[str, Any], text: str = "") -> Entry:
    """What is kept of an annotation; ``text`` is its JSON where it is a dictionary."""
    if isinstance(given, Annotation):
        one = given
    else:
        one = Annotation(**{k: given[k] for k in Annotation.__struct_fields__ if k in given})
    captioned = one.caption is not msgspec.UNSET
    entry = Entry(one.id, one.image_id, captioned, one.caption if captioned else None, one.relation)
    # Some tools write a category beside each caption
    masked = one.segmentation is not msgspec.UNSET or one.bbox is not msgspec.UNSET
    if one.category_id is msgspec.UNSET or (captioned and not masked):
        return entry
    entry.category = one.category_id
    # A crowd region is many objects under one mask: it is nobody's subject
    crowd = one.is_crowd if one.iscrowd is msgspec.UNSET else one.iscrowd
    if crowd != 0 and str(crowd) in ("1", "1.0", "True", "true"):
        entry.crowd = True
        return entry
    segmentation = None if one.segmentation is msgspec.UNSET else one.segmentation
    box = None if one.bbox is msgspec.UNSET else one.bbox
    if one is given:
        entry.outline, entry.box = outline_of_text(segmentation), list_of_text(box)
    else:
        entry.outline = outline(segmentation, text)
        entry.box = text_of_numbers(text, "bbox", "[") or compact_json(box)
    color = one.attributes.get("color") if isinstance(one.attributes, dict) else None
    if color is not None:
        entry.color = compact_json(color)
    return entry
