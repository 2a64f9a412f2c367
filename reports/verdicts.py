"""What each comparison of a sweep says of a metric: three ways, and two outcomes of their own. How
it is decided: ``judging``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from reports.image_tables import ImageTable
from reports.results import CellResults, ReportedMetric
from reports.statistics import (
    DIFFERS,
    NO_DIFFERENCE,
    CellComparisons,
    Collapse,
    Comparison,
    Interval,
    Needed,
    bound,
)

__all__ = [
    "COLLAPSED",
    "IDENTICAL",
    "IMAGES_ALONE",
    "PER_SEED_T",
    "POOLED",
    "UNTRAINED",
    "MetricVerdicts",
    "Verdict",
    "name_direction",
]

COLLAPSED, IDENTICAL = "collapsed", "identical in every image"
POOLED, IMAGES_ALONE, PER_SEED_T = "pooled", "images alone", "per-seed t"
UNTRAINED = "images, nothing trained"


@dataclass(frozen=True)
class Verdict:
    """A cell less its control. ``low`` and ``high`` hold for all ``family`` comparisons at once;
    NaN where nothing gives an interval.

    ``verdict``: DIFFERS, NO_DIFFERENCE, OPEN, COLLAPSED or IDENTICAL; ``rule``: POOLED,
    IMAGES_ALONE, UNTRAINED (neither side trains anything: images are all there is) or PER_SEED_T.
    ``images``: the comparison behind it, None by the last rule, for which ``alike`` is the interval
    that supposes that cells scatter alike. ``settle``: what would settle an open one. ``decimals``:
    printed digits.
    """

    metric: ReportedMetric
    cell: str
    control: str
    mean: float
    low: float
    high: float
    verdict: str
    rule: str
    seeds: tuple[int, ...]
    prompts: int
    family: int
    level: float
    decimals: int
    half: float  # Of the interval, before a difference of shares was cut to −1 and 1
    images: Comparison | None = None
    collapse: Collapse | None = None
    settle: Needed | None = None
    alike: tuple[float, float] | None = None
    fallen: str = ""  # The cell whose trainings collapsed

    @property
    def marks(self) -> tuple[float, ...]:
        """On which side of these its interval ends decides the verdict."""
        delta = self.metric.delta
        zero = (0.0,) if self.verdict == DIFFERS else ()
        return zero if delta is None else (*zero, delta, -delta)

    @property
    def bound(self) -> float:
        """The largest difference, in either direction, that is left open."""
        return bound(self.low, self.high)

    @property
    def conclusive(self) -> bool:
        return self.verdict in (DIFFERS, NO_DIFFERENCE)

    @property
    def judged(self) -> bool:
        """Whether it rests on more than one training, or on none."""
        return len(self.seeds) > 1 or self.rule == UNTRAINED

    @property
    def matters(self) -> bool:
        """Whether a difference may be as large as matters."""
        return self.metric.delta is None or not self.bound < self.metric.delta

    @property
    def direction(self) -> str:
        """Better or worse, or higher or lower."""
        return name_direction(self.metric, self.mean)

    @property
    def missing_seeds(self) -> tuple[Any, ...]:
        return self.images.missing_seeds if self.images else ()

    @property
    def unstable(self) -> bool:
        """Whether its trainings scatter in a way of their own."""
        c = self.images
        return c is not None and c.unstable and c.own_design_effect > 1

    @property
    def interval(self) -> Interval:
        """For figures."""
        cut = self.high - self.low < 2 * self.half * (1 - 1e-9)
        uncut = self.half if cut else None
        return Interval(
            self.mean, self.low, self.high, math.nan, len(self.seeds), self.level, uncut
        )

    def turned(self) -> Verdict:
        """The control less the cell."""
        alike = self.alike and (-self.alike[1], -self.alike[0])
        return replace(
            self,
            cell=self.control,
            control=self.cell,
            mean=-self.mean,
            low=-self.high,
            high=-self.low,
            alike=alike,
        )


@dataclass(frozen=True)
class MetricVerdicts:
    """All comparisons of a metric: ``levels`` with their controls, and a family of its own,
    ``untouched``: each control less the untouched backbone.

    ``table`` and ``pooled`` are what they go by, None by the older rule; ``why`` it is that one.
    ``apart``: where each control's cells have prompts of their own, the verdicts of each, with
    their tables; then the whole has none.
    """

    metric: ReportedMetric
    levels: tuple[Verdict, ...]
    untouched: tuple[Verdict, ...]
    table: ImageTable | None = None
    pooled: CellComparisons | None = None
    why: str = ""
    untrained: frozenset[str] = frozenset()  # Cells for which nothing was trained
    apart: tuple[MetricVerdicts, ...] = ()

    @property
    def parts(self) -> tuple[MetricVerdicts, ...]:
        """What has a table of images, or one without."""
        return self.apart or (self,)

    @property
    def by_images(self) -> bool:
        return all(part.pooled is not None for part in self.parts)

    def part_of(self, cell: str) -> MetricVerdicts:
        """What a compared cell is judged in."""
        return next((p for p in self.apart if any(v.cell == cell for v in p.levels)), self)

    def table_of(self, cell: str) -> ImageTable | None:
        """The images that a compared cell is judged by."""
        return self.part_of(cell).table

    def of(self, cell: CellResults) -> Verdict | None:
        """Of a cell with its control, the untouched backbone too."""
        for verdict in self.levels:
            if verdict.cell == cell.name:
                return verdict
        turned = (verdict.turned() for verdict in self.untouched)
        return next((verdict for verdict in turned if verdict.cell == cell.name), None)


def name_direction(metric: ReportedMetric, difference: float) -> str:
    if metric.better == "none":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (metric.better == "higher") else "worse"
