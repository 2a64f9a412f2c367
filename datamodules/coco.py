"""COCO-format datasets: images, captions and instance masks from a folder and its annotation files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import Caption, Instance, Phrase
from datamodules.loading import PairedDataModule
from datamodules.noun_phrases import noun_phrases
from datamodules.phrases import link


@dataclass
class Record:
    """One image of the index: everything that the annotation files say of it, masks still encoded."""

    id: int
    path: Path
    width: int
    height: int
    captions: list[Caption] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def read_index(root: Path, split: str) -> tuple[list[Record], dict[int, str]]:
    """(records by ascending id, category names by id) of one split of a COCO layout below ``root``.

    Raises FileNotFoundError when the folder, or both annotation files, are missing.
    """
    folder = root / split
    if not folder.is_dir():
        raise FileNotFoundError(f"no images at {folder}: expected a COCO layout <root>/<split>/*.jpg; set data.root and the split names")
    files = {kind: root / "annotations" / f"{kind}_{split}.json" for kind in ("captions", "instances")}
    found = {kind: json.loads(path.read_text()) for kind, path in files.items() if path.exists()}
    if not found:
        raise FileNotFoundError(f"no annotations for split {split!r}: expected {files['captions']} or {files['instances']}")
    records: dict[int, Record] = {}
    for content in found.values():
        for image in content["images"]:
            # The file name counts, not the id: COCO pads ids differently in 2014 and in 2017.
            path = folder / image["file_name"]
            records.setdefault(image["id"], Record(image["id"], path, image["width"], image["height"]))
    for caption in found.get("captions", {}).get("annotations", []):
        text = " ".join(caption["caption"].split())
        records[caption["image_id"]].captions.append(Caption(text, caption.get("relation")))
    for annotation in found.get("instances", {}).get("annotations", []):
        # A crowd region is many objects under one mask: it is nobody's subject.
        if not annotation.get("iscrowd"):
            records[annotation["image_id"]].annotations.append(annotation)
    names = {c["id"]: c["name"] for c in found.get("instances", {}).get("categories", [])}
    return [records[i] for i in sorted(records)], names


class CocoDataset(Dataset):
    """Samples of one split: a square centre crop at ``resolution`` pixels and one of the image's captions.

    In training the caption is drawn by a generator seeded with (seed, epoch, id); in evaluation it is the first one.
    Captions of fewer than ``min_phrases`` noun phrases are left out, and images without any other.
    ``latents`` [n, C, h, w], once attached, stand in for the images. With ``with_phrases`` a sample also says which words of its caption
    mean which objects.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        resolution: int,
        limit: int | None = None,
        train: bool = False,
        seed: int = 0,
        min_phrases: int = 0,
    ) -> None:
        records, self.categories = read_index(root, split)
        if min_phrases:
            for record in records:
                record.captions[:] = [c for c in record.captions if len(noun_phrases(c.text)) >= min_phrases]
        self.records = [r for r in records if r.captions][:limit]
        if not self.records:
            of = f" of {min_phrases} noun phrases or more" if min_phrases else ""
            raise ValueError(f"split {split!r} below {root} has no image with a caption{of}")
        self.split, self.resolution, self.train, self.seed, self.epoch = split, resolution, train, seed, 0
        self.latents: Tensor | None = None
        self.with_phrases = False

    def __len__(self) -> int:
        return len(self.records)

    @property
    def encodable(self) -> int:
        """How many images there are to encode: ``image(i)`` for i below it."""
        return len(self)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        sample: dict[str, Any] = {"id": record.id, "caption": self.caption(index).text}
        if self.latents is None:
            sample["image"] = self.image(index)
        else:
            sample["latent"] = self.latents[index]
        if self.with_phrases:
            sample["phrases"] = self.phrases(index)
        return sample

    def phrases(self, index: int) -> list[Phrase]:
        """The words of the image's caption that mean its objects."""
        return link(self.caption(index).text, self.instances(index))

    def caption(self, index: int) -> Caption:
        record = self.records[index]
        if not self.train:
            return record.captions[0]
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, record.id]))
        return record.captions[int(rng.integers(len(record.captions)))]

    def image(self, index: int) -> Tensor:
        """float32 [3, resolution, resolution] in [-1, 1]."""
        return self.pixels(index).float() / 127.5 - 1

    def pixels(self, index: int) -> Tensor:
        """uint8 [3, resolution, resolution]: the centre crop, resized with PIL's bicubic filter where its size differs."""
        with Image.open(self.records[index].path) as file:
            square = file.convert("RGB").crop(self._crop(index))
        if square.size != (self.resolution, self.resolution):
            square = square.resize((self.resolution, self.resolution), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    def instances(self, index: int) -> list[Instance]:
        """The objects of one image, masks and boxes cropped and resized as the image is."""
        from pycocotools import mask as coco_mask

        record, (left, top, right, bottom) = self.records[index], self._crop(index)
        scale = self.resolution / (right - left)
        instances = []
        for annotation in record.annotations:
            rle = annotation["segmentation"]
            if isinstance(rle, list):
                rle = coco_mask.merge(coco_mask.frPyObjects(rle, record.height, record.width))
            elif isinstance(rle["counts"], list):
                rle = coco_mask.frPyObjects(rle, record.height, record.width)
            mask = torch.from_numpy(coco_mask.decode(rle)[top:bottom, left:right])
            mask = torch.nn.functional.interpolate(mask[None, None].float(), (self.resolution,) * 2, mode="area")[0, 0] >= 0.5
            x, y, w, h = annotation["bbox"]
            box = ((x - left) * scale, (y - top) * scale, (x + w - left) * scale, (y + h - top) * scale)
            label = self.categories[annotation["category_id"]]
            instances.append(Instance(label, mask, box, annotation.get("attributes", {}).get("color")))
        return instances

    def digest(self) -> str:
        """Changes with the images that are read and with how they are cropped: the key of what is cached of them."""
        facts = [f"{r.id} {r.path.name} {r.path.stat().st_size}" for r in self.records]
        return hashlib.sha256("\n".join([self.split, str(self.resolution), *facts]).encode()).hexdigest()[:12]

    def _crop(self, index: int) -> tuple[int, int, int, int]:
        record = self.records[index]
        side = min(record.width, record.height)
        left, top = (record.width - side) // 2, (record.height - side) // 2
        return left, top, left + side, top + side


class CocoDataModule(PairedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name."""

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        train_split: str = "train2017",
        eval_splits: tuple[str, ...] = ("val2017",),
        train_images: int | None = None,
        eval_images: int | None = None,
        batch: int = 16,
        workers: int = 0,
        seed: int = 0,
        min_phrases: int = 0,
    ) -> None:
        super().__init__(batch, workers, seed)
        self.root, self.resolution = Path(root), resolution
        self.train_split, self.eval_splits = train_split, tuple(eval_splits)
        self.train_images, self.eval_images, self.min_phrases = train_images, eval_images, min_phrases

    def setup(self, stage: str | None = None) -> None:
        # The Trainer calls this again: the latents attached since must stay.
        if hasattr(self, "train_set"):
            return
        self.train_set = CocoDataset(
            self.root, self.train_split, self.resolution, self.train_images, train=True, seed=self.seed, min_phrases=self.min_phrases
        )
        self.eval_sets = {s: CocoDataset(self.root, s, self.resolution, self.eval_images) for s in self.eval_splits}
