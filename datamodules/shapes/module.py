"""The embedded world as a DataModule: rendered once, then read as any COCO dataset is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.data.shapes import rendered_images
from conf.schema import Run
from datamodules.coco import CocoDataModule, CocoDataset
from datamodules.concepts import ConceptDataset
from datamodules.shapes.world import (
    COLORS,
    HELD_OUT,
    SHAPES,
    SIZE,
    SPLITS,
    named_things,
    write_dataset,
)

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> ShapesDataModule:
    """The DataModule of a run's settings. Raises ValueError for a split that is not rendered."""
    data, splits = config.data, conf.with_eval_overrides(config).evaluation.splits
    if unknown := [split for split in splits if split not in SPLITS]:
        raise ValueError(
            f"evaluation.splits names {unknown[0]!r}: this dataset has {', '.join(SPLITS)}"
        )
    root = Path(config.output) / "cache" / "shapes" if data.root == "auto" else Path(data.root)
    return ShapesDataModule(
        root,
        *rendered_images(config),
        eval_splits=splits,
        **ShapesDataModule.common_settings(config, emit),
    )


class ShapesDataset(CocoDataset):
    """Samples of one rendered split (see `CaptionedDataset`)."""

    def count_objects(self, index: int) -> int:
        """How many things the caption names."""
        return len(named_things(self.caption(index).text))

    def skills(self, index: int) -> list[str]:
        """What the caption asks for: ``binding``: two of its things differ in colour and in shape,
        so that these could be exchanged; ``count``: three things or more; ``held-out``: a
        combination that is in no training image; ``relation``: how two things lie."""
        caption = self.caption(index)
        things = named_things(caption.text)
        pairs = itertools.combinations(things, 2)
        asked = {
            "binding": any(a[0] != b[0] and a[1] != b[1] for a, b in pairs),
            "count": len(things) > 2,
            "held-out": not HELD_OUT.isdisjoint(things),
            "relation": caption.relation is not None,
        }
        return [skill for skill, needed in asked.items() if needed]


class ShapesDataModule(CocoDataModule):
    """Renders ``train`` and the evaluation splits below ``root`` when they are not there yet, then
    behaves as `CocoDataModule`."""

    kind = ShapesDataset

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
            eval_splits,
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

    def concept_dataset(
        self, concepts: Sequence[str], objects: int, length: int, seed: int, **more: Any
    ) -> ConceptDataset:
        """Raises ValueError for words that the embedded world does not know."""
        words = {*COLORS, *SHAPES}
        if unknown := [concept for concept in concepts if not set(concept.split()) <= words]:
            raise ValueError(
                f"data.concepts names {unknown[0]!r}: the embedded world knows "
                f"{', '.join(sorted(COLORS))}; {', '.join(SHAPES)}"
            )
        # The embedded world's captions of several things have no "a photo of" before them and no
        # "with" between them.
        more = {"template": "{}", "joins": (" and ",)} | more
        return ConceptDataset(concepts, objects, length, seed, **more)
