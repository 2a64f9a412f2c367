"""GenEval (Ghosh et al. 2023): whether an image shows what its prompt wants, by rules over
detections; the shares of right images, and the scorer.

What is wanted is a *spec*, one line of the benchmark's metadata as a dict
(`datamodules.formats.prompt_forms` has the form):

* Of each class the ``most`` surest detections with a score above the threshold are looked at: 0.3,
  for the task ``counting`` 0.9. Boxes that overlap are not merged: the benchmark's non-maximum
  suppression, the one place where it takes an IoU (with its + 1 pixel), is off.
* ``include``: for each thing there are at least ``count`` detections of its class, and the
  ``count`` surest of them, no others, have its ``color`` and its ``position``. Things are looked at
  one by one: a detection may serve two of the same class.
* ``position`` [relation, index]: each of the thing's detections lies so beside each detection of
  the thing at ``index``, which must be right itself (`relations`).
* ``exclude``: there are fewer than ``count`` detections of its class.

Classes are compared by COCO's names (`detection.class_name`): GenEval's "computer mouse" is the
detector's "mouse".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from math import hypot
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from datamodules.formats.benchmarks import GENEVAL
from lightning_modules.metrics.benchmarks import count_tasks, describe_benchmark, describe_sources
from lightning_modules.metrics.detection import (
    DIRECTIONS,
    Detection,
    Detector,
    at_least_columns,
    at_least_rates,
    class_name,
    color_name,
    why_not_at_least,
)
from lightning_modules.metrics.registry import Columns, ScoringContext

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.evaluation.plan import Prompt

TASKS = tuple(GENEVAL.tasks)
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9  # Scores must lie above
MOST = 16  # Detections of a class
MARGIN = 0.1  # Of the sum of both objects' sides: an offset up to this is none
ASIDE = 0.5  # Of the whole offset, beyond which the rest of a coordinate makes a relation

Box = tuple[float, float, float, float]


def geneval_correct(
    detections: Sequence[Detection],
    spec: Mapping[str, Any],
    threshold: float = THRESHOLD,
    counting_threshold: float = COUNTING_THRESHOLD,
    most: int = MOST,
) -> bool:
    """Whether the image with these detections is right by the rules above. Raises ValueError on a
    spec that they cannot judge."""
    return not geneval_reasons(detections, spec, threshold, counting_threshold, most)


def geneval_reasons(
    detections: Sequence[Detection],
    spec: Mapping[str, Any],
    threshold: float = THRESHOLD,
    counting_threshold: float = COUNTING_THRESHOLD,
    most: int = MOST,
) -> list[str]:
    """Why the image is wrong, a line for each thing that is; empty if it is right.

    A detection without a colour is wrong wherever one is wanted: `color_classifiers` says how
    detections get theirs. Raises ValueError on a spec that the rules cannot judge.
    """
    check_spec(spec)
    seen = _by_class(detections, spec, threshold, counting_threshold, most)
    reasons: list[str] = []
    right: list[list[Detection]] = []  # Of each thing; empty where it is wrong
    for thing in spec["include"]:
        name, count = thing["class"], thing.get("count", 1)
        found = seen.get(class_name(name), [])[:count]
        reason = (
            _count_reason(found, name, count)
            or _color_reason(found, thing)
            or _position_reason(found, thing, right)
        )
        reasons += [reason] if reason else []
        right.append([] if reason else found)
    for thing in spec.get("exclude", ()):
        name, count = thing["class"], thing.get("count", 1)
        if (number := len(seen.get(class_name(name), []))) >= count:
            reasons.append(f"{name}: wanted fewer than {count}, found {number}")
    return reasons


def count_included(
    detections: Sequence[Detection],
    spec: Mapping[str, Any],
    threshold: float = THRESHOLD,
    counting_threshold: float = COUNTING_THRESHOLD,
    most: int = MOST,
) -> int:
    """How many things of ``include`` are there, by class and count alone, whatever their colours
    and places: what MultiGen counts. Raises ValueError on a spec that the rules cannot judge."""
    check_spec(spec)
    seen = _by_class(detections, spec, threshold, counting_threshold, most)
    return sum(
        len(seen.get(class_name(thing["class"]), [])) >= thing.get("count", 1)
        for thing in spec["include"]
    )


def _by_class(
    detections: Sequence[Detection],
    spec: Mapping[str, Any],
    threshold: float,
    counting_threshold: float,
    most: int,
) -> dict[str, list[Detection]]:
    """Of each class the ``most`` surest detections above the threshold of the spec's task."""
    limit = counting_threshold if spec.get("tag") == "counting" else threshold
    seen: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        group = seen.setdefault(class_name(detection.label), [])
        if detection.score > limit and len(group) < most:
            group.append(detection)
    return seen


