"""What images are worth: a scorer a metric, found by file name, and what scorers are made of
(detections, features, masks, models); prompts, images on disk and figures do not belong here."""

from lightning_modules.metrics.detection import Detection, Detector, Target

__all__ = ["Detection", "Detector", "Target"]
