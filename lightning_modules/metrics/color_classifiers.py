"""Which colour a detected object has: classifiers behind one small protocol, and `Colored`, a
detector that asks one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_modules.metrics.detection import SPOKEN, Detection, Detector, class_name
from lightning_modules.metrics.geneval import COLORS
from lightning_modules.metrics.vision_language import Clip, Embedder

GROUND = 0x99  # Grey that GenEval paints around an object
TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
CLIP = "openai/clip-vit-large-patch14"  # GenEval's
# One colour of each name, for `MeanColor`.
SHADES = {
    "red": (220, 30, 30),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 50),
    "green": (40, 140, 50),
    "blue": (40, 80, 210),
    "purple": (130, 50, 170),
    "pink": (255, 160, 190),
    "brown": (120, 70, 35),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
}


class ColorClassifier(Protocol):
    name: str
    facts: dict[str, Any]

    def colors(self, image: Tensor, detections: Sequence[Detection]) -> list[str | None]:
        """The colour of each object of an image uint8 [3, H, W]; None where there is nothing to
        see."""
        ...


class ClipColor:
    """GenEval's classifier: the crop to the object's box, with grey around its mask, beside
    sentences that name the class and a colour.

    The sentences of a colour count by their mean unit vector, and the colour with the greatest
    cosine is taken. Without masks the crop is left as it is, as in the benchmark.

    ``model``: a CLIP; the benchmark's by default.
    """

    name = "clip"

    def __init__(
        self,
        model: Embedder | str = CLIP,
        device: torch.device | str = "cpu",
        palette: Sequence[str] = COLORS,
    ) -> None:
        """``model``: hub id, local folder, or one that is loaded. Raises as
        `vision_language.Clip`."""
        self.model: Embedder = Clip(model, device=device) if isinstance(model, str) else model
        self.palette = tuple(palette)
        self.facts = {
            "color_classifier": self.name,
            "model": self.model.label,
            "colors": list(self.palette),
        }
        self._known: dict[str, Tensor] = {}

    def colors(self, image: Tensor, detections: Sequence[Detection]) -> list[str | None]:
        """As `ColorClassifier`."""
        found: list[str | None] = []
        for detection in detections:
            picture = crop(image, detection)
            best = (
                self._sentences(detection.label) @ self.model.images(picture[None])[0]
                if picture is not None
                else None
            )
            found.append(self.palette[int(best.argmax())] if best is not None else None)
        return found

    def _sentences(self, label: str) -> Tensor:
        """One unit vector for each colour, [colours, d]."""
        name = SPOKEN.get(class_name(label), class_name(label))
        if name not in self._known:
            texts = [
                template.format(color=color, name=name)
                for color in self.palette
                for template in TEMPLATES
            ]
            vectors, _ = self.model.texts(texts)
            mean = vectors.unflatten(0, (len(self.palette), len(TEMPLATES))).mean(1)
            self._known[name] = torch.nn.functional.normalize(mean, dim=-1)
        return self._known[name]


class MeanColor:
    """The name of the shade nearest to the object's mean colour, in CIELAB (D65); inside its box
    where it has no mask.

    Needs no weights, and is not GenEval's classifier: it often misnames objects that have several
    colours, lie in shade or fill little of their box. Scores made with it do not compare with
    published ones.

    ``shades``: names and their RGB; GenEval's ten by default.
    """

    name = "mean"

    def __init__(self, shades: Mapping[str, tuple[int, int, int]] | None = None) -> None:
        self.shades = dict(shades or SHADES)
        self.facts = {
            "color_classifier": self.name,
            "space": "CIELAB",
            "colors": list(self.shades),
            "benchmark": False,
        }
        self._lab = cielab(np.array(list(self.shades.values()), dtype=np.float64))

    def colors(self, image: Tensor, detections: Sequence[Detection]) -> list[str | None]:
        """As `ColorClassifier`."""
        names, found = list(self.shades), []
        for detection in detections:
            inside = region(image, detection)
            pixels = image.cpu()[:, inside].double().numpy()  # [3, pixels]
            distance = (
                np.square(self._lab - cielab(pixels.mean(1)[None])).sum(1) if pixels.size else None
            )
            found.append(names[int(distance.argmin())] if distance is not None else None)
        return found


class Colored:
    """A detector whose detections get the colours that a colour classifier sees, where they have
    none of their own.

    Masks, of which each is as large as its image, are dropped after that unless ``masks`` is set;
    ``batch`` images have theirs at a time.
    """

    def __init__(
        self,
        detector: Detector,
        color_classifier: ColorClassifier,
        masks: bool = False,
        batch: int = 8,
    ) -> None:
        self.detector, self.color_classifier, self.masks, self.batch = (
            detector,
            color_classifier,
            masks,
            batch,
        )
        self.name = f"{detector.name}+{color_classifier.name}"
        self.facts = {**detector.facts, "color": color_classifier.facts}

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """As `Detector`."""
        result: list[list[Detection]] = []
        names = names if names is not None else range(len(images))
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            found = self.detector.detect(chunk, names[start : start + self.batch])
            result += [
                self._add_colors(image, row) for image, row in zip(chunk, found, strict=True)
            ]
        return result

    def _add_colors(self, image: Tensor, detections: list[Detection]) -> list[Detection]:
        plain = [d for d in detections if d.color is None]
        seen = dict(zip(map(id, plain), self.color_classifier.colors(image, plain), strict=True))
        return [
            replace(
                d,
                color=d.color if d.color is not None else seen[id(d)],
                mask=d.mask if self.masks else None,
            )
            for d in detections
        ]


def crop(image: Tensor, detection: Detection) -> Tensor | None:
    """uint8 [3, h, w]: the object's box, grey around its mask if it has one; None where the box
    lies outside the image or is empty."""
    x0, y0, x1, y1 = _edges(image, detection)
    if x1 <= x0 or y1 <= y0:
        return None
    picture = image[:, y0:y1, x0:x1]
    if detection.mask is None:
        return picture
    inside = torch.as_tensor(detection.mask, dtype=torch.bool, device=image.device)[y0:y1, x0:x1]
    return torch.where(inside, picture, torch.full_like(picture, GROUND))


def region(image: Tensor, detection: Detection) -> Tensor:
    """bool [H, W] on the CPU: the object's mask, or its box where it has none."""
    if detection.mask is not None:
        return torch.as_tensor(detection.mask, dtype=torch.bool).cpu()
    x0, y0, x1, y1 = _edges(image, detection)
    inside = torch.zeros(image.shape[1:], dtype=torch.bool)
    inside[y0:y1, x0:x1] = True
    return inside


def cielab(rgb: np.ndarray) -> np.ndarray:
    """sRGB [N, 3] of 0 to 255 -> CIELAB [N, 3] under D65 (IEC 61966-2-1, CIE 15)."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(1)  # White is 1, 1, 1
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


def _edges(image: Tensor, detection: Detection) -> tuple[int, int, int, int]:
    """The box in whole pixels, inside the image."""
    height, width = image.shape[1:]
    x0, y0, x1, y1 = (round(value) for value in detection.box)
    return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
