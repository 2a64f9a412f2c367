"""The square that is seen of an image: the same for its pixels, its masks and its boxes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Crop(NamedTuple):
    """``side`` pixels from (``left``, ``top``) on, resized to ``resolution`` pixels; perhaps
    ``mirrored``, left for right."""

    left: int
    top: int
    side: int
    resolution: int
    mirrored: bool = False

    @classmethod
    def centre(cls, width: int, height: int, resolution: int, mirrored: bool = False) -> Crop:
        """The largest square in the middle of an image."""
        side = min(width, height)
        return cls((width - side) // 2, (height - side) // 2, side, resolution, mirrored)

    def pixels(self, image: Image.Image) -> Tensor:
        """uint8 [3, resolution, resolution] of an RGB image, by Pillow's bicubic filter where its
        size differs."""
        square = image.crop((self.left, self.top, self.left + self.side, self.top + self.side))
        if self.side != self.resolution:
            square = square.resize((self.resolution, self.resolution), Image.Resampling.BICUBIC)
        if self.mirrored:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    def mask(self, mask: np.ndarray, share: float = 0.5) -> Tensor | None:
        """bool [resolution, resolution] of a mask [H, W] of the whole image, by `shrink`; None
        where nothing of it is in the square."""
        square = mask[self.top : self.top + self.side, self.left : self.left + self.side]
        if not square.any():
            return None
        small = shrink(torch.from_numpy(np.ascontiguousarray(square)), self.resolution, share)
        return small.flip(-1) if self.mirrored else small

    def box(
        self, x0: float, y0: float, x1: float, y1: float
    ) -> tuple[float, float, float, float] | None:
        """The part of a box in pixels of the whole image that is in the square, in pixels of the
        crop; None where none is."""
        scale, end = self.resolution / self.side, float(self.resolution)
        x0, x1 = (min(max((x - self.left) * scale, 0.0), end) for x in (x0, x1))
        y0, y1 = (min(max((y - self.top) * scale, 0.0), end) for y in (y0, y1))
        if x0 >= x1 or y0 >= y1:
            return None
        return (end - x1, y0, end - x0, y1) if self.mirrored else (x0, y0, x1, y1)


def shrink(mask: Tensor, side: int, share: float = 0.5) -> Tensor:
    """bool [side, side]: the pixels of which at least ``share`` is covered by ``mask`` [H, W]; with
    share 0, those of which any part is."""
    covered = torch.nn.functional.interpolate(mask[None, None].float(), (side, side), mode="area")[
        0, 0
    ]
    return covered >= share if share else covered > 0
