"""What training took, and how much slower a method samples: ``evaluation.costs``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("trained_parameters", "Trained parameters", "lower"),
        Metric("train_seconds", "Training", "lower", "s"),
        Metric("train_memory", "Peak memory of training", "lower", "GiB"),
        Metric("sampling_time", "Sampling time", "lower", "× the backbone's"),
    ),
    measured=lambda evaluation: evaluation.costs,
    scores_images=False,
)
