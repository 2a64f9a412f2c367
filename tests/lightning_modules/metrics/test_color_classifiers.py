from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.metrics import Detection
from lightning_modules.metrics.color_classifiers import (
    SHADES,
    ClipColor,
    Colored,
    MeanColor,
    cielab,
    crop,
    region,
)
from lightning_modules.metrics.detectors import DetectionsFile, write_detections
from lightning_modules.metrics.geneval import COLORS

PINK = torch.tensor([250, 150, 180], dtype=torch.uint8)


def picture() -> tuple[Tensor, Detection]:
    """A pink object inside a box that is mostly green."""
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[1] = 140
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:8, 10:20] = True
    image[:, mask] = PINK[:, None]
    return image, Detection("cat", (9.6, 2.2, 20.4, 18.3), 0.9, mask=mask)


def test_crops():
    image, cat = picture()
    cut = crop(image, cat)
    assert cut is not None and cut.shape == (3, 16, 10)  # Edges are rounded
    assert (
        torch.equal(cut[:, 3:6], PINK[:, None, None].expand(3, 3, 10))
        and (cut[:, :3] == 0x99).all()
        and (cut[:, 6:] == 0x99).all()
    )
    plain = Detection("cat", (-3, -3, 4, 100), 0.9)
    cut = crop(image, plain)
    assert cut is not None and torch.equal(cut, image[:, :, :4])
    assert (
        crop(image, Detection("cat", (40, 0, 50, 9), 0.9)) is None
        and crop(image, Detection("cat", (3.1, 0, 3.2, 9), 0.9)) is None
    )
    assert region(image, plain).sum() == 80 and region(image, cat).sum() == 30


def test_mean_color_sees_the_mask():
    image, cat = picture()
    boxed, outside = Detection("cat", cat.box, 0.9), Detection("cat", (40, 0, 50, 9), 0.9)
    assert MeanColor().colors(image, [cat, boxed, outside]) == ["pink", "green", None]
    assert MeanColor({"lime": (0, 140, 0), "rose": (240, 140, 170)}).colors(
        image, [cat, boxed]
    ) == ["rose", "lime"]
    assert tuple(SHADES) == COLORS and MeanColor().facts["benchmark"] is False
    for name, shade in SHADES.items():
        plain = torch.tensor(shade, dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
        assert MeanColor().colors(plain, [Detection("cat", (0, 0, 4, 4), 1.0)]) == [name]


def test_cielab():
    """Values of the CIE's formulas for sRGB's corners, as in Lindbloom's tables."""
    found = cielab(
        np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=np.float64)
    )
    expected = [[100, 0, 0], [0, 0, 0], [53.2408, 80.0925, 67.2032], [32.2970, 79.1875, -107.8602]]
    assert found == pytest.approx(np.array(expected), abs=2e-3)


class Words:
    """A model whose images point to the colour of their middle pixel, and whose texts to what they
    name."""

    label, score = "words", "clip_score"
    facts: dict = {}

    def __init__(self) -> None:
        self.read: list[str] = []

    def images(self, images: Tensor) -> Tensor:
        middle = images[:, :, images.shape[2] // 2, images.shape[3] // 2].float()
        return F.normalize(torch.stack([middle[:, 0], middle[:, 1]], dim=1), dim=1)

    def texts(self, texts: list[str]) -> tuple[Tensor, list[bool]]:
        self.read += texts
        return torch.stack(
            [torch.tensor([1.0, 0.0]) if " red" in t else torch.tensor([0.0, 1.0]) for t in texts]
        ), [False] * len(texts)


def test_clip_color_asks_as_geneval_does():
    image = torch.zeros(3, 10, 10, dtype=torch.uint8)
    image[0, :, :5], image[1, :, 5:] = 200, 200
    words = Words()
    classifier = ClipColor(words, palette=("red", "green"))
    mice = [
        Detection("mouse", (0, 0, 4, 9), 0.9),
        Detection("mouse", (6, 0, 9, 9), 0.8),
        Detection("mouse", (20, 0, 30, 9), 0.7),
    ]
    assert classifier.colors(image, mice) == ["red", "green", None]
    assert words.read == [
        "a photo of a red computer mouse",
        "a photo of a red-colored computer mouse",
        "a photo of a red object",
        "a photo of a green computer mouse",
        "a photo of a green-colored computer mouse",
        "a photo of a green object",
    ]
    classifier.colors(image, mice[:1])
    assert len(words.read) == 6  # A class is asked for once
    assert classifier.facts == {
        "color_classifier": "clip",
        "model": "words",
        "colors": ["red", "green"],
    }
    assert classifier.colors(image, []) == []


def test_clip_color_with_a_model_of_transformers(tmp_path: Path):
    from helpers.vision_language_models import make_clip

    image, cat = picture()
    classifier = ClipColor(str(make_clip(tmp_path)))
    (color,) = classifier.colors(image, [cat])
    assert color in COLORS and classifier.facts["colors"] == list(COLORS)


def test_colored_detections(tmp_path: Path):
    image, cat = picture()
    known = Detection("dog", cat.box, 0.8, color="teal")
    write_detections(tmp_path / "d.jsonl", [[], [cat], [known, cat]])
    images = image.expand(3, -1, -1, -1)
    colored = Colored(DetectionsFile(tmp_path / "d.jsonl"), MeanColor())
    assert colored.name == "file+mean" and colored.facts["color"]["color_classifier"] == "mean"
    for batch in (1, 2, 8):  # The file knows images by their places among all
        colored.batch = batch
        assert [[(d.label, d.color, d.mask) for d in row] for row in colored.detect(images)] == [
            [],
            [("cat", "pink", None)],
            [("cat", "pink", None), ("dog", "teal", None)],
        ]
    keeping = Colored(DetectionsFile(tmp_path / "d.jsonl"), MeanColor(), masks=True)
    assert torch.equal(keeping.detect(images)[1][0].mask, cat.mask)