def relations(first: Box, second: Box) -> set[str]:
    """How ``first`` lies beside ``second``, boxes in pixels: none, one or two of left of, right of,
    above, below.

    Of the offset of the centres, each coordinate is shortened by ``MARGIN`` times the sum of both
    boxes' sides along it, to 0 at the least. What is left of a coordinate makes a relation if it is
    more than ``ASIDE`` times the length of the whole offset (before shortening).
    """
    offset = [(first[i] + first[i + 2] - second[i] - second[i + 2]) / 2 for i in (0, 1)]
    sides = [abs(first[i + 2] - first[i]) + abs(second[i + 2] - second[i]) for i in (0, 1)]
    left = [
        max(abs(o) - MARGIN * s, 0.0) * (1 if o > 0 else -1)
        for o, s in zip(offset, sides, strict=True)
    ]
    if max(map(abs, left)) < 1e-3:
        return set()
    least = ASIDE * hypot(*offset)
    return {
        name
        for name, unit in DIRECTIONS.items()
        if sum(u * v for u, v in zip(unit, left, strict=True)) > least
    }


def check_spec(spec: Mapping[str, Any]) -> None:
    """Raises ValueError unless GenEval's rules can judge the spec: something is included, and
    positions name one of the four relations and an earlier thing."""
    include = spec.get("include")
    if not include:
        raise ValueError(
            f"spec {dict(spec)!r} includes nothing: expected GenEval's form, {{'tag', "
            f"'include': [{{'class', 'count'}}]}}"
        )
    for i, thing in enumerate([*include, *spec.get("exclude", ())]):
        if "class" not in thing or thing.get("count", 1) < 1:
            raise ValueError(
                f"spec has the thing {thing!r}: expected a class and a count from 1 on"
            )
        if "position" not in thing:
            continue
        relation, index = thing["position"]
        if relation not in DIRECTIONS:
            known = ", ".join(DIRECTIONS)
            raise ValueError(
                f"relation {relation!r} has no rule in GenEval: expected one of {known}; "
                "`t2i_spatial` knows others"
            )
        if index not in range(min(i, len(include))):
            raise ValueError(
                f"position {thing['position']!r} of {thing['class']!r}: expected the index "
                "of an earlier thing"
            )


def _count_reason(found: list[Detection], name: str, count: int) -> str:
    return f"{name}: wanted {count}, found {len(found)}" if len(found) < count else ""


def _color_reason(found: list[Detection], thing: Mapping[str, Any]) -> str:
    if "color" not in thing:
        return ""
    colors = Counter("no colour" if d.color is None else color_name(d.color) for d in found)
    if colors[color_name(thing["color"])] == len(found):
        return ""
    return (
        f"{thing['class']}: wanted {thing['color']}, found "
        f"{', '.join(f'{n} {c}' for c, n in colors.items())}"
    )


def _position_reason(
    found: list[Detection], thing: Mapping[str, Any], right: list[list[Detection]]
) -> str:
    if "position" not in thing:
        return ""
    relation, index = thing["position"]
    if not right[index]:
        return f"{thing['class']}: wanted {relation} a thing that is wrong itself"
    for one in found:
        for other in right[index]:
            held = relations(one.box, other.box)
            if relation not in held:
                return (
                    f"{thing['class']}: wanted {relation} {other.label}, found "
                    f"{' and '.join(sorted(held)) or 'neither side'}"
                )
    return ""


