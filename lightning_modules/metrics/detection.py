"""What a detector found, and how that compares with what was asked for: pure functions, no tensors.

Definitions, for one image with the wanted objects W = [(color, shape), ...] and the detections D:

* matched:     wanted objects that a detection of their own shows with the right colour and the
  right shape (one-to-one; where several detections could serve, the surest does)
* success:     every wanted object is matched; objects beyond those asked for do not spoil it,
  `extra` counts them
* object_rate: matched / |W|
* color_rate:  |multiset of colours in W ∩ multiset of colours in D| / |W|: the colour is there, on
  any shape
* shape_rate:  the same for shapes: the shape is there, in any colour
* extra:       |D| - matched; a wanted shape in a wrong colour is therefore one missing object and
  one extra object
* relation:    whether the centres of the first two wanted objects lie as stated; False if either is
  missing, None if none is stated
* size, pattern: whether every wanted object for which one is stated is matched by a detection that
  has it; None if none is stated
* count:       whether what the prompt counts is there exactly so often; None if it counts nothing
* at_least_n:  matched >= n, of images with |W| >= n; MultiGen's scores for n = 1 … |W|
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from conf.describe import show_count
from conf.spec import MOST_NAMED

if TYPE_CHECKING:
    from torch import Tensor

Wanted = tuple[str, str]  # (color, shape)

# COCO's own name of what other vocabularies write otherwise: Pascal VOC's, which some COCO
# checkpoints carry, GenEval's, and spellings.
CLASS_NAMES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "television": "tv",
    "computer mouse": "mouse",
    "tv remote": "remote",
    "computer keyboard": "keyboard",
    "cellphone": "cell phone",
    "doughnut": "donut",
    "hair dryer": "hair drier",
}
# What GenEval says of a class in a sentence
SPOKEN = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}


# Unit vector from the second object to the first, y pointing down as in images.
DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True)
class Detection:
    """One object in an image."""

    label: str
    box: tuple[float, float, float, float]  # (x0, y0, x1, y1) in pixels
    score: float  # In [0, 1]
    mask: Any = None  # bool [H, W], from detectors that segment
    color: str | None = None
    size: str | None = None  # "small", "medium" or "large", from detectors that tell
    pattern: str | None = None

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


class Detector(Protocol):
    name: str
    facts: dict[str, Any]

    def detect(
        self, images: Tensor, names: Sequence[str | int] | None = None
    ) -> list[list[Detection]]:
        """The objects of each image (uint8 [N, 3, H, W]), surest first. ``names``: of the images,
        which only files of detections look at; their positions from 0 on if left out."""
        ...


class Target(NamedTuple):
    """What one prompt asks for: objects as (color, shape), the place of the first relative to the
    second if the prompt states it, size and pattern of each object (or None; nothing at all where
    no object has one), and which objects it counts."""

    objects: Sequence[Wanted]
    relation: str | None = None
    sizes: Sequence[str | None] = ()
    patterns: Sequence[str | None] = ()
    counted: Sequence[Wanted] = ()


# What prompts may state besides their objects, as verdicts name it -> its rate over images
STATED = {
    "relation": "relation_rate",
    "relation_given_success": "relation_given_success",
    "size": "size_rate",
    "pattern": "pattern_rate",
    "count": "count_rate",
}


@dataclass(frozen=True)
class Verdict:
    """How one image compares with its target; the rates are kept as counts of ``wanted``, so that
    they can be summed."""

    wanted: int
    objects: int
    colors: int
    shapes: int
    extra: int
    relation: bool | None  # None: the target states none
    size: bool | None = None
    pattern: bool | None = None
    count: bool | None = None

    @property
    def success(self) -> bool:
        return self.objects == self.wanted

    @property
    def relation_given_success(self) -> bool | None:
        """``relation``, or None where an object is missing: what places objects is seen apart from
        what draws them."""
        return self.relation if self.success else None


def match(detections: Sequence[Detection], wanted: Sequence[Wanted]) -> list[Detection | None]:
    """The detection that shows each wanted object, or None; no detection serves twice.

    A detection fits a wanted object or does not, and equal wanted objects are interchangeable, so
    taking the surest one that is left is also the assignment with the most matches.
    """
    free = sorted(detections, key=lambda d: -d.score)
    result: list[Detection | None] = []
    for color, shape in wanted:
        surest = next((d for d in free if d.color == color and d.label == shape), None)
        if surest is not None:
            free = [d for d in free if d is not surest]
        result.append(surest)
    return result


def relation_holds(first: tuple[float, float], second: tuple[float, float], relation: str) -> bool:
    """Whether ``first`` (x, y) lies as ``relation`` says of ``second``: the stated direction must
    be the greater offset of the two axes.

    Raises ValueError on an unknown relation.
    """
    if relation not in DIRECTIONS:
        raise ValueError(
            f"relation {relation!r} is unknown: expected one of {', '.join(DIRECTIONS)}"
        )
    ux, uy = DIRECTIONS[relation]
    dx, dy = first[0] - second[0], first[1] - second[1]
    along, across = dx * ux + dy * uy, dx * uy - dy * ux
    return along > abs(across)


def judge_image(detections: Sequence[Detection], target: Target) -> Verdict:
    """Compares what was found with what was wanted; definitions at the top of this module.

    Raises ValueError if the target wants nothing, or states a relation between fewer than two
    objects.
    """
    objects, relation = target.objects, target.relation
    if not objects:
        raise ValueError(
            "a target without objects cannot be judged: give at least one (color, shape)"
        )
    if relation is not None and len(objects) < 2:
        raise ValueError(f"relation {relation!r} needs two objects, the target has {len(objects)}")
    matches = match(detections, objects)
    holds = None
    if relation is not None:
        first, second = matches[:2]
        holds = bool(first and second and relation_holds(first.centre, second.centre, relation))
    matched = sum(d is not None for d in matches)
    return Verdict(
        wanted=len(objects),
        objects=matched,
        colors=(
            Counter(c for c, _ in objects)
            & Counter(d.color for d in detections if d.color is not None)
        ).total(),
        shapes=(Counter(s for _, s in objects) & Counter(d.label for d in detections)).total(),
        extra=len(detections) - matched,
        relation=holds,
        size=_hold(target.sizes, [d.size if d else None for d in matches]),
        pattern=_hold(target.patterns, [d.pattern if d else None for d in matches]),
        count=_counts_hold(detections, target),
    )


def _hold(stated: Sequence[str | None], seen: Sequence[str | None]) -> bool | None:
    """Whether each attribute that is stated is that of the matched detection."""
    asked = [(one, other) for one, other in zip(stated, seen, strict=False) if one is not None]
    return all(one == other for one, other in asked) if asked else None


def _counts_hold(detections: Sequence[Detection], target: Target) -> bool | None:
    if not target.counted:
        return None
    there, wanted = Counter((d.color, d.label) for d in detections), Counter(target.objects)
    return all(there[thing] == wanted[thing] for thing in target.counted)


def composition_rates(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Rates over images:

    * ``success``: share of images in which every wanted object is right
    * ``object_rate``, ``color_rate``, ``shape_rate``: sums over images, over the sum of wanted
      objects
    * ``extra_objects``: mean number of objects per image that nobody asked for
    * ``at_least_1``, ``at_least_2``, …: see `at_least_rates`
    * ``n_images``
    * ``relation_rate``: share of the images whose prompt states a relation in which it holds;
      absent if no prompt states one
    * ``relation_given_success``: the same among images in which every wanted object is right; a
      generator that places these at random has 1/4; absent if there is no such image
    * ``size_rate``, ``pattern_rate``, ``count_rate``: as ``relation_rate``, for sizes, patterns and
      numbers

    Raises ValueError if there is no image.
    """
    if not verdicts:
        raise ValueError("no image was judged: give at least one verdict")
    images, wanted = len(verdicts), sum(v.wanted for v in verdicts)
    rates = {
        "success": sum(v.success for v in verdicts) / images,
        "object_rate": sum(v.objects for v in verdicts) / wanted,
        "color_rate": sum(v.colors for v in verdicts) / wanted,
        "shape_rate": sum(v.shapes for v in verdicts) / wanted,
        "extra_objects": sum(v.extra for v in verdicts) / images,
        **at_least_rates([(v.objects, v.wanted) for v in verdicts]),
        "n_images": float(images),
    }
    for key, rate in STATED.items():
        stated = [held for v in verdicts if (held := getattr(v, key)) is not None]
        if stated:
            rates[rate] = sum(stated) / len(stated)
    return rates


