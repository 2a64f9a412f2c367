"""The index of a split of COCO: what its annotation files say, one entry at a time, since parsed
they would take gigabytes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from conf.contents import file_state
from conf.describe import show_count
from datamodules.batch import Caption
from datamodules.concepts import with_article
from datamodules.formats.coco_entries import KINDS, Entry, ListedImage, Lists
from datamodules.formats.coco_layouts import Images, find
from datamodules.formats.images import ImageHeader
from datamodules.formats.index import DataError, Problems, Record, Written, compact_json
from datamodules.formats.json_stream import Kinds, read_object
from datamodules.formats.masks import Outline
from datamodules.formats.reader import Reader

# Where progress is said: after so many bytes
EVERY = 2**24
label_json = functools.cache(compact_json)
LISTS = ("images", "annotations", "categories")


class _Object(NamedTuple):
    """An object of an image, while files are read."""

    label: str
    entry: Entry


class CocoReader(Reader):
    """A split in any of the layouts of `coco_layouts`. Where no caption is given at all, the
    objects of an image are named in one.

    Annotations of a record are {"id", "label", "segmentation", "bbox", "color"}, in the pixels of
    the image as it is read.
    """

    def __init__(
        self, root: str | Path, split: str, min_phrases: int = 0, *, layout: str = "auto"
    ) -> None:
        super().__init__(root, split, min_phrases)
        self.place = find(self.root, split, layout)
        self.images = Images(self.place.folders)
        counts = {"crowds": 0, "categories": [], "objects": 0}
        self.notes = {"layout": self.place.layout, **self.notes, **counts}
        # By id; the path is the name that the files give
        self.listed: dict[int | str, Record] = {}

    def facts(self) -> dict[str, Any]:
        files = [(kind, str(path)) for kind, path in self.place.files]
        states = [file_state(path) for _, path in files]
        return {
            "layout": self.place.layout,
            "files": files,
            "states": [*states, self.images.digest],
        }

    def list_records(self, problems: Problems) -> list[Record]:
        kinds = {kind for kind, _ in self.place.files}
        if self.place.layout == "karpathy":
            self._read_karpathy(dict(self.place.files)["karpathy"], problems)
            self._join_instances([p for k, p in self.place.files if k == "instances"], problems)
        else:
            for _, path in self.place.files:
                self._read_file(path, problems)
        if not self.listed:
            first = self.place.files[0][1]
            raise DataError(f"{first}: split {self.split!r} is empty: it lists no image")
        records = [self.listed.pop(key) for key in sorted(self.listed, key=_numbers_first)]
        if not kinds & {"captions", "karpathy"} and not any(r.captions for r in records):
            for record in records:
                record.captions = _name_objects(record)
            self.remarks.append(
                "captions are made of the names of the objects, for there are none in the files"
            )
        for record in records:
            name = str(record.path)
            found = self.images.find(name)
            record.path = found or self.place.folders[0] / name.replace("\\", "/")
        if self.images.ambiguous:
            self.remarks.append(
                f"{show_count(self.images.ambiguous, 'file name')} in several folders: the first "
                "in the "
                "order of the paths was read"
            )
        return records

    def complete(self, record: Record, header: ImageHeader, problems: Problems) -> bool:
        """Keeps the annotations whose masks can be laid on the image: in COCO's form they speak of
        the pixels as they are stored, unless only the size that is shown fits."""
        annotated = (record.width, record.height)
        outlines = [thing.entry.outline for thing in record.annotations]
        if not all(annotated):
            annotated = _mask_size(outlines) or _reach(outlines, header.stored)
        if record.annotations and annotated not in (header.stored, header.shown):
            width, height = header.shown
            detail = f"{width}x{height}, its annotations are for {annotated[0]}x{annotated[1]}"
            problems.add("size differs", record.path, detail)
            record.annotations = []
        self.orient(record, header, annotated)
        annotations = []
        for label, entry in record.annotations:
            text, wrong = entry.outline.check(record.width, record.height)
            if wrong:
                detail = entry.what
                if wrong == "mask of another size":
                    detail += f" of {entry.outline.size}, expected {[record.height, record.width]}"
                problems.add(wrong, record.path, detail)
            else:
                annotations.append(
                    Written(
                        f'{{"id":{entry.key_json},"label":{label_json(label)},"segmentation":{text},'
                        f'"bbox":{entry.box},"color":{entry.color}}}'
                    )
                )
        record.annotations = annotations
        self.notes["objects"] += len(annotations)
        return True

    # --- files ---

    def _add_image(self, key: Any, name: Any, path: Path, problems: Problems) -> Record | None:
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            detail = f"id {key!r}, file_name {name!r}"
            problems.add("image without id or file name", path, detail)
            return None
        record = self.listed.get(key)
        if record is None:
            record = self.listed[key] = Record(key, Path(name))
        return record

    def _read(
        self,
        path: Path,
        take: Callable[[str, Any, str], None],
        problems: Problems,
        kinds: Kinds | None = None,
    ) -> dict[str, Any]:
        """The content of an annotation file without the entries of its lists, which ``take`` gets:
        name of the list, entry (see `read_object`), its text. Raises DataError on anything without
        a list of images."""
        size, said = path.stat().st_size / 1e6, -EVERY

        def progress(done: int) -> None:
            nonlocal said
            if self.emit and done - said >= EVERY:
                said = done
                self.emit(f"reading {path.name}: {done / 1e6:.0f} of {size:.0f} MB")

        def take_object(name: str, number: int, entry: Any, text: str) -> None:
            if isinstance(entry, msgspec.Struct | dict):
                take(name, entry, text)
            else:
                detail = f"number {number} of {name} is {str(entry)[:40]!r}, expected an object"
                problems.add("entry that is no object", path, detail)

        try:
            content = read_object(path, take_object, LISTS, progress, kinds)
        except (OSError, ValueError, RecursionError) as error:
            again = "download it again"
            raise DataError(f"{path}: cannot be read as JSON ({error}): {again}") from error
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise DataError(f"{path}: has no list of images: expected annotations in COCO's form")
        for name in LISTS:
            if content.get(name) not in (None, []):
                kind = type(content[name]).__name__
                raise DataError(f"{path}: {name} is of type {kind}: expected a list of objects")
        return content

    def _read_file(self, path: Path, problems: Problems) -> None:
        """Adds the images of a file and their annotations, in whatever order it has its lists."""
        lists = Lists()
        self._read(path, lists.take, problems, KINDS)
        for image in lists.images:
            self._list_image(path, image, problems)
        self._add_annotations(path, lists, problems)

    def _list_image(self, path: Path, image: ListedImage, problems: Problems) -> None:
        name = image.file_name
        record = self._add_image(image.id, name, path, problems)
        if record is None:
            return
        if not record.width:
            record.width, record.height = _size(image)
        listed = str(record.path)
        if listed != name and _base_name(listed) != _base_name(name):
            detail = f"image {record.id} is {listed} and {name}"
            problems.add("id given twice", path, detail)

    def _add_annotations(self, path: Path, lists: Lists, problems: Problems) -> None:
        names = lists.names()
        self.notes["categories"] = self.notes["categories"] or [
            names[i] for i in sorted(names, key=_numbers_first)
        ]
        for entry in lists.annotations:
            record = self.listed.get(entry.image) if isinstance(entry.image, int | str) else None
            if record is None:
                detail = f"{entry.what} names image {entry.image!r}"
                problems.add("annotation of no image", path, detail)
                continue
            if entry.captioned:
                _add_caption(record, entry.caption, entry.relation, problems, path, entry.what)
            if entry.crowd:
                self.notes["crowds"] += 1
            elif entry.outline is not None:
                category = entry.category
                label = names.get(category) if isinstance(category, int | str | float) else None
                if label is None:
                    detail = f"{entry.what} names category {category!r}"
                    problems.add("unknown category", path, detail)
                else:
                    record.annotations.append(_Object(label, entry))

    def _read_karpathy(self, path: Path, problems: Problems) -> None:
        splits = [self.split]
        if self.split == "train":
            splits.append("restval")
            self.remarks.append("train holds Karpathy's train and restval images")

        def take(of: str, entry: dict[str, Any], text: str) -> None:
            if of != "images" or entry.get("split") not in splits:
                return
            name, folder = entry.get("filename"), entry.get("filepath")
            key = entry.get("cocoid", entry.get("imgid"))
            whole = f"{folder}/{name}" if name and folder else name
            record = self._add_image(key, whole, path, problems)
            if record is None:
                return
            for sentence in entry.get("sentences") or ():
                if not isinstance(sentence, dict):
                    detail = f"a sentence of image {key} is {sentence!r}"
                    problems.add("entry that is no object", path, detail)
                    continue
                what = f"sentence {sentence.get('sentid')}"
                _add_caption(record, sentence.get("raw"), None, problems, path, what)

        self._read(path, take, problems)

    def _join_instances(self, paths: list[Path], problems: Problems) -> None:
        """Adds the objects of the images from official instance files, each image's from one of
        them: 2014 and 2017 hold the same ones."""
        folders = {str(record.path).split("/")[0] for record in self.listed.values()}
        missing = set(self.listed)
        # Those of the folders of the images first
        for path in sorted(
            paths, key=lambda p: (p.stem.removeprefix("instances_") not in folders, p.name)
        ):
            if not missing:
                break
            lists = Lists()
            self._read(path, lists.take, problems, KINDS)
            here = {key: i for i in lists.images if (key := _hashable(i.id)) in missing}
            for key, image in here.items():
                self.listed[key].width, self.listed[key].height = _size(image)
            lists.annotations = [e for e in lists.annotations if _hashable(e.image) in here]
            self._add_annotations(path, lists, problems)
            missing -= here.keys()
        if missing and paths:
            self.remarks.append(
                f"{show_count(len(missing), 'image')} without masks: in none of the instance files"
            )


def _hashable(key: Any) -> int | str | None:
    return key if isinstance(key, int | str) else None


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _numbers_first(key: int | str) -> tuple[bool, int | str]:
    return isinstance(key, str), key


def _size(image: ListedImage) -> tuple[int, int]:
    """(width, height), 0 where the files do not say it, or not in numbers."""
    try:
        width, height = (float(side or 0) for side in (image.width, image.height))
    except (TypeError, ValueError):
        return 0, 0
    known = width >= 1 and height >= 1 and math.isfinite(width + height)
    return (int(width), int(height)) if known else (0, 0)


def _mask_size(outlines: list[Outline]) -> tuple[int, int] | None:
    """(width, height) of the first mask of run lengths; None without one."""
    for size in (one.size for one in outlines):
        if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size):
            return size[1], size[0]
    return None


def _reach(outlines: list[Outline], size: tuple[int, int]) -> tuple[int, int]:
    """``size`` (width, height), or how far polygons reach where that is well beyond it: they were
    drawn on a larger image."""
    reached = [one.ends for one in outlines if one.ends]
    ends = [max((end[i] for end in reached), default=0) for i in (0, 1)]
    beyond = any(end > 1.05 * side + 2 for end, side in zip(ends, size, strict=True))
    return (int(ends[0]), int(ends[1])) if beyond else size


def _add_caption(
    record: Record, text: Any, relation: str | None, problems: Problems, path: Path, what: str
) -> None:
    words = " ".join(text.split()) if isinstance(text, str) else ""
    if words:
        record.captions.append(Caption(words, relation))
    else:
        problems.add("blank caption", path, what)


def _name_objects(record: Record) -> list[Caption]:
    """A caption that names each kind of object of the image once, or none."""
    labels = dict.fromkeys(thing.label for thing in record.annotations)
    *others, last = [with_article(label) for label in labels] or [""]
    named = f"{', '.join(others)} and {last}" if others else last
    return [Caption(f"a photo of {named}")] if named else []