def geneval_scores(results: Sequence[tuple[Hashable, str, bool]]) -> dict[str, float]:
    """The benchmark's scores of images, each as (prompt, task, right):

    * ``task/<tag>``: share of the right images of a task, over images, not prompts
    * ``tasks_mean``: mean of the tasks' shares, however many images they have
    * ``overall``: the same where the tasks are all of the benchmark's, and no others
    * ``images_right``: share of right images; ``prompts_right``: share of prompts with a right
      image
    * ``n_images``, ``n_prompts``, ``n_tasks``

    Raises ValueError if there is no image.
    """
    if not results:
        raise ValueError("no image was judged: give at least one")
    tasks: dict[str, list[bool]] = {}
    prompts: dict[Hashable, bool] = {}
    for prompt, task, right in results:
        tasks.setdefault(task, []).append(right)
        prompts[prompt] = right or prompts.get(prompt, False)
    scores = {f"task/{task}": sum(right) / len(right) for task, right in tasks.items()}
    mean = sum(scores.values()) / len(scores)
    return {
        **scores,
        "tasks_mean": mean,
        **({"overall": mean} if tasks.keys() == set(TASKS) else {}),
        "images_right": sum(right for _, _, right in results) / len(results),
        "prompts_right": sum(prompts.values()) / len(prompts),
        "n_images": float(len(results)),
        "n_prompts": float(len(prompts)),
        "n_tasks": float(len(scores)),
    }


class Requests(NamedTuple):
    """What prompts ask for, by (split, index of the prompt): specs for GenEval's rules, and for
    those of T2I-CompBench's plane, which know more relations; one may be in both."""

    specs: dict[tuple[str, int], dict[str, Any]]
    spatial: dict[tuple[str, int], dict[str, Any]]
    unjudged: int  # Prompts that ask for something that neither can judge


def read_requests(prompts: Sequence[Prompt], detector: str) -> Requests:
    """Raises ValueError where no prompt asks for anything that the rules can judge; ``detector`` is
    the name in the message."""
    asked = {(p.split, p.index): dict(p.wanted) for p in prompts if p.wanted}
    if not asked:
        raise ValueError(
            f"evaluation.detector={detector}, but no prompt says what it wants: set it to none, or "
            "use prompts that do (data=prompts with a file of GenEval's or T2I-CompBench's forms)"
        )
    specs = {}
    for place, spec in asked.items():
        with suppress(ValueError):
            check_spec(spec)
            specs[place] = spec
    spatial = {place: spec for place, spec in asked.items() if spec.get("tag") == "spatial"}
    if not (specs or spatial):
        raise ValueError(
            f"evaluation.detector={detector}: no prompt wants what can be judged; set it to none"
        )
    for (_, index), spec in specs.items():
        if not spec.get("tag"):
            raise ValueError(
                f"prompt {index} has no tag: expected the name of its task, such as {TASKS[0]}"
            )
    return Requests(specs, spatial, len(asked.keys() - specs.keys() - spatial.keys()))


