"""Numbers that are none: a metric may be NaN or infinite, and neither may pass for a number.

MLflow gives infinity back as 1.8e308, JSON has neither. So they are told apart where numbers are
stored, and said beside them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

__all__ = ["describe_undefined", "is_defined", "split_undefined"]


def is_defined(value: float) -> bool:
    """Whether a value is a number; what MLflow makes of infinity is none."""
    return math.isfinite(value) and abs(value) < sys.float_info.max


def split_undefined(
    values: Mapping[str, float], reasons: Mapping[str, str] | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """The values that are numbers, and of each other one what it is: "NaN: no image has a score",
    with the reason that ``reasons`` gives for its key."""
    defined = {key: value for key, value in values.items() if is_defined(float(value))}
    undefined = {}
    for key, value in values.items():
        if key not in defined:
            reason = (reasons or {}).get(key)
            undefined[key] = describe_undefined(value) + (f": {reason}" if reason else "")
    return defined, undefined


def describe_undefined(value: float) -> str:
    """NaN, infinite or -infinite."""
    if math.isnan(value):
        return "NaN"
    return "infinite" if value > 0 else "-infinite"
