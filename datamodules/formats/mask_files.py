"""What the values of a mask file mean.

A mask is one plane: where its subject is. Files say so in many ways, and some that look alike mean
other things: the values 0, 1, 2, 3 of a label map, taken for shades of grey, are a mask that is
nearly transparent. So what the values are is recognised, and said (`MaskReading.kind`, ``notes``),
or refused with what to do:

* the plane: alpha where it varies; else the colours of a palette (its indices, where all colours
  are the same); else the grey values. Shades of a single colour on black count by their brightest
  channel; several colours are a label map, or a photograph, and refused;
* 0 and 1, 0 and 255, 0 and 65535, and 0 with any other single value: not there and there;
* what JPEG or lossy WebP made of such a mask: below and above half of its one value;
* many values up to 255 (65535 for sixteen bits): shares of a pixel;
* a few small whole numbers: a label map of several objects, refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from conf.describe import show_count

LOSSY = ("JPEG", "MPO", "WEBP")
# Levels besides 0 up to which a mask may be a label map; shades of a soft edge are more
FEW = 20
# A soft mask reaches this share of the full value somewhere
BRIGHT = 0.75
# A mask of more than one value that stays below this share is as good as transparent
DARK = 1 / 2
# Of 255: what compression adds to 0 or takes off 255; the share of pixels that is so near to 0 or
# 255, and of those that are neither, where an edge is not meant to be soft
NOISE, NEAR, SHARP = 32, 0.9, 0.8
# Of 255: how far lossy compression takes most pixels of an area of one value; the share of the
# pixels that are there which makes an area, and that of all areas together
SHIFT, AREA, AREAS = 4, 0.1, 0.5
# Of 255: how far rounding takes the shades of a colour from it
ROUNDING = 2
CURE = "save each subject as a file of its own, white (255) on black (0)"


class MaskReading(NamedTuple):
    """``values`` float32 [H, W] in [0, 1], of what ``kind`` they were, and what a person should
    know of how they were read."""

    values: np.ndarray
    kind: str
    notes: tuple[str, ...] = ()


def read_mask_image(image: Image.Image, form: str = "PNG") -> MaskReading:
    """The mask in a decoded image of the format ``form``. Raises ValueError, to be read behind the
    name of the file, where it is none."""
    lossy = form in LOSSY
    if image.mode == "F":
        return read_shares(np.asarray(image))
    if image.mode.startswith("I"):
        return read_levels(np.asarray(image))
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if np.ptp(alpha):
            opaque = np.asarray(image.convert("RGB"))[alpha == alpha.max()]
            if 1 < (colors := len(_find_colors(opaque))) <= FEW:
                raise ValueError(
                    f"has {colors} colours where it is not transparent, as a label map or a mask "
                    f"of its own does: {CURE}"
                )
            reading = read_levels(alpha, lossy)
            notes = reading.notes
            if colors > 1 and not np.ptp(opaque, axis=-1).any():
                notes += (
                    "its transparency is the mask; the greys where it is opaque are not read",
                )
            return reading._replace(kind=f"alpha, {reading.kind}", notes=notes)
        if not alpha.any():
            raise ValueError(f"is transparent everywhere: {CURE}")
    if image.mode in ("1", "L", "LA"):
        return read_levels(np.asarray(image.convert("L")), lossy)
    if image.mode in ("P", "PA"):
        return read_levels(_of_palette(image))
    return read_levels(_of_colors(np.asarray(image.convert("RGB")), lossy), lossy)


def read_levels(plane: np.ndarray, lossy: bool = False) -> MaskReading:
    """The mask in whole numbers [H, W] from 0 on. Raises ValueError as `read_mask_image`."""
    least, top = int(plane.min()), int(plane.max())
    if least < 0 or top > 65535:
        raise ValueError(f"has values from {least} to {top}: expected 0 to 255, or to 65535")
    full = 1 if top <= 1 else 255 if top <= 255 else 65535
    counts = np.bincount(plane.ravel(), minlength=1)
    levels = np.flatnonzero(counts)
    values = plane.astype(np.float32) / full
    if len(levels) == 1:
        return _read_uniform(values, top, full)
    if top <= DARK * full and (len(levels) > 2 or least):
        raise ValueError(f"{_name_labels(levels)}, of {full} for there: {CURE}")
    if least == 0 and len(levels) == 2:
        told = [] if top == full else [f"its one value {top} means there, as {full} would"]
        return MaskReading((plane > 0).astype(np.float32), f"0 and {top}", tuple(told))
    areas = _find_areas(counts) if lossy and full == 255 else []
    if len(areas) > 1 or (areas and areas[0] < 255 - NOISE):
        return _read_areas(plane, areas)
    noisy = full == 255 and top >= 255 - NOISE and _is_noise(counts, lossy)
    shades = levels[levels > 0]
    small = counts[1:32].sum() / counts[1:].sum() if full == 255 else 0
    few = len(shades) <= FEW
    if few and not (noisy and lossy) and (top < BRIGHT * full or small > 0.1):
        raise ValueError(f"{_name_labels(levels)}: {CURE}")
    if not few and not lossy and _shows_areas(plane, levels):
        raise ValueError(f"{_name_labels(levels)}: {CURE}")
    if noisy and not (few and not lossy):
        note = "its values between are taken for noise of a compression: there is what is above 127"
        return MaskReading((plane > 127).astype(np.float32), "0 and 255 with noise", (note,))
    notes = []
    if few:
        shares = ", ".join(f"{level / full:.0%}" for level in shades)
        notes.append(
            f"its {show_count(len(shades), 'value')} above 0 read as shares of a pixel: {shares}"
        )
    elif top < BRIGHT * full:
        notes.append(f"its highest value, {top} of {full}, is read as {top / full:.0%} there")
    ends = counts[: full // 8 + 1].sum() + counts[full - full // 8 :].sum()
    if ends < plane.size / 2:
        notes.append(f"{1 - ends / plane.size:.0%} of it is grey, as a picture is")
    if least:
        notes.append(f"no pixel is 0: the subject is everywhere, to {least / full:.0%} at least")
    return MaskReading(values, f"soft, {least} to {top}", tuple(notes))


def read_shares(plane: np.ndarray) -> MaskReading:
    """The mask in numbers [H, W] from 0 to 1. Raises ValueError where they are others."""
    if not ((plane >= 0) & (plane <= 1)).all():
        raise ValueError(
            f"has values from {plane.min():g} to {plane.max():g}: expected 0 to 1, or whole "
            "numbers from 0 to 255"
        )
    return MaskReading(plane.astype(np.float32), "shares")


def find_doubts(values: np.ndarray) -> list[str]:
    """What makes a mask [H, W] in [0, 1] look like a mistake: it is everywhere, or the wrong way
    round."""
    inside = values >= 0.5
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if inside.all():
        return ["covers the whole image"]
    if edge.mean() >= 0.95 and inside.mean() > 0.5:
        return [
            f"is white along the border and covers {inside.mean():.0%} of the image: if the dark "
            "part is the subject, invert it"
        ]
    return []


def _is_noise(counts: np.ndarray, lossy: bool) -> bool:
    """Whether pixels, ``counts`` of each value from 0 to 255, are 0 or 255 but for what lossy
    compression did to them, in this file or before it was saved in another form."""
    counts = np.pad(counts, (0, 256 - len(counts)))
    near = counts[1 : NOISE + 1].sum() + counts[255 - NOISE : 255].sum()
    between = counts[1:255].sum()
    return bool(
        counts[0] + counts[255] + near >= NEAR * counts.sum() and (lossy or near > SHARP * between)
    )


def _shows_areas(plane: np.ndarray, levels: np.ndarray) -> bool:
    """Whether a plane [H, W] is made of areas of one value each, ``levels`` in all, and no two of
    them neighbours, as labels that are spread over the range are. The shades of a soft edge are
    seldom equal side by side, those of a blur differ by one."""
    apart = np.diff(levels, prepend=-2, append=levels[-1] + 2) > 1
    alone = levels[apart[:-1] & apart[1:]]
    inner = np.isin(plane, alone[(alone > 0) & (alone < levels[-1])])
    equal = inner[:, :-1] & (plane[:, :-1] == plane[:, 1:])
    return bool(inner.sum() > plane.astype(bool).sum() / 2 and equal.sum() > inner.sum() / 2)


def _find_areas(counts: np.ndarray) -> list[int]:
    """The values above 0, ascending, of the areas that a lossy image, ``counts`` of each value from
    0 to 255, shows; none where most of what is there has no such value."""
    there = np.pad(counts, (0, 256 - len(counts)))
    there[: NOISE + 1] = 0
    left, covered = there.copy(), 0
    found: list[int] = []  # Those of the most pixels first
    window = np.ones(2 * SHIFT + 1, int)
    while (sums := np.convolve(left, window, "same")).max() > AREA * there.sum():
        middle = int(sums.argmax())
        part = slice(max(middle - SHIFT, 0), middle + SHIFT + 1)
        value = part.start + int(left[part].argmax())
        if all(abs(value - other) > NOISE for other in found):
            found.append(value)
        covered += int(left[part].sum())
        left[part] = 0
    return sorted(found) if covered >= AREAS * there.sum() else []


def _read_areas(plane: np.ndarray, areas: list[int]) -> MaskReading:
    if len(areas) > 1:
        raise ValueError(f"{_name_labels(np.array([0, *areas]))}: {CURE}")
    note = (
        f"its one value, about {areas[0]}, means there, as 255 would, and what compression made "
        "between is cut at half of it"
    )
    values = (plane > areas[0] / 2).astype(np.float32)
    return MaskReading(values, f"0 and {areas[0]} with noise", (note,))


def _read_uniform(values: np.ndarray, level: int, full: int) -> MaskReading:
    if level == 0:
        return MaskReading(values, "empty")
    if level == full:
        return MaskReading(values, f"{level} everywhere")
    if level <= DARK * full:
        raise ValueError(f"has the one value {level} everywhere, of {full} for there: {CURE}")
    note = f"its one value {level}, everywhere, is read as {level / full:.0%} there"
    return MaskReading(values, f"{level} everywhere", (note,))


def _name_labels(levels: np.ndarray) -> str:
    shown = ", ".join(map(str, levels[:8])) + (f", … {levels[-1]}" if len(levels) > 8 else "")
    return f"holds the values {shown}, as a label map of several objects does"


def _of_palette(image: Image.Image) -> np.ndarray:
    """The plane of an image with a palette: what it shows, or its indices where that is one
    colour."""
    indices = np.asarray(image.getchannel(0))
    used = np.unique(indices)
    colors = np.zeros((256, 3), np.uint8)
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colors[: len(palette)] = palette
    if len(used) > 1 and not np.ptp(colors[used], axis=0).any():
        return indices
    return _of_colors(colors[indices], False)


def _of_colors(pixels: np.ndarray, lossy: bool) -> np.ndarray:
    """The plane uint8 [H, W] of colours [H, W, 3]: grey, or the shades of one colour on black."""
    brightest = pixels.max(-1)
    if (pixels == pixels[..., :1]).all():
        return brightest
    if lossy:
        # Compression shifts colours, most of all at edges
        inside = pixels[brightest > 127].astype(np.float32)
        grey = np.ptp(pixels, axis=-1).max() <= NOISE
        counts = np.bincount(brightest.ravel(), minlength=256)
        if grey or (
            len(inside)
            and _is_noise(counts, lossy)
            and np.abs(inside - inside.mean(0)).mean() <= NOISE
        ):
            return brightest
        raise ValueError(f"is a picture in colour: {CURE}")
    colors = _find_colors(pixels).astype(np.float64)
    tops = colors.max(-1)
    purest = colors[tops.argmax()]
    if (np.abs(colors - purest * (tops / tops.max())[:, None]) <= ROUNDING).all():
        return brightest
    others = int((tops > 0).sum())
    what = f"{others} colours besides black" if (tops == 0).any() else f"{others} colours, no black"
    kind = "a picture" if others > FEW else "a label map of several objects"
    raise ValueError(f"has {what}, as {kind} does: {CURE}")


def _find_colors(pixels: np.ndarray) -> np.ndarray:
    """The distinct colours uint8 [n, 3] among [..., 3]."""
    r, g, b = (pixels[..., i].astype(np.uint32) for i in range(3))
    distinct = np.unique(r << 16 | g << 8 | b)
    return np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], -1).astype(np.uint8)
