"""Benchmarks of prompts as they were published: their tasks, and how many images a prompt gets."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

__all__ = ["GENEVAL", "Benchmark", "draw_evenly", "t2i_compbench"]


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
# Huang et al. 2023: its scores are of the validation prompts alone
T2I_VALIDATION = re.compile(
    r"(color|shape|texture|spatial|3d_spatial|numeracy|non_spatial|complex)_val"
    r"(?:_(?:seen|unseen|spatial|action|spatialaction))?"
)


def t2i_compbench(stem: str) -> Benchmark | None:
    """T2I-CompBench's category of a file by the name ``stem``, such as color_val; None where its
    prompts are not those that the benchmark scores."""
    match = T2I_VALIDATION.fullmatch(stem.lower())
    return Benchmark("T2I-CompBench", 10, {match[1]: 300}) if match else None


def draw_evenly(strata: Sequence[Hashable], count: int, seed: int = 0) -> list[int]:
    """``count`` of the indices 0 … N - 1, ascending, drawn evenly over ``strata``, N names of the
    stratum that each index belongs to.

    Each stratum gives its proportional share (rounded by the largest remainder; one at least, where
    ``count`` allows it), and of as many equal stretches of it, in its order, one index each, which
    ``seed`` draws. All indices where ``count`` is N or more.
    """
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    if count >= len(strata):
        return list(range(len(strata)))
    exact = {name: count * len(rows) / len(strata) for name, rows in members.items()}
    least = int(count >= len(members))
    shares = {name: max(least, int(share)) for name, share in exact.items()}
    while (left := count - sum(shares.values())) != 0:
        step = 1 if left > 0 else -1
        can = [name for name in shares if step > 0 or shares[name] > least]
        nearest = max(can, key=lambda name: step * (exact[name] - shares[name]))
        shares[nearest] += step
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = []
    for name, rows in members.items():
        share = shares[name]
        edges = [i * len(rows) // share for i in range(share + 1)] if share else []
        drawn += [rows[int(rng.integers(*stretch))] for stretch in pairwise(edges)]
    return sorted(drawn)
