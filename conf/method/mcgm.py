"""MCGM (arXiv 2410.00483): target masks say where subjects go, through tokens that a mask encoder
appends to the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.fields import choice, number
from conf.method.break_a_scene import READ_IF, SCENE, check_subjects
from conf.spec import MethodSpec, data_kind

if TYPE_CHECKING:
    from conf.schema import Run

MERGED = {"encoder": ("merged",)}  # Masks have no tokens of their own then


@dataclass
class Masks:
    """``method.masks``: how target masks become tokens, how these act, and what trains them."""

    # How masks become tokens
    encoder: str = choice("per_mask", "union", "merged", "conv")
    # Train the encoder; false: it stays as it was drawn
    trained: bool = True
    # Add the state of the phrase's words to the token of its mask, or not
    text_binding: str = choice("text", "none", only_if={"encoder": ("per_mask", "conv")})
    # A mask token acts inside its mask only, or everywhere
    mask_scope: str = choice("inside", "everywhere", unless=MERGED)
    # Weight of the squared distance between a mask token's map and the mask
    lambda_m: float = number(0.05, log=True, minimum=0, maximum=1e6, unless=MERGED)
    # Learning rate of the encoder
    lr: float = number(2e-3, log=True, above=0, maximum=1000, only_if={"trained": (True,)})
    # Share of samples trained with blank masks
    dropout: float = number(0.3, minimum=0, maximum=1)
    # Weight of the distance to the backbone's prediction where masks are blank (not on a scene)
    distillation_weight: float = number(
        1.0, log=True, minimum=0, maximum=1e6, unless={"dropout": (0,), **SCENE}
    )
    # On a scene: which mask stands in which slot when only some subjects are shown
    slots: str = choice("drawn", "fixed", "fixed_one", "first_one", only_if=SCENE)
    # Mask tokens that lambda_m acts on: all shown ones, or none where slots move or stay blank
    supervised: str = choice("shown", "drawn", only_if=SCENE, unless=MERGED)
    # The token of a blank mask: zeros, or what the encoder gives, which is its bias
    blank: str = choice("zeros", "encoded")
    # Number of words that a mask token counts as; not for merged ones
    token_scale: float = number(24.0, minimum=0, maximum=1e6, unless=MERGED)


def check(config: Run) -> None:
    """Raises ValueError where nothing would be trained, and as `check_subjects`."""
    check_subjects(config)
    trained = config.method.weights.trainable != "none" or config.method.masks.trained
    if data_kind(config) != "scene" and not trained:
        raise ValueError(
            f"method.weights.trainable=none with data={config.data.name}: nothing would be "
            "trained; train weights, or the mask encoder (method.masks.trained=true)"
        )


METHOD = MethodSpec(
    settings={"masks": Masks},
    reads=("weights", "subjects"),
    read_if=READ_IF,
    reads_alone=("evaluation.masks",),
    asks_backbone=lambda method: method.subjects.prior_steps > 200,
    data_kinds=("captions", "scene"),
    needs_phrases=lambda method: True,
    needs_masks=lambda method: True,
    without_phrases="train on a scene with masks (data=scene)",
    fixed_after_training=(
        "method.weights.",
        "method.subjects.",
        "method.masks.encoder",
        "method.masks.text_binding",
        "method.masks.trained",
        "method.masks.lambda_m",
        "method.masks.lr",
        "method.masks.dropout",
        "method.masks.distillation_weight",
        "method.masks.slots",
        "method.masks.supervised",
    ),
    check=check,
)