def at_least_columns(counts: Sequence[tuple[int, int] | None]) -> dict[str, list[bool | None]]:
    """``at_least_n`` of each image, n from 1 to the most objects that one names, at most
    `MOST_NAMED`: whether n are found, None where fewer are named.

    ``counts`` are (found, named) of the images, None for one that was not judged.
    """
    most = max((named for _, named in filter(None, counts)), default=0)
    return {
        f"at_least_{n}": [
            None if count is None or count[1] < n else count[0] >= n for count in counts
        ]
        for n in range(1, min(most, MOST_NAMED) + 1)
    }


def at_least_rates(counts: Sequence[tuple[int, int] | None]) -> dict[str, float]:
    """The share of images for which `at_least_columns` hold, of those that have a value: in how
    many images 1, 2, … of the named objects are found (MultiGen's scores, Wang et al. 2024, as
    shares)."""
    columns = at_least_columns(counts)
    known = {key: [v for v in column if v is not None] for key, column in columns.items()}
    return {key: sum(values) / len(values) for key, values in known.items()}


def why_not_at_least(named: Iterable[int]) -> dict[str, str]:
    """Of the prompts' numbers of ``named`` objects: ``at_least_n`` -> why no prompt gives it."""
    most = max(named, default=0)
    return {
        f"at_least_{n}": f"no prompt names {show_count(n, 'object')} or more"
        for n in range(most + 1, MOST_NAMED + 1)
    }


def smallest_of_best_assignment(scores: Sequence[Sequence[float]]) -> float:
    """The greatest reachable minimum of ``scores[wanted][candidate]`` when each wanted object takes
    a candidate of its own.

    0 if there are fewer candidates than wanted objects. Meant for a handful of both: it tries every
    assignment.
    """
    if not scores:
        raise ValueError("no wanted object to assign: give at least one row of scores")
    candidates = range(len(scores[0]))
    if len(candidates) < len(scores):
        return 0.0
    return max(
        min(row[c] for row, c in zip(scores, assigned, strict=True))
        for assigned in permutations(candidates, len(scores))
    )


def class_name(label: str) -> str:
    """The label in lower case, with blanks for underscores, and by COCO's name where it has another
    one."""
    name = " ".join(label.lower().replace("_", " ").split())
    return CLASS_NAMES.get(name, name)


def color_name(color: str) -> str:
    """The colour in lower case; grey is gray."""
    name = color.strip().lower()
    return "gray" if name == "grey" else name
