"""What an interval says: three ways and no fourth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from reports.statistics.rounding import ROUNDING

__all__ = ["DIFFERS", "NO_DIFFERENCE", "OPEN", "Equivalence", "bound", "decision", "tost_paired"]

DIFFERS = "differs"
NO_DIFFERENCE = "no difference that matters"
OPEN = "open"


@dataclass(frozen=True)
class Equivalence:
    """``p`` is the larger of both one-sided p values: of ``mean <= -delta`` and ``>= delta``."""

    p: float
    p_low: float
    p_high: float


def decision(
    low: float,
    high: float,
    delta: float | None = None,
    *,
    mean: float | None = None,
    scale: float = 0.0,
    decimals: int | None = None,
) -> str:
    """``DIFFERS`` where the interval excludes 0, else ``NO_DIFFERENCE`` where it lies inside of
    ±``delta``, the difference that matters, else ``OPEN``.

    An interval that excludes 0 and lies inside of ±delta differs by less than matters:
    ``bound(low, high) < delta``. Without ``delta`` nothing is too small to matter. An interval that
    has no width, or is not finite, says nothing: open.

    A difference is claimed only where ``mean`` (default: the middle) is not rounding: above 1e-9
    of ``scale``, the larger value of both sides, and at least half a unit of the last of
    ``decimals`` printed digits after the point, so that no claim reads "+0.000".
    """
    if delta is not None and not delta > 0:
        raise ValueError(f"delta={delta}: expected a positive difference that matters, or None")
    if low > high:
        raise ValueError(f"low={low}, high={high}: expected low <= high")
    if not (math.isfinite(low) and math.isfinite(high)) or high - low <= ROUNDING * scale:
        return OPEN
    size = abs((low + high) / 2 if mean is None else mean)
    least = max(ROUNDING * scale, 0.0 if decimals is None else 0.5 * 10.0**-decimals * (1 - 1e-9))
    if (low > 0 or high < 0) and size >= least:
        return DIFFERS
    if delta is not None and bound(low, high) < delta:
        return NO_DIFFERENCE
    return OPEN


def bound(low: float, high: float) -> float:
    """The largest difference, in either direction, that an interval leaves open."""
    return max(abs(low), abs(high))


def tost_paired(differences: Sequence[float], delta: float) -> Equivalence:
    """Two one-sided t-tests of a mean paired difference inside of ±delta (Schuirmann 1987).

    Equivalence at 5 % is ``p < .05``; it is the same as a 90 % interval inside of ±delta, while
    ``decision`` asks it of the 95 % interval. Raises ValueError on fewer than two differences.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size < 2 or not np.isfinite(d).all() or not delta > 0:
        raise ValueError(
            f"expected two or more finite differences and delta > 0, got {list(differences)}, "
            f"{delta}"
        )
    error, mean = float(d.std(ddof=1)) / math.sqrt(d.size), float(d.mean())

    def tail(distance: float) -> float:
        """P of a t beyond distance / error."""
        if error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(special.stdtr(d.size - 1, -distance / error))

    low, high = tail(mean + delta), tail(delta - mean)
    return Equivalence(max(low, high), low, high)
