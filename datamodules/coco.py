"""Data sets in COCO's form: images, captions and instance masks, in any of the layouts of
`formats.coco_layouts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conf.schema import Run
from datamodules.batch import Instance, Phrase
from datamodules.captioned import CaptionedDataModule, CaptionedDataset
from datamodules.formats.coco_annotations import CocoReader
from datamodules.formats.coco_layouts import OFFICIAL
from datamodules.formats.masks import box_of, decode
from datamodules.formats.reader import Reader
from datamodules.phrases.link import Links

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> CocoDataModule:
    """The DataModule of a run's settings."""
    data = config.data
    return CocoDataModule.from_settings(
        config, emit, layout=data.layout, annotations=data.annotations, boxes=data.boxes
    )


class CocoDataset(CaptionedDataset):
    """Samples of one split, in the ``layout`` that is found or forced (see `CaptionedDataset`)."""

    reader: type[Reader] = CocoReader
    _decoded: tuple[int, list[np.ndarray]] | None = None

    @property
    def categories(self) -> list[str]:
        """Names by ascending category id: ids have gaps, positions in this list have none."""
        return self.records.manifest["categories"]

    def instances(
        self, index: int, flipped: bool = False, share: float | None = None
    ) -> list[Instance]:
        record, crop = self.records[index], self.crop(index, flipped)
        share = self.mask_share if share is None else share
        instances = []
        for annotation, whole in zip(record.annotations, self._decode(index), strict=True):
            mask = crop.mask(whole, share)
            if mask is not None and mask.any():
                box = crop.box(*box_of(annotation, whole)) or crop.box(*box_of({}, whole))
                # Something of the mask is in the crop
                assert box is not None
                instances.append(Instance(annotation["label"], mask, box, annotation["color"]))
        return instances

    def _decode(self, index: int) -> list[np.ndarray]:
        """The masks of an image, uint8 [H, W]; those of the last one are kept."""
        if self._decoded is None or self._decoded[0] != index:
            record = self.records[index]
            masks = [decode(a, record.width, record.height) for a in record.annotations]
            self._decoded = index, masks
        return self._decoded[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decoded": None}

    def objects(self, index: int) -> int:
        return len(self.records[index].annotations)

    def empty(self, index: int) -> int:
        return sum(not mask.any() for mask in self._decode(index))


class PhrasedDataset(CocoDataset):
    """Samples of one split whose captions say which of their words name which objects."""

    def linked(self, index: int, flipped: bool = False) -> Links:
        """The words of the image's caption that name its things, with their masks: of things that
        are named together the union. Captions that do not say which words these are, are looked at
        for the names of the objects."""
        caption, record = self.caption(index), self.records[index]
        if not caption.phrases:
            return super().linked(index, flipped)
        crop = self.crop(index, flipped)
        masks = {
            annotation["id"]: crop.mask(whole, self.mask_share)
            for annotation, whole in zip(record.annotations, self._decode(index), strict=True)
        }
        phrases = []
        for start, end, things in caption.phrases:
            seen = [mask for thing in things if (mask := masks.get(thing)) is not None]
            if seen and (mask := torch.stack(seen).any(0)).any():
                phrases.append(Phrase(caption.text[start:end], start, end, mask))
        return Links(phrases, [])


class CocoDataModule(CaptionedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name (see
    `CaptionedDataModule`); ``layout`` among the options forces one."""

    kind = CocoDataset

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        train_split: str = "train2017",
        eval_splits: Sequence[str] = ("val2017",),
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(root, resolution, train_split, eval_splits, *args, **options)

    def identities(self, dataset: CaptionedDataset) -> set[Any]:
        """Ids of images of COCO itself, the same in all its splits (2014, 2017 and Karpathy
        overlap); those of other data sets mean nothing elsewhere."""
        if dataset.manifest["layout"] == "karpathy" or OFFICIAL.fullmatch(dataset.split):
            return set(dataset.records.columns()[0])
        return set()
