"""What is drawn in an evaluation: the same prompts on the same noise for every method.

Prompts are the first captions of the evaluation splits, in the order of the dataset. Noise j of
prompt i of split k under run seed s is seeded by (s, j, k, i) alone, so that every cell of a sweep
draws on the same noise: comparisons are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from conf.schema import Evaluation
from datamodules.batch import Phrase
from lightning_modules.metrics.detection import Target


@dataclass(frozen=True)
class Prompt:
    """A prompt, what its image should show, and the seed of its noise."""

    split: str
    index: int
    id: int
    text: str
    target: Target  # Empty where no judge asks
    noise: int
    # Words with a place in the real image, where masks are followed
    phrases: tuple[Phrase, ...] = field(default=(), compare=False)
    # What each of these objects is in plain words
    names: tuple[str, ...] = ()
    # In GenEval's form, where the prompt's file says it
    wanted: dict[str, Any] | None = field(default=None, compare=False)


def plan(datamodule: Any, config: Evaluation, seed: int) -> list[Prompt]:
    """``config.prompts`` prompts of each split.

    Raises ValueError when a split is unknown, or holds fewer images than prompts are asked for.
    """
    prompts = []
    for k, split in enumerate(config.splits):
        if split not in datamodule.eval_sets:
            raise ValueError(
                f"evaluation.splits names {split!r}: this dataset has "
                f"{', '.join(datamodule.eval_sets)}"
            )
        dataset = datamodule.eval_sets[split]
        if len(dataset) < config.prompts:
            have = f"split {split!r} has {len(dataset)} images"
            raise ValueError(
                f"evaluation.prompts={config.prompts} but {have}: set data.eval_images higher"
            )
        for i in range(config.prompts):
            caption, record = dataset.caption(i), dataset.records[i]
            target = (
                _target(dataset, i, caption.relation) if config.detector == "judge" else Target([])
            )
            # Their masks are as large as the images
            phrases = tuple(dataset.phrases(i)) if config.follow_masks else ()
            names = tuple(_name(dataset, i, phrase) for phrase in phrases)
            wanted = getattr(record, "wanted", None)
            for j in range(config.noise_seeds):
                noise = ((j * 1000 + seed) * 100 + k) * 1_000_000 + i
                prompts.append(
                    Prompt(split, i, record.id, caption.text, target, noise, phrases, names, wanted)
                )
    return prompts


def _target(dataset: Any, index: int, relation: str | None) -> Target:
    return Target([(o.color or "", o.label) for o in dataset.instances(index)], relation)


def _name(dataset: Any, index: int, phrase: Phrase) -> str:
    """Colour and kind of the object that a phrase means; a placeholder's own words say neither."""
    same = [thing for thing in dataset.instances(index) if torch.equal(thing.mask, phrase.mask)]
    return f"{same[0].color or ''} {same[0].label}".strip() if same else phrase.text


def real_rows(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """For each split the images that the prompts were written of, each once, by their place in its
    dataset."""
    rows: dict[str, list[int]] = {}
    for split, index in dict.fromkeys((p.split, p.index) for p in prompts):
        rows.setdefault(split, []).append(index)
    return rows


def real_images(datamodule: Any, prompts: Sequence[Prompt]) -> Tensor:
    """uint8 [N, 3, H, W]: the images that the prompts were written of, each once."""
    return torch.stack(
        [
            datamodule.eval_sets[split].pixels(row)
            for split, rows in real_rows(prompts).items()
            for row in rows
        ]
    )
