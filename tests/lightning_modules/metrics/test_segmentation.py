from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.shapes.world import COLORS, Scene, Thing, render, sample_scene
from lightning_modules.metrics import ColorSegmenter, HuggingFaceSegmenter
from lightning_modules.metrics.functional import mask_iou
from lightning_modules.metrics.segmentation import (
    class_names,
    class_of,
    color_and_shape,
    color_map,
    panoptic,
)


def picture(*things: Thing, background: int = 100) -> tuple[Tensor, Tensor]:
    pixels, masks = render(Scene(things, background))
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(masks)


@pytest.fixture(scope="module")
def segmenter() -> ColorSegmenter:
    return ColorSegmenter()


def test_masks_of_rendered_scenes(segmenter: ColorSegmenter):
    scenes = [sample_scene(split, index) for split in ("val", "heldout") for index in range(12)]
    images, masks = zip(*(picture(*s.things, background=s.background) for s in scenes), strict=True)
    found = segmenter.segment(
        torch.stack(images), [["a " + t.name for t in s.things] for s in scenes]
    )
    values = [
        float(mask_iou(f, m))
        for row, true in zip(found, masks, strict=True)
        for f, m in zip(row, true, strict=True)
    ]
    assert len(values) > 40 and min(values) > 0.93 and np.mean(values) > 0.99
    assert all(m.dtype == torch.bool and m.shape == (64, 64) for row in found for m in row)


@pytest.mark.parametrize("background", [70, 130])
def test_every_color_keeps_its_edge(background: int):
    """Half covered orange lies nearer to red than to orange: mixtures must be read as such."""
    for index, color in enumerate(COLORS):
        image, (mask,) = picture(Thing(color, "circle", 30.3, 33.6, 11.2), background=background)
        colors = color_map(image)
        assert mask_iou(torch.from_numpy(colors == index), mask) > 0.95, color
        assert ((colors != index) & (colors != -1)).sum() == 0, color


def test_equal_colors_are_shared_out_by_shape(segmenter: ColorSegmenter):
    image, (circle, cross) = picture(
        Thing("green", "circle", 18.2, 20.1, 10), Thing("green", "cross", 45.3, 44.4, 10)
    )
    for order in ((0, 1), (1, 0)):
        phrases, masks = ["a green circle", "a green cross"], [circle, cross]
        (found,) = segmenter.segment(image[None], [[phrases[i] for i in order]])
        assert all(mask_iou(f, masks[i]) > 0.95 for f, i in zip(found, order, strict=True))
    (found,) = segmenter.segment(image[None], [["green cross", "green thing", "green ring"]])
    assert mask_iou(found[0], cross) > 0.95 and mask_iou(found[1], circle) > 0.95
    assert not found[2].any()  # no object serves two phrases


def test_the_right_shape_goes_before_the_larger_object(segmenter: ColorSegmenter):
    image, (small, large) = picture(
        Thing("red", "ring", 14.1, 14.2, 8), Thing("red", "square", 44.3, 44.4, 12)
    )
    (found,) = segmenter.segment(image[None], [["red ring"]])
    assert mask_iou(found[0], small) > 0.95
    # There is none: the colour is what is found
    (found,) = segmenter.segment(image[None], [["red circle"]])
    assert mask_iou(found[0], large) > 0.95


def test_a_broken_ring_is_one_object_and_specks_are_none(segmenter: ColorSegmenter):
    image, (ring,) = picture(Thing("blue", "ring", 30.2, 31.1, 13))
    image[:, :, 29:32] = 100
    image[:, 2:5, 2:6] = torch.tensor(COLORS["red"], dtype=torch.uint8)[:, None, None]  # 12 pixels
    (found,) = segmenter.segment(image[None], [["blue ring", "red circle", "white square"]])
    left = ring.clone()
    left[:, 29:32] = False
    assert mask_iou(found[0], left) > 0.95
    assert not found[1].any() and not found[2].any()


def test_requests_that_cannot_be_served(segmenter: ColorSegmenter):
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert color_and_shape("a photo of a Blue square, seen") == ("blue", "square")
    assert color_and_shape("something blue") == ("blue", None)
    with pytest.raises(ValueError, match="'a dog' names no colour"):
        segmenter.segment(images, [["a dog"]])
    with pytest.raises(ValueError, match="1 images but 2 lists"):
        segmenter.segment(images, [[], []])
    with pytest.raises(ValueError, match="uint8"):
        segmenter.segment(images.float(), [[]])
    assert segmenter.segment(images[:0], []) == []


def test_classes_of_phrases():
    labels = [
        "person",
        "table-merged",
        "dining table",
        "sky-other-merged",
        "windowpane, window",
        "cat",
        "Cat",
    ]
    names = class_names(dict(enumerate(labels)))
    assert class_of("a wooden Dining table", names) == {2} and class_of("an old table", names) == {
        1
    }
    assert (
        class_of("the sky", names) == {3}
        and class_of("window", names) == {4}
        and class_of("my cat", names) == {5, 6}
    )
    with pytest.raises(
        ValueError, match=("'a catalogue' ends in no class .* 7 names such as person, table")
    ):
        class_of("a catalogue", names)


