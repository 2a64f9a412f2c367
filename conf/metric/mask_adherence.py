"""How well objects fill their target masks: ``evaluation.follow_masks``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("mask_iou", "Mask IoU", "higher", weight="targets", delta=0.05),
        Metric("found", "Found", "higher", "share", weight="targets"),
        Metric("centre_error", "Centre error", "lower", "pixels", weight="found_targets"),
        Metric("turn_error", "Turn error", "lower", "degrees", weight="found_targets"),
        Metric(
            "orientation_error", "Orientation error", "lower", "degrees", weight="oriented_targets"
        ),
        Metric("identity", "Identity", "higher", "cosine", weight="found_targets"),
    ),
    by_split=("mask_iou",),
    conditional=(
        *("mask_iou", "found", "centre_error", "turn_error", "orientation_error", "identity"),
    ),
    measured=lambda evaluation: evaluation.follow_masks,
)
