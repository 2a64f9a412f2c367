"""Benchmarks of prompts as they were published: their tasks, and how many images a prompt gets."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = [
    "GENEVAL",
    "PUBLISHED",
    "Benchmark",
    "digest_texts",
    "draw_evenly",
    "order_evenly",
    "recognise",
    "t2i_compbench",
]


@dataclass(frozen=True)
class Benchmark:
    """``tasks``: task -> its number of prompts; ``images``: of each prompt."""

    name: str
    images: int
    tasks: dict[str, int] = field(hash=False)

    @property
    def prompts(self) -> int:
        """Of all tasks."""
        return sum(self.tasks.values())

    def why_not(self, counts: Mapping[str, int]) -> str:
        """Why a score over so many prompts of each task is none of this benchmark; empty where it
        is one, if perhaps of fewer prompts."""
        if missing := [task for task in self.tasks if not counts.get(task)]:
            return f"no prompts of {', '.join(missing)}"
        more = [task for task, count in counts.items() if count > self.tasks.get(task, 0)]
        return f"{', '.join(more)}: more prompts than it has" if more else ""


# Ghosh et al. 2023, evaluation_metadata.jsonl
GENEVAL = Benchmark(
    "GenEval",
    images=4,
    tasks={
        "single_object": 80,
        "two_object": 99,
        "counting": 80,
        "colors": 94,
        "position": 100,
        "color_attr": 100,
    },
)
# Digest of all its prompts (`digest_texts`) -> name, images of each prompt
PUBLISHED = {
    "c9b72ad716f4c99e": ("GenEval 2", 1),  # Kamath et al. 2025, geneval2_data.jsonl
    "ed75bf0c9a7ecd6b": ("PartiPrompts", 1),  # Yu et al. 2022, PartiPrompts.tsv
    "20eea117a339c7af": ("DSG-1k", 1),  # Cho et al. 2024, dsg-1k-anns.csv
    "76d392e5239f294b": ("TIFA v1.0", 1),  # Hu et al. 2023, tifa_v1.0_text_inputs.json
    "835793d936e83c08": ("DPG-Bench", 4),  # Hu et al. 2024, dpg_bench/prompts
    "898bc8b1deb9ae58": ("OneIG-Bench", 4),  # Chang et al. 2025, OneIG-Bench.csv
}
# Huang et al. 2023: its scores are of the validation prompts alone
T2I_VALIDATION = re.compile(
    r"(color|shape|texture|spatial|3d_spatial|numeracy|non_spatial|complex)_val"
    r"(?:_(?:seen|unseen|spatial|action|spatialaction))?"
)


def digest_texts(texts: Iterable[str]) -> str:
    """Of prompts, whatever their order and however often each is there."""
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()[:16]


def recognise(prompts: Sequence[tuple[str, str]]) -> Benchmark | None:
    """The benchmark whose prompts these (text, task) are, all of them and no other."""
    known = PUBLISHED.get(digest_texts(text for text, _ in prompts))
    return Benchmark(*known, dict(Counter(task for _, task in prompts))) if known else None


def t2i_compbench(stem: str) -> Benchmark | None:
    """T2I-CompBench's category of a file by the name ``stem``, such as color_val; None where its
    prompts are not those that the benchmark scores."""
    match = T2I_VALIDATION.fullmatch(stem.lower())
    return Benchmark("T2I-CompBench", 10, {match[1]: 300}) if match else None


def draw_evenly(strata: Sequence[Hashable], count: int, seed: int = 0) -> list[int]:
    """The first ``count`` of `order_evenly`, ascending; all indices where ``count`` is N or
    more."""
    return sorted(order_evenly(strata, seed)[:count])


def order_evenly(strata: Sequence[Hashable], seed: int = 0) -> list[int]:
    """The indices 0 … N - 1 in an order whose beginnings, however long, are even draws over
    ``strata``, N names of the stratum that each index belongs to; ``seed`` says which.

    Each stratum gives one, the largest first, then the one that has the least of its share
    (Sainte-Laguë's divisors 1, 3, 5, …, by which a longer draw takes nothing back). Within a
    stratum, in its order, a van der Corput sequence with a random digital shift: whatever was
    drawn lies evenly over the whole of it.
    """
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    rng = np.random.Generator(np.random.PCG64(seed))
    waiting: list[tuple[bool, float, int, int]] = []  # The next seat of each stratum
    spread = []
    for number, rows in enumerate(members.values()):
        spread.append([rows[i] for i in _van_der_corput(len(rows), rng)])
        waiting.append((False, -len(rows), number, 0))
    heapq.heapify(waiting)
    order = []
    while waiting:
        _, _, number, drawn = heapq.heappop(waiting)
        order.append(spread[number][drawn])
        if (drawn := drawn + 1) < len(spread[number]):
            share = len(spread[number]) / (2 * drawn + 1)
            heapq.heappush(waiting, (True, -share, number, drawn))
    return order


def _van_der_corput(count: int, rng: np.random.Generator) -> list[int]:
    """0 … ``count`` - 1 by the reversed bits of 0, 1, 2, …, shifted by random bits."""
    bits = max(count - 1, 0).bit_length()
    shift = int(rng.integers(2**bits))
    places = (int(f"{i:0{bits}b}"[::-1], 2) ^ shift for i in range(2**bits)) if bits else [0]
    return [place for place in places if place < count]
