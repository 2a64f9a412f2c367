"""Maps of the image plane as one picture: what each token does, laid over the image that it does it
in."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

PAGE = 6.7  # Inches of text width that the picture is drawn for
# How far an image is lightened under a map, so that dark objects show too, and what is left of it
# where a map is 0
PALE, DARK = 0.4, 0.06


def draw_maps(
    images: Tensor,
    maps: dict[int, np.ndarray],
    tokens: list[list[str]],
    titles: list[str] | None = None,
    white: float | None = 1.0,
) -> Image:
    """One row a prompt and resolution: the image [3, H, W], then a map a token over it, from dark
    (0) to bright (``white``; a map's own maximum where that is None). ``maps`` holds by side of the
    plane [B, side, side, T]; ``titles`` stand over the images.

    Tokens of one or two letters and punctuation are left out: the rest stays readable at the width
    of a page.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image

    titles = titles or []
    shown = [[t for t, token in enumerate(line) if len(token) > 2] for line in tokens]
    rows, columns = len(images) * len(maps), 1 + max(len(line) for line in shown)
    # One plane for all pictures, a unit a picture: as many axes with a layout of their own would
    # take seconds to draw.
    gap, title = 0.08, 0.3
    width, height = columns * (1 + gap) - gap, rows * (1 + title)
    figure = Figure(figsize=(PAGE, PAGE * height / width), dpi=200)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def place(picture: np.ndarray, row: int, column: int, name: str) -> None:
        left, top = column * (1 + gap), -row * (1 + title) - title
        axes.imshow(picture, extent=(left, left + 1, top - 1, top), interpolation="nearest")
        at, side = (left, "left") if column == 0 else (left + 0.5, "center")
        axes.text(at, top + 0.06, name, ha=side, va="bottom", fontsize=7.5)
        # Bright images would vanish on white paper.
        axes.add_patch(Rectangle((left, top - 1), 1, 1, fill=False, edgecolor="0.6", linewidth=0.6))

    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        for k, (side, opened) in enumerate(maps.items()):
            row = i * len(maps) + k
            place(image, row, 0, ", ".join([f"{side}×{side}", *titles[i : i + 1]]))
            for column, t in enumerate(shown[i], start=1):
                place(over(image, opened[i, ..., t], white), row, column, tokens[i][t])
    axes.set_xlim(-0.02, width + 0.02)
    axes.set_ylim(-height - 0.02, 0)
    buffer = io.BytesIO()
    figure.savefig(buffer, metadata={"Software": None})
    return Image.open(buffer)


def over(image: np.ndarray, plane: np.ndarray, white: float | None = 1.0) -> np.ndarray:
    """The image [H, W, 3], uint8 or in [0, 1], seen through a map [h, w], in [0, 1]: pale where the
    map is ``white``, or at its maximum where that is None, nearly black where it is 0."""
    height, width = image.shape[:2]
    rows, columns = (
        np.arange(size) * own // size
        for size, own in zip((height, width), plane.shape, strict=True)
    )
    light = np.clip(plane / max(float(plane.max()) if white is None else white, 1e-12), 0, 1)[rows][
        :, columns, None
    ]
    scale = 255 if image.dtype == np.uint8 else 1
    return (PALE + (1 - PALE) * image / scale) * (DARK + (1 - DARK) * light)
