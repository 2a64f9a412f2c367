"""How the embedded world's judge for rewards scores the images, beside what measures them:
``evaluation.metrics=[judge_reward]``. Its key begins with ``reward``, by which reports know what a
method may have been trained to please."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(Metric("reward_judge", "Reward judge's score", "higher"),),
)
