"""Flickr30k: images and captions in any of the layouts of `flickr_layouts`, and the phrases of
Entities where these are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conf.schema import Run
from datamodules.batch import Phrase
from datamodules.captioned import CaptionedDataModule, CaptionedDataset
from datamodules.formats.flickr_index import open_split

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> Flickr30kDataModule:
    """The DataModule of a run's settings."""
    data = config.data
    return Flickr30kDataModule.from_settings(
        config, emit, layout=data.layout, split_by=data.split_by, detokenise=data.detokenise
    )


class Flickr30kDataset(CaptionedDataset):
    """Samples of one split of Flickr30k below ``root`` (see `CaptionedDataset`), in the ``layout``
    that is found there or forced.

    ``split`` is train, val or test of those that ``split_by`` names: karpathy (29,000 / 1,014 /
    1,000) or entities (29,783 / 1,000 / 1,000). With the split ``all``, or split_by ``all``
    whatever the split, every image with a caption is in it. ``detokenise`` writes "a dog ." as "a
    dog.". Only the first ``limit`` images are used; captions of fewer than ``min_phrases`` noun
    phrases are left out, and images without any other. ``index_root`` keeps the index; without, it
    goes with the records. Raises DataError where nothing can be read.

    There are no masks, no categories and no colours: `instances` has nothing to give. What is known
    are `phrases`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        resolution: int,
        limit: int | None = None,
        train: bool = False,
        seed: int = 0,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        split_by: str = "karpathy",
        detokenise: bool = False,
        index_root: str | Path | None = None,
        verify: str = "header",
        on_error: str = "skip",
        flip: bool = False,
        mask_share: float = 0.5,
        emit: Callable[[str], None] | None = None,
    ) -> None:
        folder = None if index_root is None else Path(index_root)
        records = open_split(
            folder,
            Path(root),
            split,
            layout,
            split_by,
            limit,
            min_phrases,
            detokenise,
            verify,
            on_error,
            emit,
        )
        super().__init__(
            records,
            split,
            resolution,
            train,
            seed,
            flip=flip,
            mask_share=mask_share,
            on_error=on_error,
        )

    def phrases(self, index: int, flipped: bool = False) -> list[Phrase]:
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
        return phrases


class Flickr30kDataModule(CaptionedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name. ``layout`` and the
    rest: `Flickr30kDataset`."""

    kind = Flickr30kDataset

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        train_split: str = "train",
        eval_splits: Sequence[str] = ("val",),
        train_images: int | None = None,
        eval_images: int | None = None,
        batch: int = 16,
        workers: int = 0,
        seed: int = 0,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        split_by: str = "karpathy",
        detokenise: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(
            root,
            resolution,
            train_split,
            eval_splits,
            train_images,
            eval_images,
            batch,
            workers,
            seed,
            min_phrases,
            **common,
        )
        self.own = {"layout": layout, "split_by": split_by, "detokenise": detokenise}