@pytest.fixture(scope="module", params=["mask2former", "maskformer"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights: what it finds means nothing, the way there is the same."""
    import transformers as t

    torch.manual_seed(0)
    swin = t.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    labels: dict = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "mask2former":
        widths = (
            "feature_size",
            "mask_feature_size",
            "hidden_dim",
            "encoder_feedforward_dim",
            "dim_feedforward",
        )
        small: dict = dict.fromkeys(widths, 32)
        few: dict = {
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 2,
            "num_queries": 1,
        }
        config = t.Mask2FormerConfig(backbone_config=swin, **small, **few, **labels)
        model: Any = t.Mask2FormerForUniversalSegmentation(config)
    else:
        layers: dict = {}
        for side in ("encoder", "decoder"):
            layers |= {f"{side}_layers": 1, f"{side}_ffn_dim": 16, f"{side}_attention_heads": 2}
        detr = t.DetrConfig(d_model=32, num_queries=1, **layers)
        config = t.MaskFormerConfig(
            backbone_config=swin,
            decoder_config=detr,
            fpn_feature_size=32,
            mask_feature_size=32,
            **labels,
        )
        model = t.MaskFormerForInstanceSegmentation(config)
    # So that the one query finds a dog
    model.class_predictor.bias.data += torch.tensor([0.0, 3.0, 0.0])
    model.save_pretrained(folder)
    name = {"mask2former": "Mask2FormerImageProcessor", "maskformer": "MaskFormerImageProcessor"}[
        request.param
    ]
    processor = {"image_processor_type": name, "size": {"height": 64, "width": 64}, "num_labels": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_panoptic_by_hand():
    classes = torch.tensor(
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.45, 0.3, 0.25], [0.6, 0.3, 0.1]]
    )
    planes = torch.zeros(5, 4, 6)
    planes[0, :, :3] = 0.9
    planes[1, :, 3:5] = 0.9
    planes[1, :, 2] = 0.99  # .7 x .99 loses against .8 x .9: 8 of 12 pixels are left, too few
    planes[2], planes[3] = 1, 1  # none, and not sure enough
    planes[4, 2:, 4:] = 0.55
    assert [(s.category, s.mask.sum().item()) for s in panoptic(classes, planes, 0.5)] == [(0, 12)]
    planes[1, :, 2] = 0
    cat, dog = panoptic(classes, planes, 0.5)  # the third wins 2 of its 4 pixels
    assert (cat.category, dog.category) == (0, 1) and cat.score == pytest.approx(0.8)
    assert torch.equal(dog.mask, planes[1] > 0.5)
    assert len(panoptic(classes, planes, 0.75)) == 1 and panoptic(classes, planes, 0.9) == []
    (alone,) = panoptic(classes[:1], planes[:1], 0.5)
    assert torch.equal(alone.mask, planes[0] > 0.5)  # not the whole image


def test_transformers_models_load_and_answer(model_folder: Path):
    segmenter = HuggingFaceSegmenter(str(model_folder), batch=2)
    images = torch.randint(
        0, 256, (3, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = segmenter.segment(images, [["a cat", "a dog", "one more dog"], [], ["dog"]])
    assert [len(row) for row in found] == [3, 0, 1]
    assert all(m.dtype == torch.bool and m.shape == (40, 56) for row in found for m in row)
    # No segment serves two phrases
    assert [bool(m.any()) for m in found[0]] == [False, True, False]
    assert not found[0][1].all()
    alone = segmenter.segment(images[2:], [["dog"]])
    assert torch.equal(alone[0][0], found[2][0])
    with pytest.raises(ValueError, match="'a horse' ends in no class"):
        segmenter.segment(images[:1], [["a horse"]])


def test_padding_is_cut_away(model_folder: Path, tmp_path: Path):
    """A stand-in that finds a dog wherever the image is bright, behind a processor that pads 40 x
    56 to 64 x 96."""
    from types import SimpleNamespace

    segmenter = HuggingFaceSegmenter(str(model_folder))
    padded = {
        "do_resize": False,
        "pad_size": {"height": 64, "width": 96},
        "image_processor_type": "MaskFormerImageProcessor",
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(padded))
    segmenter.processor = type(segmenter.processor).from_pretrained(tmp_path)

    def model(pixel_values: Tensor, pixel_mask: Tensor) -> SimpleNamespace:
        assert pixel_values.shape == (1, 3, 64, 96)
        return SimpleNamespace(
            masks_queries_logits=9 * pixel_values[:, :1],
            class_queries_logits=torch.tensor([[[0.0, 9, 0]]]),
        )

    segmenter.model = model
    images = torch.zeros(1, 3, 40, 56, dtype=torch.uint8)
    images[..., 10:30, 30:] = 255
    ((found,),) = segmenter.segment(images, [["dog"]])
    assert torch.equal(found, images[0, 0] > 0)


def test_segments_go_to_phrases(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    segmenter = HuggingFaceSegmenter(str(model_folder))
    classes = torch.tensor([[[0.1, 0.6, 0.3], [0.1, 0.9, 0.0], [0.7, 0.2, 0.1]]])
    planes = torch.eye(4)[:3, :, None].expand(3, 4, 4)[None]
    monkeypatch.setattr(segmenter, "queries", lambda images: (classes, planes))
    (found,) = segmenter.segment(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [["dog", "cat", "dog", "cat"]]
    )
    assert [m.any(1).nonzero().flatten().tolist() for m in found] == [[1], [2], [0], []]


def test_what_is_no_segmenter_is_refused(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=("cannot be loaded .* expected a hub id or a folder")
    ) as error:
        HuggingFaceSegmenter(str(tmp_path))
    assert "\n" not in str(error.value)
