"""Prompts made of concepts: the data of Separate-and-Enhance, which needs no image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.batch import Caption, Phrase

JOINS = (" and ", " with ")


def with_article(words: str) -> str:
    """``a`` or ``an`` before the words, by their first letter."""
    return f"{'an' if words[:1].lower() in tuple('aeiou') else 'a'} {words}"


class ConceptDataset(Dataset):
    """``length`` prompts an epoch, each of ``objects`` different concepts in random order ("a photo
    of a cat and a dog").

    The words between the last two are drawn from ``joins``; ``template`` holds {} where the
    concepts go. What a sample is follows from (seed, epoch, index) alone. Samples have ``phrases``
    without masks and no image. Raises ValueError on fewer concepts than objects, on one listed
    twice and on a template without its place.
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
    ) -> None:
        self.concepts = [" ".join(concept.split()) for concept in concepts]
        if "" in self.concepts or len({concept.lower() for concept in self.concepts}) < len(
            self.concepts
        ):
            raise ValueError(f"concepts {list(concepts)}: expected words, each concept once")
        if not 1 <= objects <= len(self.concepts):
            raise ValueError(
                f"{len(self.concepts)} concepts make no prompt of {objects} objects: name "
                f"{objects} or more"
            )
        if template.count("{}") != 1:
            raise ValueError(
                f"template {template!r} has no place for the concepts: expected one {{}} in it"
            )
        self.objects, self.length, self.seed, self.epoch = objects, length, seed, 0
        self.template, self.joins = template, tuple(joins)
        self.latents: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": index, "caption": self.caption(index).text, "phrases": self.phrases(index)}

    def caption(self, index: int) -> Caption:
        return Caption(self._compose(*self._draw(index))[0])

    def phrases(self, index: int) -> list[Phrase]:
        return self._compose(*self._draw(index))[1]

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
        }

    def digest(self) -> str:
        """Changes with everything that samples are made of."""
        facts = [*self.concepts, str(self.objects), str(self.length), self.template, *self.joins]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]

    def _compose(self, concepts: Sequence[str], join: str) -> tuple[str, list[Phrase]]:
        """The prompt, and where in it the concepts stand."""
        named, nowhere = [with_article(c) for c in concepts], torch.zeros(0, 0, dtype=torch.bool)
        objects = named[0] if len(named) == 1 else ", ".join(named[:-1]) + join + named[-1]
        text, at = self.template.replace("{}", objects), self.template.index("{}")
        phrases = []
        for concept, words in zip(concepts, named, strict=True):
            at = text.index(words, at) + len(words)
            phrases.append(Phrase(concept, at - len(concept), at, nowhere))
        return text, phrases

    def _draw(self, index: int) -> tuple[list[str], str]:
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, index]))
        concepts = [self.concepts[i] for i in rng.permutation(len(self.concepts))[: self.objects]]
        return concepts, self.joins[int(rng.integers(len(self.joins)))]
