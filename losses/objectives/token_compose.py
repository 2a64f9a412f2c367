"""Objectives that want maps like masks: TokenCompose's two (Wang et al. 2024).

The release covers a pixel of a map that the mask touches at all (``cover=0``), computes both for
each resolution of layers and sums, and weighs them by .001 and .00005.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.layout import share_inside
from losses.objectives.maps import mean_where


@objective(needs=("masks",))
def token_compose_token(inputs: ObjectiveInputs, cover: float = 0.0) -> Tensor:
    """(1 − mean over heads of ∑ inside A / ∑ A)², mean over objects (TokenCompose, L_token), [B] in
    [0, 1].

    As released, where it is computed for each layer and token of a phrase and then averaged over
    tokens and summed over layers. An object with an empty mask counts, as 1 without a gradient.
    """
    region = inputs.regions(cover)
    share = share_inside(inputs.by_head, region[:, :, None]).mean(2)
    return mean_where((1 - share).square(), inputs.exists)


@objective(needs=("masks",), phrases="sum")
def token_compose_pixel(inputs: ObjectiveInputs, cover: float = 0.0) -> Tensor:
    """Binary cross-entropy of maps against masks, mean over pixels and then over objects
    (TokenCompose, L_pixel), [B].

    As released: maps are means over heads and the layers of a resolution, SUMS over the tokens of
    a phrase; logarithms count as at least −100. An empty mask is one of zeros.
    """
    region = inputs.regions(cover)
    # Sums of probabilities may be above 1 by a rounding error
    each = binary_cross_entropy(inputs.objects.clamp(0, 1), region, reduction="none")
    return mean_where(each.mean((-2, -1)), inputs.exists)
