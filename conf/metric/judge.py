"""What the embedded world's judge sees: ``evaluation.detector=judge``."""

from conf.spec import AT_LEAST, Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("success", "Success", "higher", "share"),
        Metric("score", "Judge's score", "higher"),
        Metric("object_rate", "Objects right", "higher", "share", weight="wanted_objects"),
        Metric("color_rate", "Colours right", "higher", "share", weight="wanted_objects"),
        Metric("shape_rate", "Shapes right", "higher", "share", weight="wanted_objects"),
        Metric("relation_rate", "Relations right", "higher", "share"),
        Metric("relation_given_success", "Relations right of right objects", "higher", "share"),
        Metric("size_rate", "Sizes right", "higher", "share"),
        Metric("pattern_rate", "Patterns right", "higher", "share"),
        Metric("count_rate", "Numbers right", "higher", "share"),
        Metric("extra_objects", "Extra objects", "lower", "per image"),
        *AT_LEAST,  # A scene has five shapes at most
    ),
    by_split=("success",),
    conditional=(
        *("relation_rate", "relation_given_success"),
        *("size_rate", "pattern_rate", "count_rate"),
        *(metric.key for metric in AT_LEAST),
    ),
    measured=lambda evaluation: evaluation.detector == "judge",
)
