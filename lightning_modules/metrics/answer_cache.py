"""Answers that were given before, by (image, question, model): a run that was killed goes on, and
what was asked once costs nothing again.

A folder holds the answers of one model, JSON lines in a file for each process that wrote some: a
line that was cut off is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_modules.metrics.answerers import Answerer, Ask

__all__ = ["CachedAnswerer", "digest_image"]

Key = tuple[str, str]  # (digest of an image, question)


def digest_image(image: Tensor) -> str:
    """Of the pixels of an image, uint8 [3, H, W]."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


class CachedAnswerer:
    """An answerer that keeps what it says below ``root``; ``asked`` counts the answers that were
    not there."""

    def __init__(self, answerer: Answerer, root: Path) -> None:
        self.answerer, self.asked = answerer, 0
        self.label, self.template = answerer.label, answerer.template
        self.facts: dict[str, Any] = answerer.facts
        self.identity = answerer.identity
        name = hashlib.sha256(answerer.identity.encode()).hexdigest()[:16]
        self.folder = root / "answers" / name
        self.known: dict[Key, dict[str, float]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            self._read(path)
        self._own = self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def _read(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                image, question, answers = json.loads(line)
                self.known.setdefault((image, question), {}).update(answers)
            except (ValueError, TypeError):
                continue

    def probabilities(self, images: Tensor, asked: Sequence[Sequence[Ask]]) -> list[list[float]]:
        """As `Answerer`."""
        keys = [digest_image(image) for image in images]
        missing = [
            [ask for ask in dict.fromkeys(pairs) if ask[1] not in self.known.get((key, ask[0]), {})]
            for key, pairs in zip(keys, asked, strict=True)
        ]
        rows = [row for row, pairs in enumerate(missing) if pairs]
        if rows:
            found = self.answerer.probabilities(images[rows], [missing[row] for row in rows])
            self._keep([keys[row] for row in rows], [missing[row] for row in rows], found)
        return [
            [self.known[key, question][answer] for question, answer in pairs]
            for key, pairs in zip(keys, asked, strict=True)
        ]

    def _keep(
        self, keys: Sequence[str], asked: Sequence[Sequence[Ask]], found: Sequence[Sequence[float]]
    ) -> None:
        new: dict[Key, dict[str, float]] = {}
        for key, pairs, values in zip(keys, asked, found, strict=True):
            for (question, answer), value in zip(pairs, values, strict=True):
                new.setdefault((key, question), {})[answer] = value
                self.asked += 1
        for place, answers in new.items():
            self.known.setdefault(place, {}).update(answers)
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps([*place, answers]) + "\n" for place, answers in new.items())
        with open(self._own, "a", encoding="utf-8") as file:
            file.write("".join(lines))
