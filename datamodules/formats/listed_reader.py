"""The index of a split of images with captions in any of the forms of `listed_layouts`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conf.contents import file_state
from conf.describe import show_count
from datamodules.batch import Caption
from datamodules.formats.bad_lines import BadLine
from datamodules.formats.coco_layouts import Images
from datamodules.formats.flickr_captions import read_captions
from datamodules.formats.hub import find_snapshot, is_hub
from datamodules.formats.images import ImageHeader, decode_image, read_header
from datamodules.formats.index import DataError, Problems, Record, Written, compact_json
from datamodules.formats.lack import Lack
from datamodules.formats.listed import (
    SPLITS,
    Listed,
    Region,
    list_row,
    list_sentences,
    make_caption,
)
from datamodules.formats.listed_layouts import ALL, find, select_split
from datamodules.formats.mask_files import read_mask_image
from datamodules.formats.masks import box_polygon, outline
from datamodules.formats.prompt_rows import read_rows
from datamodules.formats.reader import Reader, is_image
from datamodules.formats.unpacking import LISTED, unpack

__all__ = ["ListedReader"]

Rows = Iterator[tuple[str, Mapping[str, Any]]]
PACKED = ("tables", "webdataset")


class ListedReader(Reader):
    """A split of ``layout``; ``annotations`` names its file of rows, ``boxes`` says what a box
    without a mask is ("none" or "masks"), ``unpack_to`` is where images of shards are written (a
    temporary folder without). Annotations of a record are as those of `CocoReader`."""

    version = 1

    def __init__(
        self,
        root: str | Path,
        split: str,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        annotations: str = "",
        boxes: str = "none",
        unpack_to: Path | None = None,
    ) -> None:
        given = str(root)
        super().__init__(find_snapshot(given) if is_hub(given) else given, split, min_phrases)
        self.found = find(self.root, layout, annotations)
        self.files = select_split(self.found, self.root, split)
        self.boxes, self.unpack_to = boxes, unpack_to
        self.images = Images([self.root])
        self.notes = {
            "layout": self.found.layout,
            **self.notes,
            "categories": [],
            "crowds": 0,
            "objects": 0,
            "boxes_as_masks": 0,
        }
        self.boxed = 0
        self._aside: tempfile.TemporaryDirectory | None = None

    def facts(self) -> dict[str, Any]:
        states = [file_state(str(path)) for path in self.files]
        return {
            "layout": self.found.layout,
            "files": [str(path) for path in self.files],
            "states": [*states, self.images.digest],
            "boxes": self.boxes,
        }

    def list_records(self, problems: Problems) -> list[Record]:
        records: dict[str, Record] = {}
        lost = 0
        for item in self._listed():
            if isinstance(item, tuple):
                place, error = item
                problems.add(error.kind, place, error.detail)
                continue
            if self._skips(item):
                continue
            path = self.images.find(item.name)
            lost += path is None
            key = str(path or self.root / item.name)
            if key in records:
                problems.add("image given twice", item.place, item.name)
                continue
            number = item.key if item.key != "" else len(records)
            record = Record(number, path or self.root / item.name, captions=item.captions)
            record.annotations = [(i, region, item.place) for i, region in enumerate(item.regions)]
            records[key] = record
        if self.images.ambiguous:
            self.remarks.append(
                f"{show_count(self.images.ambiguous, 'file name')} in several folders: the first "
                "in the order of the paths was read"
            )
        if self.found.layout in PACKED:
            self.remarks.append(
                f"images of {show_count(len(self.files), 'shard')} were unpacked below "
                f"{self.unpack_to or 'a temporary folder'}"
            )
        if not records:
            raise DataError(f"{self.files[0]}: split {self.split!r} is empty: it lists no image")
        return self._with_ids(list(records.values()))

    def _with_ids(self, records: list[Record]) -> list[Record]:
        """Ids of the files where each image has one of its own, else their numbers."""
        keys = [str(record.id) for record in records]
        if len(set(keys)) < len(keys):
            for i, record in enumerate(records):
                record.id = i
        return records

    def _skips(self, item: Listed) -> bool:
        """Whether the file of several splits says that an image is of another one."""
        if not item.split or self.split in (ALL, item.split):
            return False
        return SPLITS.get(self.split, self.split) != item.split

    def complete(self, record: Record, header: ImageHeader, problems: Problems) -> bool:
        """Rasters what words name, in the pixels of the image as its masks show them."""
        self.orient(record, header, self._annotated(record) or header.stored)
        size = (record.width, record.height)
        annotations = []
        for number, region, place in record.annotations:
            text, wrong = self._outline(region, size)
            if wrong:
                problems.add(wrong.partition(": ")[0], place, f"{region.label!r}: {wrong}")
                self.fates[wrong.partition(": ")[0]] += 1
                continue
            annotations.append(
                Written(
                    f'{{"id":{number},"label":{compact_json(region.label)},"segmentation":{text},'
                    f'"bbox":{compact_json(region.box)},"color":null}}'
                )
            )
        record.annotations = annotations
        self.notes["objects"] += len(annotations)
        self.notes["boxes_as_masks"] = self.boxed
        return True

    def _annotated(self, record: Record) -> tuple[int, int] | None:
        """(width, height) of the first mask of an image."""
        for _, region, _ in record.annotations:
            if isinstance(region.mask, dict) and isinstance(region.mask.get("size"), list):
                height, width = (*region.mask["size"], 0, 0)[:2]
                return width, height
            if isinstance(region.mask, str) and (path := self.images.find(region.mask)):
                try:
                    return read_header(path).stored
                except DataError:
                    return None
        return None

    def _outline(self, region: Region, size: tuple[int, int]) -> tuple[str, str]:
        """(the segmentation as JSON, what is wrong with it) on an image of ``size``."""
        mask = region.mask
        if isinstance(mask, str):
            return self._read_mask(mask, size)
        if mask is None and region.box is not None:
            if self.boxes != "masks":
                return "", "box without a mask: set data.boxes=masks, or give a mask"
            mask = box_polygon(region.box)
            self.boxed += 1
        return outline(mask).check(*size)

    def _read_mask(self, name: str, size: tuple[int, int]) -> tuple[str, str]:
        from pycocotools import mask as coco_mask

        path = self.images.find(name)
        if path is None:
            return "", f"mask that is not there: {name}"
        try:
            image, form = decode_image(path, as_stored=True)
            values = read_mask_image(image, form).values
        except (DataError, ValueError) as error:
            return "", f"mask that cannot be read: {path}: {error}"
        if values.shape[::-1] != size:
            height, width = values.shape
            return (
                "",
                f"mask of another size: {path} is {width}x{height}, its image {size[0]}x{size[1]}",
            )
        there = values >= 0.5
        if not there.any():
            return "", f"empty mask: {path}"
        runs = coco_mask.encode(np.asfortranarray(there.astype(np.uint8)))
        return compact_json({"size": runs["size"], "counts": runs["counts"].decode("ascii")}), ""

    def explain_lack(self, problems: Problems, limit: int | None) -> Lack | None:
        kinds = [kind for kind in problems.counts if "mask" in kind or "box" in kind]
        if kinds:
            first = problems.examples[kinds[0]][0]
            cure = "set data.boxes=masks" if "box" in kinds[0] else "give masks of the images' size"
            return Lack(f"{kinds[0]} (first: {first})", cure)
        return Lack(
            "no line has phrases with masks",
            "add phrases with masks to the lines",
        )

    # --- rows ---

    def _listed(self) -> Iterator[Listed | tuple[str, BadLine]]:
        layout = self.found.layout
        if layout == "flickr8k":
            yield from self._read_flickr8k()
        elif layout == "texts":
            yield from self._read_texts()
        elif layout == "refcoco":
            yield from self._read_refcoco()
        elif layout == "karpathy":
            yield from list_sentences(self._rows(self.files))
        elif layout in PACKED:
            yield from self._read_packed()
        else:
            for path in self.files:
                below = path.parent.relative_to(self.root).as_posix()
                for row in read_rows(path):
                    yield _try_row(row.place, row.content, below)

    def _rows(self, files: Sequence[Path]) -> Rows:
        for path in files:
            for row in read_rows(path):
                if isinstance(row.content, dict):
                    yield row.place, row.content

    def _read_packed(self) -> Iterator[Listed | tuple[str, BadLine]]:
        if self.unpack_to is None:
            self._aside = tempfile.TemporaryDirectory(prefix="unpacked-")
        root = self.unpack_to or Path(self._aside.name)  # type: ignore[union-attr]
        folder = unpack(self.files, root, self.emit)
        self.images = Images([folder])
        for line in (folder / LISTED).read_text(encoding="utf-8").splitlines():
            content = json.loads(line)
            yield _try_row(content.pop("place"), content, "")

    def _read_texts(self) -> Iterator[Listed]:
        for folder in self.files:
            texts = {path.stem: path for path in sorted(folder.glob("*.txt"))}
            for path in sorted(folder.iterdir()):
                if is_image(path.name):
                    text = texts.get(path.stem)
                    said = text.read_text(encoding="utf-8-sig") if text else ""
                    captions = [Caption(line.strip()) for line in said.split("\n") if line.strip()]
                    place = str(text or path)
                    yield Listed(path.relative_to(self.root).as_posix(), captions, place)

    def _read_flickr8k(self) -> Iterator[Listed]:
        captions, *lists = self.files
        wanted = None
        if lists:
            wanted = {
                line.strip().partition(".")[0]
                for line in lists[0].read_text(encoding="utf-8-sig").splitlines()
            }
        for stem, image in read_captions(captions, "token", Problems("skip")).items():
            if wanted is None or stem in wanted:
                texts = [Caption(text.strip()) for text in image.captions if text.strip()]
                yield Listed(f"{stem}.jpg", texts, str(captions), key=stem)

    def _read_refcoco(self) -> Iterator[Listed | tuple[str, BadLine]]:
        """Each image once, with a caption for each sentence that means one of its objects."""
        files, objects = self._instances()
        images: dict[tuple[Any, str], Listed] = {}
        for place, content in self._rows(self.files):
            key: Any = content.get("image_id")
            thing = content.get("ann_id")
            split = str(content.get("split") or "")
            sentences = content.get("sentences") or ()
            said = [
                one.get("raw") or one.get("sent") if isinstance(one, dict) else one
                for one in sentences
            ]
            texts = [text.strip() for text in said if isinstance(text, str) and text.strip()]
            if key not in files or thing not in objects or not texts:
                lacks = "image" if key not in files else "object" if texts else "sentence"
                detail = f"{lacks} {key if lacks == 'image' else thing} is not in instances.json"
                yield place, BadLine(f"{lacks} missing", detail)
                continue
            listed = images.setdefault(
                (key, split),
                Listed(
                    files[key],
                    [],
                    place,
                    key=key if isinstance(key, int) else str(key),
                    split=split,
                ),
            )
            label, segmentation, box = objects[thing]
            listed.regions.append(Region(label, segmentation, box))
            number = len(listed.regions) - 1
            listed.captions += [make_caption(t, [(0, len(t), (number,))]) for t in texts]
        yield from images.values()

    def _instances(self) -> tuple[dict[Any, str], dict[Any, tuple[str, Any, Any]]]:
        beside = self.files[0].parent / "instances.json"
        if not beside.is_file():
            raise DataError(
                f"{self.files[0]}: its objects are in instances.json, which is not beside it"
            )
        content = json.loads(beside.read_text(encoding="utf-8"))
        names = {one["id"]: one["name"] for one in content["categories"]}
        files = {one["id"]: one["file_name"] for one in content["images"]}
        objects = {
            one["id"]: (
                names.get(one["category_id"], "object"),
                one.get("segmentation"),
                one.get("bbox"),
            )
            for one in content["annotations"]
        }
        return files, objects


def _try_row(place: str, content: Any, below: str) -> Listed | tuple[str, BadLine]:
    """A row; names of files are below the folder ``below``, if they are there."""
    if isinstance(content, BadLine):
        return place, content
    try:
        listed = list_row(content, place)
    except BadLine as error:
        return place, error
    if below not in ("", "."):
        listed.name = f"{below}/{listed.name}"
        listed.regions = [
            one._replace(mask=f"{below}/{one.mask}") if isinstance(one.mask, str) else one
            for one in listed.regions
        ]
    return listed
