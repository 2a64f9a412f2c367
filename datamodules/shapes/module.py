"""The embedded world as a DataModule: rendered once, then read as any COCO dataset is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from conf import load as conf
from conf.data.shapes import SPLITS, WEB, Careless, rendered_images
from conf.schema import Run
from datamodules.batch import Phrase
from datamodules.coco import CocoDataModule, PhrasedDataset
from datamodules.concepts import ConceptDataset
from datamodules.formats.questions import Question
from datamodules.shapes.dataset import write_dataset
from datamodules.shapes.questions import ask_for
from datamodules.shapes.reading import Reading, find_skills, named_things, read_prompt
from datamodules.shapes.rendering import SIZE
from datamodules.shapes.rewording import reword
from datamodules.shapes.vocabulary import COLORS, PATTERNS, SHAPES, SIZES, forms

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> ShapesDataModule:
    """The DataModule of a run's settings. Raises ValueError for a split that is not rendered."""
    data, splits = config.data, conf.with_eval_overrides(config).evaluation.splits
    if unknown := [split for split in splits if split not in SPLITS]:
        raise ValueError(
            f"evaluation.splits names {unknown[0]!r}: this dataset has {', '.join(SPLITS)}"
        )
    root = Path(data.root)
    if data.root == "auto":
        # Runs of other captions may be under way: each kind has a folder of its own
        made = conf.digest({"careless": dataclasses.asdict(data.careless), "zipf": data.zipf})
        usual = data.careless == WEB and data.zipf == 0
        root = Path(config.output) / "cache" / ("shapes" if usual else f"shapes-{made[:8]}")
    return ShapesDataModule(
        root,
        *rendered_images(config),
        eval_splits=splits,
        careless=data.careless,
        zipf=data.zipf,
        **ShapesDataModule.common_settings(config, emit),
    )


class ShapesDataset(PhrasedDataset):
    """Samples of one rendered split (see `CaptionedDataset`). What a careless caption says wrongly
    of a thing stands for that thing all the same."""

    def objects_named(self, index: int) -> list[Phrase]:
        """What the image's caption names, without masks."""
        return self.objects_in(self.caption(index).text)

    def objects_in(self, text: str) -> list[Phrase]:
        """What a prompt names, without masks."""
        nowhere = torch.zeros(0, 0, dtype=torch.bool)
        return [
            Phrase(text[said.start : said.end], said.start, said.end, nowhere)
            for said in read_prompt(text).mentions
        ]

    def reword(self, index: int, wording: str) -> str:
        """The caption in other words for the same (see `rewording`)."""
        return reword(self.caption(index).text, wording)

    def read_prompt(self, index: int) -> Reading:
        """What the caption asks for."""
        return read_prompt(self.caption(index).text)

    def count_objects(self, index: int) -> int:
        """How many things the caption names."""
        return len(named_things(self.caption(index).text))

    def questions(self, index: int) -> tuple[Question, ...]:
        """What an image of the caption is asked (see `ask_for`)."""
        return ask_for(self.read_prompt(index))

    def skills(self, index: int) -> list[str]:
        """What the caption asks for (see `find_skills`)."""
        return find_skills(self.caption(index).text)


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
        careless: Careless = WEB,
        zipf: float = 0.0,
        **common: Any,
    ) -> None:
        self.careless, self.zipf = careless, zipf
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
        wanted = {split: count for split, count in counts.items() if count}
        write_dataset(self.root, wanted, careless=self.careless, zipf=self.zipf)

    def concept_dataset(
        self, concepts: Sequence[str], objects: int, length: int, seed: int, **more: Any
    ) -> ConceptDataset:
        """Raises ValueError for words that the embedded world does not know."""
        named = (*COLORS, *SHAPES, *SIZES, *PATTERNS)
        known = {form for word in named for form in forms(word)}
        if unknown := [concept for concept in concepts if not set(concept.split()) <= known]:
            raise ValueError(
                f"data.concepts names {unknown[0]!r}: the embedded world knows "
                f"{', '.join(sorted(COLORS))}; {', '.join(SHAPES)}; {', '.join(SIZES)}; "
                f"{', '.join(PATTERNS)}"
            )
        # The embedded world's captions of several things have no "a photo of" before them and no
        # "with" between them.
        more = {"template": "{}", "joins": (" and ",)} | more
        return ConceptDataset(concepts, objects, length, seed, **more)
