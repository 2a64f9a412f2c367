"""Guidance by attention maps, without training: at chosen sampler steps the latents move along the
negative gradient of losses on the maps of a prompt's objects (Attend-and-Excite, arXiv 2301.13826).

A method of its own, and a switch of every trained one: with ``method.attention_guidance.losses``
its adapter draws under guidance. No training depends on these settings.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf.describe import nearest, show
from conf.fields import Values, choice, conditional, number
from conf.spec import MethodSpec, steering

if TYPE_CHECKING:
    from conf.schema import Method, Run

NAME, SECTION = "attention_guidance", "method.attention_guidance"
NOISE = f"{SECTION}.noise"
# Loss -> how many objects a prompt must name for it; what each one is: ``losses/objectives``
LOSSES = {
    "a_star_retention": 1,
    "a_star_segregation": 2,
    "attend_and_excite": 1,
    "center_distance": 2,
    "compactness": 2,
    "conform": 2,
    "enhance": 1,
    "initno_clean": 1,
    "initno_conflict": 2,
    "initno_response": 1,
    "iou": 2,
    "kl": 2,
    "predicated_exclusion": 2,
    "predicated_existence": 1,
    "predicated_modification": 1,
    "predicated_possession": 2,
    "self_cross": 2,
    "separate": 2,
    "syngen": 1,
}
# Those that look at where objects should be
WITH_MASKS = {"bounded_attention": 1, "boxdiff": 1, "layout": 1, "token_compose_token": 1}
LOSSES |= WITH_MASKS
# Those that compare with an earlier step, which the first noise has not
WITH_PREVIOUS = ("a_star_retention",)
OFF: Values = {"losses": ({},)}
UNGUIDED: Values = {f"{SECTION}.losses": ({},)}
AS_DRAWN: Values = {**OFF, **UNGUIDED}


@dataclass
class InitialNoise:
    """``method.attention_guidance.noise``: mean and spread of the noise that an image begins with
    are optimised before it is drawn (InitNO, arXiv 2404.04650)."""

    # Losses on the maps of the first step and their weights; {}: the noise stays as it is drawn
    losses: dict[str, float] = conditional(field(default_factory=dict), unless=UNGUIDED)
    # Loss -> what it must be below so that a noise is taken
    thresholds: dict[str, float] = conditional(field(default_factory=dict), unless=AS_DRAWN)
    # Rate of Adam's steps
    lr: float = number(0.01, log=True, above=0, maximum=1000, unless=AS_DRAWN)
    # Most steps on each noise
    steps: int = number(10, minimum=1, maximum=10_000, unless=AS_DRAWN)
    # Most noises that are drawn, one after another
    rounds: int = number(5, minimum=1, maximum=10_000, unless=AS_DRAWN)
    # Most steps on the best of them, from its beginning, where none is taken; 0: as it came out
    last_steps: int = number(50, minimum=0, maximum=10_000, unless=AS_DRAWN)
    # Largest KL divergence from standard normal noise, the mean over its numbers
    divergence: float = number(1e-3, above=0, maximum=1000, unless=AS_DRAWN)


@dataclass
class AttentionGuidance:
    """``method.attention_guidance``: how images are steered while they are drawn."""

    # Losses on the maps and their weights, e.g. {enhance: 1.0, separate: 1.0}; {}: no guidance
    losses: dict[str, float] = field(default_factory=dict)
    # How far a latent moves: times the gradient of its loss, at the denoiser's input
    step_size: float = number(20.0, log=True, above=0, maximum=1e9, unless=OFF)
    # Over the sampler's steps: the same; falling to 0; or as the root of a line from 1 to 1/2
    step_schedule: str = choice("constant", "linear", "root", unless=OFF)
    # Share of the sampler's steps before the first guided one
    start: float = number(0.0, minimum=0, maximum=1, unless=OFF)
    # Share of the sampler's steps after which none is guided
    stop: float = number(0.5, minimum=0, maximum=1, unless=OFF)
    # Moves at each guided step
    inner_steps: int = number(1, minimum=1, maximum=1000, unless=OFF)
    # Share of steps -> loss: at that step a latent moves until its loss is no higher
    thresholds: dict[str, float] = conditional(field(default_factory=dict), unless=OFF)
    # Most moves towards a threshold
    refinements: int = number(20, minimum=1, maximum=10_000, unless={"thresholds": ({},), **OFF})
    # Tokens of an object: its phrase's, its last word's (the noun), or the last one
    tokens: str = choice("phrase", "noun", "last", unless=OFF)
    # Side of the maps in pixels; the nearest that exists is used
    side: int = number(16, minimum=1, maximum=1000, unless=OFF)
    # The losses look at the mean of the heads' maps, or at each
    heads: str = choice("mean", "each", unless=OFF)
    # Side of the smoothing kernel in map pixels, odd; 1 does not smooth
    kernel: int = number(3, minimum=1, maximum=1000, unless=OFF)
    # Width of the kernel: exp(-(x/2σ)²)
    sigma: float = number(0.5, above=0, maximum=1000, unless={"kernel": (1,), **OFF})
    # Control: a random direction of the gradient's length
    direction: str = choice("gradient", "random", unless=OFF)
    # Recompute blocks for the gradient: less memory, more time
    gradient_checkpointing: bool = conditional(field(default=False), unless=OFF)
    noise: InitialNoise = field(default_factory=InitialNoise)


def steers(method: Method) -> bool:
    """Whether any loss has a weight."""
    return any(method.attention_guidance.losses.values())


def optimises_noise(method: Method) -> bool:
    """Whether any loss of the initial noise has a weight."""
    return steers(method) and any(method.attention_guidance.noise.losses.values())


def weighed(method: Method) -> list[str]:
    """The losses that have a weight, those of the initial noise among them."""
    guidance = method.attention_guidance
    pairs = [*guidance.losses.items(), *(guidance.noise.losses.items() if steers(method) else ())]
    return list(dict.fromkeys(name for name, weight in pairs if weight))


def fewest_objects(method: Method) -> int:
    """How many objects a prompt must name so that one of the losses acts on it."""
    return min((LOSSES[name] for name in weighed(method)), default=0)


def looks_at_masks(method: Method) -> bool:
    """Whether a loss with a weight does."""
    return any(name in WITH_MASKS for name in weighed(method))


def check_losses(key: str, losses: Mapping[str, float], known: Collection[str]) -> None:
    """Raises ValueError where the setting ``key`` weighs ``losses`` that are not ``known``, or with
    no weight at all."""
    if unknown := [name for name in losses if name not in known]:
        raise ValueError(
            f"{key}={show(losses)}: there is no loss {unknown[0]!r}; expected "
            f"some of {', '.join(known)}{nearest(unknown[0], known)}"
        )
    for name, weight in losses.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{key} has {name}: {weight:g}; expected a weight of at least 0")


def check(config: Run) -> None:
    """Raises ValueError where nothing would be steered, or settings do not go together."""
    guidance = config.method.attention_guidance
    check_losses(f"{SECTION}.losses", guidance.losses, LOSSES)
    if NAME not in steering(config.method):
        if config.method.name == NAME:
            raise ValueError(
                f"{SECTION}.losses={show(guidance.losses)} with method={NAME}: nothing would be "
                "steered; give a loss a weight above 0, e.g. {enhance: 1.0}"
            )
        return
    check_losses(
        f"{NOISE}.losses", guidance.noise.losses, [n for n in LOSSES if n not in WITH_PREVIOUS]
    )
    if looks_at_masks(config.method):
        _check_masks(config)
    for share, loss in guidance.thresholds.items():
        if read_share(share) is None or not math.isfinite(loss):
            raise ValueError(
                f"{SECTION}.thresholds has {share}: {loss:g}; expected a share of the sampler's "
                "steps, from 0 up to but not 1, and a loss, e.g. {0: 0.95, 0.2: 0.5}"
            )
    _check_noise(config)
    if guidance.start >= guidance.stop and not (guidance.thresholds or guidance.noise.losses):
        raise ValueError(
            f"{SECTION}.start={guidance.start:g} with stop={guidance.stop:g}: no step would be "
            "guided; set start below stop, or thresholds"
        )
    if guidance.kernel % 2 == 0 or guidance.kernel // 2 >= guidance.side:
        raise ValueError(
            f"{SECTION}.kernel={guidance.kernel} with side={guidance.side}: expected an odd number "
            f"of at most {2 * guidance.side - 1}, 1 for no smoothing"
        )


def _check_noise(config: Run) -> None:
    """Raises ValueError where a noise could not be judged by its thresholds."""
    noise = config.method.attention_guidance.noise
    if not optimises_noise(config.method):
        return
    if not noise.thresholds:
        raise ValueError(
            f"{NOISE}.losses={show(noise.losses)} with {NOISE}.thresholds={{}}: expected below "
            "which losses a noise is taken, e.g. {initno_response: 0.2, initno_conflict: 0.3}"
        )
    for name, loss in noise.thresholds.items():
        if not noise.losses.get(name) or not math.isfinite(loss):
            raise ValueError(
                f"{NOISE}.thresholds has {name}: {loss:g}; expected a number for some of the "
                f"losses that have a weight in {NOISE}.losses={show(noise.losses)}"
            )


def _check_masks(config: Run) -> None:
    """Raises ValueError where there would be no masks to look at."""
    evaluation = config.evaluation
    name = next(name for name in weighed(config.method) if name in WITH_MASKS)
    if config.method.name != NAME:
        raise ValueError(
            f"{SECTION}.losses has {name}, which looks at masks, with method={config.method.name}: "
            f"masks are given to method={NAME} alone"
        )
    if evaluation.measures and (not evaluation.follow_masks or evaluation.masks == "none"):
        given = f"evaluation.follow_masks={str(evaluation.follow_masks).lower()}"
        given += f", masks={evaluation.masks}" if evaluation.follow_masks else ""
        raise ValueError(
            f"{SECTION}.losses has {name}, which looks at masks, with {given}: set "
            "evaluation.follow_masks=true and evaluation.masks=target"
        )


def read_share(text: str) -> float | None:
    """A share of the sampler's steps, None where the text is none."""
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share < 1 else None


def undefined(method: Method) -> dict[str, str]:
    """Values that these settings do not give, and why."""
    if optimises_noise(method):
        return {}
    return {"guidance_noise": f"{NOISE}.losses={{}} leaves the noise as it is drawn"}


METHOD = MethodSpec(
    settings={NAME: AttentionGuidance},
    at_sampling=(NAME,),
    reads_alone=("evaluation.masks",),
    steers=steers,
    fewest_objects=fewest_objects,
    data_kinds=("captions", "scene", "prompts"),
    trains=lambda method: False,
    diagnoses=(NAME,),
    undefined=undefined,
    check=check,
)
