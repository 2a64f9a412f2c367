"""The index of a split of COCO: what its annotation files say, one file at a time, since each may
take gigabytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conf.contents import file_state
from conf.describe import show_count
from datamodules.batch import Caption
from datamodules.concepts import with_article
from datamodules.formats.coco_layouts import Images, find
from datamodules.formats.images import ImageHeader
from datamodules.formats.index import DataError, Problems, Record
from datamodules.formats.masks import usable
from datamodules.formats.reader import Reader


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
                content = load(path)
                self._list_images(path, content["images"], problems)
                self._add_annotations(path, content, problems)
                # The next one may take gigabytes as well
                del content
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
            record.path = self.images.find(name) or self.place.folders[0] / name
        if self.images.ambiguous:
            self.remarks.append(
                f"{self.images.ambiguous} file names are in several folders: the first in the "
                "order of the paths was read"
            )
        return records

    def complete(self, record: Record, header: ImageHeader, problems: Problems) -> bool:
        """Keeps the annotations whose masks can be laid on the image: in COCO's form they speak of
        the pixels as they are stored, unless only the size that is shown fits."""
        annotated = (record.width, record.height)
        if not all(annotated):
            annotated = _mask_size(record.annotations) or _reach(record.annotations, header.stored)
        if record.annotations and annotated not in (header.stored, header.shown):
            width, height = header.shown
            detail = f"{width}x{height}, its annotations are for {annotated[0]}x{annotated[1]}"
            problems.add("size differs", record.path, detail)
            record.annotations = []
        self.orient(record, header, annotated)
        annotations = []
        for annotation in record.annotations:
            segmentation, wrong = usable(annotation["segmentation"], record.width, record.height)
            if wrong:
                detail = f"annotation {annotation['id']}"
                if wrong == "mask of another size":
                    size = annotation["segmentation"].get("size")
                    detail += f" of {size}, expected {[record.height, record.width]}"
                problems.add(wrong, record.path, detail)
            else:
                annotations.append(annotation | {"segmentation": segmentation})
        record.annotations = annotations
        self.notes["objects"] += len(annotations)
        return True

    # --- files ---

    def _add_image(self, key: Any, name: Any, path: Path, problems: Problems) -> Record | None:
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            detail = f"id {key!r}, file_name {name!r}"
            problems.add("image without id or file name", path, detail)
            return None
        return self.listed.setdefault(key, Record(key, Path(name)))

    def _list_images(self, path: Path, images: list[dict[str, Any]], problems: Problems) -> None:
        for image in images:
            name = image.get("file_name")
            record = self._add_image(image.get("id"), name, path, problems)
            if record is None:
                continue
            if not record.width:
                record.width, record.height = _size(image)
            if record.path.name != Path(str(name)).name:
                detail = f"image {record.id} is {record.path} and {name}"
                problems.add("id given twice", path, detail)

    def _add_annotations(self, path: Path, content: dict[str, Any], problems: Problems) -> None:
        names = {
            category["id"]: str(category["name"])
            for category in content.get("categories", [])
            if "id" in category and "name" in category
        }
        self.notes["categories"] = self.notes["categories"] or [names[i] for i in sorted(names)]
        for annotation in content.get("annotations", []):
            key, what = annotation.get("image_id"), f"annotation {annotation.get('id')}"
            record = self.listed.get(key) if isinstance(key, int | str) else None
            if record is None:
                problems.add("annotation of no image", path, f"{what} names image {key!r}")
                continue
            if "caption" in annotation:
                relation = annotation.get("relation")
                _add_caption(record, annotation["caption"], relation, problems, path, what)
            if "category_id" not in annotation:
                continue
            # A crowd region is many objects under one mask: it is nobody's subject
            crowd = annotation.get("iscrowd", annotation.get("is_crowd", 0))
            if str(crowd) in ("1", "1.0", "True", "true"):
                self.notes["crowds"] += 1
            elif annotation["category_id"] not in names:
                detail = f"{what} names category {annotation['category_id']!r}"
                problems.add("unknown category", path, detail)
            else:
                attributes = annotation.get("attributes")
                record.annotations.append(
                    {
                        "id": annotation.get("id"),
                        "label": names[annotation["category_id"]],
                        "segmentation": annotation.get("segmentation"),
                        "bbox": annotation.get("bbox"),
                        "color": attributes.get("color") if isinstance(attributes, dict) else None,
                    }
                )

    def _read_karpathy(self, path: Path, problems: Problems) -> None:
        splits = [self.split]
        if self.split == "train":
            splits.append("restval")
            self.remarks.append("train holds Karpathy's train and restval images")
        for entry in load(path)["images"]:
            if entry.get("split") not in splits:
                continue
            name, folder = entry.get("filename"), entry.get("filepath")
            key = entry.get("cocoid", entry.get("imgid"))
            whole = f"{folder}/{name}" if name and folder else name
            record = self._add_image(key, whole, path, problems)
            if record is None:
                continue
            for sentence in entry.get("sentences", []):
                what = f"sentence {sentence.get('sentid')}"
                _add_caption(record, sentence.get("raw"), None, problems, path, what)

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
            content = load(path)
            here = {image.get("id"): image for image in content["images"]}
            here = {key: here[key] for key in here.keys() & missing}
            for key, image in here.items():
                self.listed[key].width, self.listed[key].height = _size(image)
            content["annotations"] = [
                a for a in content.get("annotations", []) if a.get("image_id") in here
            ]
            self._add_annotations(path, content, problems)
            missing -= here.keys()
            del content
        if missing and paths:
            self.remarks.append(
                f"{show_count(len(missing), 'image')} without masks: in none of the instance files"
            )


def load(path: Path) -> dict[str, Any]:
    """The JSON of an annotation file. Raises DataError on anything without a list of images."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}): download it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: has no list of images: expected annotations in COCO's form")
    return content


def _numbers_first(key: int | str) -> tuple[bool, int | str]:
    return isinstance(key, str), key


def _size(image: dict[str, Any]) -> tuple[int, int]:
    """(width, height), 0 where the files do not say it."""
    width, height = image.get("width"), image.get("height")
    return (int(width), int(height)) if width and height else (0, 0)


def _mask_size(annotations: list[dict[str, Any]]) -> tuple[int, int] | None:
    """(width, height) of the first mask of run lengths; None without one."""
    for annotation in annotations:
        segmentation = annotation["segmentation"]
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size):
            return size[1], size[0]
    return None


def _reach(annotations: list[dict[str, Any]], size: tuple[int, int]) -> tuple[int, int]:
    """``size`` (width, height), or how far polygons reach where that is well beyond it: they were
    drawn on a larger image."""
    parts = [
        part
        for annotation in annotations
        for part in annotation["segmentation"] or ()
        if isinstance(annotation["segmentation"], list) and isinstance(part, list)
    ]
    ends = [
        max((n for part in parts for n in part[i::2] if isinstance(n, int | float)), default=0)
        for i in (0, 1)
    ]
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
    labels = dict.fromkeys(annotation["label"] for annotation in record.annotations)
    *others, last = [with_article(label) for label in labels] or [""]
    named = f"{', '.join(others)} and {last}" if others else last
    return [Caption(f"a photo of {named}")] if named else []
