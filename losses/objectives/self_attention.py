"""Objectives that read self-attention: Self-Cross, InitNO's conflict."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.attention import smooth_as_given
from losses.objectives.excitation import attend_and_excite
from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.maps import mean_where, otsu_mask, pairs, weigh_rows
from losses.objectives.overlap import min_over_sum


@objective(needs=("self_maps",), fewest=2, token_softmax=True)
def self_cross(
    inputs: ObjectiveInputs,
    size: int = 3,
    sigma: float = 0.5,
    normalise_cross: bool | None = None,
    response_limit: float | None = 0.5,
) -> Tensor:
    """What an object's patches look at must not be where another object is (Self-Cross; Qiu et al.
    2025), [B]: ∑ min(Sⱼ / ∑ Sⱼ, Aᵢ) over pixels, mean over ordered pairs i ≠ j.

    A are the smoothed maps; Sⱼ sums the smoothed self-attention maps of the pixels in Otsu's mask
    of Aⱼ, each times Aⱼ there. As released, to sums 1e-4 is added, and Aᵢ is brought to the sum 1
    where maps are higher than 16 pixels alone; ``normalise_cross`` says so for all sizes. A sample
    whose response (`excitation.attend_and_excite`) is above ``response_limit`` adds zero.
    """
    assert inputs.self_maps is not None
    maps = smooth_as_given(inputs.objects, size, sigma)
    patches = torch.where(otsu_mask(maps), maps, 0.0)
    seen = smooth_as_given(weigh_rows(patches, inputs.self_maps), size, sigma)
    seen = _with_sum_one(seen)
    if maps.shape[-2] > 16 if normalise_cross is None else normalise_cross:
        maps = _with_sum_one(maps)
    overlap = torch.minimum(seen[:, :, None], maps[:, None]).sum((-2, -1))
    both = pairs(inputs.exists)
    loss = mean_where(overlap, both | both.mT)
    return _after_response(loss, inputs, response_limit, size, sigma)


@objective(needs=("self_maps",), fewest=2, token_softmax=True)
def initno_conflict(
    inputs: ObjectiveInputs,
    size: int = 3,
    sigma: float = 0.5,
    response_limit: float | None = None,
) -> Tensor:
    """Self-attention conflict (InitNO, S_self; Guo et al. 2024), [B] in [0, ½]: ∑ min(Sᵢ, Sⱼ) /
    (∑ (Sᵢ + Sⱼ) + 1e-6) over pixels, mean over pairs.

    Sᵢ is the smoothed self-attention map of the pixel at which the smoothed map of object i is
    greatest; pixels that tie are averaged. As released, where of the initial noise (and not while
    it denoises) a sample whose response is above .5, ``response_limit``, adds zero; it is content
    below .3.
    """
    assert inputs.self_maps is not None
    maps = smooth_as_given(inputs.objects, size, sigma)
    peak = (maps == maps.amax((-2, -1), keepdim=True)).to(maps.dtype)
    chosen = (peak / peak.sum((-2, -1), keepdim=True)).detach()
    seen = smooth_as_given(weigh_rows(chosen, inputs.self_maps), size, sigma)
    conflict = min_over_sum(seen[:, :, None], seen[:, None], added=1e-6)
    loss = mean_where(conflict, pairs(inputs.exists))
    return _after_response(loss, inputs, response_limit, size, sigma)


def _after_response(
    loss: Tensor, inputs: ObjectiveInputs, limit: float | None, size: int, sigma: float
) -> Tensor:
    """``loss`` [B], zero for samples of which an object does not respond yet."""
    if limit is None:
        return loss
    response = attend_and_excite.compute(inputs, size, sigma)
    return torch.where(response > limit, 0.0, loss)


def _with_sum_one(maps: Tensor) -> Tensor:
    return maps / (maps.sum((-2, -1), keepdim=True) + 1e-4)
