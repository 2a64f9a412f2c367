"""Break-A-Scene (arXiv 2305.16311): the subjects of one image with masks become words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf.describe import show_count
from conf.fields import Values, choice, conditional, embedded, number
from conf.spec import MethodSpec, data_kind

if TYPE_CHECKING:
    from conf.schema import Run

TWO_PHASES = {"schedule": ("two_phase",)}
UNUSED = {"prior_weight": (0,)}
SCENE = {"data.kind": ("scene",)}
# Placeholders, and what is trained with them, are those of a scene
READ_IF: dict[str, Values] = {
    **{
        f"method.subjects.{name}": SCENE
        for name in (
            "classes",
            "schedule",
            "first_phase",
            "token_lr",
            "masked_loss",
            "normalise",
            "union_sampling",
            "wordless",
            "token_decay",
            "new_optimizer",
            "prior_",
        )
    },
    "method.weights.": {"method.subjects.schedule": ("two_phase", "joint", "unet_only")},
}


NO_WEIGHTS = {"trainable": ("none",)}


@dataclass
class Weights:
    """``method.weights``: which of the backbone's weights are trained."""

    # Which weights of the denoiser; attn2: all of cross-attention
    trainable: str = choice("attn2", "q", "k", "v", "kv", "qkv", "model", "none")
    # 0 trains whole weights; above 0, low-rank updates of that rank
    rank: int = number(0, minimum=0, maximum=65_536, unless=NO_WEIGHTS)
    # Train the text encoders, too
    text_encoder: bool = conditional(field(default=False), unless=NO_WEIGHTS)


@dataclass
class Subjects:
    """``method.subjects``: placeholder tokens for the subjects of a scene, and their losses."""

    # Placeholders; empty: <asset0> … as many as the scene has subjects
    tokens: list[str] = field(default_factory=list)
    # A word for each placeholder that its embedding starts from; empty: the scene's own
    classes: list[str] = field(default_factory=list)
    # Tokens first, then weights with them; both at once; one of them alone
    schedule: str = choice("two_phase", "joint", "tokens_only", "unet_only")
    # Share of the steps that trains the tokens alone
    first_phase: float = number(0.5, minimum=0, maximum=1, only_if=TWO_PHASES)
    # Learning rate of the tokens, except in a second phase
    token_lr: float = embedded(
        "backbone",
        number(2e-2, log=True, above=0, maximum=1000, unless={"schedule": ("unet_only",)}),
        elsewhere=5e-4,
    )
    # Compute the denoising loss inside the subjects' masks only
    masked_loss: bool = True
    # Divide that loss by the masks' area, or by the whole plane as the released code does
    normalise: str = choice("area", "all", only_if={"masked_loss": (True,)})
    # Masks on latents and maps: the share of a pixel inside, or the nearest pixel (released code)
    mask_resize: str = choice("area", "nearest")
    # Weight of the squared distance between a token's map and its mask
    attention_weight: float = number(0.01, log=True, minimum=0, maximum=1e6)
    # Each step shows some of the subjects; false: all of them
    union_sampling: bool = True
    # A token without a class word starts near the mean of all, or at a row near the table's end
    wordless: str = choice("mean", "table_end")
    # Decay the tokens as other weights
    token_decay: bool = conditional(field(default=False), unless={"schedule": ("unet_only",)})
    # The second phase also trains the embeddings of all words (with weights.text_encoder)
    stock_words: bool = False
    # The second phase starts with a new optimiser
    new_optimizer: bool = conditional(field(default=False), only_if=TWO_PHASES)
    # Weight of the denoising loss on class images; 0 uses none
    prior_weight: float = number(1.0, log=True, minimum=0, maximum=1e6)
    # Number of class images, drawn by the untouched backbone before training
    prior_images: int = embedded(
        "backbone", number(32, minimum=1, maximum=1_000_000, unless=UNUSED), elsewhere=100
    )
    # Prompt of the class images
    prior_prompt: str = embedded(
        "backbone",
        conditional(field(default="a photo of a blue square"), unless=UNUSED),
        elsewhere="a photo at the beach",
    )
    # Sampler steps of the class images
    prior_steps: int = number(30, minimum=1, maximum=10_000, unless=UNUSED)


def check_subjects(config: Run) -> None:
    """Raises ValueError where subjects, weights and data do not go together."""
    method, data = config.method, config.data
    subjects, scene = method.subjects, data_kind(config) == "scene"
    if subjects.tokens and not scene:
        raise ValueError(
            f"method.subjects.tokens={subjects.tokens} with data={data.name}: placeholders are "
            "learnt from a scene; set data=scene, or leave the tokens out"
        )
    if subjects.classes and subjects.tokens and len(subjects.classes) != len(subjects.tokens):
        classes = show_count(len(subjects.classes), "class", "classes")
        counts = f"{classes} for {show_count(len(subjects.tokens), 'token')}"
        raise ValueError(
            f"method.subjects.classes={subjects.classes}: {counts}; give one word for each of "
            "method.subjects.tokens"
        )
    if not scene and subjects.schedule == "tokens_only":
        raise ValueError(
            f"method.subjects.schedule=tokens_only with data={data.name}: there are no tokens; "
            "set data=scene"
        )
    if subjects.stock_words and (not method.weights.text_encoder or method.weights.rank):
        raise ValueError(
            f"method.subjects.stock_words=true with method.weights.text_encoder="
            f"{str(method.weights.text_encoder).lower()}, rank={method.weights.rank}: the words' "
            "embeddings are weights of the text encoder; set text_encoder=true and rank=0, or "
            "stock_words=false"
        )
    if data.cache == "all" and method.weights.text_encoder:
        raise ValueError(
            "data.cache=all keeps encoded captions, but method.weights.text_encoder=true changes "
            "them: set data.cache=latents"
        )


def check(config: Run) -> None:
    """Raises ValueError where nothing would be trained, and as `check_subjects`."""
    check_subjects(config)
    if data_kind(config) != "scene" and config.method.weights.trainable == "none":
        raise ValueError(
            f"method.weights.trainable=none with data={config.data.name}: nothing would be "
            "trained; train weights, or set data=scene"
        )


METHOD = MethodSpec(
    settings={"weights": Weights, "subjects": Subjects},
    read_if=READ_IF,
    data_kinds=("captions", "scene"),
    needs_phrases=lambda method: True,
    needs_masks=lambda method: True,
    asks_backbone=lambda method: method.subjects.prior_steps > 200,
    without_phrases="train on a scene with masks (data=scene)",
    fixed_after_training=("method.weights.", "method.subjects."),
    check=check,
)
