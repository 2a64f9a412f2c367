"""Objectives of fuzzy logic: Predicated Diffusion (Sueyoshi and Matsubara 2024, arXiv 2311.16117).

A map's value at a pixel is the truth of "here is a P"; not is 1 − A, and is a product, for all is
the product over pixels, and the loss of a proposition is −log of its truth. The paper multiplies
over pixels, so that logarithms are summed; the release takes their mean (a geometric mean of
truths), and of two words it compares maps that are brought to [0, 1] by minimum and maximum. The
defaults are the release's: ``pixels="sum"`` and ``stretched=False`` are the paper's. Values are
means over a sample's words, as released; the release weighs existence by .1, exclusion by .3.
Truths count as at least 1e-8 (released: 1e-20 are added).
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.attention import FLOOR
from losses.objectives.inputs import ObjectiveInputs, objective, spread
from losses.objectives.maps import mean_where, stretch


@objective(token_softmax=True)
def predicated_existence(inputs: ObjectiveInputs, pixels: str = "mean") -> Tensor:
    """∃x. P(x) of each object: −log(1 − ∏ (1 − A)), [B].

    In the release the product is the geometric mean over pixels, of 1 − A + 1e-4; ``"sum"`` is the
    plain product, of 1 − A.
    """
    absent = 1 - inputs.objects + (1e-4 if pixels == "mean" else 0)
    nowhere = _over_pixels(absent.clamp_min(FLOOR).log(), pixels).exp()
    # Nowhere may come out as 1, or above it by the 1e-4
    return mean_where(-(1 - nowhere).clamp_min(FLOOR).log(), inputs.exists)


@objective(needs=("modifiers", "modifier_of"))
def predicated_modification(
    inputs: ObjectiveInputs, pixels: str = "mean", stretched: bool = True
) -> Tensor:
    """∀x. P(x) ↔ Q(x) of each modifier Q and its object P: −∑ log(1 − A_P (1 − A_Q)) −
    ∑ log(1 − A_Q (1 − A_P)), [B]: the modifier is where its object is, and nowhere else."""
    noun, word = (_truths(m, stretched) for m in (inputs.nouns_of_words(), inputs.words))
    loss = _implies(noun, word, pixels) + _implies(word, noun, pixels)
    return mean_where(loss, inputs.bound)


@objective(needs=("modifiers", "modifier_of"), fewest=2)
def predicated_exclusion(
    inputs: ObjectiveInputs, pixels: str = "mean", stretched: bool = True
) -> Tensor:
    """∀x. P(x) → ¬Q(x) of each object P and each modifier Q of another one: −∑ log(1 − A_P A_Q),
    [B]: attributes do not leak."""
    nouns, words = (_truths(m, stretched) for m in (inputs.objects, inputs.words))
    loss = _implies(nouns[:, :, None], 1 - words[:, None], pixels)  # [B, objects, modifiers]
    numbers = torch.arange(nouns.shape[1], device=nouns.device)[:, None]
    foreign = inputs.modified[:, None] != numbers
    return mean_where(loss, foreign & inputs.exists[..., None] & inputs.bound[:, None])


@objective(needs=("owner_of",), fewest=2)
def predicated_possession(
    inputs: ObjectiveInputs, pixels: str = "mean", stretched: bool = True
) -> Tensor:
    """∀x. P(x) → Q(x) of each object P that Q has: −∑ log(1 − A_P (1 − A_Q)), [B]: what one has
    is where one is."""
    assert inputs.owner_of is not None
    owner = inputs.owner_of.clamp_min(0)
    owned = (inputs.owner_of >= 0) & inputs.exists & inputs.exists.gather(1, owner)
    truths = _truths(inputs.objects, stretched)
    holders = truths.gather(1, spread(owner, truths))
    return mean_where(_implies(truths, holders, pixels), owned)


def _truths(maps: Tensor, stretched: bool) -> Tensor:
    return stretch(maps) if stretched else maps


def _implies(first: Tensor, second: Tensor, pixels: str) -> Tensor:
    """−log of the truth that ``first`` implies ``second`` at all pixels: [..., H, W] to [...]."""
    return -_over_pixels((1 - first * (1 - second)).clamp_min(FLOOR).log(), pixels)


def _over_pixels(logs: Tensor, pixels: str) -> Tensor:
    if pixels not in ("mean", "sum"):
        raise ValueError(
            f"pixels={pixels!r} is unknown: expected 'mean' (released) or 'sum' (the paper)"
        )
    return logs.mean((-2, -1)) if pixels == "mean" else logs.sum((-2, -1))
