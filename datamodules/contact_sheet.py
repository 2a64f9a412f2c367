"""Pictures of samples for a person: each image with its masks outlined, below it the caption with
the words that mean them.

What belongs together has the same colour and the same number. The colour-blind can distinguish
the colours (Okabe and Ito).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from datamodules.batch import Phrase

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
INK, FAINT = "#1a1a1a", "#6b6b6b"
# Pixels: tiles, between them, a line of the caption, the name, a number
SIDE, GAP, LINE, SMALL, BADGE = 288, 18, 21, 12, 15
LINES = 6  # of a caption; what is longer ends in dots


@dataclass
class Tile:
    """One sample: ``pixels`` uint8 [3, H, W]; the caption and those of its words that have a mask
    [H, W]; masks that no word names."""

    name: str
    pixels: Tensor
    caption: str
    phrases: list[Phrase] = field(default_factory=list)
    unnamed: list[Tensor] = field(default_factory=list)


def draw(tiles: Sequence[Tile], columns: int = 4) -> Image.Image:
    """The tiles from left to right and from top to bottom, on white."""
    fonts = _Fonts()
    columns = max(1, min(columns, len(tiles)))
    below = [_Text(tile, fonts) for tile in tiles]
    rows = [
        range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)
    ]
    heights = [SIDE + SMALL + 12 + LINE * max(len(below[i].lines) for i in row) for row in rows]
    sheet = Image.new(
        "RGB",
        (GAP + columns * (SIDE + GAP), GAP + sum(height + GAP for height in heights)),
        "white",
    )
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = GAP + column * (SIDE + GAP)
            sheet.paste(_picture(tiles[i], below[i].numbers, fonts), (left, top))
            below[i].write(ImageDraw.Draw(sheet), left, top + SIDE + 4)
        top += height + GAP
    return sheet


class _Fonts:
    def __init__(self) -> None:
        import matplotlib

        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.plain = ImageFont.truetype(str(folder / "DejaVuSans.ttf"), 15)
        self.small = ImageFont.truetype(str(folder / "DejaVuSans.ttf"), SMALL)
        self.number = ImageFont.truetype(str(folder / "DejaVuSans-Bold.ttf"), 11)


def _numbers(phrases: Sequence[Phrase]) -> list[int]:
    """From 0, for each phrase: those that mean the same have the same."""
    kinds: list[Tensor] = []
    numbers = []
    for phrase in phrases:
        same = [k for k, mask in enumerate(kinds) if torch.equal(mask, phrase.mask)]
        if not same:
            kinds.append(phrase.mask)
        numbers.append(same[0] if same else len(kinds) - 1)
    return numbers


def _badge(draw: ImageDraw.ImageDraw, x: float, y: float, number: int, fonts: _Fonts) -> None:
    """The number in a disc of its colour about (x, y)."""
    radius = BADGE / 2
    draw.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill="white")
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=COLORS[number % len(COLORS)]
    )
    draw.text((x, y), str(number + 1), font=fonts.number, fill="white", anchor="mm")


# --- the image --------------------------------------------------------------------------------


def _picture(tile: Tile, numbers: Sequence[int], fonts: _Fonts) -> Image.Image:
    """The image at `SIDE` pixels, its masks outlined inside a white line: in colour where words
    name them, else thin and grey."""
    whole = Image.fromarray(tile.pixels.permute(1, 2, 0).numpy())
    # A few large pixels stay what they are; a photograph is resampled.
    filters = Image.Resampling
    picture = np.array(
        whole.resize((SIDE, SIDE), filters.NEAREST if whole.width < SIDE / 2 else filters.LANCZOS)
    )
    for mask in tile.unnamed:
        _outline(picture, _enlarged(mask), FAINT, 1)
    named = {
        number: _enlarged(phrase.mask) for number, phrase in zip(numbers, tile.phrases, strict=True)
    }
    for number, mask in named.items():
        _outline(picture, mask, COLORS[number % len(COLORS)], 3)
    image = Image.fromarray(picture)
    taken: list[tuple[float, float]] = []
    for number, mask in named.items():
        x, y = _middle(mask, taken)
        taken.append((x, y))
        _badge(ImageDraw.Draw(image), x, y, number, fonts)
    return image


def _enlarged(mask: Tensor) -> np.ndarray:
    plane = Image.fromarray(((mask.float() >= 0.5) * 255).to(torch.uint8).numpy())
    return np.array(plane.resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 127


def _outline(picture: np.ndarray, mask: np.ndarray, color: str, width: int) -> None:
    """A white line about the mask, and ``width`` pixels of the colour within."""
    inner = mask
    for _ in range(width):
        inner = _eroded(inner)
    picture[~_eroded(~mask) & ~mask] = 255
    picture[mask & ~inner] = ImageColor.getrgb(color)


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Without the pixels at its border; the border of the image counts as inside."""
    padded = np.pad(mask, 1, mode="edge")
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _middle(mask: np.ndarray, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A place for a number inside the mask, near its middle and off the other numbers; the middle
    of the image for an empty mask."""
    rows, columns = mask.nonzero()
    if not len(rows):
        return SIDE / 2, SIDE / 2
    far = np.hypot(columns - columns.mean(), rows - rows.mean())
    for x, y in taken:
        far = far + 1e6 * (np.hypot(columns - x, rows - y) < BADGE + 3)
    best = int(far.argmin())
    edge = BADGE / 2 + 2
    return float(np.clip(columns[best], edge, SIDE - edge)), float(
        np.clip(rows[best], edge, SIDE - edge)
    )


# --- the caption --------------------------------------------------------------------------------


class _Text:
    """The name and the caption of a tile, in lines of (words, phrase or None, whether a phrase ends
    here)."""

    def __init__(self, tile: Tile, fonts: _Fonts) -> None:
        self.tile, self.fonts, self.numbers = tile, fonts, _numbers(tile.phrases)
        self.lines = self._wrapped()

    def write(self, draw: ImageDraw.ImageDraw, left: float, top: float) -> None:
        draw.text(
            (left, top),
            _shortened(self.tile.name, self.fonts.small),
            font=self.fonts.small,
            fill=FAINT,
        )
        y = top + SMALL + 6
        for line in self.lines:
            x = left
            for place, (text, phrase, ends) in enumerate(line):
                if place == len(line) - 1:
                    text = text.rstrip()
                width = self.fonts.plain.getlength(text)
                draw.text((x, y), text, font=self.fonts.plain, fill=INK)
                if phrase is not None:
                    number = self.numbers[phrase]
                    draw.line(
                        (x, y + 18, x + width, y + 18), fill=COLORS[number % len(COLORS)], width=3
                    )
                    if ends:
                        _badge(draw, x + width + BADGE / 2 + 2, y + 9, number, self.fonts)
                x += width + (BADGE + 4) * ends
            y += LINE

    def _wrapped(self) -> list[list[tuple[str, int | None, bool]]]:
        lines: list[list[tuple[str, int | None, bool]]] = [[]]
        room = float(SIDE)
        for word in re.finditer(r"\S+\s*", self.tile.caption):
            parts = self._parts(word.start(), word.end())
            width = sum(
                self.fonts.plain.getlength(text) + (BADGE + 4) * ends for text, _, ends in parts
            )
            if width > room and lines[-1]:
                lines.append([])
                room = float(SIDE)
            lines[-1] += parts
            room -= width
        if len(lines) > LINES:
            lines[LINES:] = []
            lines[-1].append(("…", None, False))
        return lines

    def _parts(self, start: int, end: int) -> list[tuple[str, int | None, bool]]:
        """The characters of a word, divided where phrases begin and end."""
        phrases = self.tile.phrases
        cuts = sorted(
            {start, end, *(at for p in phrases for at in (p.start, p.end) if start < at < end)}
        )
        parts = []
        for begin, stop in zip(cuts, cuts[1:], strict=False):
            within = next((i for i, p in enumerate(phrases) if p.start <= begin < p.end), None)
            parts.append(
                (
                    self.tile.caption[begin:stop],
                    within,
                    within is not None and stop == phrases[within].end,
                )
            )
        return parts


def _shortened(name: str, font: ImageFont.FreeTypeFont) -> str:
    """The name with dots in its middle where it is too long for a tile."""
    if font.getlength(name) <= SIDE:
        return name
    keep = math.floor(len(name) * SIDE / font.getlength(name)) - 2
    return f"{name[: keep // 2]}…{name[-(keep - keep // 2) :]}"
