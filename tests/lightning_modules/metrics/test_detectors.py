from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_codec
from torch import Tensor

from conf.schema import Evaluation
from lightning_modules.metrics import Detection
from lightning_modules.metrics.detectors import (
    DetectionsFile,
    SharedDetector,
    TransformersDetector,
    build_detector,
    instances,
    write_detections,
)

IMAGES = torch.zeros(2, 3, 40, 56, dtype=torch.uint8)


def lines(path: Path, *contents: Any) -> Path:
    path.write_text("\n".join(c if isinstance(c, str) else json.dumps(c) for c in contents) + "\n")
    return path


def same(one: Detection, other: Detection) -> bool:
    if (one.mask is None) != (other.mask is None) or (
        one.mask is not None and not torch.equal(one.mask, other.mask)
    ):
        return False
    return replace(one, mask=None) == replace(other, mask=None)


# --- files --------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path):
    mask = torch.zeros(40, 56, dtype=torch.bool)
    mask[3:9, 5:20] = True
    cat = Detection("cat", (5, 3, 20, 9), 0.4, mask=mask, color="black")
    dog = Detection("dog", (0.5, 0.25, 55.75, 40.0), 0.9)
    for names in (None, ["a/0.png", "a/1.png"]):
        path = tmp_path / "kept" / "detections.jsonl"
        write_detections(path, [[cat, dog], []], names, {"detector": "other", "threshold": 0.3})
        kept = DetectionsFile(path)
        found = kept.detect(IMAGES, names)
        assert found[1] == [] and same(found[0][0], dog) and same(found[0][1], cat)  # Surest first
        assert kept.facts == {
            "detector": "file",
            "file": "detections.jsonl",
            "made_by": {"detector": "other", "threshold": 0.3},
        }
        if names:
            assert kept.detect(IMAGES[:1], names[1:]) == [[]]
    assert [p.name for p in path.parent.iterdir()] == ["detections.jsonl"]
    with pytest.raises(ValueError, match="2 images but 1 different name among 2"):
        write_detections(path, [[], []], ["a", "a"])


def test_masks_as_others_write_them(tmp_path: Path):
    mask = np.zeros((40, 56), dtype=np.uint8, order="F")
    mask[2:4, 1] = 1
    one = {"label": "cat", "box": [1, 2, 2, 4], "score": 1}
    compressed = mask_codec.encode(mask)
    rles = [
        {"size": [40, 56], "counts": compressed["counts"].decode()},
        {"size": [40, 56], "counts": [42, 2, 40 * 56 - 44]},
    ]
    path = lines(
        tmp_path / "d.jsonl", {"image": 0, "detections": [{**one, "mask": rle} for rle in rles]}, ""
    )
    for detection in DetectionsFile(path).detect(IMAGES[:1])[0]:
        assert detection.mask.dtype == torch.bool and torch.equal(
            detection.mask, torch.from_numpy(mask).bool()
        )


GOOD = {"label": "cat", "box": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ([], "an object with 'image'"),
        ({"image": 1}, "a list 'detections'"),
        ({"image": True, "detections": []}, "expected a name or a position"),
        ({"image": "a", "detections": []}, "'a' stands in line 1 already"),
        (
            {"image": 1, "detections": [{"label": "cat", "box": [0, 0, 5, 5]}]},
            "expected label, box, score",
        ),
        ({"image": 1, "detections": [{**GOOD, "class": "cat"}]}, "expected label, box, score"),
        ({"image": 1, "detections": [{**GOOD, "label": " "}]}, "the name of a class"),
        ({"image": 1, "detections": [{**GOOD, "box": [0, 0, 5]}]}, "x0 <= x1"),
        ({"image": 1, "detections": [{**GOOD, "box": [5, 0, 0, 5]}]}, "x0 <= x1"),
        ({"image": 1, "detections": [{**GOOD, "box": [0, 0, 5, float("nan")]}]}, "x0 <= x1"),
        ({"image": 1, "detections": [{**GOOD, "score": 97}]}, "a number from 0 to 1"),
        ({"image": 1, "detections": [{**GOOD, "score": "1"}]}, "a number from 0 to 1"),
        ({"image": 1, "detections": [{**GOOD, "color": 3}]}, "expected a word"),
        ({"image": 1, "detections": [{**GOOD, "mask": [1, 2]}]}, "COCO's RLE"),
    ],
)
def test_lines_that_are_wrong_are_named(tmp_path: Path, content: Any, message: str):
    path = lines(tmp_path / "d.jsonl", {"image": "a", "detections": [GOOD]}, "", content)
    with pytest.raises(ValueError, match=f"d.jsonl:3: .*{message}") as error:
        DetectionsFile(path)
    assert "\n" not in str(error.value)


