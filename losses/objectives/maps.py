"""What objectives do with maps: renormalisation over tokens, distributions over pixels, thresholds,
means over pairs and over the largest values.

Divisions have a floor, so that maps of zeros give numbers and gradients that are finite. Values
that tie share the gradient of a maximum evenly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.attention import FLOOR


def renormalise_tokens(maps: Tensor, counted: Tensor | None = None, scale: float = 100) -> Tensor:
    """Softmax of ``scale`` times the maps [B, tokens, H, W] over the tokens, [B, tokens, H, W].

    The released codes of Attend-and-Excite, BoxDiff, CONFORM, InitNO, Self-Cross and Predicated
    Diffusion (existence) read maps so: of all tokens but the first (begin of text) and the last of
    the padded text, or from the end of the prompt on (``normalize_eot``). ``counted`` [B, tokens]
    (bool) says which tokens those are; the others come out as zero. A phrase's map is the mean
    over its tokens afterwards.
    """
    with torch.autocast(maps.device.type, enabled=False):
        logits = scale * maps.to(torch.promote_types(maps.dtype, torch.float32))
        if counted is None:
            return logits.softmax(1)
        there = counted[..., None, None]
        # A sample without a counted token has no softmax
        logits = torch.where(there, logits, -torch.inf)
        some = there.any(1, keepdim=True)
        return torch.where(there, torch.where(some, logits, 0.0).softmax(1), 0.0)


def distributions(maps: Tensor) -> Tensor:
    """Maps [..., H, W] as distributions over the pixels, [..., H·W]; zeros where a map is zero."""
    flat = maps.flatten(-2)
    return flat / flat.sum(-1, keepdim=True).clamp_min(FLOOR)


def symmetric_kl(maps: Tensor) -> Tensor:
    """½ (KL(p‖q) + KL(q‖p)) of each two of the maps [B, n, H, W], as distributions over pixels:
    [B, n, n]. Probabilities count as at least 1e-8 in the logarithm."""
    p = distributions(maps)
    log = p.clamp_min(FLOOR).log()
    return ((p[:, :, None] - p[:, None]) * (log[:, :, None] - log[:, None])).sum(-1) / 2


def stretch(maps: Tensor) -> Tensor:
    """Maps [..., H, W] brought to [0, 1] by their minimum and maximum; flat ones to zeros."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(FLOOR)


def pairs(exists: Tensor) -> Tensor:
    """Of bool [B, n] the pairs i < j of which both exist, bool [B, n, n]."""
    both = exists[:, :, None] & exists[:, None]
    return both & torch.ones_like(both[0]).triu(1)


def mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of each sample's ``values`` [B, ...] that are ``counted``, [B]; 0 without any."""
    return sum_where(values, counted) / counted.flatten(1).sum(1).clamp_min(1)


def sum_where(values: Tensor, counted: Tensor) -> Tensor:
    """The sum of each sample's ``values`` [B, ...] that are ``counted``, [B]."""
    return torch.where(counted, values, 0.0).flatten(1).sum(1)


def largest_where(values: Tensor, counted: Tensor) -> Tensor:
    """The largest of each sample's ``values`` [B, n] that are ``counted``, [B]; 0 without any."""
    largest = torch.where(counted, values, -torch.inf).amax(1)
    return torch.where(counted.any(1), largest, 0.0)


def mean_of_largest(values: Tensor, count: Tensor) -> Tensor:
    """The mean of the ``count`` [...] largest of ``values`` [..., n], [...]; those that tie for the
    last place share it. ``count`` is from 1 to n."""
    with torch.no_grad():
        order = values.sort(-1, descending=True).values
        last = order.gather(-1, count[..., None].long() - 1)
        above, level = values > last, values == last
        left = count[..., None] - above.sum(-1, keepdim=True)
        share = above + level * left / level.sum(-1, keepdim=True)
    return (share * values).sum(-1) / count


@torch.no_grad()
def otsu_mask(maps: Tensor, with_last: bool = True) -> Tensor:
    """Otsu's foreground of each map [..., H, W] in [0, 1], bool [..., H, W].

    Of 256 bins of the whole part of 255 × the value, t is the lowest for which the variance between
    [0, t] and the rest is greatest. As in the released codes of InitNO and Self-Cross the mask
    holds the values of at least t / 255, and thus the last bin of the background, too, and all
    pixels of a map with one value; without that bin (``with_last=False``) it is Otsu's, and of a
    map with one value empty.
    """
    flat = maps.flatten(-2)
    bins = (flat * 255).long().clamp(0, 255)
    counts = flat.new_zeros(*flat.shape[:-1], 256, dtype=torch.float64)
    share = counts.scatter_add(-1, bins, torch.ones_like(bins, dtype=torch.float64))
    share = share / flat.shape[-1]
    below = share.cumsum(-1)
    levels = torch.arange(256, device=maps.device, dtype=torch.float64)
    mass = (share * levels).cumsum(-1)
    spread = below * (1 - below)
    # Of bins that hold all pixels or none, the variance is zero
    splits = spread > torch.finfo(torch.float32).eps
    variance = (mass[..., -1:] * below - mass).square() / torch.where(splits, spread, 1.0)
    threshold = torch.where(splits, variance, 0.0).argmax(-1)
    if not with_last:
        return ((bins > threshold[..., None]) & splits.any(-1, keepdim=True)).view(maps.shape)
    return maps >= (threshold[..., None, None] / 255).to(maps.dtype)


def weigh_rows(weights: Tensor, self_maps: Tensor) -> Tensor:
    """Self-attention maps of chosen pixels, added up: ``weights`` [B, n, H, W] of the pixels times
    the rows of ``self_maps`` [B, H·W, H·W], as maps [B, n, H, W]."""
    return (weights.flatten(2) @ self_maps.to(weights.dtype)).view(weights.shape)
