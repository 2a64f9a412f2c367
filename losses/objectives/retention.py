"""Objectives that want the maps to stay what they were at an earlier step."""

from __future__ import annotations

from torch import Tensor

from losses.attention import smooth_as_given
from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.maps import otsu_mask, stretch, sum_where
from losses.objectives.overlap import min_over_sum


@objective(needs=("previous",))
def a_star_retention(inputs: ObjectiveInputs) -> Tensor:
    """1 − ∑ min(A, M) / ∑ (A + M) over pixels, SUM over objects; M is the binary mask of the step
    before (A-STAR, eq. 3; Agarwal et al. 2023), [B], each object from ½ to 1.

    There is no release, and the paper does not say how it makes the mask: here by Otsu's
    threshold of the map that is brought to [0, 1]. ``previous`` are the maps of the step before.
    """
    mask = otsu_mask(stretch(inputs.earlier()), with_last=False).to(inputs.objects.dtype)
    return sum_where(1 - min_over_sum(inputs.objects, mask), inputs.exists)


@objective(needs=("previous",), token_softmax=True)
def initno_alignment(inputs: ObjectiveInputs, size: int = 3, sigma: float = 0.5) -> Tensor:
    """Mean over pixels of |G(A) − G(C)|, SUM over objects (InitNO's release while it denoises,
    weight .1; not in the paper), [B].

    ``previous`` is C: the first step's maps, and after each step .9 of it and .1 of that step's
    maps.
    """
    now, before = (smooth_as_given(m, size, sigma) for m in (inputs.objects, inputs.earlier()))
    return sum_where((now - before).abs().mean((-2, -1)), inputs.exists)
