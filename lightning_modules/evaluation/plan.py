"""What is drawn in an evaluation: the same prompts on the same noise for every method.

Prompts are all captions of the evaluation splits, or fewer: of images the first, in the order of
the dataset; of prompts that have tasks or categories, an even draw over these (`order_evenly`).
They are the same for every cell and seed, and fewer are the first of more; ``prompt_seed`` draws
others. Noise j of prompt i of split k under sampling seed s is seeded by (s, j, k, i) alone, so
that every cell of a sweep draws on the same noise: comparisons are paired. A prompt whose file
gives it a seed has that in the place of i: of the first split under sampling seed 0 it is the seed
of its first image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conf.describe import show_count
from conf.schema import Evaluation, Run
from conf.seeds import resolve_seeds
from datamodules.batch import Phrase
from datamodules.formats.benchmarks import Benchmark, order_evenly
from datamodules.formats.questions import Question
from datamodules.phrases.tagger import name_objects
from lightning_modules.embedded.targets import as_target
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
    # The benchmark that it belongs to, and its kind there
    benchmark: Benchmark | None = field(default=None, compare=False)
    stratum: tuple[Any, ...] = field(default=(), compare=False)
    # Which of the prompt's noises this is, from 0
    number: int = 0
    # How many objects it names, and what it asks a model to be able to do, where the data know it
    objects: int | None = field(default=None, compare=False)
    skills: tuple[str, ...] = field(default=(), compare=False)
    # Of how many parts it is made, and what its image is asked, where the data know it
    atoms: int | None = field(default=None, compare=False)
    questions: tuple[Question, ...] = field(default=(), compare=False)
    # Its place in the draw from its split: with fewer prompts the first ones are drawn
    place: int = field(default=0, compare=False)


def plan_evaluation(datamodule: Any, config: Run) -> list[Prompt]:
    """The `plan` of a run; ``config`` is that of the evaluation."""
    seeds = resolve_seeds(config)
    return plan(datamodule, config.evaluation, seeds.sampling, seeds.prompt)


def plan(
    datamodule: Any, config: Evaluation, seed: int, prompt_seed: int | None = None
) -> list[Prompt]:
    """``config.prompts`` prompts of each of ``config.splits``, by default all of all sets; ``seed``
    is that of the noise. Where fewer are asked for than there are, ``prompt_seed`` draws them; more
    with the same seed have the same ones among them.

    Raises ValueError when a split is unknown, or holds fewer than are asked for.
    """
    prompts = []
    for k, split in enumerate(config.splits or datamodule.eval_sets):
        if split not in datamodule.eval_sets:
            raise ValueError(
                f"evaluation.splits names {split!r}: this dataset has "
                f"{', '.join(datamodule.eval_sets)}"
            )
        dataset = datamodule.eval_sets[split]
        strata = dataset.strata() if hasattr(dataset, "strata") else None
        places = _draw_rows(datamodule, split, strata, config.prompts, prompt_seed)
        for i in sorted(places):
            caption, record = dataset.caption(i), dataset.records[i]
            target = (
                _target(dataset, i, caption.relation) if config.detector == "judge" else Target([])
            )
            # Their masks are as large as the images
            phrases = tuple(dataset.phrases(i)) if config.follow_masks else ()
            names = tuple(_name(dataset, i, phrase) for phrase in phrases)
            benchmark = getattr(record, "benchmark", None)
            text = caption.text
            if config.wording != "own":
                text = dataset.reword(i, config.wording)
            prompt = Prompt(
                split,
                i,
                record.id,
                text,
                target,
                0,
                phrases,
                names,
                getattr(record, "wanted", None),
                benchmark,
                strata[i] if strata else (),
                objects=_ask(dataset, "count_objects", i),
                skills=tuple(sorted(_ask(dataset, "skills", i) or ())),
                atoms=_ask(dataset, "count_atoms", i),
                questions=tuple(_ask(dataset, "questions", i) or ()),
                place=places[i],
            )
            own = getattr(record, "seed", None)
            row = i if own is None else own
            for j in range(config.noise_seeds or (benchmark.images if benchmark else 1)):
                noise = ((j * 1000 + seed) * 100 + k) * 1_000_000 + row
                prompts.append(replace(prompt, noise=noise, number=j))
    return prompts


def with_splits(config: Run, datamodule: Any) -> Run:
    """The settings with the names of the data's sets where ``evaluation.splits`` is empty."""
    evaluation = config.evaluation
    if evaluation.splits:
        return config
    return replace(config, evaluation=replace(evaluation, splits=[*datamodule.eval_sets]))


