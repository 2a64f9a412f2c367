"""What gates do while images are drawn, and what became of them in training; given by methods with
gates."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("gate_closed", "Gates closed", "none", "share"),
        Metric("gates_reopened", "Gates re-opened", "none", "share"),
        Metric("gates_shut", "Gates shut", "none", "share"),
        Metric("gate_mask_iou", "Gate–mask IoU", "higher"),
        Metric("overhead", "UNet time", "lower", "× without gates"),
        Metric("parameters", "Trained parameters", "lower"),
    ),
    measured=lambda evaluation: True,
    scores_images=False,
)
