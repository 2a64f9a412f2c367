"""Half-widths from mean squares, for comparisons that were made and for those that are planned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.statistics.dunnett import dunnett_quantile

__all__ = ["Width", "widths_for_prompts_like_these"]


@dataclass(frozen=True)
class Width:
    """A standard error with its degrees of freedom and the quantile that holds for the family."""

    error: float
    df: float
    quantile: float

    @property
    def half(self) -> float:
        return self.quantile * self.error


def widths_for_prompts_like_these(
    inflated: float,
    noise: float,
    ms_prompt: float,
    ms_residual: float,
    nu: float,
    seeds: int,
    prompts: int,
    family: int,
    level: float,
    rho: float,
    *,
    digits: int | None = None,
) -> tuple[Width, Width]:
    """Of trainings, prompts and images, and of prompts and images alone; the wider one counts.

    ``inflated`` is F*·E and ``noise`` E, with the floor of outcomes 0 and 1; ``ms_prompt`` and
    ``ms_residual`` are B and E without it. The degrees of freedom of the first are Satterthwaite's
    (1946), at least ``nu``. Where many plans are compared, degrees of freedom are cut to so many
    ``digits``, so that plans share quantiles. Two or more seeds and prompts.
    """
    images, freedom = seeds * prompts, float((seeds - 1) * (prompts - 1))
    extra = max(0.0, ms_prompt - ms_residual)
    df, variance = float(nu), inflated + extra
    if extra > 0:
        spread = inflated**2 / nu + ms_prompt**2 / (prompts - 1) + ms_residual**2 / freedom
        df = max(df, variance**2 / spread)
    if digits is not None:
        df, freedom = max(float(nu), _cut(df, digits)), _cut(freedom, digits)
    first = dunnett_quantile(family, df, level, rho)
    second = dunnett_quantile(family, freedom, level, rho)
    return (
        Width(math.sqrt(variance / images), df, first),
        Width(math.sqrt((noise + extra) / images), freedom, second),
    )


def _cut(df: float, digits: int) -> float:
    df = min(df, 1000.0)
    unit = 10.0 ** (math.floor(math.log10(df)) + 1 - digits)
    return max(1.0, math.floor(df / unit) * unit)
