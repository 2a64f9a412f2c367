"""Objectives that want a strong response of every object: Attend-and-Excite, Separate-and-Enhance's
L_En; and the thresholds up to which Attend-and-Excite refines."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from losses.attention import enhance_each, smooth_as_given
from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.maps import largest_where

# Step -> the response that every object should reach there (Attend-and-Excite, of 50 steps)
THRESHOLDS = {0: 0.05, 10: 0.5, 20: 0.8}


@objective(token_softmax=True)
def attend_and_excite(inputs: ObjectiveInputs, size: int = 3, sigma: float = 0.5) -> Tensor:
    """Weakness of the weakest object: max over objects of max(0, 1 − max over pixels of G(A))
    (Attend-and-Excite, algorithm 1; Chefer et al. 2023), [B] in [0, 1] for probabilities.

    G smooths as `losses.attention.smooth`, ``size=1`` not at all. Release and paper agree; the
    release reads the mean over heads and layers after `renormalise_tokens`.
    """
    peaks = smooth_as_given(inputs.objects, size, sigma).amax((2, 3))
    return largest_where((1 - peaks).clamp_min(0), inputs.exists)


@objective()
def enhance(inputs: ObjectiveInputs, size: int = 3, sigma: float = 0.5) -> Tensor:
    """Weakness of the weakest object, maximum over heads, too (Separate-and-Enhance, L_En): see
    `losses.attention.enhance_loss`. Always float32."""
    return enhance_each(inputs.maps, inputs.exists, size, sigma)


def refinement_target(step: int, thresholds: Mapping[int, float] = THRESHOLDS) -> float | None:
    """The loss down to which Attend-and-Excite refines the latent at sampler step ``step`` (from
    0): 1 − its threshold, not below 0; None at steps without one."""
    return max(0.0, 1.0 - thresholds[step]) if step in thresholds else None


def wants_refinement(loss: Tensor, target: float | None, tries: int, limit: int = 20) -> Tensor:
    """Which samples of ``loss`` [B] go on refining after ``tries`` of them, bool [B]: those above
    ``target``, while there are fewer than ``limit`` (20 in the released code)."""
    if target is None or tries >= limit:
        return torch.zeros_like(loss, dtype=torch.bool)
    return loss > target
