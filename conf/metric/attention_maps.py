"""Overlap and strength of the attention maps of a prompt's objects: ``evaluation.attention``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("map_overlap", "Overlap of maps", "lower"),
        Metric("map_activation", "Weakest activation", "higher"),
    ),
    conditional=("map_overlap", "map_activation"),
    measured=lambda evaluation: evaluation.attention,
    scores_images=False,
)
