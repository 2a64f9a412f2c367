"""Fine-tuning on attention maps: projections of the backbone, trained on a weighted sum of any
objectives (``losses/objectives``), a denoising loss and a distillation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf.describe import nearest, show
from conf.fields import Values, choice, conditional, number
from conf.method.attention_guidance import LOSSES as GUIDING
from conf.method.attention_guidance import WITH_MASKS as GUIDING_TO_MASKS
from conf.method.attention_guidance import check_losses
from conf.method.separate_enhance import check_concepts, check_images, check_trained_settings
from conf.spec import MethodSpec

if TYPE_CHECKING:
    from conf.schema import Method, Run

NAME, SECTION = "finetune", "method.finetune"
# Those that look at where objects should be, and how many a prompt must name
WITH_MASKS = {**GUIDING_TO_MASKS, "token_compose_pixel": 1}
# All, with the same; a training step has no sampler's step before it
LOSSES = {k: n for k, n in (GUIDING | WITH_MASKS).items() if k != "a_star_retention"}
MOST_PIXELS = 1000  # Along a side of maps
OFF: Values = {"losses": ({},)}
UNDISTILLED: Values = {"distillation_weight": (0,)}


@dataclass
class Finetune:
    """``method.finetune``: what the projections ``method.weights`` are trained on."""

    # Losses on the maps and their weights, e.g. {enhance: 0.5, separate: 1.0}
    losses: dict[str, float] = field(default_factory=dict)
    # Weight of the denoising loss, which needs images
    denoising_weight: float = number(0.0, log=True, minimum=0, maximum=1e6)
    # Weight of the distance to the backbone's prediction on prompts of one object
    distillation_weight: float = number(0.0, log=True, minimum=0, maximum=1e6)
    # Joint: one of the step's losses; own: a second optimiser step each step, with own noise
    distillation_step: str = choice("joint", "own", unless=UNDISTILLED)
    # Which of a prompt's objects those prompts name
    distillation_object: str = choice("random", "first", unless=UNDISTILLED)
    # Before it: a or an, or always a
    distillation_article: str = choice("a_an", "a", unless=UNDISTILLED)
    # Input of the denoiser: noised noise, or noised images
    inputs: str = choice("noise", "images")
    # What is an object: words that the data set links to one, or any noun phrase
    objects: str = choice("linked", "nouns")
    # Tokens of an object: its phrase's, its last word's (the noun), or the last one
    tokens: str = choice("phrase", "noun", "last", unless=OFF)
    # The losses look at the mean of the heads' maps, or at each
    heads: str = choice("mean", "each", unless=OFF)
    # Sides of the maps in pixels, of each the nearest that exists; losses are summed over them
    sides: list[int] = conditional(field(default_factory=lambda: [16]), unless=OFF)
    # Of all layers, or of those of the bridge and the decoder
    placement: str = choice("all", "decoder", unless=OFF)
    # Losses that look at each layer's maps, summed; the others look at the mean of those of a side
    by_layer: list[str] = conditional(field(default_factory=list), unless=OFF)
    # Side of the smoothing kernel in map pixels, odd; 1 does not smooth
    kernel: int = number(3, minimum=1, maximum=MOST_PIXELS, unless=OFF)
    # Width of the kernel: exp(-(x/2σ)²)
    sigma: float = number(0.5, above=0, maximum=1000, unless={"kernel": (1,), **OFF})
    # Steps of training on each prompt before it is drawn; 0 trains beforehand instead
    test_time: int = number(0, minimum=0, maximum=10_000)


def list_losses(method: Method) -> list[str]:
    """The losses with a weight."""
    return [name for name, weight in method.finetune.losses.items() if weight]


def looks_at_masks(method: Method) -> bool:
    """Whether one of them looks at masks."""
    return any(name in WITH_MASKS for name in list_losses(method))


def most_objects(method: Method) -> int:
    """How many objects a caption must name so that each of them acts on it."""
    return max((LOSSES[name] for name in list_losses(method)), default=0)


def check(config: Run) -> None:
    """Raises ValueError where nothing would be trained, or losses and data do not go together."""
    tuning = config.method.finetune
    check_losses(f"{SECTION}.losses", tuning.losses, LOSSES)
    losses = list_losses(config.method)
    if not losses and not tuning.denoising_weight and not tuning.distillation_weight:
        raise ValueError(
            f"{SECTION}.losses={show(tuning.losses)} with denoising_weight=0 and "
            "distillation_weight=0: nothing would be trained; give a loss a weight above 0, e.g. "
            "{enhance: 0.5, separate: 1.0}"
        )
    if config.method.weights.trainable == "none":
        raise ValueError(
            f"method.weights.trainable=none with method={NAME}: nothing would be trained; set k, "
            "or another of the denoiser's weights"
        )
    if tuning.denoising_weight and tuning.inputs == "noise":
        raise ValueError(
            f"{SECTION}.denoising_weight={tuning.denoising_weight:g} with inputs=noise: there is "
            f"no image to denoise; set {SECTION}.inputs=images, or the weight to 0"
        )
    _check_masks(config)
    _check_maps(config)
    check_images(config, f"{SECTION}.inputs={tuning.inputs}", tuning.inputs == "images", "noise")
    if tuning.test_time and tuning.inputs == "images":
        raise ValueError(
            f"{SECTION}.test_time={tuning.test_time} with inputs=images: a prompt has no image; "
            "set inputs=noise, or test_time=0"
        )
    if config.data.concepts:
        _check_concepts(config)


def _check_masks(config: Run) -> None:
    """Raises ValueError where a loss would find no masks, or those of another image."""
    tuning = config.method.finetune
    looking = [name for name in list_losses(config.method) if name in WITH_MASKS]
    for key, value, cure in (("inputs", "noise", "images"), ("objects", "nouns", "linked")):
        if looking and getattr(tuning, key) == value:
            raise ValueError(
                f"{SECTION}.losses has {looking[0]}, which looks at masks, with {key}={value}: "
                f"masks are those of an image's objects; set {SECTION}.{key}={cure}, on data with "
                "masks, or leave the loss out"
            )


def _check_maps(config: Run) -> None:
    """Raises ValueError for maps that there are not, or that cannot be smoothed."""
    tuning, losses = config.method.finetune, list_losses(config.method)
    wrong = [side for side in tuning.sides if not 1 <= side <= MOST_PIXELS]
    if losses and (wrong or not tuning.sides):
        raise ValueError(
            f"{SECTION}.sides={show(tuning.sides)}: expected sides of maps in "
            f"pixels, from 1 to {MOST_PIXELS}, e.g. [16]"
        )
    if losses and (tuning.kernel % 2 == 0 or tuning.kernel // 2 >= min(tuning.sides)):
        raise ValueError(
            f"{SECTION}.kernel={tuning.kernel} with sides={show(tuning.sides)}: expected an odd "
            f"number of at most {2 * min(tuning.sides) - 1}, 1 for no smoothing"
        )
    if unknown := [name for name in tuning.by_layer if name not in LOSSES]:
        raise ValueError(
            f"{SECTION}.by_layer={show(tuning.by_layer)}: there is no loss {unknown[0]!r}; name "
            f"some of {SECTION}.losses={show(tuning.losses)}{nearest(unknown[0], LOSSES)}"
        )


def _check_concepts(config: Run) -> None:
    """Raises ValueError where prompts made of words do not suit the losses."""
    check_concepts(config)
    data, fewest = config.data, most_objects(config.method)
    if data.objects < fewest:
        name = next(name for name in list_losses(config.method) if LOSSES[name] == fewest)
        raise ValueError(
            f"data.objects={data.objects} with {SECTION}.losses {name}, which compares objects: a "
            f"prompt must name {fewest} or more; set data.objects, or leave the loss out"
        )
    if config.method.finetune.objects == "nouns":
        raise ValueError(
            f"{SECTION}.objects=nouns with data.concepts: the objects are the concepts; leave it "
            "at linked"
        )


def check_evaluation(config: Run, late: Run) -> None:
    """Raises ValueError for settings of a training that is over, and as `check` for those of one
    before each image."""
    if late.method.finetune.test_time:
        check(late)
    if not config.method.finetune.test_time:
        check_trained_settings(config, NAME)


METHOD = MethodSpec(
    settings={NAME: Finetune},
    reads=("weights",),
    unread=("method.weights.text_encoder",),
    learns_with=tuple(
        f"trainer.{name}"
        for name in ("batch", "lr", "weight_decay", "timesteps", "clip", "precision")
    ),
    data_kinds=("captions", "prompts"),
    trains=lambda method: method.finetune.test_time == 0,
    needs_phrases=lambda method: bool(list_losses(method) or method.finetune.distillation_weight),
    needs_masks=looks_at_masks,
    objects_needed=most_objects,
    naming=lambda method: method.finetune.objects,
    without_phrases=f"set {SECTION}.objects=nouns, which takes the captions' noun phrases, with "
    "losses that look at no masks",
    singular=lambda method: "one" if looks_at_masks(method) else "all",
    check=check,
    check_evaluation=check_evaluation,
)
