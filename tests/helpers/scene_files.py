"""Scene folders as Break-A-Scene's own examples are laid out: img.jpg, mask0.png, mask1.png, …"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_scene(
    folder: Path, size: tuple[int, int] = (96, 64), masks: int = 2, brightness: int = 200
) -> Path:
    """An image of ``size`` (width, height) in which each of the subjects, side by side in the
    square centre, is a block of its mask."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.full((height, width, 3), 60, np.uint8)
    left = (width - height) // 2
    for i in range(masks):
        columns = slice(left + i * height // masks, left + (i + 1) * height // masks - 2)
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : -height // 4, columns] = 255
        pixels[mask > 0, i % 3] = brightness
        Image.fromarray(mask).save(folder / f"mask{i}.png")
    Image.fromarray(pixels).save(folder / "img.jpg", quality=95)
    return folder
