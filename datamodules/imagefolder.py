"""Images with captions in any of the forms of `formats.listed_layouts`, with the words of captions
that have masks where the files say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.schema import Run
from datamodules.captioned import CaptionedDataModule
from datamodules.coco import PhrasedDataset
from datamodules.formats.listed_reader import ListedReader

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> ImageFolderDataModule:
    """The DataModule of a run's settings."""
    data = config.data
    return ImageFolderDataModule.from_settings(
        config,
        emit,
        layout=data.layout,
        annotations=data.annotations,
        boxes=data.boxes,
        unpack_to=Path(config.output) / "cache" / "unpacked",
    )


class ImageFolderDataset(PhrasedDataset):
    """Samples of one split, in the ``layout`` that is found or forced (see `CaptionedDataset`)."""

    reader = ListedReader


class ImageFolderDataModule(CaptionedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name (see
    `CaptionedDataModule`); options: `ListedReader`."""

    kind = ImageFolderDataset

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        train_split: str = "train",
        eval_splits: Sequence[str] = ("val",),
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(root, resolution, train_split, eval_splits, *args, **options)
