"""Differences so small that the rounding of their two sides can have made them."""

from __future__ import annotations

import numpy as np

__all__ = ["ROUNDING", "drop_rounding"]

ROUNDING = 1e-9  # Of the larger side's values


def drop_rounding(d: np.ndarray, scale: float) -> np.ndarray:
    """``d`` with 0 where it is at most 1e-9 of ``scale``, the largest value of both sides."""
    return np.where(np.abs(d) <= ROUNDING * scale, 0.0, d)
