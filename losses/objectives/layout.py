"""Objectives that want objects in given places: BoxDiff, layout guidance, bounded attention.

Places are ``masks``, of boxes or of any shape (`losses.masks.draw_boxes`); a pixel of the map
belongs to an object if a quarter of it is covered. An object whose mask is empty adds nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.attention import FLOOR, smooth_as_given
from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.maps import mean_of_largest, mean_where, sum_where


@objective(needs=("masks",), token_softmax=True)
def boxdiff(
    inputs: ObjectiveInputs, share: float = 0.2, corner: int = 1, size: int = 3, sigma: float = 0.5
) -> Tensor:
    """Inner-box, outer-box and corner constraints (BoxDiff; Xie et al. 2023), SUM over objects,
    [B].

    Of each smoothed map: inner, 1 − the mean of the ``share`` largest values inside (their number
    is rounded down, at least one: the release gives NaN for none); outer, the mean of the
    ``share`` largest outside; corner, in x and in y, the mean over all rows or columns of
    |projection of the map − projection of the mask|, projections being maxima, counted where one
    is at most ``corner`` from the box's first or its end (the first one after it, as released).
    As released, where the refinement alone reads the greatest inner constraint.
    """
    maps = smooth_as_given(inputs.objects, size, sigma)
    region = inputs.regions()
    loss = 0
    for area, wanted in ((region, True), (1 - region, False)):
        pixels = area.sum((-2, -1))
        # Rounding errors of the product are not rounded down
        count = (pixels * share + 1e-6).floor().clamp_min(1)
        strongest = mean_of_largest(torch.where(area > 0, maps, -1.0).flatten(2), count)
        constraint = (1 - strongest).clamp_min(0) if wanted else strongest.clamp_min(0)
        loss = loss + torch.where(pixels > 0, constraint, 0.0)
    for across in (2, 3):  # Over rows, then over columns
        truth = region.amax(across)
        distance = (maps.amax(across) - truth).abs()
        loss = loss + (distance * _near_edges(truth, corner)).mean(-1)
    return sum_where(loss, inputs.exists & region.flatten(2).any(2))


@objective(needs=("masks",))
def layout(inputs: ObjectiveInputs) -> Tensor:
    """(1 − ∑ inside A / ∑ A)², the mean over heads and objects (layout guidance, Chen et al. 2024,
    eq. 2), [B] in [0, 1].

    As released, where tokens of a phrase and layers are averaged after the square: heads and layers
    that the caller has stacked along the heads count so, those that are averaged do not. The paper
    sums over them. The release multiplies by 30.
    """
    region = inputs.regions()
    outside = 1 - share_inside(inputs.by_head, region[:, :, None])  # [B, objects, heads]
    return mean_where(outside.square().mean(2), inputs.exists & region.flatten(2).any(2))


@objective(needs=("masks",), uses=("self_maps",))
def bounded_attention(
    inputs: ObjectiveInputs, cross_weight: float = 1.5, self_weight: float = 0.5
) -> Tensor:
    """(1 − I / (I + k O))², SUM over objects (bounded attention, Dahary et al. 2024), [B].

    Of the cross-attention I is the sum of an object's map in its mask, O that outside; k is the
    number of objects. Of the self-attention they are what pixels of the mask, or those outside, pay
    to the mask. Weights as released. The paper and the release compute attention with other
    objects' masks blocked, which is the caller's: the release then sums the background alone for
    O, which is the same there. The release adds the end-of-text token to each object's tokens (and
    notes that as a fault), which is left out here. Without ``self_maps`` the second part is 0.
    """
    region = inputs.regions()
    there = inputs.exists & region.flatten(2).any(2)
    count = there.sum(1, keepdim=True)

    def squared(inside: Tensor, outside: Tensor) -> Tensor:
        total = (inside + count * outside).clamp_min(FLOOR)
        return (1 - inside / total).square()

    cross = [(inputs.objects * part).sum((-2, -1)) for part in (region, 1 - region)]
    loss = cross_weight * squared(*cross)
    if inputs.self_maps is not None:
        rows = inputs.self_maps.to(region.dtype)
        paid = (rows @ region.flatten(2).mT).mT.view(region.shape)  # By each pixel to the mask
        own = [(paid * part).sum((-2, -1)) for part in (region, 1 - region)]
        loss = loss + self_weight * squared(*own)
    return sum_where(loss, there)


def share_inside(maps: Tensor, region: Tensor) -> Tensor:
    """∑ inside A / ∑ A of maps [..., H, W]: [...]."""
    return (maps * region).sum((-2, -1)) / maps.sum((-2, -1)).clamp_min(FLOOR)


def _near_edges(truth: Tensor, corner: int) -> Tensor:
    """Of a mask's projection [..., n] what is at most ``corner`` from the first covered one or
    from the one after the last."""
    at = torch.arange(truth.shape[-1], device=truth.device)
    first = torch.where(truth > 0, at, truth.shape[-1]).amin(-1, keepdim=True)
    end = torch.where(truth > 0, at + 1, 0).amax(-1, keepdim=True)
    return ((at - first).abs() <= corner) | ((at - end).abs() <= corner)
