"""What images are worth: detections, composition, masks, identity, distances between sets. Names
are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.embedded.judge import Judge
    from lightning_modules.metrics.alignment import (
        Alignment,
        CaptionSimilarity,
        MatchProbability,
        Similarity,
        WeakestPart,
        attend_and_excite,
    )
    from lightning_modules.metrics.color_classifiers import (
        ClipColor,
        ColorClassifier,
        Colored,
        MeanColor,
        color_classifier,
    )
    from lightning_modules.metrics.composition import Composition, GenEval, composition_scores
    from lightning_modules.metrics.detection import Detection, Detector, Target
    from lightning_modules.metrics.detection_files import DetectionsFile, write_detections
    from lightning_modules.metrics.detectors import JudgeDetector, TransformersDetector, detector
    from lightning_modules.metrics.distribution import FeatureDistance
    from lightning_modules.metrics.features import Extractor, extractor
    from lightning_modules.metrics.geneval import geneval_correct, geneval_reasons
    from lightning_modules.metrics.identity import DinoFeatures, JudgeFeatures
    from lightning_modules.metrics.intervals import wilson
    from lightning_modules.metrics.masks import MaskFollowing
    from lightning_modules.metrics.reference import Reference
    from lightning_modules.metrics.segmentation import (
        ColorSegmenter,
        HuggingFaceSegmenter,
        Segmenter,
    )
    from lightning_modules.metrics.t2i_spatial import spatial_score, t2i_spatial
    from lightning_modules.metrics.vision_language import aligner

__all__ = [
    "Alignment",
    "CaptionSimilarity",
    "ClipColor",
    "ColorSegmenter",
    "Colored",
    "ColorClassifier",
    "Composition",
    "Detection",
    "DetectionsFile",
    "Detector",
    "DinoFeatures",
    "Extractor",
    "FeatureDistance",
    "GenEval",
    "HuggingFaceSegmenter",
    "Judge",
    "JudgeDetector",
    "JudgeFeatures",
    "MaskFollowing",
    "MatchProbability",
    "MeanColor",
    "Reference",
    "Segmenter",
    "Similarity",
    "Target",
    "TransformersDetector",
    "WeakestPart",
    "aligner",
    "attend_and_excite",
    "color_classifier",
    "composition_scores",
    "detector",
    "extractor",
    "geneval_correct",
    "geneval_reasons",
    "spatial_score",
    "t2i_spatial",
    "wilson",
    "write_detections",
]

_HOME = {
    "Alignment": "alignment",
    "CaptionSimilarity": "alignment",
    "ClipColor": "color_classifiers",
    "ColorSegmenter": "segmentation",
    "Colored": "color_classifiers",
    "ColorClassifier": "color_classifiers",
    "Composition": "composition",
    "Detection": "detection",
    "DetectionsFile": "detection_files",
    "Detector": "detectors",
    "DinoFeatures": "identity",
    "Extractor": "extractors",
    "FeatureDistance": "distribution",
    "GenEval": "composition",
    "HuggingFaceSegmenter": "segmentation",
    "Judge": "judge",
    "JudgeDetector": "detectors",
    "JudgeFeatures": "identity",
    "MaskFollowing": "masks",
    "MatchProbability": "alignment",
    "MeanColor": "color_classifiers",
    "Reference": "reference",
    "Segmenter": "segmentation",
    "Similarity": "alignment",
    "Target": "detection",
    "TransformersDetector": "detectors",
    "WeakestPart": "alignment",
    "aligner": "vision_language",
    "attend_and_excite": "alignment",
    "color_classifier": "color_classifiers",
    "composition_scores": "composition",
    "detector": "detectors",
    "extractor": "extractors",
    "geneval_correct": "geneval",
    "geneval_reasons": "geneval",
    "spatial_score": "spatial",
    "t2i_spatial": "spatial",
    "wilson": "intervals",
    "write_detections": "detection_files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
