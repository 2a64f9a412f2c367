"""What images are worth: detections, composition, distances between sets. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.metrics.composition import Composition
    from lightning_modules.metrics.detection import Detection, Target
    from lightning_modules.metrics.distribution import FeatureDistance
    from lightning_modules.metrics.judge import Judge

__all__ = ["Composition", "Detection", "FeatureDistance", "Judge", "Target"]

_HOME = {"Composition": "composition", "Detection": "detection", "FeatureDistance": "distribution", "Judge": "judge", "Target": "detection"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
