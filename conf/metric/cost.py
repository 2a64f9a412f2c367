"""What training took, and how much slower a method samples: ``evaluation.costs``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("trained_parameters", "Trained parameters", "lower", per_image=False),
        Metric("train_seconds", "Training", "lower", "s", per_image=False),
        Metric("train_memory", "Peak memory of training", "lower", "GiB", per_image=False),
        Metric("sampling_time", "Sampling time", "lower", "× the backbone's", per_image=False),
    ),
    measured=lambda evaluation: evaluation.costs,
    scores_images=False,
)
