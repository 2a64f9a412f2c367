"""GenEval's rules over the detections of a model or a file: ``evaluation.detector``."""

from conf.spec import AT_LEAST, Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("success", "Success", "higher", "share"),
        Metric("overall", "GenEval, mean of tasks", "higher", "share", weight="overall_weight"),
        Metric("tasks_mean", "Mean of the tasks judged", "higher", "share", weight="task_weight"),
        Metric("prompts_right", "Prompts right", "higher", "share", weight="prompt_weight"),
        *AT_LEAST,
    ),
    by_split=("success",),
    conditional=(
        *("success", "overall", "tasks_mean", "prompts_right"),
        *(metric.key for metric in AT_LEAST),
    ),
    measured=lambda evaluation: evaluation.detector not in ("none", "judge"),
)
