"""On which scale a search looks at a number: as its setting declares (``conf.fields.number``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import optuna
from optuna.distributions import FloatDistribution, IntDistribution

from conf import schema
from conf.describe import describe
from sweeps.sweep import Factor

__all__ = ["Scale", "is_logarithmic", "make_scale"]

DIGITS = 4  # Significant digits of a proposed number: what a person can read and type
DECADES = 100  # Zero has no logarithm: below it a range reaches down to this part of its end
ZERO_SHARE = 0.1  # Of such a range, on the logarithmic scale, stands for zero itself


@dataclass(frozen=True)
class Scale:
    """The range of a numeric factor. What lies below ``zero_below`` of a logarithmic one is 0."""

    distribution: FloatDistribution | IntDistribution
    zero_below: float = -math.inf

    def suggest(self, trial: optuna.trial.Trial, key: str) -> float:
        """The level that a trial proposes for the factor ``key``."""
        ends = self.distribution.low, self.distribution.high
        if isinstance(self.distribution, IntDistribution):
            return trial.suggest_int(key, *ends)
        number = trial.suggest_float(key, *ends, log=self.distribution.log)
        return 0.0 if number < self.zero_below else float(f"{number:.{DIGITS}g}")

    def number(self, level: float) -> float:
        """The number that would be proposed for a level."""
        return self.distribution.low if level < self.zero_below else level


def make_scale(factor: Factor, log: bool) -> Scale:
    """From the lowest to the highest level of a numeric factor; logarithmic with ``log``."""
    low, high = min(factor.levels), max(factor.levels)
    if all(isinstance(level, int) for level in factor.levels):
        return Scale(IntDistribution(low, high))
    if not log or high <= 0:
        return Scale(FloatDistribution(low, high))
    if low > 0:
        return Scale(FloatDistribution(low, high, log=True))
    smallest = min(high / DECADES, *(level for level in factor.levels if level > 0))
    end = smallest * (smallest / high) ** (ZERO_SHARE / (1 - ZERO_SHARE))
    return Scale(FloatDistribution(end, high, log=True), smallest)


def is_logarithmic(factor: Factor) -> bool:
    """Whether the setting of a factor declares it."""
    setting = None if factor.settings else describe(schema.Run).settings.get(factor.key)
    return setting is not None and setting.log
