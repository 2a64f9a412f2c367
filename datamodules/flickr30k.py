"""Flickr30k: images and captions in any of the layouts of `formats.flickr_layouts`, and the phrases
of Entities where these are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from conf.schema import Run
from datamodules.batch import Phrase
from datamodules.captioned import CaptionedDataModule, CaptionedDataset
from datamodules.formats.flickr import FlickrReader
from datamodules.phrases.link import Links

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> Flickr30kDataModule:
    """The DataModule of a run's settings."""
    data = config.data
    return Flickr30kDataModule.from_settings(
        config, emit, layout=data.layout, split_by=data.split_by, detokenise=data.detokenise
    )


class Flickr30kDataset(CaptionedDataset):
    """Samples of one split (see `CaptionedDataset`), in the ``layout`` that is found or forced.

    ``split`` is train, val or test of those that ``split_by`` names: karpathy (29,000 / 1,014 /
    1,000) or entities (29,783 / 1,000 / 1,000). With the split ``all``, or split_by ``all``
    for any split, every image with a caption is in it. ``detokenise`` writes "a dog ." as "a
    dog.". There are no masks, no categories and no colours, so `instances` is empty; `phrases` are
    known.
    """

    reader = FlickrReader

    def linked(self, index: int, flipped: bool = False) -> Links:
        """The phrases of the image's caption, from left to right; none without Entities.

        A mask is the union of the boxes of what the phrase means: Entities has boxes only. Phrases
        without boxes, as many of scenes are, are left out, and so are those of whose boxes nothing
        is in the crop.
        """
        record, crop = self.records[index], self.crop(index, flipped)
        caption = self.caption(index)
        number = record.captions.index(caption)
        boxes = {
            region["chain"]: region["boxes"] for region in record.annotations if "boxes" in region
        }
        phrases = []
        for span in record.annotations:
            if span.get("caption") != number:
                continue
            whole = np.zeros((record.height, record.width), np.uint8)
            for x0, y0, x1, y1 in boxes[span["chain"]]:
                whole[y0:y1, x0:x1] = 1
            mask = crop.mask(whole, self.mask_share)
            if mask is not None and mask.any():
                phrases.append(
                    Phrase(
                        caption.text[span["start"] : span["end"]], span["start"], span["end"], mask
                    )
                )
        return Links(phrases, [])

    def boxed(self, index: int) -> int:
        """How many things of one image have boxes and are named by a caption."""
        return sum("boxes" in region for region in self.records[index].annotations)


class Flickr30kDataModule(CaptionedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name (see
    `CaptionedDataModule`); options: `Flickr30kDataset`."""

    kind = Flickr30kDataset
