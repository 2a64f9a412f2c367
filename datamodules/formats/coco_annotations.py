"""The index of a split of COCO: what its annotation files say, one entry at a time, since parsed
they would take gigabytes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from conf.contents import file_state
from conf.describe import show_count
from datamodules.batch import Caption
from datamodules.concepts import with_article
from datamodules.formats.coco_entries import (
    KINDS,
    ImagesById,
    ListedImage,
    Lists,
    NamedEntry,
    base_name,
    drop_repeated,
    mask_size,
    name_of,
    numbers_first,
    other_form,
    reach,
    size_of,
)
from datamodules.formats.coco_layouts import Images, find
from datamodules.formats.images import ImageHeader
from datamodules.formats.index import DataError, Problems, Record, Written, compact_json
from datamodules.formats.json_stream import Kinds, read_object
from datamodules.formats.lack import CROWD, Lack, explain_fates, list_names
from datamodules.formats.masks import is_box, outline_of_box
from datamodules.formats.panoptic import open_segments, read_panoptic
from datamodules.formats.reader import Reader
from datamodules.formats.unreadable import explain_unreadable

# Where progress is said: after so many bytes
EVERY = 2**24
label_json = functools.cache(compact_json)
LISTS = ("images", "annotations", "categories")
Phrases = tuple[tuple[int, int, tuple[int, ...]], ...]


class CocoReader(Reader):
    """A split in any of the layouts of `coco_layouts`. Where no caption is given at all, the
    objects of an image are named in one.

    Annotations of a record are {"id", "label", "segmentation", "bbox", "color"}, in the pixels of
    the image as it is read.
    """

    version = 3

    def __init__(
        self,
        root: str | Path,
        split: str,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        annotations: str = "",
        boxes: str = "none",
    ) -> None:
        """``annotations`` is as of `find`; ``boxes`` says what a box without a mask is: "none", or
        "masks"."""
        super().__init__(root, split, min_phrases)
        self.place = find(self.root, split, layout, annotations)
        self.boxes = boxes
        self.images = Images(self.place.folders)
        counts = {"crowds": 0, "categories": [], "objects": 0}
        self.notes = {"layout": self.place.layout, **self.notes, **counts}
        self.listed = ImagesById()
        # Annotations of objects, and those that have the id of another one
        self.given = self.shared_ids = 0
        # Boxes that stand for masks, and segments that are no things
        self.boxed = self.stuff = 0

    def facts(self) -> dict[str, Any]:
        files = [(kind, str(path)) for kind, path in self.place.files]
        states = [file_state(path) for _, path in files]
        return {
            "layout": self.place.layout,
            "files": files,
            "states": [*states, self.images.digest],
            "packed": [path.name for path in self.place.packed],
            **({} if self.boxes == "none" else {"boxes": self.boxes}),
        }

    def list_records(self, problems: Problems) -> list[Record]:
        kinds = {kind for kind, _ in self.place.files}
        if self.place.layout == "karpathy":
            self._read_karpathy(dict(self.place.files)["karpathy"], problems)
            self._join_instances([p for k, p in self.place.files if k == "instances"], problems)
        else:
            for kind, path in self.place.files:
                if kind == "panoptic":
                    self.stuff += read_panoptic(path, self, problems)
                else:
                    self._read_file(path, problems, masks=kind != "captions")
        if not self.listed:
            first = self.place.files[0][1]
            raise DataError(f"{first}: split {self.split!r} is empty: it lists no image")
        records = [self.listed.pop(key) for key in sorted(self.listed, key=numbers_first)]
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
        self._add_remarks(kinds)
        return records

    def _add_remarks(self, kinds: set[str]) -> None:
        """What a person should know of ids and of files that are not read."""
        if self.stuff:
            self.remarks.append(f"segments of stuff, not of things, are left out: {self.stuff}")
        if self.listed.reworded:
            entries = show_count(self.listed.reworded, "entry", "entries")
            self.remarks.append(
                f"{entries} with the id of an image in another form than in the list of images "
                f"(first: {self.listed.first_reworded}): read as the same"
            )
        if self.shared_ids:
            ids = show_count(self.shared_ids, "annotation")
            self.remarks.append(f"{ids} with the id of another one of the same file")
        self.remarks += [
            f"{path} is packed, and not read: unpack it"
            for path in self.place.packed
            if path.name.partition("_")[0] not in kinds
        ]

    def explain_lack(self, problems: Problems, limit: int | None) -> Lack:
        kinds, split = {kind for kind, _ in self.place.files}, self.split
        files = [path for kind, path in self.place.files if kind not in ("captions", "karpathy")]
        if not files:
            packed = [path for path in self.place.packed if path.name.startswith("instances_")]
            name = "instances_*.json of COCO" if "karpathy" in kinds else f"instances_{split}.json"
            if packed:
                return Lack(f"no instances file is read: {packed[0]} is packed", "unpack it")
            beside = self.place.files[0][1]
            return Lack(
                f"there is no instances file, {name}, below {self.root}",
                f"put the instances file {name} beside {beside.name}",
            )
        source = list_names(path.name for path in files)
        fates = +self.fates
        return explain_fates(source, self.given, fates, problems, limit)

    def complete(self, record: Record, header: ImageHeader, problems: Problems) -> bool:
        """Keeps the annotations whose masks can be laid on the image: in COCO's form they speak of
        the pixels as they are stored, unless only the size that is shown fits."""
        annotated = (record.width, record.height)
        open_segments(record, problems)
        outlines = [thing.entry.outline for thing in record.annotations]
        if not all(annotated):
            annotated = mask_size(outlines) or reach(outlines, header.stored)
        if record.annotations and annotated not in (header.stored, header.shown):
            width, height = header.shown
            detail = f"{width}x{height}, its annotations are for {annotated[0]}x{annotated[1]}"
            if annotated == (height, width):
                detail += " (width and height swapped)"
            problems.add("size differs", record.path, f"image {record.id}: {detail}")
            self.fates["size differs"] += len(record.annotations)
            record.annotations = []
        self.orient(record, header, annotated)
        annotations = []
        things, repeated = drop_repeated(record.annotations)
        for one in repeated:
            detail = f"image {record.id}, {one.entry.what}"
            problems.add("annotation given twice", record.path, detail)
            self.fates["annotation given twice"] += 1
        for label, entry in things:
            # What has none was no object
            assert entry.outline is not None
            text, wrong = entry.outline.check(record.width, record.height)
            if wrong == "no mask" and self.boxes == "masks":
                text, wrong = outline_of_box(entry.box).check(record.width, record.height)
                self.boxed += not wrong
            if wrong:
                detail = f"image {record.id}, {entry.what}"
                if wrong == "mask of another size":
                    detail += f" of {entry.outline.size}, expected {[record.height, record.width]}"
                problems.add(wrong, record.path, detail)
                self.fates[wrong] += 1
                continue
            if not is_box(entry.box, record.width, record.height):
                detail = f"image {record.id}, {entry.what}: {entry.box[:80]}"
                problems.add("box that is none of the image", record.path, detail)
            annotations.append(
                Written(
                    f'{{"id":{entry.key_json},"label":{label_json(label)},"segmentation":{text},'
                    f'"bbox":{entry.box},"color":{entry.color}}}'
                )
            )
        record.annotations = annotations
        self.notes["objects"] += len(annotations)
        if self.boxed:
            self.notes["boxes_as_masks"] = self.boxed
        return True

    # --- files ---

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
                told = json.dumps(entry, ensure_ascii=False)[:40]  # As the file says it
                detail = f"{name}[{number}] is {told}, expected an object"
                problems.add("entry that is no object", path, detail)

        try:
            content = read_object(path, take_object, LISTS, progress, kinds)
        except (OSError, ValueError, RecursionError) as error:
            why = explain_unreadable(path, error)
            raise DataError(f"{path}: cannot be read as JSON: {why}") from error
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise DataError(f"{path}: has no list of images: expected annotations in COCO's form")
        for name in LISTS:
            if content.get(name) not in (None, []):
                kind = type(content[name]).__name__
                raise DataError(f"{path}: {name} is of type {kind}: expected a list of objects")
        return content

    def _read_file(self, path: Path, problems: Problems, masks: bool) -> None:
        """Adds the images of a file and their annotations, in whatever order it has its lists.
        Sizes beside ``masks`` are those that the masks are for, whatever other files say."""
        lists = Lists()
        self._read(path, lists.take, problems, KINDS)
        for image in lists.images:
            self.list_image(path, image, problems, masks)
        self._add_annotations(path, lists, problems)

    def list_image(self, path: Path, image: ListedImage, problems: Problems, masks: bool) -> None:
        name = image.name
        record = self.listed.add(image.id, name, path, problems)
        if record is None:
            return
        size = size_of(image)
        if not record.width or (masks and all(size)):
            record.width, record.height = size
        listed = str(record.path)
        if listed != name and base_name(listed) != base_name(name):
            detail = f"image {record.id} is {listed} and {name}"
            problems.add("id given twice", path, detail)

    def _add_annotations(self, path: Path, lists: Lists, problems: Problems) -> None:
        names, several = lists.names()
        self.notes["categories"] = self.notes["categories"] or [
            names[i] for i in sorted(names, key=numbers_first)
        ]
        keys = [e.key for e in lists.annotations if isinstance(e.key, int | str)]
        self.shared_ids += len(keys) - len(set(keys))
        for entry in lists.annotations:
            thing = bool(entry.crowd or entry.odd or entry.outline is not None)
            self.given += thing
            record = self.listed.get(entry.image) if type(entry.image) is int else None
            record = record or self.listed.find(entry.image, entry.what)
            wrong = detail = ""
            if record is None:
                wrong, detail = (
                    "annotation of no image",
                    f"{entry.what} names image {entry.image!r}",
                )
            else:
                if entry.captioned:
                    said = (entry.relation, entry.phrases)
                    _add_caption(record, entry.caption, said, problems, path, entry.what)
                if entry.crowd:
                    self.notes["crowds"] += 1
                    self.fates[CROWD] += 1
                elif entry.odd:
                    wrong = "unknown iscrowd"
                    detail = f"image {entry.image}, {entry.what}: {entry.odd}, expected 0 or 1"
                elif entry.outline is not None:
                    label = name_of(names, entry.category)
                    if label is None:
                        wrong, detail = "unknown category", f"{entry.what} names category "
                        detail += repr(entry.category)
                        if isinstance(entry.category, int | str) and entry.category in several:
                            detail += f", which is {' and '.join(several[entry.category])}"
                    else:
                        record.annotations.append(NamedEntry(label, entry))
                        if entry.odd_color:
                            detail = f"image {entry.image}, {entry.what}: {entry.odd_color}"
                            problems.add("colour that is no word", path, f"{detail}: left out")
            if wrong:
                problems.add(wrong, path, detail)
                self.fates[wrong] += thing

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
            record = self.listed.add(key, whole, path, problems)
            if record is None:
                return
            for sentence in entry.get("sentences") or ():
                if not isinstance(sentence, dict):
                    detail = f"a sentence of image {key} is {sentence!r}"
                    problems.add("entry that is no object", path, detail)
                    continue
                what = f"sentence {sentence.get('sentid')}"
                _add_caption(record, sentence.get("raw"), (None, None), problems, path, what)

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
                self.listed[key].width, self.listed[key].height = size_of(image)
            lists.annotations = [e for e in lists.annotations if _hashable(e.image) in here]
            self._add_annotations(path, lists, problems)
            missing -= here.keys()
        if missing and paths:
            self.remarks.append(
                f"{show_count(len(missing), 'image')} without masks: in none of the instance files"
            )


def _hashable(key: Any) -> int | str | None:
    key = other_form(key) if isinstance(key, float) else key
    return key if isinstance(key, int | str) else None


def _add_caption(
    record: Record,
    text: Any,
    said: tuple[str | None, Any],
    problems: Problems,
    path: Path,
    what: str,
) -> None:
    """``said`` of the caption are its relation and its phrases."""
    words = " ".join(text.split()) if isinstance(text, str) else ""
    if words:
        relation, phrases = said
        if relation is not None and not isinstance(relation, str):
            told = json.dumps(relation)[:40]
            problems.add("relation that is no word", path, f"{what}: {told}: left out")
            relation = None
        try:
            known = msgspec.convert(phrases or (), Phrases) if words == text else ()
        except msgspec.ValidationError:  # Other tools may mean something else by the word
            known = ()
        record.captions.append(Caption(words, relation, known))
    elif text is None or isinstance(text, str):
        problems.add("blank caption", path, what)
    else:
        problems.add("caption that is no text", path, f"{what}: {str(text)[:40]}")


def _name_objects(record: Record) -> list[Caption]:
    """A caption that names each kind of object of the image once, or none."""
    labels = dict.fromkeys(thing.label for thing in record.annotations)
    *others, last = [with_article(label) for label in labels] or [""]
    named = f"{', '.join(others)} and {last}" if others else last
    return [Caption(f"a photo of {named}")] if named else []
