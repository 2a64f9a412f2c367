"""Which code measured which number: numbers of different code never stand together.

A result says it as ``measured``: ``parts``, for each its ``code`` and the time ``at``, and ``of``,
the part that gave each value. Of an old result it is unknown, which is a code of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "DROPPED",
    "REPLACING",
    "UNKNOWN",
    "Measuring",
    "read_values",
    "select_latest",
    "stored_name",
]

UNKNOWN = "unknown"
# Tags of a run: its numbers are being replaced, and count for nothing until that is done; values
# that were measured once, and are none any more
REPLACING, DROPPED = "measured.replacing", "measured.dropped"
OTHERS = "diagnostics"  # The part that gave the values that ``of`` does not name


@dataclass(frozen=True)
class Measuring:
    """What measured the values of one trial."""

    parts: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # Name -> code, time
    of: Mapping[str, str] = field(default_factory=dict)  # Value -> its part
    started: int = 0  # Of the trial, ms since 1970: when the rest was measured

    @classmethod
    def read(cls, content: Mapping[str, Any] | None, started: int = 0) -> Measuring:
        """From the entry ``measured`` of a result."""
        if not content:
            return cls(started=started)
        parts = {name: (part["code"], part["at"]) for name, part in content["parts"].items()}
        of = {stored_name(key): part for key, part in content["of"].items()}
        return cls(parts, of, started)

    @property
    def known(self) -> bool:
        return bool(self.parts)

    def of_value(self, key: str) -> tuple[str, int]:
        """The code that measured a value, and when."""
        return self.parts.get(self.of.get(key, OTHERS), (UNKNOWN, self.started))


def stored_name(key: str) -> str:
    """The name that MLflow keeps a value under: it allows few characters."""
    return re.sub(r"[^\w./ -]", "_", key)


def read_values(metrics: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, float]:
    """The values under ``eval/`` of a run with these metrics and tags, without the prefix."""
    if REPLACING in tags:
        return {}
    dropped = tags.get(DROPPED, "").split(",")
    values = {k.removeprefix("eval/"): v for k, v in metrics.items() if k.startswith("eval/")}
    return {key: value for key, value in values.items() if key not in dropped}


def select_latest(trials: Iterable[tuple[Measuring, Iterable[str]]]) -> dict[str, str]:
    """Value -> the code that measured it last, in any of the trials, each with the keys of its
    values; unknown code came before any that is known. Only numbers of that code are comparable."""
    last: dict[str, tuple[bool, int, str]] = {}
    for measuring, keys in trials:
        for key in keys:
            code, at = measuring.of_value(key)
            last[key] = max(last.get(key, (False, -1, "")), (code != UNKNOWN, at, code))
    return {key: code for key, (_, _, code) in last.items()}
