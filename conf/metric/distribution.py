"""How close generated images come to real ones, in the features of ``evaluation.extractor``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("fid", "FID", "lower", per_image=False),
        Metric("kid", "KID", "lower", per_image=False),
        Metric("precision", "Precision", "higher", "share", per_image=False),
        Metric("recall", "Recall", "higher", "share", per_image=False),
        Metric("density", "Density", "higher", per_image=False),
        Metric("coverage", "Coverage", "higher", "share", per_image=False),
    ),
    conditional=("density", "coverage"),
    measured=lambda evaluation: evaluation.extractor != "none",
)
