"""How well objects fill their target masks: ``evaluation.follow_masks``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("mask_iou", "Mask IoU", "higher"),
        Metric("found", "Found", "higher", "share"),
        Metric("centre_error", "Centre error", "lower", "pixels"),
        Metric("turn_error", "Turn error", "lower", "degrees"),
        Metric("orientation_error", "Orientation error", "lower", "degrees"),
        Metric("identity", "Identity", "higher", "cosine"),
    ),
    by_split=("mask_iou",),
    measured=lambda evaluation: evaluation.follow_masks,
)
