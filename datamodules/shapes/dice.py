"""Random numbers of the embedded world: drawn in blocks, since single calls of NumPy would take
longer than what they decide."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")
BLOCK = 64


class Dice:
    """All that it gives follows from ``key``, whole numbers from 0 on."""

    def __init__(self, *key: int) -> None:
        self._source = np.random.Generator(np.random.PCG64(key))
        self._left: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._left:
            self._left = self._source.random(BLOCK).tolist()
        return self._left.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.random()

    def chance(self, rate: float) -> bool:
        """True at this rate."""
        return self.random() < rate

    def below(self, count: int) -> int:
        """One of 0 … count - 1, all alike."""
        return int(self.random() * count)

    def pick(self, choices: Sequence[T]) -> T:
        """One of them, all alike."""
        return choices[self.below(len(choices))]

    def weigh(self, weights: Sequence[float]) -> int:
        """A place among the weights, each as likely as its share of their sum."""
        sums = [*accumulate(weights)]
        at = self.random() * sums[-1]
        return next((i for i, sum_ in enumerate(sums) if at < sum_), len(sums) - 1)

    def shuffle(self, items: MutableSequence[T]) -> None:
        """In place, every order alike (Fisher and Yates)."""
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
