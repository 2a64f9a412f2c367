"""T2I-CompBench's spatial score over what a model or a file detects: ``evaluation.detector``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("spatial", "T2I-CompBench spatial", "higher"),
        Metric("spatial_other", "Spatial score, other prompts", "higher"),
    ),
    conditional=("spatial", "spatial_other"),
    measured=lambda evaluation: evaluation.detector not in ("none", "judge"),
)
