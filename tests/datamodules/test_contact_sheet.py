"""Contact sheets: masks on images, words in captions, and that the two are shown to belong
together."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageColor

from datamodules.batch import Phrase
from datamodules.contact_sheet import BADGE, COLORS, GAP, LINE, LINES, SIDE, SMALL, Tile, draw


def square(left: int, top: int, size: int = 16) -> torch.Tensor:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[top : top + size, left : left + size] = True
    return mask


def tile(
    caption: str, *named: tuple[str, torch.Tensor], unnamed: tuple[torch.Tensor, ...] = ()
) -> Tile:
    phrases = [
        Phrase(words, caption.index(words), caption.index(words) + len(words), mask)
        for words, mask in named
    ]
    return Tile(
        "000000000001.png",
        torch.full((3, 64, 64), 90, dtype=torch.uint8),
        caption,
        phrases,
        list(unnamed),
    )


def has(picture: np.ndarray, color: str) -> np.ndarray:
    return (picture == ImageColor.getrgb(color)).all(-1)


def parts(sheet: Image.Image, left: int = GAP) -> tuple[np.ndarray, np.ndarray]:
    """(the first image, what stands below it)."""
    pixels = np.array(sheet)[:, left : left + SIDE]
    return pixels[GAP : GAP + SIDE], pixels[GAP + SIDE :]


def test_masks_are_outlined_and_words_underlined_in_the_same_colours():
    image, below = parts(
        draw([tile("a cat and a dog", ("cat", square(8, 8)), ("dog", square(40, 32)))])
    )
    scale = SIDE / 64
    for color, (left, top) in zip(COLORS, ((8, 8), (40, 32)), strict=False):
        rows, columns = has(image, color).nonzero()
        assert (rows.min(), columns.min()) == (round(top * scale), round(left * scale))
        assert (rows.max(), columns.max()) == (
            round((top + 16) * scale) - 1,
            round((left + 16) * scale) - 1,
        )
        # The object itself stays to be seen: outline and number are all that is painted on it.
        assert has(image, color).sum() < 0.4 * (16 * scale) ** 2
    first, second = (has(below, color) for color in COLORS[:2])
    assert first.any() and second.any() and first.nonzero()[1].max() < second.nonzero()[1].min()
    assert not has(below, COLORS[2]).any()


def test_words_that_mean_the_same_have_one_colour_and_number():
    image, below = parts(
        draw([tile("a cat, the kitten", ("cat", square(8, 8)), ("kitten", square(8, 8)))])
    )
    assert has(below, COLORS[0]).any() and not has(below, COLORS[1]).any()
    left, right = has(below, COLORS[0]).nonzero()[1].min(), has(below, COLORS[0]).nonzero()[1].max()
    assert right - left > 80, "both words are underlined"
    assert not has(image, COLORS[1]).any()


def test_what_no_word_names_is_outlined_without_colour():
    image, below = parts(draw([tile("nothing", unnamed=(square(20, 20),))]))
    assert (image == 255).all(-1).any() and not any(
        has(image, color).any() or has(below, color).any() for color in COLORS[:-1]
    )


def test_numbers_of_objects_inside_each_other_do_not_hide_each_other():
    image, _ = parts(
        draw([tile("a man in a coat", ("man", square(8, 8, 48)), ("coat", square(16, 16, 32)))])
    )
    scale = SIDE / 64
    for color, first, last in ((COLORS[0], 8, 56), (COLORS[1], 16, 48)):
        inside = slice(round(first * scale) + 5, round(last * scale) - 5)  # without the outline
        assert has(image[inside, inside], color).sum() > BADGE**2 / 3


def test_tiles_stand_in_rows_as_high_as_their_longest_caption():
    short, long = tile("one"), tile("many words " * 40)
    sheet = draw([short, long, short, short, short], columns=2)
    assert sheet.width == GAP + 2 * (SIDE + GAP)
    assert sheet.height == GAP + 3 * (SIDE + SMALL + 12 + GAP) + (LINES + 1 + 1) * LINE
    assert draw([short], columns=4).width == 2 * GAP + SIDE


def test_captions_stay_within_their_tile():
    words = (
        "an extraordinarily long caption about a cat and its whereabouts in the afternoon "
        "of a day in summer"
    )
    sheet = np.array(draw([tile(words, ("cat", square(8, 8)))]))
    assert (sheet[:, GAP + SIDE + BADGE :] == 255).all()


def test_photographs_shrink_and_odd_masks_do_not_stop_it():
    pixels = torch.randint(0, 255, (3, 512, 512), dtype=torch.uint8)
    empty, soft = torch.zeros(512, 512, dtype=torch.bool), torch.rand(512, 512)
    caption = "über alles: é, 日本, cat"
    phrases = [Phrase("cat", len(caption) - 3, len(caption), empty), Phrase("alles", 5, 10, soft)]
    sheet = draw([Tile("a" * 200, pixels, caption, phrases), tile("")])
    assert sheet.size[0] == GAP + 2 * (SIDE + GAP)
