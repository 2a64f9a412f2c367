"""Separate-and-Enhance (arXiv 2312.06712): projections of the cross-attention that give each object
of a prompt a place of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.fields import choice, number
from conf.spec import MethodSpec, data_kind

if TYPE_CHECKING:
    from conf.schema import Method, Run

DENOISING = {"control": ("denoising",)}  # Then there are no losses on maps
UNDISTILLED = {"distillation_weight": (0,), **DENOISING}


@dataclass
class Separate:
    """``method.separate``: the losses on the attention maps of a prompt's objects."""

    # Weight of the overlap of the objects' maps
    separate_weight: float = number(1.0, log=True, minimum=0, maximum=1e6, unless=DENOISING)
    # Weight of the weakness of the weakest object
    enhance_weight: float = number(0.5, log=True, minimum=0, maximum=1e6, unless=DENOISING)
    # Weight of the distance to the backbone's prediction on prompts of one object
    distillation_weight: float = number(1.0, log=True, minimum=0, maximum=1e6, unless=DENOISING)
    # Joint: one of the step's losses; own: a second optimiser step each step, with own noise
    distillation_step: str = choice("joint", "own", unless=UNDISTILLED)
    # Which of a prompt's objects those prompts name
    distillation_object: str = choice("random", "first", unless=UNDISTILLED)
    # Before it: a or an, or always a
    distillation_article: str = choice("a_an", "a", unless=UNDISTILLED)
    # Input of the denoiser: noised noise, or noised images
    inputs: str = choice("noise", "images", unless=DENOISING)
    # What is an object: words that the data set links to one, or any noun phrase
    objects: str = choice("linked", "nouns", unless=DENOISING)
    # Tokens of an object: its words', their last, that at the first word's place, or 6 and 9
    tokens: str = choice("phrase", "last", "word", "released", unless=DENOISING)
    # The losses look at each head's map, or at their mean
    heads: str = choice("each", "mean", unless=DENOISING)
    # Of all samples; or of the second half of the batch, each half of its heads as a sample
    store: str = choice("all", "second_half", unless=DENOISING)
    # Side of the smoothing kernel in map pixels, odd; 1 does not smooth
    kernel: int = number(3, minimum=1, maximum=1000, unless=DENOISING)
    # Width of the kernel, read as the released code does: exp(-(x/2σ)²)
    sigma: float = number(0.5, above=0, maximum=1000, unless={"kernel": (1,), **DENOISING})
    # Side of the maps in pixels; the nearest that exists is used
    side: int = number(16, minimum=1, maximum=1000, unless=DENOISING)
    # The denoising loss alone; or the trained change, its entries permuted
    control: str = choice("none", "denoising", "permuted")
    # How much of the trained change is used; 0 is the untouched backbone
    scale: float = number(1.0, minimum=0, maximum=1_000_000, only_if={"test_time": (0,)})
    # Steps of training on each prompt before it is drawn; 0 trains beforehand instead
    test_time: int = number(0, minimum=0, maximum=10_000)


def check_kernel(method: Method) -> None:
    """Raises ValueError for a smoothing kernel without a middle, or larger than mirrored maps."""
    separate = method.separate
    if separate.kernel % 2 == 0:
        raise ValueError(
            f"method.separate.kernel={separate.kernel} has no middle: expected an odd number, "
            "1 for no smoothing"
        )
    if separate.kernel // 2 >= separate.side and separate.control != "denoising":
        raise ValueError(
            f"method.separate.kernel={separate.kernel} with method.separate.side={separate.side}: "
            f"maps of that side are smoothed by at most {2 * separate.side - 1}"
        )


def check(config: Run) -> None:
    """Raises ValueError where nothing would be trained, or losses and data do not go together."""
    separate, data = config.method.separate, config.data
    denoising = separate.control == "denoising"
    weights = (separate.separate_weight, separate.enhance_weight, separate.distillation_weight)
    if not denoising and not any(weights):
        raise ValueError(
            "method.separate has no loss of a weight above 0: nothing would be trained; "
            "set one of its weights"
        )
    if config.method.weights.trainable == "none":
        raise ValueError(
            "method.weights.trainable=none with method=separate_enhance: nothing would be "
            "trained; the paper trains k"
        )
    check_kernel(config.method)
    if separate.store == "second_half" and separate.heads != "each":
        raise ValueError(
            f"method.separate.store=second_half with heads={separate.heads}: it parts a sample's "
            "heads; set heads=each, or store=all"
        )
    given = f"method.separate.inputs={separate.inputs}, control={separate.control}"
    needs_images = denoising or separate.inputs == "images"
    check_images(config, given, needs_images, "noise and control=none")
    if separate.test_time and (separate.control != "none" or separate.inputs == "images"):
        raise ValueError(
            "method.separate.test_time has a prompt and no image: leave control=none and "
            "inputs=noise"
        )
    if data.concepts:
        _check_concepts(config)


