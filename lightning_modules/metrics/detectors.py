"""Detectors: a model of transformers, a file of another detector's results, and how an evaluation
chooses among them.

A file of detections holds JSON lines, one image a line (broken here to fit):

    {"image": "0000.png", "detections": [
        {"label": "cat", "box": [10, 20, 110, 220], "score": 0.97, "color": "black", "mask": {...}}
    ]}

``image`` is a name or a position from 0 on; an image in which nothing was found has an empty list.
``box`` is [x0, y0, x1, y1] in pixels of the image. ``color`` and ``mask`` (COCO's RLE, {"size":
[height, width], "counts": ...}) may be left out. A first line {"facts": {...}} may say what made
them. What an evaluation with ``draw_only`` lists of each image (`ABOUT_IMAGE`) may stand in its
line, too: such a list becomes a file of detections by the key "detections" in each line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from pycocotools import mask as mask_codec
from torch import Tensor
from torch.nn import functional as F

from conf.describe import show_count
from conf.files import write_atomically
from conf.schema import Evaluation
from datamodules.formats.masks import read_runs
from lightning_modules.metrics.color_classifiers import ClipColor, Colored, MeanColor
from lightning_modules.metrics.detection import Detection, Detector, class_name
from lightning_modules.metrics.loading import one_line_errors
from lightning_modules.metrics.registry import check_images

EXPECTED = (
    "a hub id or a folder of a detector, a MaskFormer or a Mask2Former with safetensors weights"
)
MASKED = ("maskformer", "mask2former")
KEPT = 100  # Of the pairs of query and class of an image
REQUIRED = {"label", "box", "score"}
# What lists of drawn images say beside "image" (see `evaluation.manifest`)
ABOUT_IMAGE = ("prompt", "split", "id", "seed", "noise", "noise_number")


def build_detector(evaluation: Evaluation, device: str = "cpu") -> Detector:
    """The detector that ``evaluation.detector`` names, a .jsonl or a model of transformers, whose
    detections get colours from ``evaluation.color_classifier``. Raises FileNotFoundError or
    ValueError, in one line, where one of them cannot be had."""
    if evaluation.detector.endswith(".jsonl"):
        return DetectionsFile(evaluation.detector)
    detector = TransformersDetector(evaluation.detector, device=device)
    if evaluation.color_classifier == "none":
        return detector
    if evaluation.color_classifier == "mean":
        return Colored(detector, MeanColor())
    return Colored(detector, ClipColor(evaluation.color_classifier, device))


class SharedDetector:
    """A detector that several metrics ask about the same images: it looks once."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.name, self.facts = detector, detector.name, detector.facts
        self.latest: tuple[list[str | int], list[list[Detection]]] = ([], [])

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """As `Detector`."""
        if names is None:
            return self.detector.detect(images)
        if self.latest[0] != list(names):
            self.latest = list(names), self.detector.detect(images, names)
        return self.latest[1]


def check_named_images(images: Tensor, names: Sequence[str | int] | None) -> None:
    """As `check_images`; ValueError, too, unless there is a name for each image if any."""
    check_images(images)
    if names is not None and len(names) != len(images):
        raise ValueError(
            f"{show_count(len(images), 'image')} but {show_count(len(names), 'name')}: give one "
            "name for each image"
        )