def build(context: ScoringContext) -> list[GenEvalScorer]:
    """The scorer, if GenEval's rules can judge a prompt. Raises as `read_requests`."""
    requests = read_requests(context.prompts, context.detector.name)
    return [GenEvalScorer(context.detector, requests)] if requests.specs else []


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why no prompt gives it. Raises as `read_requests`."""
    specs = read_requests(prompts, evaluation.detector).specs
    if not specs:
        reason = "no prompt is one that GenEval's rules judge"
        keys = ("success", "tasks_mean", "prompts_right", "overall", *why_not_at_least([]))
        return dict.fromkeys(keys, reason)
    judged = {split for split, _ in specs}
    reasons = {
        f"success_{split}": f"no prompt of {split!r} is one that GenEval's rules judge"
        for split in dict.fromkeys(prompt.split for prompt in prompts)
        if split not in judged
    }
    own = [p for p in prompts if (p.split, p.index) in specs and p.benchmark == GENEVAL]
    why_not = GENEVAL.why_not(count_tasks(own)) if own else "no prompt is of GenEval's own"
    reasons |= why_not_at_least(len(spec["include"]) for spec in specs.values())
    return reasons | ({"overall": why_not} if why_not else {})


class GenEvalScorer:
    """`geneval_scores`, the share of right images as ``success``, also by split, and of the images
    that show ``at_least_n`` of the things that they should. Prompts that the rules cannot judge are
    counted in the facts.

    ``overall`` is of GenEval's prompts alone, nan where some of its tasks are not among them, and
    not there without any: what is judged by its rules alone does not bear its name.
    """

    def __init__(self, detector: Detector, requests: Requests) -> None:
        self.detector, self.requests = detector, requests
        self.results: list[tuple[tuple[str, int], str, bool]] = []
        self.judged: list[Prompt] = []
        # Of each image its place among the results, None for those that the rules cannot judge
        self.rows: list[int | None] = []
        # Of each image how many things are there and are named, None likewise
        self.counts: list[tuple[int, int] | None] = []
        self.columns: Columns = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; ``success`` is None where the rules cannot judge."""
        success: list[bool | None] = []
        for prompt, detections in zip(prompts, self.detector.detect(images, names), strict=True):
            place = (prompt.split, prompt.index)
            spec = self.requests.specs.get(place)
            success.append(None if spec is None else geneval_correct(detections, spec))
            self.rows.append(None if spec is None else len(self.results))
            self.counts.append(
                None if spec is None else (count_included(detections, spec), len(spec["include"]))
            )
            if spec is not None:
                self.results.append((place, spec["tag"], bool(success[-1])))
                self.judged.append(prompt)
        return {"success": success}

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        scores = geneval_scores(self.results)
        own = [prompt for prompt in self.judged if prompt.benchmark == GENEVAL]
        why_not = GENEVAL.why_not(count_tasks(own))
        scores.pop("overall", None)
        if own:
            places = {(prompt.split, prompt.index) for prompt in own}
            of_benchmark = [result for result in self.results if result[0] in places]
            overall = math.nan if why_not else geneval_scores(of_benchmark)["overall"]
            scores["overall"] = overall
        self._set_columns([] if why_not else own)
        values = {"success": scores.pop("images_right"), **scores, **at_least_rates(self.counts)}
        for split in dict.fromkeys(place[0] for place, _, _ in self.results):
            right = [right for place, _, right in self.results if place[0] == split]
            values[f"success_{split}"] = sum(right) / len(right)
        tasks = list(dict.fromkeys(spec["tag"] for spec in self.requests.specs.values()))
        about = {
            **self.detector.facts,
            "prompts_not_judged": self.requests.unjudged,
            "score": "GenEval's rules",
            "prompts_from": describe_sources(self.judged),
            "threshold": THRESHOLD,
            "counting_threshold": COUNTING_THRESHOLD,
            "most": MOST,
            "prompts": len(self.requests.specs),
            "tasks": tasks,
            "missing_tasks": [task for task in TASKS if task not in tasks],
        }
        self.facts = {key: about for key in values if not key.startswith("n_")}
        if own:
            of_own = {"prompts_from": describe_benchmark(own)}
            self.facts["overall"] = about | of_own | ({"undefined": why_not} if why_not else {})
        return values

    def _set_columns(self, own: Sequence[Prompt]) -> None:
        """Beside ``success`` what has the other scores as weighted means: whether the image is
        right, weighted by 1 / the images of its task (``overall``: over ``own`` prompts alone); and
        whether an image of its prompt is right, by 1 / the images of that."""
        places = {(prompt.split, prompt.index) for prompt in own}
        images = Counter(place for place, _, _ in self.results)
        right_prompts = {place for place, _, right in self.results if right}
        tasks = Counter(task for _, task, _ in self.results)
        own_tasks = Counter(task for place, task, _ in self.results if place in places)
        columns: Columns = {}
        for place, task, right in self.results:
            is_own = place in places
            row = {
                "tasks_mean": right,
                "task_weight": 1 / tasks[task],
                "prompts_right": place in right_prompts,
                "prompt_weight": 1 / images[place],
                **({"overall": right if is_own else None} if own else {}),
                **({"overall_weight": 1 / own_tasks[task] if is_own else None} if own else {}),
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        self.columns = {
            name: [None if row is None else values[row] for row in self.rows]
            for name, values in columns.items()
        } | {**at_least_columns(self.counts)}
