"""InitNO (Guo et al. 2024): the initial noise ε becomes μ + σ ε, and μ and σ are optimised.

The release's loss of a noise is response + conflict + clean, without the conflict where the
response is above .5; a noise will do with a response below .2 and a conflict below .3. Steps are
Adam's (rate .01, eps .001), at most 50; after each one, steps on `noise_divergence` alone follow
until it is at most .001. The paper has response, conflict and divergence.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from losses.attention import smooth_as_given
from losses.objectives.excitation import attend_and_excite
from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.maps import otsu_mask, sum_where


@objective(token_softmax=True)
def initno_response(inputs: ObjectiveInputs, size: int = 3, sigma: float = 0.5) -> Tensor:
    """Cross-attention response (InitNO, S_cross): that of `excitation.attend_and_excite`, [B]."""
    return attend_and_excite.compute(inputs, size, sigma)


@objective(token_softmax=True)
def initno_clean(inputs: ObjectiveInputs, size: int = 3, sigma: float = 0.5) -> Tensor:
    """The greatest value of a smoothed map that is not part of its object, SUM over objects (in
    InitNO's release, weight 1 for the noise and .1 while it denoises; not in the paper), [B].

    The object is the part of Otsu's mask that is connected, by sides of pixels, with the map's
    maximum. As released: a map adds nothing if no value outside is above the object's smallest.
    """
    maps = smooth_as_given(inputs.objects, size, sigma)
    with torch.no_grad():
        allowed = otsu_mask(maps)
        part = allowed & (maps == maps.amax((-2, -1), keepdim=True))
        while True:
            grown = _with_neighbours(part) & allowed
            if torch.equal(grown, part):
                break
            part = grown
    outside = torch.where(part, 0.0, maps).amax((-2, -1))
    smallest = torch.where(part, maps, 1.0).amin((-2, -1))
    return sum_where(torch.where(outside > smallest, outside, 0.0), inputs.exists)


def noise_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of the normal distribution of ``mean`` and ``log_variance`` [B, ...] to the standard one,
    ½ (μ² + σ² − 1 − log σ²), the mean over a sample's numbers (InitNO, L_KL), [B]; as released."""
    each = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    return each.flatten(1).mean(1)


def move_noise(noise: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """μ + σ ε of ``noise`` ε, all [B, ...] (InitNO)."""
    return mean + (log_variance / 2).exp() * noise


def _with_neighbours(part: Tensor) -> Tensor:
    """Pixels of bool [B, n, H, W] and those that share a side with one."""
    values = part.to(torch.float32)
    rows = max_pool2d(values, (3, 1), 1, (1, 0))
    return torch.maximum(rows, max_pool2d(values, (1, 3), 1, (0, 1))) > 0