def test_images_that_do_not_fit_the_file(tmp_path: Path):
    outside = {**GOOD, "box": [60, 0, 70, 9]}
    mask = {**GOOD, "mask": {"size": [56, 40], "counts": [2240]}}
    short = {**GOOD, "mask": {"size": [40, 56], "counts": [40]}}
    # Cut off: pycocotools would fill the rest with what is in memory
    cut = {**GOOD, "mask": {"size": [40, 56], "counts": "o0"}}
    rows = {"a": [GOOD], "b": [outside], "c": [mask], "d": [short], "e": [cut]}
    file = DetectionsFile(
        lines(tmp_path / "d.jsonl", *({"image": k, "detections": v} for k, v in rows.items()))
    )
    with pytest.raises(ValueError, match="nothing about image 0 among its 5 images"):
        file.detect(IMAGES)
    with pytest.raises(ValueError, match="nothing about image 'f.png'"):
        file.detect(IMAGES, ["a", "f.png"])
    with pytest.raises(
        ValueError,
        match=(r"d.jsonl:2: box \[60, 0, 70, 9\] of " r"'cat' lies outside an image of 56x40"),
    ):
        file.detect(IMAGES[:1], ["b"])
    with pytest.raises(
        ValueError,
        match=(r"d.jsonl:3: mask of 'cat' has the size " r"\[56, 40\], its image \[40, 56\]"),
    ):
        file.detect(IMAGES[:1], ["c"])
    with pytest.raises(ValueError, match=r"d.jsonl:4: a mask's counts do not add up to 2,240"):
        file.detect(IMAGES[:1], ["d"])
    with pytest.raises(ValueError, match=r"d.jsonl:5: a mask's counts do not add up to 2,240"):
        file.detect(IMAGES[:1], ["e"])
    with pytest.raises(ValueError, match="2 images but 1 name"):
        file.detect(IMAGES, ["a"])
    with pytest.raises(ValueError, match="uint8"):
        file.detect(IMAGES.float())
    with pytest.raises(FileNotFoundError, match="no detections at"):
        DetectionsFile(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="no image in it"):
        DetectionsFile(lines(tmp_path / "empty.jsonl", {"facts": {}}))


