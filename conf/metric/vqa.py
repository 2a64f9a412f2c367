"""What a model answers that is asked about images: ``evaluation.vqa``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("vqa_score", "VQAScore", "higher"),
        Metric("vqa_success", "All questions right", "higher", "share"),
        Metric("questions_right", "Questions right", "higher", "share"),
        Metric("questions_right_in_order", "Questions right, dependent ones", "higher", "share"),
        Metric("soft_tifa_am", "Soft-TIFA, parts", "higher"),
        Metric("soft_tifa_gm", "Soft-TIFA, prompts", "higher"),
        Metric("answers_product", "Product over questions", "higher"),
    ),
    by_split=("vqa_success",),
    conditional=(
        *("vqa_success", "questions_right", "questions_right_in_order"),
        *("soft_tifa_am", "soft_tifa_gm", "answers_product"),
    ),
    measured=lambda evaluation: evaluation.vqa != "none",
)
