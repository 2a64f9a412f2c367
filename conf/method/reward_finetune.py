"""Fine-tuning on a reward: projections of the backbone, trained on images that the untouched one
drew of training captions, each scored for its caption.

``reward_weighted`` is GORS of T2I-CompBench (arXiv 2307.06350), ``preference`` diffusion DPO (arXiv
2311.12908). What is trained on a scorer's verdicts may learn to please it alone: another one has to
measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.fields import Values, choice, embedded, number
from conf.spec import MethodSpec, data_sets

if TYPE_CHECKING:
    from conf.schema import Run

NAME, SECTION = "reward_finetune", "method.reward_finetune"
WEIGHTED: Values = {"objective": ("reward_weighted",)}
PAIRED: Values = {"objective": ("preference",)}
WORLD_SIDE = 64  # Pixels of the embedded world
MANY_STEPS = 200  # No scheduler that the project names refuses so few


@dataclass(frozen=True)
class Reward:
    """What is known of a reward before it is loaded; ``lightning_modules/methods/rewards.py`` has
    what scores."""

    # Shipped model, by its folder among the package's assets
    asset: str = ""
    # What ``evaluation.detector`` and ``vqa`` call the same model
    measures: str = ""
    # Whether it reads prompts and images of the embedded world alone
    embedded: bool = False


REWARDS = {
    "judge_reward": Reward(asset="judge_reward", embedded=True),
    "judge": Reward(asset="judge", measures="judge", embedded=True),
}


@dataclass
class RewardFinetune:
    """``method.reward_finetune``: the images that ``method.weights`` are trained on, and how."""

    # Images weighted by their reward (GORS), or pairs of images of a caption (diffusion DPO)
    objective: str = choice("reward_weighted", "preference")
    # Scores images for their captions: the embedded judge for rewards, or that which measures
    reward: str = choice(*REWARDS)
    # Number of training captions that images are drawn of: the first ones that the reward reads
    captions: int = number(128, minimum=1, maximum=10_000_000)
    # Images of each caption, from different noise
    noises: int = number(4, minimum=1, maximum=10_000)
    # Sampler steps of these images
    steps: int = embedded("backbone", number(8, minimum=1, maximum=10_000), elsewhere=30)
    # Scale of classifier-free guidance while they are drawn
    guidance: float = embedded("backbone", number(3.0, minimum=0, maximum=1000), elsewhere=7.5)
    # Images of a higher reward are trained on
    threshold: float = number(0.5, minimum=0, maximum=1e6, only_if=WEIGHTED)
    # Two images of a caption are a pair where their rewards differ by more
    margin: float = number(0.1, minimum=0, maximum=1e6, only_if=PAIRED)
    # How strongly a pair pulls, and how near to the backbone it stays (half of the released beta)
    beta: float = embedded(
        "backbone", number(500.0, log=True, above=0, maximum=1e9, only_if=PAIRED), elsewhere=2500.0
    )


def check(config: Run) -> None:
    """Raises ValueError where nothing could be learnt."""
    settings, data = config.method.reward_finetune, config.data
    reward = REWARDS[settings.reward]
    if config.method.weights.trainable == "none":
        raise ValueError(
            f"method.weights.trainable=none with method={NAME}: nothing would be trained; set "
            "attn2, or another of the denoiser's weights"
        )
    if settings.objective == "preference" and settings.noises == 1:
        raise ValueError(
            f"{SECTION}.noises=1 with objective=preference: one image of a caption makes no pair; "
            "set noises to 2 or more"
        )
    if reward.embedded and not data_sets()[data.name].embedded(config):
        raise ValueError(
            f"{SECTION}.reward={settings.reward} with data={data.name}: this judge reads captions "
            "and images of the embedded world alone; set data=shapes"
        )
    if reward.embedded and config.backbone.resolution != WORLD_SIDE:
        raise ValueError(
            f"{SECTION}.reward={settings.reward} with backbone.resolution="
            f"{config.backbone.resolution}: this judge sees images of {WORLD_SIDE} pixels alone"
        )
    for key, value, off in (("flip", data.flip, "false"), ("drop_captions", data.drop_captions, 0)):
        if value:
            raise ValueError(
                f"data.{key}={str(value).lower()} with method={NAME}: it trains on drawn images, "
                f"as they were scored; set it to {off}"
            )


def check_evaluation(config: Run, late: Run) -> None:
    """Raises ValueError where the reward would measure itself."""
    name, evaluation = config.method.reward_finetune.reward, late.evaluation
    for key in ("detector", "vqa") if evaluation.measures else ():
        if (value := getattr(evaluation, key)) == REWARDS[name].measures:
            raise ValueError(
                f"{SECTION}.reward={name} with evaluation.{key}={value}: what was trained on a "
                "judge's verdicts is not measured by the same judge; set "
                f"{SECTION}.reward=judge_reward, or another {key}"
            )


METHOD = MethodSpec(
    settings={NAME: RewardFinetune},
    reads=("weights",),
    unread=("method.weights.text_encoder",),
    data_kinds=("captions", "prompts"),
    draws_data=True,
    draws_with=lambda method: tuple(filter(None, [REWARDS[method.reward_finetune.reward].asset])),
    asks_backbone=lambda method: method.reward_finetune.steps > MANY_STEPS,
    fixed_after_training=("method.weights.", f"{SECTION}."),
    check=check,
    check_evaluation=check_evaluation,
)
