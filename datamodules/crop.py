"""The square that is seen of an image: the same for its pixels, its masks and its boxes; and the
images of an index, cropped to it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from conf.contents import Emit
from datamodules.batch import Instance
from datamodules.formats.images import read_image
from datamodules.formats.index import DataError, Records


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
    """bool [side, side]: the pixels of which at least ``share`` is covered by ``mask``, bool or of
    0 and 1, [H, W]; with share 0, those of which any part is.

    To the bit what ``interpolate(mode="area")`` makes of it, by sums over the part in which the
    mask is.
    """
    plane, small = mask.numpy(), np.zeros((side, side), bool)
    rows = np.flatnonzero(plane.any(1))
    if not len(rows):
        return torch.from_numpy(small)
    plane_rows = plane[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(plane_rows.any(0))
    part = plane_rows[:, columns[0] : columns[-1] + 1]
    sums = np.zeros((part.shape[0] + 1, part.shape[1] + 1), np.int32)
    np.cumsum(part, 0, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], 1, out=sums[1:, 1:])
    ys, tops, bottoms = _cells(plane.shape[0], side, rows[0], len(part))
    xs, lefts, rights = _cells(plane.shape[1], side, columns[0], part.shape[1])
    strips = sums[bottoms.inside] - sums[tops.inside]
    inside = (strips[:, rights.inside] - strips[:, lefts.inside]).astype(np.float32)
    covered = inside / (bottoms.at - tops.at)[:, None] / (rights.at - lefts.at)
    small[ys, xs] = covered >= np.float32(share) if share else covered > 0
    return torch.from_numpy(small)


class _Edges(NamedTuple):
    """Where cells begin or end: ``at`` in pixels of a plane, float32, and ``inside`` a part of
    it."""

    at: np.ndarray
    inside: np.ndarray


def _cells(length: int, side: int, first: int, count: int) -> tuple[slice, _Edges, _Edges]:
    """Which of ``side`` cells, into which ``length`` pixels are divided, meet the ``count`` pixels
    from ``first`` on, and where these begin and end. Cells share pixels where they do not come
    out even."""
    numbers = np.arange(side)
    begins, ends = numbers * length // side, -(-(numbers + 1) * length // side)
    meet = slice(
        int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(begins, first + count))
    )
    start, end = (
        _Edges(at.astype(np.float32), np.clip(at - first, 0, count))
        for at in (begins[meet], ends[meet])
    )
    return meet, start, end


class CroppedImages(Dataset):
    """The images of ``records``, cropped to a square and resized to ``resolution`` pixels.

    ``mask_share`` is the share of a pixel of a smaller mask that must be covered (see `shrink`);
    with 0 no object in the crop vanishes, however small. Raises ValueError where it is no share.
    """

    def __init__(
        self, records: Records, split: str, resolution: int, mask_share: float = 0.5
    ) -> None:
        if not 0 <= mask_share <= 1:
            raise ValueError(
                f"data.mask_share={mask_share}: expected a share of a pixel, from 0 (any of it) to "
                "1 (all of it)"
            )
        self.records, self.split = records, split
        self.resolution, self.mask_share = resolution, mask_share

    def __len__(self) -> int:
        return len(self.records)

    @property
    def encodable(self) -> int:
        """How many images there are to encode: ``image(i)`` for i below it, and ``image(i,
        flipped=True)`` where there are flips."""
        return len(self)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the index says: split, layout, counts, and what was left out and why. Fits into
        JSON."""
        return self.records.manifest | {"images": len(self)}

    def image(self, index: int, flipped: bool = False) -> Tensor:
        """float32 [3, resolution, resolution] in [-1, 1]."""
        return self.pixels(index, flipped).float() / 127.5 - 1

    def pixels(self, index: int, flipped: bool = False) -> Tensor:
        """uint8 [3, resolution, resolution]. Raises DataError where the image cannot be decoded."""
        record, crop = self.records[index], self.crop(index, flipped)
        image = read_image(record.path, record.as_stored)
        if image.size != (record.width, record.height):
            self.records.images_changed(again=True)
            raise DataError(
                f"{record.path}: now {image.size}, {(record.width, record.height)} when it "
                "was indexed: start again"
            )
        return crop.pixels(image)

    def crop(self, index: int, flipped: bool = False) -> Crop:
        record = self.records[index]
        return Crop.centre(record.width, record.height, self.resolution, flipped)

    def digest(self, emit: Emit | None = None) -> str:
        """Changes with the content of the images that are read and with how they are cropped: the
        key of what is cached of their pixels. ``emit`` gets lines while many files are read."""
        return self._digest(self.records.digest_images(emit))

    def content_digest(self, emit: Emit | None = None) -> str:
        """As `digest`, and with everything else that samples are made of: captions, annotations."""
        return self._digest(self.records.digest(emit))

    def _digest(self, records: str) -> str:
        facts = [self.split, str(self.resolution), str(self.mask_share), records]
        facts += [f"row {row} as stored" for row in self.records.rows_as_stored()]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]

    def instances(
        self, index: int, flipped: bool = False, share: float | None = None
    ) -> list[Instance]:
        """The objects of one image, masks and boxes cropped and resized as the image is. Those of
        which nothing is left are left out.

        ``share`` replaces ``mask_share``.
        """
        return []

    def objects(self, index: int) -> int:
        """How many objects of one image have masks, wherever in it they are."""
        return 0

    def empty(self, index: int) -> int:
        """How many of these have masks without a pixel."""
        return 0


def vanished(
    dataset: CroppedImages, sides: Sequence[int], rows: Sequence[int] | None = None
) -> dict[int, dict[str, int]]:
    """What becomes of the objects of some images (default: all) where masks are shrunk to a map of
    side x side pixels, for each of ``sides``.

    ``objects`` in all; ``empty``: without a pixel; ``outside`` the crop; ``vanished``: inside, but
    with no pixel left under the data set's ``mask_share``.
    """
    counts = {side: {"objects": 0, "empty": 0, "outside": 0, "vanished": 0} for side in sides}
    for row in range(len(dataset)) if rows is None else rows:
        objects, inside = dataset.objects(row), len(dataset.instances(row, share=0.0))
        empty = dataset.empty(row)
        masks = [instance.mask for instance in dataset.instances(row)]
        for side, count in counts.items():
            left = sum(bool(shrink(mask, side, dataset.mask_share).any()) for mask in masks)
            count["objects"] += objects
            count["empty"] += empty
            count["outside"] += objects - empty - inside
            count["vanished"] += inside - left
    return counts
