"""Losses on attention maps. Pure functions of tensors, computed in float32 under any autocast.

Maps are attention probabilities of the objects' tokens, [B, objects, heads, H, W], or [B, objects,
H, W] with the heads averaged; layers are averaged (as the released codes do) or stacked along the
heads by the caller. ``present`` [B, objects] (bool) says which objects exist, all of them where it
is None: an absent one adds nothing and gets a gradient of exactly zero, whatever its map holds.
Every loss is a float32 scalar without unit, the mean over B of one number for each sample. Where
several pixels, heads or objects tie for a maximum or a minimum, they share its gradient evenly, so
that nothing depends on their order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from conf.describe import show_count

# A map whose maximum is below this is divided by this, so that its gradient stays finite
FLOOR = 1e-8


def gaussian_kernel(size: int = 3, sigma: float = 0.5) -> Tensor:
    """Gaussian weights [size, size], float32, with sum 1: the outer product of exp(-(x / 2σ)²) with
    itself.

    The released code of Attend-and-Excite and of Separate-and-Enhance reads sigma so. The standard
    deviation in pixels is thus √2 sigma (0.707 for 0.5). Raises ValueError on a size that is not
    odd and positive, and on a sigma that is not positive.
    """
    weights = torch.tensor(_weights(size, sigma), dtype=torch.float64)
    return torch.outer(weights, weights).float()


def smooth(maps: Tensor, size: int = 3, sigma: float = 0.5) -> Tensor:
    """Maps [..., H, W] convolved with ``gaussian_kernel(size, sigma)``; float32, the same shape,
    borders reflected.

    ``size=1`` gives the maps back. Raises ValueError where H or W is not larger than the padding
    size // 2, and as ``gaussian_kernel``.
    """
    with torch.autocast(maps.device.type, enabled=False):
        return smooth_as_given(maps.float(), size, sigma)


def smooth_as_given(maps: Tensor, size: int = 3, sigma: float = 0.5) -> Tensor:
    """`smooth` in the maps' own precision, under an autocast that the caller has turned off."""
    padding = size // 2
    if maps.dim() < 2 or min(maps.shape[-2:]) <= padding:
        raise ValueError(
            f"maps {tuple(maps.shape)} cannot be smoothed with size={size}: expected [..., "
            f"H, W], H and W above {padding}"
        )
    weights = _weights(size, sigma)

    # Shifted sums and no convolution, which a GPU may compute in TF32.
    def along_width(x: Tensor) -> Tensor:
        width = x.shape[-1]
        left, right = (
            x[..., 1 : padding + 1].flip(-1),
            x[..., width - padding - 1 : width - 1].flip(-1),
        )
        padded = torch.cat((left, x, right), -1)
        return sum(weight * padded[..., i : i + width] for i, weight in enumerate(weights))

    return along_width(along_width(maps).mT).mT if padding else maps


def separate_loss(maps: Tensor, present: Tensor | None = None) -> Tensor:
    """Overlap of the objects: maximum over heads and pixels of ∏ᵢ Mᵢ / ∑ᵢ Mᵢ over the present
    objects (Separate-and-Enhance, L_Sep).

    ``maps`` [B, objects, heads, H, W] or [B, objects, H, W], not negative; ``present`` [B,
    objects]. A sample with fewer than two present objects adds zero. Minimised; from 0 to 1/k for
    probabilities of k objects. Raises ValueError on shapes that do not fit.
    """
    return separate_each(maps, present).mean()


def separate_each(maps: Tensor, present: Tensor | None = None) -> Tensor:
    """`separate_loss` of each sample, [B]."""
    with torch.autocast(maps.device.type, enabled=False):
        maps, present = _ragged(maps, present, fewest=2)
        # [B, 1, heads, H, W]
        total = maps.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        # One factor is divided by the sum before the others multiply it: of two maps as small as
        # 1e-30 the product would underflow.
        first = present & (present.cumsum(1) == 1)
        factors = torch.where(
            _over_pixels(first), maps / total, torch.where(_over_pixels(present), maps, 1.0)
        )
        overlap = math.prod(factors.unbind(1))  # [B, heads, H, W]
        return torch.where(present.any(1), overlap.amax((1, 2, 3)), 0.0)


def enhance_loss(
    maps: Tensor, present: Tensor | None = None, size: int = 3, sigma: float = 0.5
) -> Tensor:
    """Weakness of the weakest object: 1 − minᵢ max over heads and pixels of the smoothed Mᵢ
    (Separate-and-Enhance, L_En).

    ``maps`` [B, objects, heads, H, W] or [B, objects, H, W]; ``present`` [B, objects]; ``size`` and
    ``sigma`` as in ``smooth`` (``size=1``: no smoothing). A sample without a present object adds
    zero. Minimised; in [0, 1] for probabilities. Raises ValueError on shapes that do not fit, and
    as ``smooth``.
    """
    return enhance_each(maps, present, size, sigma).mean()


def enhance_each(
    maps: Tensor, present: Tensor | None = None, size: int = 3, sigma: float = 0.5
) -> Tensor:
    """`enhance_loss` of each sample, [B]."""
    with torch.autocast(maps.device.type, enabled=False):
        maps, present = _ragged(maps, present)
        peaks = smooth(maps, size, sigma).amax((2, 3, 4))  # [B, objects]
        weakest = torch.where(present, peaks, torch.inf).amin(1)
        return torch.where(present.any(1), 1 - weakest, 0.0)


