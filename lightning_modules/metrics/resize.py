"""Images brought to the size that a feature extractor sees: ours and named, since published numbers
differ by the filter alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def _bicubic(images: Tensor, side: int) -> Tensor:
    planes = images.float().flatten(0, 1).numpy()  # [N * 3, H, W]
    resized = [
        np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    return torch.from_numpy(np.stack(resized)).unflatten(0, images.shape[:2])


def _bilinear(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False)


def _tf1(images: Tensor, side: int) -> Tensor:
    result = images.float()
    for dim in (3, 2):
        most = result.shape[dim] - 1
        at = torch.arange(side, dtype=torch.float32) * (result.shape[dim] / side)
        low = at.long()
        share = (at - low).view(-1, *[1] * (3 - dim))
        before, after = (
            result.index_select(dim, low),
            result.index_select(dim, (low + 1).clamp(max=most)),
        )
        result = before + (after - before) * share
    return result


FILTERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bicubic": _bicubic,
    "bilinear": _bilinear,
    "tf1": _tf1,
}


def check_images(images: Tensor) -> None:
    """Raises ValueError unless images are uint8 [N, 3, H, W]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        what = f"{images.dtype} {list(images.shape)}"
        raise ValueError(
            f"feature extractors take uint8 images [N, 3, H, W], not {what}: clamp, round "
            "and convert them first"
        )


def resize(images: Tensor, side: int, filter: str = "bicubic") -> Tensor:
    """Images uint8 [N, 3, H, W] -> float32 [N, 3, side, side] in units of 0 to 255, not rounded;
    images of that size stay as they are.

    ``filter``: "bicubic" is PIL's, antialiased, each channel in floating point (clean-fid; it may
    overshoot 0 and 255); "bilinear" is torch's without antialiasing (pytorch-fid); "tf1" that of
    TensorFlow 1, whose grid begins in the corner (torch-fidelity). Raises ValueError on an unknown
    filter and other images.
    """
    check_images(images)
    if filter not in FILTERS:
        raise ValueError(
            f"resize filter {filter!r} is unknown: expected one of {', '.join(FILTERS)}"
        )
    if images.shape[2:] == (side, side):
        return images.float()
    if len(images) == 0:
        return torch.zeros(0, 3, side, side)
    return FILTERS[filter](images, side)
