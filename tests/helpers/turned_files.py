"""Pictures that a camera stored turned, with what is bright in them as a mask: where picture and
mask are read in the same way, they lie on each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Stored size (width, height) by name
SIZES = {"wide": (96, 64), "high": (64, 96), "square": (64, 64)}


def bright(size: tuple[int, int]) -> np.ndarray:
    """bool [H, W]: a block in the square centre that no turn leaves in its place."""
    width, height = size
    mask = np.zeros((height, width), bool)
    left, top = (width - 64) // 2, (height - 64) // 2
    mask[top + 6 : top + 26, left + 10 : left + 22] = True
    return mask


def write_picture(path: Path, size: tuple[int, int], turn: int, **how: object) -> Path:
    """A dark image of stored ``size`` with that block in it, and the EXIF orientation ``turn``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.where(bright(size), 230, 20).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.fromarray(pixels).convert("RGB")
    image.save(path, exif=exif, **how)  # type: ignore[arg-type]
    return path


def as_shown(mask: np.ndarray, turn: int) -> np.ndarray:
    """A mask [H, W] of the stored pixels as viewers show it, by Pillow."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    image.getexif()[0x0112] = turn
    return np.asarray(ImageOps.exif_transpose(image)) > 127


def iou(mask: Tensor, pixels: Tensor) -> float:
    """Of a mask [H, W] and what is bright in an image uint8 [3, H, W]."""
    there = pixels[0] > 127
    mask = mask >= 0.5
    return float((mask & there).sum() / torch.clamp((mask | there).sum(), min=1))