def _draw_rows(
    datamodule: Any,
    split: str,
    strata: Sequence[tuple[Any, ...]] | None,
    count: int | None,
    seed: int | None,
) -> dict[int, int]:
    """The rows of a split that are drawn -> their places in the draw."""
    have = len(datamodule.eval_sets[split])
    if count is None or count <= have:
        order: Sequence[int] = range(have)
        if strata is not None:
            order = order_evenly(strata, seed or 0)
        elif seed is not None:
            order = np.random.Generator(np.random.PCG64(seed)).permutation(have).tolist()
        return {row: place for place, row in enumerate(order[:count])}
    asked = f"evaluation.prompts={count} but split {split!r} has {have}"
    limit = datamodule.eval_limit
    if limit is not None and limit <= have:
        raise ValueError(
            f"{asked}, to which data.eval_images={limit} limits it: set data.eval_images to "
            f"{count} or higher"
        )
    raise ValueError(f"{asked} and no more: set evaluation.prompts to at most {have}, or null: all")


def find_cut(backbone: Any, prompts: Sequence[Prompt]) -> list[str]:
    """The texts, each once, that are longer than the backbone's text encoders read: their end has
    no part in the image."""
    text = getattr(backbone, "text", None)
    once = list(dict.fromkeys(prompt.text for prompt in prompts))
    return text.find_cut(once) if text else []


def shown_prompts(prompts: Sequence[Prompt], count: int) -> set[tuple[str, int]]:
    """(split, index) of the first ``count`` prompts that are drawn from each split: a report shows
    their images."""
    return {(prompt.split, prompt.index) for prompt in prompts if prompt.place < count}


def find_objects(datamodule: Any, prompts: Sequence[Prompt]) -> list[list[Phrase]]:
    """The words that name each prompt's objects: those that are wanted where the data know it, else
    its noun phrases."""
    objects: dict[tuple[str, int], list[Phrase]] = {}
    for prompt in prompts:
        key = (prompt.split, prompt.index)
        if key not in objects:
            dataset = datamodule.eval_sets[prompt.split]
            named = getattr(dataset, "objects_named", None)
            found = named(prompt.index) if named else name_objects(prompt.text)
            if any(prompt.text[one.start : one.end] != one.text for one in found):
                found = dataset.objects_in(prompt.text)  # In other words
            objects[key] = found
    return [objects[prompt.split, prompt.index] for prompt in prompts]


def check_objects(
    backbone: Any, datamodule: Any, prompts: Sequence[Prompt], fewest: int = 0
) -> None:
    """Raises ValueError on a prompt of whose objects the backbone's text encoders read none. Where
    images are steered by ``fewest`` objects, also on one that names fewer, and on one whose objects
    are not all read whole."""
    texts = [prompt.text for prompt in prompts]
    named = find_objects(datamodule, prompts)
    located, _ = backbone.text.locate_phrases(texts, named)
    for prompt, objects, asked in zip(prompts, located, named, strict=True):
        if fewest:
            check_count(prompt, len(asked), fewest)
            whole = {(phrase.start, phrase.end) for phrase in objects}
            if cut := [p.text for p in asked if (p.start, p.end) not in whole]:
                raise ValueError(
                    f"prompt {prompt.text!r} of {prompt.split!r} names {cut[0]!r} behind the first "
                    f"{backbone.text.length} tokens, which the text encoder reads: it could not be "
                    "acted on; shorten the prompt, or name its phrases in a file of your own (JSON "
                    "lines with prompt and phrases)"
                )
        if not objects:
            raise ValueError(
                f"prompt {prompt.text!r} of {prompt.split!r} names nothing that can be acted on: "
                f"expected a noun among the first {backbone.text.length} tokens, which the text "
                "encoder reads; shorten it, or leave it out"
            )


def check_count(prompt: Prompt, count: int, fewest: int) -> None:
    """Raises ValueError where the ``count`` objects of a prompt are fewer than steering needs."""
    if count < fewest:
        raise ValueError(
            f"prompt {prompt.text!r} of {prompt.split!r} names {show_count(count, 'object')}: the "
            f"losses that steer its image need {fewest} or more; add a loss that acts on one, "
            "leave the prompt out, or name its phrases in a file of your own (JSON lines with "
            "prompt and phrases)"
        )


def _ask(dataset: Any, name: str, index: int) -> Any:
    """What a data set says of a prompt, None where it does not know."""
    known = getattr(dataset, name, None)
    return known(index) if known else None


def _target(dataset: Any, index: int, relation: str | None) -> Target:
    """What a prompt asks for: what it says, where the data set can read it, else all that its image
    shows."""
    if reading := _ask(dataset, "read_prompt", index):
        return as_target(reading, dataset.caption(index).text)
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
