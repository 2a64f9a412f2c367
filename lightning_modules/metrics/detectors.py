"""What is in images, from whichever detector: the judge, a model of transformers, or a file that
another detector's results were put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_modules.metrics.color_classifiers import ColorClassifier, Colored
from lightning_modules.metrics.detection import Detection, Detector
from lightning_modules.metrics.detection_files import DetectionsFile, check_images
from lightning_modules.metrics.registry import chosen
from lightning_modules.metrics.vocabulary import class_name

if TYPE_CHECKING:
    from lightning_modules.embedded.judge import Judge

MASKED = ("maskformer", "mask2former")
KEPT = 100  # of the pairs of query and class of an image


class JudgeDetector:
    """The embedded world's judge: shapes with their colours in images of 64 x 64. ``judge``: the
    shipped one by default."""

    name = "judge"

    def __init__(self, judge: Judge | None = None) -> None:
        from lightning_modules.embedded.judge import Judge

        self.judge = judge if judge is not None else Judge.load()
        self.facts: dict[str, Any] = {"detector": self.name, "threshold": self.judge.threshold}

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """As `Detector`."""
        check_images(images, names)
        return self.judge.detect(images)


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
        from huggingface_hub.constants import HF_HUB_OFFLINE
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

        from lightning_modules.metrics.segmentation import HuggingFaceSegmenter

        self.threshold, self.batch, self.device = threshold, batch, torch.device(device)
        self.segmenter: HuggingFaceSegmenter | None = None
        try:
            config = AutoConfig.from_pretrained(model, revision=revision)
            if config.model_type in MASKED:
                self.segmenter = HuggingFaceSegmenter(model, revision, device, batch=batch)
                self.segmenter.model.float()
            else:
                self.processor = AutoImageProcessor.from_pretrained(model, revision=revision)
                if not hasattr(self.processor, "post_process_object_detection"):
                    raise ValueError(f"a {config.model_type} gives no boxes")
                self.model: Any = AutoModelForObjectDetection.from_pretrained(
                    model, revision=revision, use_safetensors=True, dtype=torch.float32
                )
        except (OSError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            expected = (
                "expected a hub id or a folder of a detector, a MaskFormer or a "
                "Mask2Former with safetensors weights"
            )
            hint = (
                (f"; HF_HUB_OFFLINE is set: `hf download {model}` where there is a network")
                if HF_HUB_OFFLINE
                else ""
            )
            raise FileNotFoundError(
                f"detector {model!r} cannot be loaded ({first}): {expected}{hint}"
            ) from error
        if self.segmenter is None:
            self.model.requires_grad_(False).eval().to(self.device)
        self.labels = {int(index): class_name(label) for index, label in config.id2label.items()}
        self.facts: dict[str, Any] = {
            "detector": self.name,
            "model": Path(model).resolve().name if Path(model).is_dir() else model,
            "revision": revision,
            "kind": config.model_type,
            "masks": self.segmenter is not None,
            "threshold": threshold,
        }

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """As `Detector`, boxes and masks in the pixels of the images."""
        check_images(images, names)
        look = self._boxes if self.segmenter is None else self._instances
        return (
            [row for chunk in images.split(self.batch) for row in look(chunk)]
            if len(images)
            else []
        )

    @torch.no_grad()
    def _boxes(self, images: Tensor) -> list[list[Detection]]:
        inputs = self.processor(
            images=list(images.cpu()), return_tensors="pt", input_data_format="channels_first"
        ).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            output = self.model(**inputs)
        sizes = [tuple(images.shape[2:])] * len(images)
        rows = self.processor.post_process_object_detection(
            output, threshold=self.threshold, target_sizes=sizes
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

    def _instances(self, images: Tensor) -> list[list[Detection]]:
        assert self.segmenter is not None
        classes, planes = self.segmenter.queries(images)
        return [
            instances(c, p, self.labels, self.threshold)
            for c, p in zip(classes, planes, strict=True)
        ]


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


def detector(
    name: str, color_classifier: ColorClassifier | None = None, **options: Any
) -> Detector:
    """ "judge", "transformers" or "file", with its own options; with a colour classifier, detections without
    a colour get one.

    Raises ValueError on another name or option.
    """
    made = chosen(
        "detector",
        name,
        {"judge": JudgeDetector, "transformers": TransformersDetector, "file": DetectionsFile},
        options,
    )
    return made if color_classifier is None else Colored(made, color_classifier)
