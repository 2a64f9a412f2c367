"""The embedded world as a DataModule: rendered once, then read as any COCO dataset is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.coco import CocoDataModule
from datamodules.shapes.world import SIZE, write_dataset


class ShapesDataModule(CocoDataModule):
    """Renders ``train`` and the evaluation splits below ``root`` when they are not there yet, then
    behaves as `CocoDataModule`."""

    def __init__(
        self,
        root: str | Path,
        train_images: int = 2048,
        eval_images: int = 512,
        batch: int = 16,
        workers: int = 0,
        seed: int = 0,
        min_phrases: int = 0,
        eval_splits: Sequence[str] = ("val", "heldout"),
        **common: Any,
    ) -> None:
        common = {"index_root": Path(root) / ".index", "layout": "coco", **common}
        super().__init__(
            root,
            SIZE,
            "train",
            tuple(eval_splits),
            train_images,
            eval_images,
            batch,
            workers,
            seed,
            min_phrases,
            **common,
        )

    def prepare_data(self) -> None:
        counts = {
            self.train_split: self.train_images,
            **dict.fromkeys(self.eval_splits, self.eval_images),
        }
        write_dataset(self.root, {split: count for split, count in counts.items() if count})