class TransformersDetector:
    """A detector of transformers: boxes from a model for object detection (DETR and its kin), boxes
    and masks from a MaskFormer or a Mask2Former for instances, such as
    facebook/mask2former-swin-small-coco-instance, the kind that GenEval uses. Its classes go by
    COCO's names.

    ``model``: hub id or local folder; only safetensors weights are read. ``threshold``: scores from
    which detections are given; GenEval looks at those above 0.3. ``batch``: images at once; masks
    take 4 bytes a pixel and query meanwhile.
    """

    name = "transformers"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        threshold: float = 0.3,
        batch: int = 4,
    ) -> None:
        """Raises FileNotFoundError when no such model can be loaded from there."""
        from transformers import (
            AutoConfig,
            AutoImageProcessor,
            AutoModelForObjectDetection,
            AutoModelForUniversalSegmentation,
        )

        self.threshold, self.batch, self.device = threshold, batch, torch.device(device)
        with one_line_errors("detector", model, EXPECTED):
            config = AutoConfig.from_pretrained(model, revision=revision)
            self.masks = config.model_type in MASKED
            self.processor = AutoImageProcessor.from_pretrained(model, revision=revision)
            if not self.masks and not hasattr(self.processor, "post_process_object_detection"):
                raise ValueError(f"a {config.model_type} gives no boxes")
            kind = AutoModelForUniversalSegmentation if self.masks else AutoModelForObjectDetection
            self.model: Any = kind.from_pretrained(
                model, revision=revision, use_safetensors=True, dtype=torch.float32
            )
        self.model.requires_grad_(False).eval().to(self.device)
        self.labels = {int(index): class_name(label) for index, label in config.id2label.items()}
        self.facts: dict[str, Any] = {
            "detector": self.name,
            "model": Path(model).resolve().name if Path(model).is_dir() else model,
            "revision": revision,
            "kind": config.model_type,
            "masks": self.masks,
            "threshold": threshold,
        }

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """As `Detector`, boxes and masks in the pixels of the images."""
        check_named_images(images, names)
        look = self._instances if self.masks else self._boxes
        return (
            [row for chunk in images.split(self.batch) for row in look(chunk)]
            if len(images)
            else []
        )

    @torch.no_grad()
    def _boxes(self, images: Tensor) -> list[list[Detection]]:
        _, output = self._run(images)
        rows = self.processor.post_process_object_detection(
            output,
            threshold=self.threshold,
            target_sizes=[tuple(images.shape[2:])] * len(images),
        )
        found = []
        for row in rows:
            columns = (row["labels"].tolist(), row["boxes"].tolist(), row["scores"].tolist())
            detections = [
                Detection(self.labels[label], tuple(box), score)
                for label, box, score in zip(*columns, strict=True)
            ]
            found.append(sorted(detections, key=lambda d: -d.score))
        return found

    @torch.no_grad()
    def _instances(self, images: Tensor) -> list[list[Detection]]:
        """Class probabilities [N, Q, classes + 1], the last of none, and mask probabilities [N, Q,
        H, W] of each query, as `instances` reads them."""
        inputs, output = self._run(images)
        planes = F.interpolate(
            output.masks_queries_logits,
            inputs["pixel_values"].shape[2:],
            mode="bilinear",
            align_corners=False,
        )
        # The processor may have padded the images below and to the right
        height, width = (int(inputs["pixel_mask"][0].any(dim).sum()) for dim in (1, 0))
        planes = F.interpolate(
            planes[:, :, :height, :width], images.shape[2:], mode="bilinear", align_corners=False
        )
        classes = output.class_queries_logits.softmax(-1).cpu()
        return [
            instances(c, p, self.labels, self.threshold)
            for c, p in zip(classes, planes.sigmoid().cpu(), strict=True)
        ]

    def _run(self, images: Tensor) -> tuple[Any, Any]:
        """The model's inputs and outputs, in float32 also under autocast."""
        inputs = self.processor(
            images=list(images.cpu()), return_tensors="pt", input_data_format="channels_first"
        ).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            return inputs, self.model(**inputs)


