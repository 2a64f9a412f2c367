"""How close generated images come to real ones, in the features of ``evaluation.extractor``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("fid", "FID", "lower"),
        Metric("kid", "KID", "lower"),
        Metric("precision", "Precision", "higher", "share"),
        Metric("recall", "Recall", "higher", "share"),
        Metric("density", "Density", "higher"),
        Metric("coverage", "Coverage", "higher", "share"),
    ),
    measured=lambda evaluation: evaluation.extractor != "none",
)
