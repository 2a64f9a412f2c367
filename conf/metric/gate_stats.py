"""What gates do while images are drawn, and what became of them in training; given by methods with
gates."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("gate_closed", "Gates closed", "none", "share", weight="gates_counted"),
        Metric("gates_reopened", "Gates re-opened", "none", "share", per_image=False),
        Metric("gates_shut", "Gates shut", "none", "share", per_image=False),
        Metric("gate_mask_iou", "Gate–mask IoU", "higher", per_image=False, delta=0.05),
        Metric("overhead", "UNet time", "lower", "× without gates", per_image=False),
        Metric("parameters", "Trained parameters", "lower", per_image=False),
    ),
    without={
        "gate_closed": "none of these gates is free to close: rules hold them all",
        "gates_reopened": "no free gate was closed before training",
        "gates_shut": "no free gate was open before training",
    },
    measured=lambda evaluation: True,
    scores_images=False,
    by_methods=True,
)
