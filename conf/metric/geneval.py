"""GenEval's rules over the detections of a model or a file: ``evaluation.detector``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("success", "Success", "higher", "share"),
        Metric("overall", "GenEval, mean of tasks", "higher", "share"),
        Metric("tasks_mean", "Mean of the tasks judged", "higher", "share"),
        Metric("prompts_right", "Prompts right", "higher", "share"),
    ),
    by_split=("success",),
    measured=lambda evaluation: evaluation.detector not in ("none", "judge"),
)
