"""Roots of functions of one number."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["find_root"]


def find_root(f: Callable[[float], float], low: float, high: float, xtol: float = 2e-12) -> float:
    """Where ``f`` is 0 between ``low`` and ``high``, at which its signs differ (Brent 1973)."""
    from scipy.optimize import brentq  # Slow to load, and lists of sweeps do not need it

    return float(brentq(f, low, high, xtol=xtol))