def instances(
    classes: Tensor, planes: Tensor, labels: Mapping[int, str], threshold: float
) -> list[Detection]:
    """Instance inference of Mask2Former (arXiv:2112.01527), surest first: a query may be an object
    of several classes.

    The ``KEPT`` surest pairs of a query and a class are taken. The score is the class's probability
    times the mean of the mask's probabilities inside the mask, which is where they are above 1/2;
    the box encloses it.

    classes: [Q, classes + 1] probabilities, the last of none; planes: [Q, H, W] probabilities.
    """
    scores = classes[:, :-1].flatten()
    surest, pairs = scores.topk(min(KEPT, len(scores)))
    masks = planes > 0.5  # [Q, H, W]
    inside = (planes * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
    found = []
    for score, pair in zip(surest.tolist(), pairs.tolist(), strict=True):
        query, category = divmod(pair, classes.shape[1] - 1)
        score *= float(inside[query])
        if score < threshold or not masks[query].any():
            continue
        ys, xs = masks[query].nonzero(as_tuple=True)
        box = (float(xs.min()), float(ys.min()), float(xs.max()) + 1, float(ys.max()) + 1)
        found.append(Detection(labels[category], box, score, mask=masks[query]))
    return sorted(found, key=lambda d: -d.score)


class DetectionsFile:
    """Detections from a file; the form stands at the top of this module.

    The whole file is read and checked at once; masks stay encoded until their images are asked for.
    """

    name = "file"

    def __init__(self, path: Path | str) -> None:
        """Raises FileNotFoundError where there is no file, ValueError with file:line on what is not
        of the form."""
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"no detections at {path}: expected a file of JSON lines, one image a line"
            )
        self.facts: dict[str, Any] = {"detector": self.name, "file": self.path.name}
        self._rows: dict[str | int, tuple[int, list[dict[str, Any]]]] = {}
        with self.path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    self._read(number, json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{self.path}:{number}: {error}") from None
        if not self._rows:
            raise ValueError(f"{self.path}: no image in it: expected JSON lines, one image a line")

    def _read(self, number: int, content: Any) -> None:
        if isinstance(content, dict) and content.keys() == {"facts"}:
            self.facts |= {"made_by": content["facts"]}
            return
        if (
            not isinstance(content, dict)
            or not {"image", "detections"} <= content.keys()
            or not content.keys() <= {"image", "detections", *ABOUT_IMAGE}
            or not isinstance(content["detections"], list)
        ):
            raise ValueError(
                "expected an object with 'image' and a list 'detections', not "
                f"{str(content)[:60]!r}"
            )
        key = content["image"]
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise ValueError(f"image {key!r}: expected a name or a position")
        if key in self._rows:
            raise ValueError(
                f"image {key!r} stands in line {self._rows[key][0]} already: give each "
                "image one line"
            )
        for given in content["detections"]:
            _check(given)
        self._rows[key] = number, content["detections"]

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """As `Detector`. Raises ValueError for an image that the file does not name, and for a mask
        or a box of another size."""
        check_named_images(images, names)
        found = []
        for key in names if names is not None else range(len(images)):
            if key not in self._rows:
                some = ", ".join(map(repr, list(self._rows)[:3]))
                raise ValueError(
                    f"{self.path}: nothing about image {key!r} among its "
                    f"{show_count(len(self._rows), 'image')} ({some}, …): "
                    "evaluation.draw_only=true lists the names"
                )
            number, given = self._rows[key]
            try:
                detections = [_detection(one, tuple(images.shape[2:])) for one in given]
            except ValueError as error:
                raise ValueError(f"{self.path}:{number}: {error}") from None
            found.append(sorted(detections, key=lambda d: -d.score))
        return found


def write_detections(
    path: Path | str,
    detections: Sequence[Sequence[Detection]],
    names: Sequence[str | int] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes a file that `DetectionsFile` reads; whole or not at all. ``names``: of the images,
    their positions if left out."""
    path = Path(path)
    if names is not None and (len(names) != len(detections) or len(set(names)) != len(names)):
        different = f"{show_count(len(set(names)), 'different name')} among {len(names)}"
        raise ValueError(
            f"{show_count(len(detections), 'image')} but {different}: give each image a name of "
            "its own"
        )
    lines = [json.dumps({"facts": dict(facts)})] if facts else []
    for name, row in zip(
        names if names is not None else range(len(detections)), detections, strict=True
    ):
        lines.append(json.dumps({"image": name, "detections": [_to_json(d) for d in row]}))
    write_atomically(path, "\n".join(lines) + "\n")


def _check(given: Any) -> None:
    if not isinstance(given, dict) or not REQUIRED <= given.keys() <= REQUIRED | {"color", "mask"}:
        raise ValueError(
            f"detection {str(given)[:60]!r}: expected label, box, score and, if known, "
            "color and mask"
        )
    label, box, score, color, mask = (
        given.get(key) for key in ("label", "box", "score", "color", "mask")
    )
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label {label!r}: expected the name of a class")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(map(_number, box))
        or box[0] > box[2]
        or box[1] > box[3]
    ):
        raise ValueError(
            f"box {box!r} of {label!r}: expected [x0, y0, x1, y1] in pixels with x0 <= x1 "
            "and y0 <= y1"
        )
    if not _number(score) or not 0 <= score <= 1:
        raise ValueError(f"score {score!r} of {label!r}: expected a number from 0 to 1")
    if color is not None and not isinstance(color, str):
        raise ValueError(f"color {color!r} of {label!r}: expected a word")
    if mask is not None and (not isinstance(mask, dict) or mask.keys() != {"size", "counts"}):
        raise ValueError(
            f"mask {str(mask)[:60]} of {label!r}: expected COCO's RLE, {{'size': [height, "
            f"width], 'counts': ...}}"
        )


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _detection(given: Mapping[str, Any], size: tuple[int, ...]) -> Detection:
    x0, y0, x1, y1 = (float(value) for value in given["box"])
    if x0 >= size[1] or y0 >= size[0] or x1 <= 0 or y1 <= 0:
        raise ValueError(
            f"box {given['box']} of {given['label']!r} lies outside an image of "
            f"{size[1]}x{size[0]}: was it resized?"
        )
    mask = None
    if (rle := given.get("mask")) is not None:
        if list(rle["size"]) != list(size):
            sizes = f"{rle['size']}, its image {list(size)} (height, width)"
            raise ValueError(f"mask of {given['label']!r} has the size {sizes}: was it resized?")
        mask = _decode_mask(rle)
    return Detection(
        given["label"], (x0, y0, x1, y1), float(given["score"]), mask, given.get("color")
    )


def _decode_mask(rle: Mapping[str, Any]) -> Tensor:
    """bool [H, W] of COCO's RLE, compressed (a text) or not (a list)."""
    height, width = rle["size"]
    counts = rle["counts"]
    if not isinstance(counts, str | list) or not read_runs(counts, width, height):
        raise ValueError(
            f"a mask's counts do not add up to {show_count(height * width, 'pixel')}, those of "
            "its size "
            f"{rle['size']}: write the detections again"
        )
    if isinstance(counts, list):
        rle = mask_codec.frPyObjects(dict(rle), height, width)
    return torch.from_numpy(mask_codec.decode(rle).astype(bool))


def _to_json(detection: Detection) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "label": detection.label,
        "box": [float(v) for v in detection.box],
        "score": float(detection.score),
    }
    if detection.color is not None:
        plain["color"] = detection.color
    if detection.mask is not None:
        rle = mask_codec.encode(
            np.asfortranarray(np.asarray(torch.as_tensor(detection.mask).cpu(), dtype=np.uint8))
        )
        plain["mask"] = {
            "size": [int(side) for side in rle["size"]],
            "counts": rle["counts"].decode("ascii"),
        }
    return plain