# --- models of transformers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DETR with random weights and Pascal VOC's names: what it finds means nothing, the way
    there is the same."""
    import transformers as t

    torch.manual_seed(0)
    labels: dict = {
        "id2label": {0: "motorbike", 1: "tvmonitor"},
        "label2id": {"motorbike": 0, "tvmonitor": 1},
    }
    small = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "d_model": 16,
        "num_queries": 3,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = t.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        **small,
        **heads,
        **labels,
    )
    model: Any = t.DetrForObjectDetection(config)
    # So that a television is found
    model.class_labels_classifier.bias.data += torch.tensor([0.0, 3.0, 0.0])
    folder = tmp_path_factory.mktemp("detr")
    model.half().save_pretrained(folder)
    size = {"size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "DetrImageProcessor", **size})
    )
    return folder


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers as t

    torch.manual_seed(0)
    swin = t.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    widths = (
        "feature_size",
        "mask_feature_size",
        "hidden_dim",
        "encoder_feedforward_dim",
        "dim_feedforward",
    )
    few: dict = {
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 2,
        "num_queries": 2,
        **dict.fromkeys(widths, 32),
    }
    labels: dict = {"id2label": {0: "sofa", 1: "dog"}, "label2id": {"sofa": 0, "dog": 1}}
    folder = tmp_path_factory.mktemp("mask2former")
    t.Mask2FormerForUniversalSegmentation(
        t.Mask2FormerConfig(backbone_config=swin, **few, **labels)
    ).save_pretrained(folder)
    processor = {
        "image_processor_type": "Mask2FormerImageProcessor",
        "size": {"height": 64, "width": 64},
        "num_labels": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def pictures(n: int) -> Tensor:
    return torch.randint(
        0, 256, (n, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_boxes_of_a_detr(detr: Path):
    model = TransformersDetector(str(detr), batch=2)
    assert model.model.dtype == torch.float32 and not model.model.training
    assert not any(p.requires_grad for p in model.model.parameters())
    assert (
        model.facts["model"] == detr.name
        and model.facts["kind"] == "detr"
        and not model.facts["masks"]
    )
    images = pictures(3)
    found = model.detect(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.detect(images) == found
    assert len(found) == 3 and all(
        d.label == "tv" and 0.3 < d.score <= 1 and d.mask is None for row in found for d in row
    )
    assert [len(row) for row in found] == [3, 3, 3] and all(
        row == sorted(row, key=lambda d: -d.score) for row in found
    )
    assert model.detect(images[2:])[0][0].box == pytest.approx(found[2][0].box, abs=1e-3)
    assert model.detect(images[:0]) == []
    assert TransformersDetector(str(detr), threshold=1.0).detect(images[:1]) == [[]]


def test_boxes_are_in_pixels_of_the_image(detr: Path):
    """A stand-in whose one box spans the left half and the upper quarter of whatever it is
    shown."""
    model = TransformersDetector(str(detr))
    logits, box = torch.tensor([[[9.0, 0, 0]]]), torch.tensor([[[0.25, 0.125, 0.5, 0.25]]])
    model.model = lambda **inputs: SimpleNamespace(logits=logits, pred_boxes=box)
    ((found,),) = model.detect(pictures(1))
    assert found.label == "motorcycle" and found.box == pytest.approx((0, 0, 28, 10))


def test_instances_by_hand():
    classes = torch.tensor([[0.8, 0.15, 0.05], [0.35, 0.6, 0.05], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])
    planes = torch.full((4, 6, 8), 0.4)
    planes[0, 1:3, 2:5] = 0.9
    planes[1, 4, 7], planes[1, 0, 0] = 0.6, 1.0
    planes[2] = 1
    found = instances(classes, planes, {0: "cat", 1: "dog"}, 0.25)
    assert [(d.label, round(d.score, 6)) for d in found] == [
        ("cat", 0.72),
        ("dog", 0.48),
        ("cat", 0.28),
    ]
    assert found[0].box == (2, 1, 5, 3) and found[1].box == found[2].box == (0, 0, 8, 5)
    # The 0.4 around it are not inside
    assert found[0].mask.sum() == 6 and found[0].mask[1:3, 2:5].all()
    # The last query has no mask: nothing is there
    assert len(instances(classes, planes, {0: "cat", 1: "dog"}, 0.1)) == 6


def test_masks_of_a_mask2former(mask2former: Path):
    model = TransformersDetector(str(mask2former), threshold=0.05, batch=2)
    assert model.facts["masks"] and model.facts["kind"] == "mask2former"
    images = pictures(3)
    found = model.detect(images)
    assert len(found) == 3 and {d.label for row in found for d in row} == {"couch", "dog"}
    for detection in (d for row in found for d in row):
        assert detection.mask.shape == (40, 56) and detection.mask.dtype == torch.bool
        x0, y0, x1, y1 = map(int, detection.box)
        assert detection.mask[y0:y1, x0:x1].sum() == detection.mask.sum() > 0
    assert same(model.detect(images[2:])[0][0], found[2][0])


def test_what_is_no_detector_is_refused(tmp_path: Path, detr: Path):
    with pytest.raises(
        FileNotFoundError, match=("cannot be loaded .* expected a hub id or a folder")
    ) as error:
        TransformersDetector(str(tmp_path))
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor"})
    )
    with pytest.raises(FileNotFoundError, match="a vit gives no boxes"):
        TransformersDetector(str(tmp_path))


def test_padding_of_the_processor_is_cut_away(mask2former: Path, tmp_path: Path):
    """A stand-in that finds a dog wherever the image is bright, behind a processor that pads 40 x
    56 to 64 x 96."""
    model = TransformersDetector(str(mask2former))
    padded = {"do_resize": False, "pad_size": {"height": 64, "width": 96}}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "MaskFormerImageProcessor"} | padded)
    )
    model.processor = type(model.processor).from_pretrained(tmp_path)

    def bright(pixel_values: Tensor, pixel_mask: Tensor) -> SimpleNamespace:
        assert pixel_values.shape == (1, 3, 64, 96)
        return SimpleNamespace(
            masks_queries_logits=9 * pixel_values[:, :1],
            class_queries_logits=torch.tensor([[[0.0, 9, 0]]]),
        )

    model.model = bright
    images = torch.zeros(1, 3, 40, 56, dtype=torch.uint8)
    images[..., 10:30, 30:] = 255
    ((found,),) = model.detect(images)
    assert torch.equal(found.mask, images[0, 0] > 0) and found.box == (30, 10, 56, 30)


def test_a_shared_detector_looks_once_at_each_chunk():
    asked: list[Any] = []

    def detect(images: Tensor, names: Any = None) -> list[list[Detection]]:
        asked.append(names)
        return [[Detection(str(name), (0, 0, 1, 1), 1.0)] for name in names]

    shared = SharedDetector(SimpleNamespace(name="d", facts={"detector": "d"}, detect=detect))
    for names in (["a", "b"], ["a", "b"], ["c", "d"]):
        assert [row[0].label for row in shared.detect(IMAGES, names)] == names
    assert asked == [["a", "b"], ["c", "d"]] and shared.facts == {"detector": "d"}


def test_detectors_by_their_settings(detr: Path, tmp_path: Path):
    write_detections(tmp_path / "d.jsonl", [[]])
    assert build_detector(Evaluation(detector=str(tmp_path / "d.jsonl"))).name == "file"
    assert build_detector(Evaluation(detector=str(detr))).name == "transformers"
    colored = build_detector(Evaluation(detector=str(detr), color_classifier="mean"))
    assert colored.name == "transformers+mean"
