"""T2I-CompBench's 2-D spatial score (Huang et al. 2023), from boxes of any detector, and its
scorer.

The score of an image is s1 / 4 + s2 / 4 + relation / 2, with the detection scores of the two
objects (0 for a missing one, and no relation then); below 0.5 it is 0. Of each class the surest
detection is taken. The relation is worth 1 or less:

* left of, right of, above, below: 1 if the stated direction has the greater offset of the centres
  and the boxes' IoU is below 0.1, else 0.1 / IoU; 0 where the direction is wrong.
* near, next to, on side of: 1 if the centres are closer than a limit, else the limit over the
  greater of the two offsets.

The limit is 150 pixels at a size of 512 and grows with the image. The released code brings images
to 479 pixels before it detects and takes 150 of those, 160 of 512, at any size they were made in:
``near=RELEASED_NEAR`` does as it does.

``released=True``, the default, keeps three habits of the released code, so that scores compare with
published ones; False mends them:

* closer than the limit means in either coordinate, so that all things in one row or column are
  near. Mended: in both.
* "on top of" is worth 0; "on the top of", the only one of the two among the validation prompts, is
  not. Mended: both mean above.
* where both objects are of one class (a boy and a girl are persons both), one detection serves for
  both: near, but nowhere beside itself. Mended: the two surest are taken, in the order that suits
  the relation better, for no detector tells who of the two is who.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from datamodules.formats.benchmarks import t2i_compbench
from datamodules.formats.prompt_forms import RELATIONS
from lightning_modules.metrics.benchmarks import describe_sources
from lightning_modules.metrics.detection import (
    DIRECTIONS,
    Detection,
    Detector,
    class_name,
    relation_holds,
)
from lightning_modules.metrics.geneval import Box, Requests, read_requests
from lightning_modules.metrics.registry import Columns, ScoringContext

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.evaluation.plan import Prompt

BENCHMARK = t2i_compbench("spatial_val")
ADJACENT = ("near", "next to", "on side of")
# Words of the prompts for which the benchmark looks for a person
PERSONS = ("girl", "boy", "man", "woman")
OVERLAP = 0.1  # IoU from which a relation is worth less than 1
NEAR = 150 / 512  # Of the image's side
RELEASED_NEAR = 150 / 479
THRESHOLD = 0.5  # A detection's score must lie above: the released code's detector gives no others
LEAST = 0.5  # What is less counts as nothing


def spatial_score(
    box_a: Box,
    box_b: Box,
    relation: str,
    size: float = 512,
    released: bool = True,
    near: float = NEAR,
) -> float:
    """What "a ``relation`` b" is worth, in [0, 1], by the rules above.

    ``box_a``, ``box_b``: (x0, y0, x1, y1) in pixels. ``relation``: in the benchmark's words ("on
    the left of") or GenEval's ("left of"). ``size``: side of the image in pixels, the shorter one
    where they differ; ``near``: the limit of nearness as a share of it. Raises ValueError on a
    relation that is none of the plane and on a size that is none.
    """
    if not size > 0:
        raise ValueError(f"size = {size}: expected the side of the image in pixels")
    name = _relation(relation)
    a, b = _centre(box_a), _centre(box_b)
    if name in ADJACENT:
        limit, offsets = near * size, (abs(a[0] - b[0]), abs(a[1] - b[1]))
        return 1.0 if (min(offsets) if released else max(offsets)) < limit else limit / max(offsets)
    if (released and relation.lower().split() == ["on", "top", "of"]) or not relation_holds(
        a, b, name
    ):
        return 0.0
    overlap = box_iou(box_a, box_b)
    return 1.0 if overlap < OVERLAP else OVERLAP / overlap


def t2i_spatial(
    detections: Sequence[Detection],
    wanted: Mapping[str, Any] | tuple[str, str, str],
    size: float = 512,
    released: bool = True,
    near: float = NEAR,
    threshold: float = THRESHOLD,
) -> float:
    """The score of one image, in [0, 1], by the rules above.

    ``wanted``: (object, relation, object) in the order of the sentence, or a dict of GenEval's form
    in which one thing has a position; that form writes "above" for "on top of" too. ``size``,
    ``released``, ``near``: as for `spatial_score`. Raises ValueError where ``wanted`` states no
    relation of the plane.
    """
    first, relation, second = relation_words(wanted)
    _relation(relation)  # One without a score is refused in any case
    looked_for = [
        "person" if class_name(word) in PERSONS else class_name(word) for word in (first, second)
    ]
    sure = sorted((d for d in detections if d.score > threshold), key=lambda d: -d.score)
    a, b = ([d for d in sure if class_name(d.label) == name] for name in looked_for)
    two_of_a_kind = looked_for[0] == looked_for[1] and not released
    if two_of_a_kind:
        b = a[1:]
    if not a or not b:
        return 0.0  # One object alone is worth 1/4 at the most
    orders = (
        [(a[0].box, b[0].box), (b[0].box, a[0].box)] if two_of_a_kind else [(a[0].box, b[0].box)]
    )
    best = max(spatial_score(one, other, relation, size, released, near) for one, other in orders)
    score = (a[0].score + b[0].score) / 4 + best / 2
    return score if score >= LEAST else 0.0


def relation_words(wanted: Mapping[str, Any] | tuple[str, str, str]) -> tuple[str, str, str]:
    """(object, relation, object) of a dict of GenEval's form, or such a triple as it is. Raises
    ValueError where no relation is stated."""
    if not isinstance(wanted, Mapping):
        return wanted
    include = wanted.get("include", [])
    related = next((thing for thing in include if "position" in thing), None)
    if related is None:
        raise ValueError(
            f"wanted {dict(wanted)!r} states no relation: expected a thing with 'position': "
            "[relation, index]"
        )
    relation, index = related["position"]
    return related["class"], relation, include[index]["class"]


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, edges as real numbers (no + 1); 0 for two boxes without
    area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0


def _relation(words: str) -> str:
    """The relation by GenEval's word where it has one. Raises ValueError on one that is none of the
    plane."""
    words = " ".join(words.lower().split())
    name = RELATIONS.get(words, words)
    if name not in DIRECTIONS and name not in ADJACENT:
        raise ValueError(
            f"relation {words!r} has no score in the plane: expected one of "
            f"{', '.join((*DIRECTIONS, *ADJACENT))}"
        )
    return name


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def build(context: ScoringContext) -> list[SpatialScorer]:
    """The scorer, if a prompt is a spatial one. Raises as `read_requests`."""
    requests = read_requests(context.prompts, context.detector.name)
    return [SpatialScorer(context.detector, requests)] if requests.spatial else []


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why no prompt gives it. Raises as `read_requests`."""
    asked = read_requests(prompts, evaluation.detector).spatial
    spatial = [prompt for prompt in prompts if (prompt.split, prompt.index) in asked]
    reasons = {
        "spatial": "no prompt is one of the benchmark's spatial ones",
        "spatial_other": "no prompt of others is a spatial one",
    }
    for prompt in spatial:
        reasons.pop("spatial" if prompt.benchmark == BENCHMARK else "spatial_other", None)
    return reasons


