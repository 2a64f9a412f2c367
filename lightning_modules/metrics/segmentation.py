"""Where the things that a text names are in images: segmenters behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.shapes.world import COLORS, SHAPES
from lightning_modules.metrics.detection import Detection

if TYPE_CHECKING:
    from lightning_modules.embedded.judge import Judge

# Pixels; what is smaller is noise. The smallest object of the embedded world, a ring of radius 7.5,
# covers 135
SMALLEST = 16
GREY = 40  # the ground's channels differ by less than this
# And lie between these: 70 to 130 in renders, and a little off in generated images
LEVELS = (50, 150)
LEFT = 0.8  # share of its mask that a panoptic segment must keep against the other segments


class Segmenter(Protocol):
    def segment(self, images: Tensor, phrases: Sequence[Sequence[str]]) -> list[list[Tensor]]:
        """images: uint8 [N, 3, H, W]; ``phrases``: for each image, what to look for ("blue square",
        "a dog").

        Returns, for each phrase of each image, a mask bool [H, W] on the CPU: empty where nothing
        was found. No two phrases of an image get the same object.
        """
        ...


def check_request(images: Tensor, phrases: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless there is a list of phrases for each image of a uint8 tensor [N, 3,
    H, W]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"a segmenter takes uint8 images [N, 3, H, W], not {images.dtype} {list(images.shape)}"
        )
    if len(images) != len(phrases):
        raise ValueError(
            f"{len(images)} images but {len(phrases)} lists of "
            "phrases: give one list for each image"
        )


class ColorSegmenter:
    """Segments the embedded world by colour.

    A pixel is read as a mixture of the image's grey ground and one of the colours, and belongs to
    that colour if it is at least half of it. Connected pixels of one colour are an object, as are
    pieces inside one detection of the judge (a ring that is broken, say); fewer than ``SMALLEST``
    pixels are noise. Objects of a phrase's colour are its candidates: the judge's shape decides
    which phrase gets which, and between equals the larger object goes first. A colour on the wrong
    shape still is found: whether the shape is right, the judge says.

    ``judge``: the shipped one by default.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        from lightning_modules.embedded.judge import Judge

        self.judge = judge if judge is not None else Judge.load()

    def segment(self, images: Tensor, phrases: Sequence[Sequence[str]]) -> list[list[Tensor]]:
        """As `Segmenter`; images are 64 x 64. Raises ValueError on a phrase without a colour of the
        world."""
        check_request(images, phrases)
        wanted = [[color_and_shape(phrase) for phrase in row] for row in phrases]
        found = self.judge.detect(images)
        return [
            _by_color(image, row, seen)
            for image, row, seen in zip(images.cpu(), wanted, found, strict=True)
        ]


def color_and_shape(phrase: str) -> tuple[str, str | None]:
    """("blue", "square") of "a blue square", and ("blue", None) of "something blue". Raises
    ValueError if it names no colour."""
    words = phrase.lower().replace(",", " ").split()
    color = next((w for w in words if w in COLORS), None)
    if color is None:
        raise ValueError(
            f"phrase {phrase!r} names no colour that can be segmented: expected one of "
            f"{', '.join(COLORS)}"
        )
    return color, next((w for w in words if w in SHAPES), None)


def color_map(image: Tensor) -> np.ndarray:
    """The colour of each pixel of an image uint8 [3, H, W]: int [H, W], its place among ``COLORS``,
    or -1 for the ground."""
    pixels = image.numpy().astype(np.float64).transpose(1, 2, 0)  # [H, W, 3]
    grey = (
        (np.ptp(pixels, axis=2) < GREY)
        & (pixels.mean(2) > LEVELS[0])
        & (pixels.mean(2) < LEVELS[1])
    )
    ground = np.median(pixels[grey], axis=0) if grey.any() else np.full(3, np.mean(LEVELS))
    # [8, 3] from the ground to each colour
    ways = np.array(list(COLORS.values()), dtype=np.float64) - ground
    offset = pixels - ground
    # [H, W, 8] of the colour in the mixture
    share = np.clip(offset @ ways.T / np.square(ways).sum(1), 0, 1)
    residual = np.square(offset[:, :, None, :] - share[..., None] * ways).sum(-1)
    best = residual.argmin(2)
    return np.where(np.take_along_axis(share, best[..., None], 2)[..., 0] >= 0.5, best, -1)


