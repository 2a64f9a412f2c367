"""Maps of a prompt's words as files: laid over the image, as numbers, and their overlap with
masks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from conf.files import create_folder, to_json
from lightning_modules.evaluation.figures import draw_maps, over
from lightning_modules.metrics.functional import mask_iou

if TYPE_CHECKING:
    from datamodules.batch import Phrase
    from lightning_modules.attention.word_maps import WordMaps

__all__ = [
    "THRESHOLD",
    "PhraseOverlap",
    "draw_sheet",
    "measure_iou",
    "measure_phrases",
    "summarize",
    "write_heatmaps",
]

THRESHOLD = 0.4  # Share of its maximum from which on a map covers a pixel
COLUMNS = 6  # Words beside an image on a contact sheet
SMALLEST = 384  # Side, in pixels, to which small images are enlarged


class PhraseOverlap(TypedDict):
    """Intersection over union of a phrase's map with its mask, and the threshold of the map."""

    phrase: str
    iou: float
    threshold: float


def measure_iou(maps: Tensor, masks: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """float32 [n]: intersection over union of ``maps`` [n, h, w] with ``masks`` bool [n, H, W]. A
    map covers a pixel, after bicubic interpolation to the masks' size, where it is at least
    ``threshold`` times its maximum (DAAM, arXiv 2210.04885, section 3.1); one of zeros covers
    none."""
    large = enlarge(maps, masks.shape[-2:])
    top = large.amax((-2, -1), keepdim=True)
    return mask_iou((large >= threshold * top) & (top > 0), masks)


def measure_phrases(
    one: WordMaps,
    phrases: Sequence[Phrase],
    token_indices: Sequence[Sequence[int]],
    threshold: float = THRESHOLD,
) -> list[PhraseOverlap]:
    """The overlap of each phrase's map, the mean over its tokens, with its mask, bool [H, W]
    (`measure_iou`)."""
    if not phrases:
        return []
    masks = torch.stack([phrase.mask for phrase in phrases])
    values = measure_iou(one.average(token_indices), masks, threshold).tolist()
    return [
        {"phrase": phrase.text, "iou": value, "threshold": threshold}
        for phrase, value in zip(phrases, values, strict=True)
    ]


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[n, h, w] to [n, H, W] by bicubic interpolation, not below 0."""
    return F.interpolate(maps[None].float(), tuple(size), mode="bicubic")[0].clamp(min=0)


def draw_sheet(drawings: Sequence[WordMaps]) -> Image.Image:
    """One picture: each image, and beside it the maps of its words over it, from dark (0) to bright
    (the map's maximum); of many words in several rows."""
    images, planes, words, titles = [], [], [], []
    for one in drawings:
        smooth, count = enlarge(one.maps, one.image.shape[-2:]), len(one.words)
        step = math.ceil(count / math.ceil(count / COLUMNS))  # Rows of the same length
        for start in range(0, count, step):
            part = smooth[start : start + step]
            images.append(one.image)
            planes.append(F.pad(part, (0, 0, 0, 0, 0, COLUMNS - len(part))).permute(1, 2, 0))
            # In quotes: words of a letter or two have their maps, too
            words.append([f"“{word.text}”" for word in one.words[start : start + step]])
            titles.append(f"seed {one.seed}")
    side = drawings[0].token_maps.shape[-1]
    return draw_maps(
        torch.stack(images), {side: torch.stack(planes).numpy()}, words, titles, white=None
    )


def write_heatmaps(
    folder: Path,
    one: WordMaps,
    overlaps: Sequence[PhraseOverlap] = (),
) -> None:
    """Writes into ``folder``, which is made again, ``image.png``, ``NN-word.png`` for each word,
    ``heatmaps.png`` with all of them, ``maps.npz`` (``token_maps``, ``word_maps`` and, by layers of
    a size, ``token_maps_16`` …; their ``tokens`` and ``words``) and ``heatmaps.json``.

    ``overlaps`` are those of phrases with their masks (`measure_phrases`).
    """
    height, width = one.image.shape[-2:]
    factor = math.ceil(SMALLEST / max(height, width))
    picture = one.image.permute(1, 2, 0).numpy()
    large = picture.repeat(factor, 0).repeat(factor, 1)
    names = [f"{number:02d}-{_file_name(word.text)}.png" for number, word in enumerate(one.words)]
    arrays = {
        "token_maps": one.token_maps.numpy(),
        "word_maps": one.maps.numpy(),
        **{f"token_maps_{side}": maps.numpy() for side, maps in one.by_side.items()},
        "tokens": np.array(one.tokens),
        "words": np.array([word.text for word in one.words]),
    }
    content = summarize(one) | {"files": names}
    if overlaps:
        content["iou"] = list(overlaps)
    with create_folder(folder, replace=True) as draft:
        Image.fromarray(picture).save(draft / "image.png")
        for name, plane in zip(names, enlarge(one.maps, large.shape[:2]), strict=True):
            shown = 255 * over(large, plane.numpy(), white=None)
            Image.fromarray(shown.round().astype(np.uint8)).save(draft / name)
        draw_sheet([one]).save(draft / "heatmaps.png")
        np.savez_compressed(draft / "maps.npz", **arrays)
        (draft / "heatmaps.json").write_text(to_json(content), encoding="utf-8")


def summarize(one: WordMaps) -> dict[str, Any]:
    """What a drawing was, its words and how high their maps reach, and the words that are cut
    off."""
    peaks = [round(float(plane.max()), 4) for plane in one.maps]
    words = zip(one.words, one.token_indices, peaks, strict=True)
    return {
        "prompt": one.prompt,
        "seed": one.seed,
        "passes": one.passes,
        "sides": list(one.by_side),
        "tokens": one.tokens,
        "words": [{"word": word.text, "tokens": at, "peak": peak} for word, at, peak in words],
        "cut": one.cut,
    }


def _file_name(word: str) -> str:
    return re.sub(r"\W+", "-", word)[:40].strip("-") or "word"
