"""Target masks: as they are given to ``generate`` (files, arrays or tensors, for single phrases,
several, or none), and as ragged lists of planes become tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from conf.describe import show_count
from datamodules.formats.images import decode_image
from datamodules.formats.index import DataError
from datamodules.formats.mask_files import read_levels, read_mask_image, read_shares

if TYPE_CHECKING:
    from lightning_modules.attention.capture import CapturedMaps

# Tensor [H, W], array [H, W], PIL image, or the path of an image file
MaskLike = Any
# Of one prompt: what (a phrase, several, or None) -> its mask
PromptMasks = Mapping[Any, MaskLike] | Sequence[tuple[Any, MaskLike]] | None


@dataclass
class TokenMasks:
    """The mask tokens of a training step's B samples: each one's mask [H, W], blank in the samples
    that are shown without, and the indices of the words that belong to it."""

    blank: list[bool]
    masks: list[list[Tensor]]
    word_indices: list[list[list[int]]]

    # Tokens whose maps a loss looks at, the masks that they should resemble, and those maps
    supervised_indices: list[list[int]] | None = None
    supervised_masks: list[list[Tensor]] = field(default_factory=list)
    maps: CapturedMaps | None = None

    def supervise(self, text_length: int, union: bool, samples: Sequence[bool]) -> None:
        """Supervises the tokens of those ``samples`` whose mask is not blank. Tokens stand behind a
        text of that length; with ``union`` a sample has one for all its masks."""
        masks = self.masks
        if union:
            masks = [
                [torch.stack([mask.float() for mask in sample]).amax(0)] if sample else []
                for sample in masks
            ]
        shown = [
            [(text_length + i, mask) for i, mask in enumerate(sample) if bool(mask.any())]
            if supervised
            else []
            for sample, supervised in zip(masks, samples, strict=True)
        ]
        self.supervised_indices = [[at for at, _ in sample] for sample in shown]
        self.supervised_masks = [[mask for _, mask in sample] for sample in shown]


class MaskTarget(NamedTuple):
    """One target mask: what should be there (words of the prompt, or characters [start, end); none
    for anything that the prompt names), and where: ``mask`` float32 [side, side] in [0, 1]."""

    phrases: tuple[str | tuple[int, int], ...]
    mask: Tensor


def read_masks(
    masks: Sequence[PromptMasks] | None, prompts: Sequence[str], side: int, resize: str = "area"
) -> list[list[MaskTarget]]:
    """The target masks of each prompt.

    ``masks`` has an entry a prompt: None or nothing (no mask), or a mapping, or pairs, of what to
    which mask: a phrase of the prompt, a tuple of phrases that share the mask, or None for a mask
    that belongs to no words. A mask is brought to ``side`` x ``side`` by ``resize``, "area" or
    "nearest". Raises ValueError when there is not one entry a prompt, and on a mask that cannot be
    read, is not a plane or not square.
    """
    if masks is None:
        return [[] for _ in prompts]
    if isinstance(masks, Mapping) or len(masks) != len(prompts):
        single = isinstance(masks, Mapping)
        count = "a single mapping" if single else show_count(len(masks), "entry", "entries")
        raise ValueError(
            f"masks: {count} for {show_count(len(prompts), 'prompt')}; expected a list with one "
            "entry a "
            "prompt, None for no mask"
        )
    targets = []
    for prompt, entry in zip(prompts, masks, strict=True):
        pairs = entry.items() if isinstance(entry, Mapping) else entry or ()
        targets.append(
            [
                MaskTarget(
                    _phrases(what),
                    read_mask(mask, side, f"the mask of {what!r} in {prompt!r}", resize),
                )
                for what, mask in pairs
            ]
        )
    return targets


def _phrases(what: Any) -> tuple[str | tuple[int, int], ...]:
    if what is None:
        return ()
    if isinstance(what, str) or (
        isinstance(what, tuple) and len(what) == 2 and all(isinstance(part, int) for part in what)
    ):
        return (what,)
    phrases = tuple(what)
    if not all(isinstance(part, str | tuple) for part in phrases):
        raise ValueError(
            f"masks: {what!r} names no words; expected a phrase, a tuple of phrases, a span "
            "(start, end), or None"
        )
    return phrases


def read_mask(mask: MaskLike, side: int, name: str = "a mask", resize: str = "area") -> Tensor:
    """float32 [side, side] in [0, 1] of a tensor or array [H, W] (bool, numbers from 0 to 1, or
    whole numbers), a PIL image, or a file, as it is shown. What whole numbers mean is that of
    `mask_files`; a reading that is not plain is a warning."""
    form = "PNG"
    if isinstance(mask, str | Path):
        try:
            mask, form = decode_image(Path(mask))
        except DataError as error:
            cure = "expected a PNG that is white where it should be"
            raise ValueError(
                f"{name}: {mask} cannot be read as an image ({error.__cause__}); {cure}"
            ) from error
    plane = mask if isinstance(mask, Image.Image) else torch.as_tensor(mask)
    if isinstance(plane, Tensor) and (plane.dim() != 2 or 0 in plane.shape):
        raise ValueError(
            f"{name} has the shape {tuple(plane.shape)}: expected a plane [height, width]"
        )
    height, width = plane.shape if isinstance(plane, Tensor) else plane.size[::-1]
    if height != width:
        raise ValueError(
            f"{name} is {width} wide and {height} high: images are square here; crop the "
            "mask as the image should be"
        )
    try:
        if isinstance(plane, Image.Image):
            reading = read_mask_image(plane, form)
        elif plane.is_floating_point() or plane.dtype == torch.bool:
            reading = read_shares(plane.float().cpu().numpy())
        else:
            reading = read_levels(plane.cpu().numpy())
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    for note in reading.notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    plane = torch.from_numpy(reading.values)
    if plane.shape[0] != side:
        plane = F.interpolate(plane[None, None], (side, side), mode=resize)[0, 0]
    return plane


def rotate_mask(mask: Tensor, degrees: float) -> Tensor:
    """A bool mask [H, W] turned counter-clockwise about its centroid; what leaves the plane is
    lost. An empty mask stays as it is."""
    if not bool(mask.any()):
        return mask
    rows, columns = (where.float().mean() for where in mask.nonzero().unbind(1))
    height, width = mask.shape
    y = torch.arange(height)[:, None] - rows
    x = torch.arange(width)[None] - columns
    angle = math.radians(degrees)
    # The pixel that each pixel of the turned mask comes from; y points down
    from_x = (columns + math.cos(angle) * x - math.sin(angle) * y).round().long()
    from_y = (rows + math.sin(angle) * x + math.cos(angle) * y).round().long()
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return mask[from_y.clamp(0, height - 1), from_x.clamp(0, width - 1)] & inside


def stack_masks(
    masks: Sequence[Sequence[Tensor]], side: int, device: torch.device, resize: str = "area"
) -> tuple[Tensor, Tensor]:
    """Ragged lists of masks [H, W] -> float32 [B, n, side, side], brought there by ``resize``
    ("area" or "nearest") and blank where a sample has fewer than n, and bool [B, n], which of them
    exist."""
    most = max((len(sample) for sample in masks), default=0)
    present = torch.tensor(
        [[i < len(sample) for i in range(most)] for sample in masks], dtype=torch.bool
    ).view(len(masks), most)
    stacked = torch.zeros(*present.shape, side, side, device=device)
    planes = [
        mask.float()
        if mask.shape == (side, side)
        else F.interpolate(mask.float()[None, None], (side, side), mode=resize)[0, 0]
        for sample in masks
        for mask in sample
    ]
    if planes:
        # Masks come with the batch, wherever that is
        stacked[present] = torch.stack(planes).to(device)
    return stacked, present.to(device)