def _by_color(
    image: Tensor, wanted: list[tuple[str, str | None]], detections: list[Detection]
) -> list[Tensor]:
    from scipy.optimize import linear_sum_assignment

    colors = color_map(image)
    masks = [torch.zeros(colors.shape, dtype=torch.bool) for _ in wanted]
    for index, color in enumerate(COLORS):
        rows = [i for i, (c, _) in enumerate(wanted) if c == color]
        if not rows:
            continue
        seen = [d for d in detections if d.color == color]
        objects = _objects(colors == index, seen)
        # The area, always below 1 % of the score of a certain shape, orders what the judge leaves
        # open.
        score = np.array(
            [
                [
                    (d.score if d is not None and d.label == wanted[i][1] else 0) + 0.01 * o.mean()
                    for o, d in objects
                ]
                for i in rows
            ]
        ).reshape(len(rows), len(objects))
        for row, column in zip(*linear_sum_assignment(score, maximize=True), strict=True):
            masks[rows[row]] = torch.from_numpy(objects[column][0])
    return masks


def _objects(
    pixels: np.ndarray, detections: list[Detection]
) -> list[tuple[np.ndarray, Detection | None]]:
    """Connected pieces of bool [H, W], those mostly inside the box of one detection as one, each
    with that detection."""
    from scipy.ndimage import label

    pieces, count = label(pixels, structure=np.ones((3, 3)))
    whole: dict[int, tuple[np.ndarray, Detection | None]] = {}
    for piece in range(1, count + 1):
        mask = pieces == piece
        if mask.sum() < SMALLEST:
            continue
        shares = [_inside(mask, d.box) for d in detections]
        home = int(np.argmax(shares)) if max(shares, default=0.0) >= 0.5 else -piece
        before = whole.get(home)
        whole[home] = (
            (mask | before[0], before[1])
            if before
            else (mask, detections[home] if home >= 0 else None)
        )
    return list(whole.values())


def _inside(mask: np.ndarray, box: tuple[float, float, float, float]) -> float:
    ys, xs = mask.nonzero()
    x0, y0, x1, y1 = box
    return float(((xs + 0.5 > x0) & (xs + 0.5 < x1) & (ys + 0.5 > y0) & (ys + 0.5 < y1)).mean())


class HuggingFaceSegmenter:
    """Panoptic segmentation by a MaskFormer or Mask2Former of transformers (such as
    facebook/maskformer-swin-large-coco).

    A phrase stands for the class whose label its last words are: "a wooden dining table" finds
    "dining table". Of several segments of the class the surest goes to the first phrase that asks
    for it.

    ``model``: hub id or local folder; only safetensors weights are read. ``threshold``: probability
    from which a segment counts.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        threshold: float = 0.5,
        batch: int = 8,
    ) -> None:
        """Raises FileNotFoundError when nothing can be loaded from there, ValueError when the model
        asks for more than an image."""
        from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

        try:
            self.processor = AutoImageProcessor.from_pretrained(model, revision=revision)
            self.model: Any = AutoModelForUniversalSegmentation.from_pretrained(
                model, revision=revision, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            expected = (
                "expected a hub id or a folder of MaskFormer or Mask2Former with "
                "safetensors weights"
            )
            raise FileNotFoundError(
                f"segmenter {model!r} cannot be loaded ({first}): {expected}"
            ) from error
        if self.model.config.model_type not in ("maskformer", "mask2former"):
            raise ValueError(
                f"segmenter {model!r} is a {self.model.config.model_type}: expected a "
                "maskformer or a mask2former"
            )
        self.model.requires_grad_(False).eval().to(device)
        self.device, self.threshold, self.batch = torch.device(device), threshold, batch
        self.classes = class_names(self.model.config.id2label)

    def segment(self, images: Tensor, phrases: Sequence[Sequence[str]]) -> list[list[Tensor]]:
        """As `Segmenter`. Raises ValueError on a phrase that names no class of the model."""
        check_request(images, phrases)
        wanted = [[class_of(phrase, self.classes) for phrase in row] for row in phrases]
        masks: list[list[Tensor]] = []
        for start in range(0, len(images), self.batch):
            for classes, planes in zip(
                *self.queries(images[start : start + self.batch]), strict=True
            ):
                masks.append(
                    _by_class(
                        panoptic(classes, planes, self.threshold),
                        wanted[len(masks)],
                        images.shape[2:],
                    )
                )
        return masks

    @torch.no_grad()
    def queries(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What each query says: class probabilities [N, Q, classes + 1], the last being none, and
        mask probabilities [N, Q, H, W]."""
        inputs = self.processor(
            images=list(images.cpu()), return_tensors="pt", input_data_format="channels_first"
        ).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            output = self.model(**inputs)
        planes = F.interpolate(
            output.masks_queries_logits,
            inputs["pixel_values"].shape[2:],
            mode="bilinear",
            align_corners=False,
        )
        # The processor may have padded the images below and to the right.
        height, width = (int(inputs["pixel_mask"][0].any(dim).sum()) for dim in (1, 0))
        planes = F.interpolate(
            planes[:, :, :height, :width], images.shape[2:], mode="bilinear", align_corners=False
        )
        return output.class_queries_logits.softmax(-1).cpu(), planes.sigmoid().cpu()


