"""Two-level fractions of factorial designs, and what they cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

__all__ = ["MOST_FACTORS", "Fraction", "two_level_fraction"]

MOST_FACTORS = 10  # The search for generators takes a second there


@dataclass(frozen=True)
class Fraction:
    """A regular fraction of ``factors`` factors in 2^``base`` runs (Box, Hunter and Hunter 2005).

    ``generators``: of each factor from ``base`` on, the base factors whose sum modulo 2 it is, so
    that the run of zeros, the control, is one of the design.
    """

    factors: int
    base: int
    generators: tuple[tuple[int, ...], ...]

    @cached_property
    def runs(self) -> np.ndarray:
        """Levels 0 and 1, [2^base, factors]; the first run is the control, the base factors count
        up, the first of them fastest."""
        numbers = np.arange(2**self.base)
        columns = [numbers >> i & 1 for i in range(self.base)]
        base = np.stack(columns, axis=1)
        columns += [base[:, list(own)].sum(axis=1) % 2 for own in self.generators]
        return np.stack(columns, axis=1)

    @cached_property
    def words(self) -> tuple[tuple[int, ...], ...]:
        """The defining relation: sets of factors whose effect is one with the mean."""
        masks = [_mask(own) | 1 << self.base + i for i, own in enumerate(self.generators)]
        group = _spanned(masks)
        return tuple(sorted((_members(mask) for mask in group), key=lambda w: (len(w), w)))

    @property
    def resolution(self) -> int:
        """The length of the shortest word; a full factorial has factors + 1."""
        return min((len(word) for word in self.words), default=self.factors + 1)

    def aliases(self, effect: tuple[int, ...], most: int = 3) -> list[tuple[int, tuple[int, ...]]]:
        """Sign and factors of the effects of up to ``most`` factors that are one with ``effect``.

        As differences from the control: the estimate of ``effect`` is that effect plus or minus
        these (the control has level −1 of every factor, so that a word's sign is that of its
        length).
        """
        own, found = _mask(effect), []
        for word in self.words:
            other = _members(own ^ _mask(word))
            if 0 < len(other) <= most:
                found.append((-1 if len(word) % 2 else 1, other))
        return sorted(found, key=lambda pair: (len(pair[1]), pair[1]))


def two_level_fraction(factors: int, resolution: int) -> Fraction:
    """The smallest fraction that has at least this resolution, of least aberration (Fries and
    Hunter 1980) among those of its size: the fewest shortest words. A full factorial where no
    smaller one has it. Raises ValueError outside 2 to MOST_FACTORS factors, or resolution < 3.
    """
    if not 2 <= factors <= MOST_FACTORS or resolution < 3:
        raise ValueError(
            f"factors={factors}, resolution={resolution}: expected 2 to {MOST_FACTORS} factors and "
            "a resolution of 3 or more"
        )
    for base in range(2, factors):
        best, least = None, None
        for masks in _generators(base, factors - base, resolution):
            lengths = [word.bit_count() for word in _spanned(masks)]
            pattern = [lengths.count(size) for size in range(resolution, factors + 1)]
            if least is None or pattern < least:
                best, least = masks, pattern
        if best is not None:
            bases = 2**base - 1
            return Fraction(factors, base, tuple(_members(mask & bases) for mask in best))
    return Fraction(factors, factors, ())


def _generators(base: int, added: int, resolution: int) -> Iterator[tuple[int, ...]]:
    """Words of ``added`` factors, by rising base factors, all of whose products are long enough."""
    sizes = range(resolution - 1, base + 1)
    columns = [_mask(own) for size in sizes for own in combinations(range(base), size)]

    def extend(chosen: tuple[int, ...], group: list[int], start: int) -> Iterator[tuple[int, ...]]:
        if len(chosen) == added:
            yield chosen
            return
        for i in range(start, len(columns)):
            word = columns[i] | 1 << base + len(chosen)
            products = [word, *(word ^ other for other in group)]
            if min(product.bit_count() for product in products) >= resolution:
                yield from extend((*chosen, word), group + products, i + 1)

    yield from extend((), [], 0)


def _spanned(masks: list[int] | tuple[int, ...]) -> list[int]:
    group: list[int] = []
    for mask in masks:
        group += [mask, *(mask ^ other for other in group)]
    return group


def _mask(members: tuple[int, ...]) -> int:
    return sum(1 << member for member in members)


def _members(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
