"""How often a sweep was looked at, and by what rule it ended: what that does to its intervals.

The sweep's engine writes it into the tag ``looks`` of the experiment; sweeps of earlier versions
have none, and were looked at as often as someone did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["LEVEL", "SETTLED", "read_level", "read_looks", "read_seed_counts"]

LEVEL = 0.95
SETTLED = "settled"


def read_looks(tags: Mapping[str, str]) -> dict[str, Any]:
    """``rounds`` of looks, each with its rule ``until`` ("" for none), ``planned`` numbers of seeds
    and the looks ``taken``; the ``level`` of intervals that stand now; how many ``looks`` claimed,
    and the ``error`` of that."""
    return {"rounds": [], "level": LEVEL, "looks": 0, **json.loads(tags.get("looks", "{}"))}


def read_level(tags: Mapping[str, str]) -> float:
    """Of the intervals by which answers go: a rule that stops by claims spends its 5 % on all of
    its looks."""
    return float(read_looks(tags)["level"])


def read_seed_counts(tags: Mapping[str, str]) -> dict[str, int]:
    """Cell -> how many seeds it has, of those that were settled before others."""
    counts: dict[str, int] = json.loads(tags.get("cell_seeds", "{}"))
    return counts