class Segment(NamedTuple):
    category: int
    score: float
    mask: Tensor  # bool [H, W]


def panoptic(classes: Tensor, planes: Tensor, threshold: float) -> list[Segment]:
    """Panoptic inference of MaskFormer (arXiv:2107.06278, section 3.4), surest segment first.

    Queries whose surest class is one and has a probability of at least ``threshold`` compete for
    each pixel by class probability times mask probability; a segment is where a query wins and its
    mask probability is at least 1/2. It is dropped if less than 80 % of the mask are left.
    transformers' own version omits the 1/2: there a lone object takes the whole image.

    classes: [Q, classes + 1] probabilities, the last of none; planes: [Q, H, W] probabilities.
    """
    score, category = classes.max(1)
    kept = (category < classes.shape[1] - 1) & (score >= threshold)
    score, category, planes = score[kept], category[kept], planes[kept]
    if len(planes) == 0:
        return []
    winner = (score[:, None, None] * planes).argmax(0)  # [H, W]
    segments = []
    for k in score.argsort(descending=True, stable=True).tolist():
        whole = planes[k] >= 0.5
        mask = whole & (winner == k)
        if mask.any() and mask.sum() >= LEFT * whole.sum():
            segments.append(Segment(int(category[k]), float(score[k]), mask))
    return segments


def class_names(labels: dict[int, str]) -> dict[str, set[int]]:
    """Names a phrase may end in, lower case, and their classes: synonyms apart at commas, without
    COCO's panoptic suffixes."""
    names: dict[str, set[int]] = {}
    for index, label in labels.items():
        for name in label.lower().split(","):
            for suffix in ("-merged", "-other", "-stuff"):
                name = name.strip().removesuffix(suffix)
            names.setdefault(" ".join(name.replace("-", " ").replace("_", " ").split()), set()).add(
                int(index)
            )
    return names


def class_of(phrase: str, names: dict[str, set[int]]) -> set[int]:
    """The classes of the longest name that ``phrase`` ends in. Raises ValueError if it ends in
    none."""
    words = phrase.lower().replace("-", " ").split()
    for start in range(len(words)):
        name = " ".join(words[start:])
        if name in names:
            return names[name]
    some = ", ".join(list(names)[:8])
    raise ValueError(
        f"phrase {phrase!r} ends in no class of the segmenter: expected one of {len(names)} "
        f"names such as {some}"
    )


def _by_class(segments: list[Segment], wanted: list[set[int]], size: torch.Size) -> list[Tensor]:
    free, masks = list(segments), []
    for classes in wanted:
        chosen = next((s for s in free if s.category in classes), None)
        free = [s for s in free if s is not chosen]
        masks.append(chosen.mask if chosen is not None else torch.zeros(size, dtype=torch.bool))
    return masks
