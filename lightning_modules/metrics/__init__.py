"""What images are worth: detections, composition, masks, identity, distances between sets. Names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.metrics.composition import Composition
    from lightning_modules.metrics.detection import Detection, Target
    from lightning_modules.metrics.distribution import FeatureDistance
    from lightning_modules.metrics.identity import DinoFeatures, JudgeFeatures
    from lightning_modules.metrics.judge import Judge
    from lightning_modules.metrics.masks import MaskFollowing
    from lightning_modules.metrics.segmentation import ColorSegmenter, HuggingFaceSegmenter, Segmenter

__all__ = [
    "ColorSegmenter",
    "Composition",
    "Detection",
    "DinoFeatures",
    "FeatureDistance",
    "HuggingFaceSegmenter",
    "Judge",
    "JudgeFeatures",
    "MaskFollowing",
    "Segmenter",
    "Target",
]

_HOME = {
    "ColorSegmenter": "segmentation",
    "Composition": "composition",
    "Detection": "detection",
    "DinoFeatures": "identity",
    "FeatureDistance": "distribution",
    "HuggingFaceSegmenter": "segmentation",
    "Judge": "judge",
    "JudgeFeatures": "identity",
    "MaskFollowing": "masks",
    "Segmenter": "segmentation",
    "Target": "detection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
