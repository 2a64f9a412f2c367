"""Prompts without images: benchmarks, lists of words and users' own files, for training on phrases
and for evaluation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from conf.describe import show_count
from conf.schema import Run
from conf.seeds import resolve_seeds
from datamodules.batch import Caption, Instance, Phrase
from datamodules.formats.benchmarks import draw_evenly
from datamodules.formats.index import DataError, Problems
from datamodules.formats.prompt_files import PromptFile, read_sources, renumber
from datamodules.formats.prompt_lines import PromptRecord
from datamodules.formats.questions import Question
from datamodules.loading import PairedDataModule
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger, load_tagger

if TYPE_CHECKING:
    from datamodules.build import Emit


def build(config: Run, emit: Emit) -> PromptDataModule:
    """The DataModule of a run's settings."""
    data = config.data
    return PromptDataModule(
        data.root,
        data.layout,
        train_prompts=data.train_images,
        eval_prompts=data.eval_images,
        min_phrases=data.min_phrases,
        on_error=data.on_error,
        tagger=load_tagger(data.tagger),
        batch=config.trainer.batch,
        workers=data.workers,
        seed=resolve_seeds(config).data,
        column=data.column,
    )


class PromptDataset(Dataset):
    """Prompts in their order, each once. Samples have no image and, ``with_phrases``, phrases
    without masks.

    ``records`` say besides what is wanted (GenEval's form), where that is known. Raises ValueError
    without any prompt.
    """

    encodable = 0  # images that could be encoded

    def __init__(
        self, records: Sequence[PromptRecord], manifest: dict[str, Any] | None = None, seed: int = 0
    ) -> None:
        if not records:
            raise ValueError("a dataset of no prompts: expected one or more")
        self.records = renumber(records)
        self.manifest = manifest or {}
        self.seed, self.epoch = seed, 0
        self.with_phrases = True
        self.latents: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"id": self.records[index].id, "caption": self.records[index].text}
        if self.with_phrases:
            sample["phrases"] = self.phrases(index)
        return sample

    def caption(self, index: int) -> Caption:
        """The prompt, and the relation of its first object to its second where just one relation is
        wanted."""
        record = self.records[index]
        include = record.wanted["include"] if record.wanted else []
        places = [thing["position"][0] for thing in include if "position" in thing]
        return Caption(record.text, places[0] if len(places) == 1 and len(include) == 2 else None)

    def phrases(self, index: int) -> list[Phrase]:
        """The words of the prompt's objects, from left to right."""
        record, nowhere = self.records[index], torch.zeros(0, 0, dtype=torch.bool)
        return [
            Phrase(record.text[start:end], start, end, nowhere) for start, end in record.phrases
        ]

    objects_named = phrases

    def instances(self, index: int) -> list[Instance]:
        """None: a prompt has no image in which its objects could be."""
        return []

    def count_objects(self, index: int) -> int | None:
        """How many objects are wanted or, where that is not known, named; None where none is."""
        record = self.records[index]
        if record.wanted:
            return sum(thing.get("count", 1) for thing in record.wanted["include"])
        return len(record.phrases) or None

    def skills(self, index: int) -> list[str]:
        """What the prompt asks for, by its file: of its questions, or category and task; with
        hyphens for blanks."""
        return ["-".join(name.split()) for name in self.records[index].skills]

    def count_atoms(self, index: int) -> int | None:
        """Of how many parts the prompt is made, as its file says, or how many questions it has;
        None without any."""
        record = self.records[index]
        return record.atoms or len(record.questions) or None

    def questions(self, index: int) -> tuple[Question, ...]:
        """What an image of the prompt is asked."""
        return self.records[index].questions

    def strata(self) -> list[tuple[str, str]]:
        """Category and task of each prompt: fewer of them are drawn evenly over these."""
        return _strata(self.records)

    def texts(self) -> list[str]:
        """Every prompt."""
        return [record.text for record in self.records]

    def digest(self) -> str:
        """Changes with everything that samples are made of."""
        facts = [
            [record.text, record.phrases, record.wanted]
            + ([] if record.seed is None else [record.seed])
            + [dataclasses.astuple(question) for question in record.questions]
            for record in self.records
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


class PromptDataModule(PairedDataModule):
    """Training batches of the prompts of all files, each once, and whole evaluation datasets by
    name.

    ``paths`` are files, folders, a data set of the hub, or "attend_and_excite", whose colours
    ``pair_seed`` draws (see `prompt_files`); ``column`` names that of prompts in tables. An
    evaluation set is a file, by its name without ending, or with ``sets="category"`` all prompts of
    a category. For training, prompts of fewer than ``min_phrases`` phrases are left out.
    ``train_prompts`` takes so many, evenly from first to last, ``eval_prompts`` so many of each
    set, drawn evenly over tasks and categories (`draw_evenly`).

    Raises DataError where no prompts are left, or two files have the same name.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        kind: str = "auto",
        sets: str = "file",
        train_prompts: int | None = None,
        eval_prompts: int | None = None,
        min_phrases: int = 0,
        keep_duplicates: bool = False,
        on_error: str = "skip",
        pair_seed: int = 0,
        tagger: Tagger = LIGHT_TAGGER,
        batch: int = 16,
        workers: int = 0,
        seed: int = 0,
        column: str = "",
    ) -> None:
        super().__init__(batch, workers, seed)
        self.column = column
        if sets not in ("file", "category"):
            raise ValueError(f"sets={sets!r}: expected file or category")
        self.paths = [paths] if isinstance(paths, str | Path) else list(paths)
        self.kind, self.sets, self.on_error, self.pair_seed = kind, sets, on_error, pair_seed
        self.train_prompts, self.eval_prompts = train_prompts, eval_prompts
        self.eval_limit, self.tagger = eval_prompts, tagger
        self.min_phrases, self.keep_duplicates = min_phrases, keep_duplicates

    def setup(self, stage: str | None = None) -> None:
        # The Trainer calls this again: what was set on the datasets since must stay.
        if hasattr(self, "train_set"):
            return
        problems = Problems(self.on_error)
        files, left = read_sources(
            self.paths,
            self.kind,
            problems,
            self.keep_duplicates,
            self.pair_seed,
            self.tagger,
            self.column,
        )
        records = [record for file in files for record in file.records]
        if not records:
            reasons = [
                f"{kind}: {where}" for kind, places in problems.examples.items() for where in places
            ]
            raise DataError(
                f"no prompts left in {', '.join(map(str, self.paths))}: "
                f"{reasons[0] if reasons else 'no file was named'}"
            )
        rich = [record for record in records if len(record.phrases) >= self.min_phrases]
        if not rich:
            raise DataError(
                f"none of {show_count(len(records), 'prompt')} has phrases enough for "
                f"data.min_phrases={self.min_phrases}: set it lower, or name the phrases"
            )
        once: dict[Any, PromptRecord] = {}
        for i, record in enumerate(rich):
            once.setdefault(i if self.keep_duplicates else (record.text, record.phrases), record)
        by_name = self._by_name(files)
        self.notes = self._describe(len(records) - len(rich), left, problems)
        self._manifest = {
            "files": [file.facts for file in files],
            "not_read": left,
            "prompts": len(records),
            "categories": dict(Counter(record.category for record in records)),
            "training": {
                "few_phrases": len(records) - len(rich),
                "duplicates_across_files": len(rich) - len(once),
            },
            "problems": problems.summary(),
            "notes": self.notes,
        }
        self.warn()
        self.train_set = PromptDataset(
            _evenly(list(once.values()), self.train_prompts), self._manifest, self.seed
        )
        self.eval_sets = {
            name: PromptDataset(self._draw(records), self._manifest, self.seed)
            for name, records in by_name.items()
        }

    def manifest(self) -> dict[str, Any]:
        """What was read: files, kinds, categories and sets with their numbers of prompts, and what
        was left out and why."""
        self.setup()
        return {**super().manifest(), **self._manifest}

    def _describe(self, poor: int, left: Sequence[str], problems: Problems) -> list[str]:
        """What a person should know of what is not trained on, or was not read."""
        notes = []
        if poor:
            notes.append(
                f"prompts of fewer than data.min_phrases={self.min_phrases} phrases are not "
                f"trained on: {poor}"
            )
        if left:
            notes.append(f"files that were not read: {len(left)} (first: {left[0]})")
        return notes + ([f"left out: {problems}"] if problems.counts else [])

    def _draw(self, records: Sequence[PromptRecord]) -> list[PromptRecord]:
        count = len(records) if self.eval_prompts is None else self.eval_prompts
        return [records[i] for i in draw_evenly(_strata(records), count)]

    def _by_name(self, files: Sequence[PromptFile]) -> dict[str, list[PromptRecord]]:
        by_name: dict[str, list[PromptRecord]] = {}
        for file in files:
            if self.sets == "file" and file.name in by_name:
                raise DataError(
                    f"{file.facts['file']}: another file is named {file.name!r}: rename "
                    "one, or set sets=category"
                )
            for record in file.records:
                by_name.setdefault(
                    file.name if self.sets == "file" else record.category, []
                ).append(record)
        return by_name


def _strata(records: Sequence[PromptRecord]) -> list[tuple[str, str]]:
    return [(record.category, record.task) for record in records]


def _evenly(records: Sequence[PromptRecord], count: int | None) -> list[PromptRecord]:
    count = len(records) if count is None else min(count, len(records))
    return [records[i * len(records) // count] for i in range(count)]
