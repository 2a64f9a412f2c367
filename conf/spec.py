"""What methods, data sets and metrics declare of themselves, found by file name and readable without a heavy import.

A method is ``conf/method/NAME.py`` with a ``METHOD``, a data set ``conf/data/NAME.py`` with a ``DATA``,
a metric ``conf/metric/NAME.py`` with a ``METRIC``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conf.schema import Run

__all__ = ["DataSpec", "MethodSpec", "Metric", "MetricSpec", "data_sets", "methods", "metrics"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Metric:
    """One measured value: `key` without its prefix (`success` for `eval/success`), and which direction is better."""

    key: str
    label: str
    better: str = "higher"
    unit: str = ""

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower", "none"):
            raise ValueError(f"metric {self.key}: better={self.better!r}; expected 'higher', 'lower' or 'none'")


def _no_check(config: Run) -> None:
    """Everything is allowed."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method declares. ``check`` raises ValueError, in one line, for settings that cannot run."""

    settings: Mapping[str, type] = field(default_factory=dict)  # Section below ``method.`` -> its dataclass
    reads: tuple[str, ...] = ()  # Sections of other methods that this one reads
    data_kinds: tuple[str, ...] = ("captions",)  # Kinds of data that it trains on (see DataSpec)
    trains: Callable[[Run], bool] = lambda config: True
    needs_phrases: Callable[[Run], bool] = lambda config: False  # Whether training looks at masks of words
    fixed_after_training: tuple[str, ...] = ()  # Settings, or their beginnings, that evaluation cannot change
    check: Callable[[Run], None] = _no_check


@dataclass(frozen=True)
class DataSpec:
    """What a data set declares. ``kind`` is "captions" (images with captions), "scene" or "prompts" (no images)."""

    kind: str
    embedded: Callable[[Run], bool] = lambda config: False  # Whether these settings are the embedded world
    check: Callable[[Run], None] = _no_check


@dataclass(frozen=True)
class MetricSpec:
    """What a metric declares: the values that it gives, and whether an evaluation with these settings gives them."""

    outputs: tuple[Metric, ...]
    measured: Callable[[Any], bool] = lambda evaluation: False


def methods() -> dict[str, MethodSpec]:
    """Name -> declaration of every method."""
    return _declared("method", "METHOD")


def data_sets() -> dict[str, DataSpec]:
    """Name -> declaration of every data set."""
    return _declared("data", "DATA")


def metrics() -> dict[str, MetricSpec]:
    """Name -> declaration of every metric."""
    return _declared("metric", "METRIC")


@functools.cache
def _declared(group: str, attribute: str) -> dict[str, Any]:
    names = sorted(path.stem for path in (FOLDER / group).glob("*.py") if path.stem != "__init__")
    return {name: getattr(import_module(f"conf.{group}.{name}"), attribute) for name in names}