class SpatialScorer:
    """``spatial``: the mean of `t2i_spatial` over the images of the benchmark's validation prompts;
    ``spatial_other``: over those of other spatial prompts, whose score does not bear its name."""

    def __init__(self, detector: Detector, requests: Requests) -> None:
        self.detector, self.requests = detector, requests
        self.scores: dict[str, dict[int, float]] = {}  # By the place of the image
        self.asked: dict[str, list[Prompt]] = {}
        self.columns: Columns = {}
        self.size = self.images = 0
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; ``spatial`` is None where the prompt is not a spatial one. `finish` puts the
        scores of both kinds of prompts apart."""
        self.size = int(images.shape[-1])
        column: list[float | None] = []
        for prompt, detections in zip(prompts, self.detector.detect(images, names), strict=True):
            spec = self.requests.spatial.get((prompt.split, prompt.index))
            column.append(None if spec is None else t2i_spatial(detections, spec, self.size))
            if (score := column[-1]) is not None:
                key = "spatial" if prompt.benchmark == BENCHMARK else "spatial_other"
                self.scores.setdefault(key, {})[self.images] = score
                self.asked.setdefault(key, []).append(prompt)
            self.images += 1
        return {"spatial": column}

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        for key, scores in self.scores.items():
            self.facts[key] = {
                **self.detector.facts,
                "prompts_not_judged": self.requests.unjudged,
                "score": "T2I-CompBench's 2-D spatial rules",
                "prompts_from": describe_sources(self.asked[key]),
                "released": True,
                "size": self.size,
                "near_px": NEAR * self.size,
                "threshold": THRESHOLD,
                "overlap": OVERLAP,
                "least": LEAST,
                "images": len(scores),
            }
            self.columns[key] = [scores.get(image) for image in range(self.images)]
        return {key: sum(of.values()) / len(of) for key, of in self.scores.items()}
