"""How much a sweep measures, what it costs, and what it measures next: of all designs that are
predicted to be narrow enough, by the variances seen, the one that costs least.

More prompts of finished trials cost images alone, more seeds trainings, too. Means play no part,
so that a design does not depend on what looks like an effect.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.describe import show_count
from reports.statistics import (
    Comparison,
    best_prompts,
    half_at,
    predict_half_width,
    variances_of,
)

__all__ = [
    "UNPAID",
    "Costs",
    "Design",
    "Reading",
    "choose_next",
    "cut_to_budget",
    "idle_cells",
    "predict",
]

MARGIN = 1.1  # More prompts than predicted, so that one step more is rarely needed
STEP = 4  # Prompts of a split are added in so many
WORST = 6  # Comparisons that a prediction is made for
UNPAID = "the budget does not pay for more"
# With fewer degrees of freedom for the scatter of trainings (five seeds of five cells have so many)
# a width ends a sweep only if intervals that err so much as often are as narrow: over later looks,
# too, at least one then misses in 2 to 6 % of simulated sweeps, where without it up to 8 % do
SURE, EARLY = 16, 0.6
FOLD = 4  # Times as many prompts at once, at most, where nothing is predicted to be enough


@dataclass(frozen=True)
class Design:
    """How much is measured: seeds of each cell, and prompts of each split."""

    seeds: Mapping[str, int]
    prompts: int

    @property
    def most_seeds(self) -> int:
        return max(self.seeds.values())

    def with_seeds(self, seeds: int, kept: Collection[str] = ()) -> Design:
        """At least as many seeds in every cell but those ``kept`` as they are."""
        more = {c: n if c in kept else max(n, seeds) for c, n in self.seeds.items()}
        return dataclasses.replace(self, seeds=more)

    def with_prompts(self, prompts: int) -> Design:
        return dataclasses.replace(self, prompts=prompts)

    def describe(self) -> dict[str, Any]:
        return {"seeds": dict(self.seeds), "prompts": self.prompts}


@dataclass(frozen=True)
class Reading:
    """What one comparison of the headline says: ``low`` and ``high`` hold for all at once."""

    cell: str
    control: str
    mean: float
    low: float
    high: float
    verdict: str
    delta: float | None
    comparison: Comparison
    binary: bool = False  # Every image is right or wrong

    @property
    def half(self) -> float:
        """Half the width, before it is cut to what a share can be."""
        return self.comparison.half_prompts_like_these

    @property
    def sure_half(self) -> float:
        """Half the width that a sweep may end by. A small variance by luck must not end it: with
        few seeds that of an interval which errs less (`end_level`). Nor must an interval that is
        narrow since no outcome of 0 and 1 was seen to differ: no less than what `unseen` leaves
        open."""
        c, half = self.comparison, self.half
        if half > 0 and (level := self.end_level(len(c.seeds))) > c.level:
            half = half_at(c, level)
        return max(half, self.unseen(len(c.seeds) * c.prompts))

    def end_level(self, seeds: int) -> float:
        """Of the interval whose width ends a sweep of so many seeds."""
        c = self.comparison
        return 1 - (1 - c.level) * (EARLY if c.degrees_a_seed * (seeds - 1) < SURE else 1)

    def unseen(self, images: int) -> float:
        """The share of images that differ of which so many may show none, in any comparison of the
        family, with the error of its intervals: log(2k/α) / images."""
        if not self.binary:
            return 0.0
        return math.log(2 * self.comparison.family / (1 - self.comparison.level)) / images

    def describe(self) -> dict[str, Any]:
        names = ("cell", "control", "mean", "low", "high", "half", "verdict")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Costs:
    """Seconds of a ``training``, of an ``image`` (of a prompt, with all of its noises), and of the
    ``start`` of a trial that trains nothing. Cells in ``untrained`` are not trained.

    ``splits``: prompts in all, of one of each split. ``measured``: of this sweep's trials.
    """

    training: float
    image: float
    start: float = 0.0
    untrained: frozenset[str] = frozenset()
    splits: int = 1
    measured: bool = False

    def between(self, before: Design, after: Design) -> float:
        """What it costs to get from one design to another."""
        images = self.splits * self.image
        added = max(0, after.prompts - before.prompts) * images
        total = 0.0
        for cell, seeds in after.seeds.items():
            old = before.seeds.get(cell, 0)
            training = self.start if cell in self.untrained else self.training
            total += max(0, seeds - old) * (training + after.prompts * images)
            total += old * (self.start + added) if added else 0.0
        return total


def predict(reading: Reading, seeds: int, prompts: int) -> float:
    """Half the width with so many seeds and prompts in all, from the variances seen, that a sweep
    may end by."""
    c, least = reading.comparison, reading.unseen(seeds * prompts)
    if not reading.half > 0:
        return least
    variances, now = variances_of(c), (len(c.seeds), c.prompts)

    def half(seeds: int, prompts: int, level: float = c.level) -> float:
        return predict_half_width(
            variances, seeds, prompts, c.family, level, c.rho, c.degrees_a_seed
        )

    expected = half(*now)
    if not expected > 0:  # Noise that was not seen, of outcomes that all were alike
        return max(least, reading.half * math.sqrt(now[0] * now[1] / (seeds * prompts)))
    level = reading.end_level(seeds)
    return max(least, reading.half / expected * half(seeds, prompts, level))


def idle_cells(judged: Sequence[Reading], left: Sequence[Reading]) -> set[str]:
    """The cells of comparisons ``judged`` that are in none of those ``left``."""
    names = {name for r in judged for name in (r.cell, r.control)}
    return names - {name for r in left for name in (r.cell, r.control)}


def choose_next(
    left: Sequence[Reading],
    target: Callable[[Reading], float],
    design: Design,
    stages: Sequence[int],
    kept: Collection[str],
    costs: Costs,
    most_prompts: int | None,
) -> tuple[Design | None, str]:
    """The next design for the comparisons ``left`` to be at most as wide as their ``target``, and
    what it adds; None where all are taken that there are.

    ``stages``: numbers of seeds that may follow; ``kept``: cells that get no more; ``most_prompts``
    of a split: None where none can be added. Of designs with more seeds only the next stage is
    taken: variances are rough as long as seeds are few.
    """
    most = max(most_prompts or 0, design.prompts)
    later = sorted({stage for stage in stages if stage > design.most_seeds})
    found: list[tuple[float, Design]] = []
    for seeds in (design.most_seeds, *later):
        count = _fewest_prompts(left, target, design, seeds, most, costs.splits)
        if count is None or (seeds == design.most_seeds and count == design.prompts):
            continue
        plan = design.with_seeds(seeds, kept).with_prompts(count)
        found.append((costs.between(design, plan), plan))
    if found:
        _, plan = min(found, key=lambda pair: pair[0])
        if plan.most_seeds > design.most_seeds:
            plan = design.with_seeds(later[0], kept).with_prompts(plan.prompts)
        return plan, describe_step(design, plan)
    # Nothing is predicted to be enough: the next seeds, each with the prompts of the best split
    widest = max(left, key=lambda r: r.sure_half / max(target(r), 1e-12))
    best = best_prompts(variances_of(widest.comparison), costs.training, costs.image)
    count = int(min(most, max(design.prompts, best / costs.splits), FOLD * design.prompts))
    if not later and count == design.prompts:
        count = most
    plan = (design.with_seeds(later[0], kept) if later else design).with_prompts(count)
    if plan == design:
        prompts = show_count(design.prompts, "prompt")
        return None, f"{show_count(design.most_seeds, 'seed')} and {prompts} a split are the most"
    return plan, describe_step(design, plan)


def _fewest_prompts(
    readings: Sequence[Reading],
    target: Callable[[Reading], float],
    design: Design,
    seeds: int,
    most: int,
    splits: int,
) -> int | None:
    """The fewest prompts of a split with which all are predicted to be at their target."""
    worst = sorted(readings, key=lambda r: -r.sure_half / max(target(r), 1e-12))[:WORST]

    def enough(prompts: int) -> bool:
        return all(predict(r, seeds, prompts * splits) <= target(r) for r in worst)

    if enough(design.prompts):
        return design.prompts
    if not enough(most):
        return None
    low, high = design.prompts, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return min(most, math.ceil(high * MARGIN / STEP) * STEP)


def cut_to_budget(
    readings: Sequence[Reading], design: Design, after: Design, costs: Costs, left: float
) -> tuple[Design | None, str]:
    """``after``, or what is predicted to be narrowest of the designs between that the rest of the
    budget pays for; None where it pays for none."""
    if costs.between(design, after) <= left:
        return after, describe_step(design, after)
    plans: list[tuple[float, Design]] = []
    kept = {cell for cell, count in after.seeds.items() if count == design.seeds.get(cell)}
    for seeds in sorted({design.most_seeds, after.most_seeds}):
        more = design.with_seeds(seeds, kept)
        if costs.between(design, more) > left:
            continue
        low, high = design.prompts, max(after.prompts, design.prompts) + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = costs.between(design, more.with_prompts(middle)) <= left
            low, high = (middle, high) if fits else (low, middle)
        if seeds > design.most_seeds or low >= MARGIN * design.prompts:
            widest = max(predict(r, seeds, low * costs.splits) for r in readings)
            plans.append((widest, more.with_prompts(low)))
    if not plans:
        return None, UNPAID
    plan = min(plans, key=lambda pair: pair[0])[1]
    return plan, f"{describe_step(design, plan)}, as the budget allows"


def describe_step(before: Design, after: Design) -> str:
    parts = []
    if after.most_seeds > before.most_seeds:
        parts.append(f"seeds {before.most_seeds} → {after.most_seeds}")
    if after.prompts > before.prompts:
        parts.append(f"prompts of a split {before.prompts} → {after.prompts}")
    kept = sum(n < after.most_seeds for n in after.seeds.values())
    if kept and after.most_seeds > before.most_seeds:
        parts.append(f"{kept} settled {'cell gets' if kept == 1 else 'cells get'} no more seeds")
    return ", ".join(parts)
