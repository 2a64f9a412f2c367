"""Target masks as people give them to `generate`: files, arrays or tensors, for single phrases,
several, or none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

MaskLike = Any  # Tensor [H, W], array [H, W], PIL image, or the path of an image file
Given = Mapping[Any, MaskLike] | Sequence[tuple[Any, MaskLike]] | None


class MaskTarget(NamedTuple):
    """One target mask: what shall be there (words of the prompt, or characters from start up to
    end; none for whatever the prompt says), and where: ``mask`` float32 [side, side] in [0, 1]."""

    phrases: tuple[str | tuple[int, int], ...]
    mask: Tensor


def read_masks(
    given: Sequence[Given] | None, prompts: Sequence[str], side: int
) -> list[list[MaskTarget]]:
    """The target masks of each prompt.

    ``given`` has an entry a prompt: None or nothing (no mask), or a mapping, or pairs, of what to
    which mask: a phrase of the prompt, a tuple of phrases that share the mask, or None for a mask
    that belongs to no words. A mask is brought to ``side`` x ``side`` by area. Raises ValueError
    when there is not one entry a prompt, and on a mask that cannot be read, is not a plane or not
    square.
    """
    if given is None:
        return [[] for _ in prompts]
    if isinstance(given, Mapping) or len(given) != len(prompts):
        count = "a single mapping" if isinstance(given, Mapping) else f"{len(given)} entries"
        raise ValueError(
            f"masks: {count} for {len(prompts)} prompts; expected a list with one entry a "
            "prompt, None for no mask"
        )
    result = []
    for prompt, entry in zip(prompts, given, strict=True):
        pairs: Iterable[tuple[Any, MaskLike]] = (
            entry.items() if isinstance(entry, Mapping) else entry or ()
        )
        result.append(
            [
                MaskTarget(
                    _phrases(what), read_mask(mask, side, f"the mask of {what!r} in {prompt!r}")
                )
                for what, mask in pairs
            ]
        )
    return result


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


def read_mask(mask: MaskLike, side: int, name: str = "a mask") -> Tensor:
    """float32 [side, side] in [0, 1] of a tensor or array [H, W] (bool, or numbers from 0 to 1 or 0
    to 255), a PIL image, or a file."""
    from PIL import Image

    if isinstance(mask, str | Path):
        try:
            with Image.open(mask) as file:
                mask = np.array(file.convert("L"))
        except (OSError, ValueError) as error:
            cure = "expected a PNG that is white where it should be"
            raise ValueError(
                f"{name}: {mask} cannot be read as an image ({error}); {cure}"
            ) from error
    elif isinstance(mask, Image.Image):
        mask = np.array(mask.convert("L"))
    plane = torch.as_tensor(mask)
    if plane.dim() != 2 or 0 in plane.shape:
        raise ValueError(
            f"{name} has the shape {tuple(plane.shape)}: expected a plane [height, width]"
        )
    if plane.shape[0] != plane.shape[1]:
        height, width = plane.shape
        raise ValueError(
            f"{name} is {width} wide and {height} high: images are square here; crop the "
            "mask as the image should be"
        )
    plane = plane.float() / (255 if plane.dtype == torch.uint8 and bool((plane > 1).any()) else 1)
    if not bool(((plane >= 0) & (plane <= 1)).all()):
        raise ValueError(
            f"{name} has values from {plane.min():g} to {plane.max():g}: expected 0 to 1, "
            "or whole numbers from 0 to 255"
        )
    if plane.shape[0] != side:
        plane = torch.nn.functional.interpolate(plane[None, None], (side, side), mode="area")[0, 0]
    return plane


def turned(mask: Tensor, degrees: float) -> Tensor:
    """A bool mask [H, W] turned counter-clockwise about its centroid; what leaves the plane is
    lost. An empty mask stays as it is."""
    if not bool(mask.any()):
        return mask
    rows, columns = (where.float().mean() for where in mask.nonzero().unbind(1))
    height, width = mask.shape
    y = torch.arange(height)[:, None] - rows
    x = torch.arange(width)[None] - columns
    angle = math.radians(degrees)
    # Where each place of the turned mask comes from; y points down.
    from_x = (columns + math.cos(angle) * x - math.sin(angle) * y).round().long()
    from_y = (rows + math.sin(angle) * x + math.cos(angle) * y).round().long()
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return mask[from_y.clamp(0, height - 1), from_x.clamp(0, width - 1)] & inside
