"""What methods, data sets and metrics declare, found by file name and readable without a heavy
import.

A method is ``conf/method/NAME.py`` with a ``METHOD``, a data set ``conf/data/NAME.py`` with a
``DATA``, a metric ``conf/metric/NAME.py`` with a ``METRIC``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conf.schema import Method, Run

__all__ = ["DataSpec", "MethodSpec", "Metric", "MetricSpec", "data_sets", "methods", "metrics"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Metric:
    """One measured value: ``key`` without its prefix (``success`` for ``eval/success``), and which
    direction is better."""

    key: str
    label: str
    better: str = "higher"
    unit: str = ""

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower", "none"):
            raise ValueError(
                f"metric {self.key}: better={self.better!r}; expected 'higher', 'lower' or 'none'"
            )


def _no_check(config: Run) -> None:
    """Everything is allowed."""


def _no_late_check(config: Run, late: Run) -> None:
    """Evaluation may change everything."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method declares. ``trains`` and ``needs_phrases`` look at the settings
    ``config.method``; both checks raise ValueError, in one line, for settings that cannot run."""

    # Section below ``method.`` -> its dataclass
    settings: Mapping[str, type] = field(default_factory=dict)
    # Sections of other methods that this one reads
    reads: tuple[str, ...] = ()
    # Kinds of data that it trains on (see `DataSpec`)
    data_kinds: tuple[str, ...] = ("captions",)
    # Whether anything is trained before the evaluation
    trains: Callable[[Method], bool] = lambda method: True
    # Whether training looks at the masks of a caption's words
    needs_phrases: Callable[[Method], bool] = lambda method: False
    # Settings, or how their names begin, that evaluation cannot change
    fixed_after_training: tuple[str, ...] = ()
    # Checks the settings before anything is loaded
    check: Callable[[Run], None] = _no_check
    # Checks them beside those of the evaluation, which ``evaluate_with`` changes
    check_evaluation: Callable[[Run, Run], None] = _no_late_check

    @property
    def sections(self) -> tuple[str, ...]:
        """All sections below ``method.`` that the method depends on."""
        return (*self.settings, *self.reads)


@dataclass(frozen=True)
class DataSpec:
    """What a data set declares. ``kind`` is "captions" (images with captions), "scene" or "prompts"
    (no images)."""

    kind: str
    # Whether these settings are the embedded world
    embedded: Callable[[Run], bool] = lambda config: False
    check: Callable[[Run], None] = _no_check


@dataclass(frozen=True)
class MetricSpec:
    """What a metric declares: the values that it gives, and whether an evaluation with these
    settings gives them."""

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