def second_half_store(
    maps: Tensor, present: Tensor, first: int = 0, total: int | None = None
) -> tuple[Tensor, Tensor]:
    """What the attention store of Separate-and-Enhance's released code hands to its losses: of the
    rows (sample, head) of a batch the second half, cut into as many groups as the batch has
    samples.

    Each half of the heads of a sample is such a group: ``maps`` [B, objects, heads, H, W] and
    ``present`` [B, objects] become [n, objects, heads / 2, H, W] and [n, objects], n = B for a
    whole batch. Of a batch of ``total`` samples that several processes share, these begin at
    sample ``first``; n may be 0 there. Raises ValueError on an odd number of heads.
    """
    batch, objects, heads, *size = maps.shape
    check_heads(heads)
    groups = maps.view(batch, objects, 2, heads // 2, *size).transpose(1, 2).flatten(0, 1)
    total = batch if total is None else total
    kept = slice(min(max(total - 2 * first, 0), 2 * batch), 2 * batch)
    return groups[kept], present.repeat_interleave(2, 0)[kept]


def check_heads(heads: int, site: str = "") -> None:
    """Refuses a number of ``heads``, those of ``site``, that `second_half_store` cannot halve.
    Raises ValueError."""
    if heads % 2:
        raise ValueError(
            f"{show_count(heads, 'head')}{site and f' at {site}'}, an odd number, without halves: "
            "the released store needs an even number; set method.separate.store=all"
        )


def mask_attention_loss(
    maps: Tensor,
    masks: Tensor,
    present: Tensor | None = None,
    normalise: str = "max",
    resize: str = "nearest",
) -> Tensor:
    """Squared distance of the objects' maps to their masks, ‖A − M‖² (Break-A-Scene eq. 2; of mask
    tokens: MCGM eq. 3).

    ``maps`` [B, objects, heads, H, W] (the heads are averaged first) or [B, objects, H, W];
    ``masks`` [B, objects, H', W'] in [0, 1], brought to H × W by ``resize``: "nearest" as the
    released code, or "area", which keeps masks thinner than a pixel of the map; ``present`` [B,
    objects]. Mean over pixels, SUM over a sample's present objects, mean over B; λ is the caller's.

    ``normalise="max"`` divides each map by its maximum, and the gradient flows through that
    maximum, as in the released code: a map's scale has no gradient, only its shape. The maximum
    counts as at least 1e-8. ``"none"`` takes the map as it is. Raises ValueError on
    shapes that do not fit, and on an unknown ``normalise`` or ``resize``.
    """
    if normalise not in ("max", "none"):
        raise ValueError(f"normalise={normalise!r} is unknown: expected 'max' or 'none'")
    if resize not in ("nearest", "area"):
        raise ValueError(f"resize={resize!r} is unknown: expected 'nearest' or 'area'")
    with torch.autocast(maps.device.type, enabled=False):
        maps, present = _ragged(maps, present)
        if masks.dim() == 4 and masks.shape[1] == 0 and not bool(present.any()):
            masks = masks.new_zeros(*present.shape, *masks.shape[2:])
        if masks.dim() != 4 or masks.shape[:2] != present.shape or masks.numel() == 0:
            expected = f"[{present.shape[0]}, {present.shape[1]}, H', W']"
            raise ValueError(
                f"masks {tuple(masks.shape)} do not fit: expected {expected}, one mask for "
                "each object of each sample"
            )
        attention = maps.mean(2)  # [B, objects, H, W]
        if normalise == "max":
            attention = attention / attention.amax((2, 3), keepdim=True).clamp_min(FLOOR)
        masks = torch.where(present[..., None, None], masks.float(), 0.0)
        if masks.shape != attention.shape:
            masks = interpolate(masks, attention.shape[-2:], mode=resize)
        # Absent objects have a map and a mask of zeros here, so that they add nothing.
        return (attention - masks).square().mean((2, 3)).sum(1).mean()


def _weights(size: int, sigma: float) -> list[float]:
    """The Gaussian along one axis, with sum 1."""
    if size < 1 or size % 2 != 1:
        raise ValueError(f"size={size} must be odd and positive")
    if not sigma > 0:
        raise ValueError(f"sigma={sigma} must be positive")
    offsets = [(i - size // 2) / (2 * sigma) for i in range(size)]
    weights = [math.exp(-offset * offset) for offset in offsets]
    return [weight / sum(weights) for weight in weights]


def _over_pixels(objects: Tensor) -> Tensor:
    """[B, objects] to [B, objects, 1, 1, 1]."""
    return objects[:, :, None, None, None]


def _ragged(maps: Tensor, present: Tensor | None, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """Maps as float32 [B, objects, heads, H, W], absent ones all zero and cut off from the
    gradient, and ``present`` [B, objects].

    A sample with fewer than ``fewest`` present objects comes back with none.
    """
    if maps.dim() not in (4, 5) or 0 in (len(maps), *maps.shape[2:]):
        raise ValueError(
            f"maps {tuple(maps.shape)} do not fit: expected [B, objects, heads, H, W] or "
            "[B, objects, H, W], nothing empty"
        )
    if maps.shape[1] == 0:  # no sample has an object: one absent object for each
        maps = torch.cat([maps, maps.new_zeros(len(maps), 1, *maps.shape[2:])], dim=1)
        present = torch.zeros(maps.shape[:2], dtype=torch.bool, device=maps.device)
    if present is None:
        present = torch.ones(maps.shape[:2], dtype=torch.bool, device=maps.device)
    elif present.shape != maps.shape[:2] or present.dtype != torch.bool:
        expected = (
            f"bool of shape {tuple(maps.shape[:2])}, [B, objects] of maps {tuple(maps.shape)}"
        )
        raise ValueError(
            f"present {tuple(present.shape)} of {present.dtype} does not fit: expected {expected}"
        )
    present = present & (present.sum(1, keepdim=True) >= fewest)
    maps = maps.float() if maps.dim() == 5 else maps.float().unsqueeze(2)
    return torch.where(_over_pixels(present), maps, 0.0), present
