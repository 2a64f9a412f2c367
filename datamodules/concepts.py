"""Prompts made of concepts: the data of Separate-and-Enhance, which needs no image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from conf.describe import show_count
from datamodules.batch import Caption, Phrase

JOINS = (" and ", " with ")


def with_article(words: str, article: str = "a_an") -> str:
    """``a`` or ``an`` before the words, by their first letter; always ``a`` with ``article="a"``,
    the bare words with "none"."""
    if article == "none":
        return words
    vowel = words[:1].lower() in tuple("aeiou")
    return f"{'an' if vowel and article == 'a_an' else 'a'} {words}"


class ConceptDataset(Dataset):
    """``length`` prompts an epoch, each of ``objects`` different concepts in random order ("a photo
    of a cat and a dog").

    The words between the last two are drawn from ``joins``; ``template`` holds {} where the
    concepts go, ``article`` is as in `with_article`. What a sample is follows from (seed, epoch,
    index) alone. With ``draw="batch"`` each ``batch`` samples in a row share their join and name no
    concept twice, and are to be taken in their order; with "in_order" every prompt names the
    concepts as they are listed. Samples have ``phrases`` without masks and no image. Raises
    ValueError on fewer concepts than a draw takes, on one listed twice, on no join and on a
    template without its place.
    """

    encodable = 0  # images that could be encoded
    with_phrases = True

    def __init__(
        self,
        concepts: Sequence[str],
        objects: int = 2,
        length: int = 1000,
        seed: int = 0,
        template: str = "a photo of {}",
        joins: Sequence[str] = JOINS,
        article: str = "a_an",
        draw: str = "prompt",
        batch: int = 1,
    ) -> None:
        self.concepts = [" ".join(concept.split()) for concept in concepts]
        if "" in self.concepts or len({concept.lower() for concept in self.concepts}) < len(
            self.concepts
        ):
            raise ValueError(f"concepts {list(concepts)}: expected words, each concept once")
        if not 1 <= objects <= len(self.concepts):
            raise ValueError(
                f"{show_count(len(self.concepts), 'concept')}: no prompt of "
                f"{show_count(objects, 'object')}: name {objects} or more"
            )
        if template.count("{}") != 1:
            raise ValueError(
                f"template {template!r} has no place for the concepts: expected one {{}} in it"
            )
        if not joins:
            raise ValueError("prompts of concepts without a join: expected one such as ' and '")
        check_draw(len(self.concepts), objects, draw, batch)
        self.objects, self.length, self.seed, self.epoch = objects, length, seed, 0
        self.template, self.joins, self.article = template, tuple(joins), article
        self.draw, self.batch = draw, batch
        self.latents: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": index, "caption": self.caption(index).text, "phrases": self.phrases(index)}

    def caption(self, index: int) -> Caption:
        return Caption(self._compose(*self._draw(index))[0])

    def phrases(self, index: int) -> list[Phrase]:
        return self._compose(*self._draw(index))[1]

    @property
    def in_order(self) -> bool:
        """Whether batches have to be of consecutive samples."""
        return self.draw == "batch"

    def longest(self, length: Callable[[str], int]) -> list[tuple[str, list[Phrase]]]:
        """The prompt of the concepts of greatest ``length`` with each of the joins, the longest
        concept last: a text encoder that can hold these can hold every prompt."""
        longest = sorted(self.concepts, key=length)[-self.objects :]
        return [self._compose(longest, join) for join in self.joins]

    @property
    def manifest(self) -> dict[str, Any]:
        """What prompts are made of. Fits into JSON."""
        return {
            "concepts": self.concepts,
            "objects": self.objects,
            "template": self.template,
            "joins": list(self.joins),
            "article": self.article,
            "draw": self.draw,
        }

    def digest(self) -> str:
        """Changes with everything that samples are made of."""
        facts = [*self.concepts, str(self.objects), str(self.length), self.template, *self.joins]
        facts += [self.article, self.draw, str(self.batch)]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]

    def _compose(self, concepts: Sequence[str], join: str) -> tuple[str, list[Phrase]]:
        """The prompt, and where in it the concepts stand."""
        named = [with_article(concept, self.article) for concept in concepts]
        nowhere = torch.zeros(0, 0, dtype=torch.bool)
        objects = named[0] if len(named) == 1 else ", ".join(named[:-1]) + join + named[-1]
        text, at = self.template.replace("{}", objects), self.template.index("{}")
        phrases = []
        for concept, words in zip(concepts, named, strict=True):
            at = text.index(words, at) + len(words)
            phrases.append(Phrase(concept, at - len(concept), at, nowhere))
        return text, phrases

    def _draw(self, index: int) -> tuple[list[str], str]:
        if self.draw == "in_order":
            rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, index]))
            return self.concepts, self.joins[int(rng.integers(len(self.joins)))]
        block, place = divmod(index, self.batch) if self.draw == "batch" else (index, 0)
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, block]))
        order = rng.permutation(len(self.concepts))[place * self.objects :][: self.objects]
        return [self.concepts[i] for i in order], self.joins[int(rng.integers(len(self.joins)))]


def check_draw(concepts: int, objects: int, draw: str, batch: int) -> None:
    """Raises ValueError where ``concepts`` are not as many as a draw takes."""
    if draw == "batch" and concepts < objects * batch:
        raise ValueError(
            f"{show_count(concepts, 'concept')}: a batch of {show_count(batch, 'prompt')} of "
            f"{show_count(objects, 'object')} takes {objects * batch}; name more, or draw for each "
            "prompt"
        )
    if draw == "in_order" and concepts != objects:
        raise ValueError(
            f"{show_count(concepts, 'concept')} in order: expected as many as a prompt has "
            f"objects, {objects}"
        )
