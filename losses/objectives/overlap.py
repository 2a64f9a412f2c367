"""Objectives that want the objects apart: the overlap family, A-STAR's segregation,
Separate-and-Enhance's L_Sep.

The family is that of Marioriyad et al. (2024, arXiv 2410.20972): soft IoU, distance of centres of
mass, KL divergence, clustering compactness. No code of theirs is public, and of the paper the names
and what each measures could be read but not every formula: what is written here are the common
definitions, each as a mean over pairs that is small where objects are apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses.attention import FLOOR, separate_each
from losses.objectives import maps as of_maps
from losses.objectives.inputs import ObjectiveInputs, objective


@objective(fewest=2)
def iou(inputs: ObjectiveInputs) -> Tensor:
    """Soft intersection over union, ∑ min(Aᵢ, Aⱼ) / ∑ max(Aᵢ, Aⱼ) over pixels, mean over pairs,
    [B] from 0 (apart) to 1 (equal maps)."""
    first, second = inputs.objects[:, :, None], inputs.objects[:, None]
    union = torch.maximum(first, second).sum((-2, -1)).clamp_min(FLOOR)
    shared = torch.minimum(first, second).sum((-2, -1))
    return of_maps.mean_where(shared / union, of_maps.pairs(inputs.exists))


@objective(fewest=2)
def a_star_segregation(inputs: ObjectiveInputs) -> Tensor:
    """∑ min(Aᵢ, Aⱼ) / ∑ (Aᵢ + Aⱼ) over pixels, SUM over pairs (A-STAR, eq. 2; Agarwal et al. 2023),
    [B], each pair from 0 to ½. There is no release."""
    shared = min_over_sum(inputs.objects[:, :, None], inputs.objects[:, None])
    return of_maps.sum_where(shared, of_maps.pairs(inputs.exists))


@objective(fewest=2)
def center_distance(inputs: ObjectiveInputs) -> Tensor:
    """1 − the distance of the objects' centres of mass over the image's diagonal (√2, the image
    being of width and height 1), mean over pairs, [B] in [0, 1]."""
    centers = _centers(inputs)
    apart = torch.linalg.vector_norm(centers[:, :, None] - centers[:, None], dim=-1)
    return of_maps.mean_where(1 - apart / math.sqrt(2), of_maps.pairs(inputs.exists))


@objective(fewest=2)
def kl(inputs: ObjectiveInputs) -> Tensor:
    """−½ (KL(pᵢ‖pⱼ) + KL(pⱼ‖pᵢ)) of the maps as distributions over pixels, mean over pairs, [B]
    from 0 (equal shapes) down to −18.5."""
    divergence = of_maps.symmetric_kl(inputs.objects)
    return -of_maps.mean_where(divergence, of_maps.pairs(inputs.exists))


@objective(fewest=2)
def compactness(inputs: ObjectiveInputs) -> Tensor:
    """Scatter of the objects' maps about their own centres over that about the common one,
    [B] from 0 (points, apart) to 1 (equal centres).

    The maps are fuzzy clusters of pixels, each with mass 1: W / (W + D), where W = ∑ₖ ∑ pixels
    pₖ ‖x − cₖ‖² and D = ∑ₖ ‖cₖ − c‖², c the mean of the centres cₖ.
    """
    centers = _centers(inputs)
    x = _positions(inputs.objects)  # [pixels, 2]
    p = of_maps.distributions(inputs.objects)
    squares = (x - centers[:, :, None]).square().sum(-1)  # [B, objects, pixels]
    within = of_maps.sum_where((p * squares).sum(-1), inputs.exists)
    there = inputs.exists[..., None]
    count = inputs.exists.sum(1).clamp_min(1)[:, None, None]
    middle = torch.where(there, centers, 0.0).sum(1, keepdim=True) / count
    between = of_maps.sum_where((centers - middle).square().sum(-1), inputs.exists)
    return (within + FLOOR) / (within + between + FLOOR)


@objective(fewest=2)
def separate(inputs: ObjectiveInputs) -> Tensor:
    """Overlap of all objects at the worst pixel and head (Separate-and-Enhance, L_Sep): see
    `losses.attention.separate_loss`. Always float32."""
    return separate_each(inputs.maps, inputs.exists)


def min_over_sum(first: Tensor, second: Tensor, added: float = 0.0) -> Tensor:
    """∑ min / (∑ (first + second) + ``added``) over the pixels of maps [..., H, W], [...] in
    [0, ½]."""
    total = (first + second).sum((-2, -1)) + added
    return torch.minimum(first, second).sum((-2, -1)) / total.clamp_min(FLOOR)


def _positions(maps: Tensor) -> Tensor:
    """Middles of the pixels, x and y as shares of width and height: [H·W, 2]."""
    height, width = maps.shape[-2:]
    y, x = (
        (torch.arange(pixels, device=maps.device, dtype=maps.dtype) + 0.5) / pixels
        for pixels in (height, width)
    )
    x, y = x.expand(height, width), y[:, None].expand(height, width)
    return torch.stack((x, y), -1).flatten(0, 1)


def _centers(inputs: ObjectiveInputs) -> Tensor:
    """Centres of mass, [B, objects, 2]."""
    p = of_maps.distributions(inputs.objects)
    return (p[..., None] * _positions(inputs.objects)).sum(-2)