def check_images(config: Run, given: str, needed: bool, cure: str) -> None:
    """Raises ValueError where the settings ``given`` need images and the prompts have none;
    ``cure`` is what inputs should be."""
    data = config.data
    if needed and (data.concepts or data_kind(config) == "prompts"):
        which = "data.concepts" if data.concepts else f"data={data.name}"
        raise ValueError(f"{given} with {which}: these prompts have no images; set inputs={cure}")


def check_concepts(config: Run) -> None:
    """Raises ValueError where no prompts, or no batches of them, can be made of the words."""
    data = config.data
    if len(data.concepts) < data.objects:
        raise ValueError(
            f"data.concepts={data.concepts} make no prompt of data.objects={data.objects}: "
            "name more concepts"
        )
    count, batch = len(data.concepts), config.trainer.batch * config.trainer.devices
    if data.concept_draw == "batch" and count < data.objects * batch:
        raise ValueError(
            f"data.concept_draw=batch with {count} data.concepts: a batch of {batch} prompts of "
            f"{data.objects} objects takes {data.objects * batch}; name more, or set it to prompt"
        )
    if data.concept_draw == "in_order" and count != data.objects:
        raise ValueError(
            f"data.concept_draw=in_order with {count} data.concepts: expected as many as "
            f"data.objects={data.objects}; set one of them"
        )


def _check_concepts(config: Run) -> None:
    """Raises ValueError where prompts made of words do not suit the losses."""
    check_concepts(config)
    separate, data = config.method.separate, config.data
    if data.objects == 1 and not separate.enhance_weight:
        raise ValueError(
            "data.objects=1 with method.separate.enhance_weight=0: a single object has "
            "nothing to be separated from; name two"
        )
    if separate.objects == "nouns":
        raise ValueError(
            "method.separate.objects=nouns with data.concepts: the objects are the "
            "concepts; leave it at linked"
        )


def check_trained_settings(config: Run, own: str, acts: Collection[str] = ()) -> None:
    """Raises ValueError where evaluation changes the weights, or what of the section ``own`` does
    not act after training, too, as what is named in ``acts`` does."""
    for key in config.evaluate_with:
        section, _, name = key.removeprefix("method.").partition(".")
        if section in (own, "weights") and f"{section}.{name}" not in acts:
            raise ValueError(
                f"{key} cannot change after training: it acts in training; use when=train"
            )


def check_evaluation(config: Run, late: Run) -> None:
    """Raises ValueError where a change of low-rank weights is to be scaled or permuted, for
    settings of a training that is over, and as `check` for those of one before each image."""
    if late.method.separate.test_time:
        check(late)
    if not config.method.separate.test_time:
        acts = {"separate.scale"} | ({"separate.control"} if _permutes(config, late) else set())
        check_trained_settings(config, "separate", acts)
    rank, separate = config.method.weights.rank, late.method.separate
    if rank and (separate.control == "permuted" or separate.scale != 1):
        raise ValueError(
            f"method.separate.control={separate.control}, scale={separate.scale:g} with "
            f"method.weights.rank={rank}: only whole weights are permuted or scaled; set the rank "
            "to 0"
        )


def _permutes(config: Run, late: Run) -> bool:
    """Whether what changes of ``control`` is done to the trained change, not to the training."""
    return "denoising" not in (config.method.separate.control, late.method.separate.control)


METHOD = MethodSpec(
    settings={"separate": Separate},
    reads=("weights",),
    unread=("method.weights.text_encoder",),
    learns_with=tuple(
        f"trainer.{name}"
        for name in ("batch", "lr", "weight_decay", "timesteps", "clip", "precision")
    ),
    data_kinds=("captions", "prompts"),
    trains=lambda method: method.separate.test_time == 0,
    needs_phrases=lambda method: method.separate.control != "denoising",
    naming=lambda method: method.separate.objects,
    without_phrases="set method.separate.objects=nouns, which takes the captions' noun phrases",
    singular=lambda method: "all",
    check=check,
    check_evaluation=check_evaluation,
)
