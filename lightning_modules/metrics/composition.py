"""How well images show what their prompts ask for, as torchmetrics Metrics over any detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.metrics.detection import Detection, Target, judge_image
from lightning_modules.metrics.distribution import gather_to_cpu
from lightning_modules.metrics.geneval import (
    COUNTING_THRESHOLD,
    MOST,
    TASKS,
    THRESHOLD,
    check_spec,
    geneval_correct,
)
from lightning_modules.metrics.intervals import wilson


def composition_scores(
    detections: Sequence[Sequence[Detection]], targets: Sequence[Target]
) -> dict[str, list[float]]:
    """What `Composition` counts, image by image, in the order of the images: ``success``,
    ``object_rate``, ``color_rate``, ``shape_rate``, ``extra_objects`` and ``relation`` (nan where
    the prompt states none; a missing object makes it 0).

    Raises ValueError if there is not one target for each image. The rates of `Composition` are of
    sums over images, so that the mean of these is the same only where all prompts want equally many
    objects.
    """
    if len(detections) != len(targets):
        raise ValueError(
            f"{len(detections)} images but {len(targets)} targets: give one target per image"
        )
    verdicts = [
        judge_image(found, target) for found, target in zip(detections, targets, strict=True)
    ]
    return {
        "success": [float(v.success) for v in verdicts],
        "object_rate": [v.objects / v.wanted for v in verdicts],
        "color_rate": [v.colors / v.wanted for v in verdicts],
        "shape_rate": [v.shapes / v.wanted for v in verdicts],
        "extra_objects": [float(v.extra) for v in verdicts],
        "relation": [
            nan if t.relation is None else float(v.relation is True)
            for v, t in zip(verdicts, targets, strict=True)
        ],
    }


class Composition(Metric):
    """Rates over all images seen; the definitions per image stand in
    `lightning_modules.metrics.detection`.

    ``compute`` returns a dict of floats:

    * ``success``: share of images in which every wanted object is right
    * ``object_rate``, ``color_rate``, ``shape_rate``: sums over images of what was found, over the sum of wanted objects
    * ``relation_rate``: share of images whose prompt states a relation in which it holds; a missing object makes it wrong.
      Absent if no prompt states one.
    * ``extra_objects``: mean number of objects per image that nobody asked for
    * ``n_images``

    Every state is a sum, so that ranks with unequal numbers of images (none included) reduce
    exactly. Images that a sampler repeated to fill the last batch would count twice: give each
    image once.
    """

    full_state_update = False
    COUNTS = (
        "images",
        "successes",
        "wanted",
        "objects",
        "colors",
        "shapes",
        "extra",
        "relations",
        "relations_right",
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dist_sync_fn=gather_to_cpu, **kwargs)
        for name in self.COUNTS:
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, detections: Sequence[Sequence[Detection]], targets: Sequence[Target]) -> None:
        """One list of detections and one target per image. Raises ValueError if their numbers
        differ."""
        if len(detections) != len(targets):
            raise ValueError(
                f"{len(detections)} images but {len(targets)} targets: give one target per image"
            )
        for found, target in zip(detections, targets, strict=True):
            verdict = judge_image(found, target)
            self.images += 1
            self.successes += verdict.success
            self.wanted += verdict.wanted
            self.objects += verdict.objects
            self.colors += verdict.colors
            self.shapes += verdict.shapes
            self.extra += verdict.extra
            self.relations += target.relation is not None
            self.relations_right += verdict.relation is True

    def compute(self) -> dict[str, float]:
        """Raises ValueError if no image was given."""
        count: dict[str, float] = {name: float(getattr(self, name)) for name in self.COUNTS}
        if count["images"] == 0:
            raise ValueError("no image was judged: call update before compute")
        result = {
            "success": count["successes"] / count["images"],
            "object_rate": count["objects"] / count["wanted"],
            "color_rate": count["colors"] / count["wanted"],
            "shape_rate": count["shapes"] / count["wanted"],
            "extra_objects": count["extra"] / count["images"],
            "n_images": count["images"],
        }
        if count["relations"]:
            result["relation_rate"] = count["relations_right"] / count["relations"]
        return result


class GenEval(Metric):
    """GenEval's scores; its rules for one image stand in `lightning_modules.metrics.geneval`.

    ``specs``: what each prompt wants, one line of the benchmark's metadata each (``tag``,
    ``include``, ``exclude``, perhaps ``prompt``), for all prompts and in the same order on all
    ranks; images are given by the position of their prompt among them. The other arguments are the
    benchmark's by default.

    ``compute`` returns a dict of floats:

    * ``task/<tag>``: share of the right images of a task, over images, not prompts
    * ``overall``: mean of the tasks' shares, each task weighing the same whatever its number of images; of those tasks that have images
    * ``images_right``: share of right images; ``prompts_right``: share of prompts with at least one right image
    * ``n_images``, ``n_prompts``, ``n_tasks``

    Every state is a sum, so that ranks with unequal numbers of images (none included) reduce
    exactly. Give each image once.
    """

    full_state_update = False
    images: Tensor
    right: Tensor

    def __init__(
        self,
        specs: Sequence[Mapping[str, Any]],
        threshold: float = THRESHOLD,
        counting_threshold: float = COUNTING_THRESHOLD,
        most: int = MOST,
        **kwargs: Any,
    ) -> None:
        """Raises ValueError if there is no spec, or one that the rules cannot judge."""
        super().__init__(dist_sync_fn=gather_to_cpu, **kwargs)
        if not specs:
            raise ValueError("no prompt to score: give at least one spec")
        for i, spec in enumerate(specs):
            try:
                check_spec(spec)
            except ValueError as error:
                raise ValueError(f"prompt {i}: {error}") from None
            if not spec.get("tag"):
                raise ValueError(
                    f"prompt {i} has no tag: expected the name of its task, such as {TASKS[0]}"
                )
        self.specs = [dict(spec) for spec in specs]
        self.rules: dict[str, Any] = {
            "threshold": threshold,
            "counting_threshold": counting_threshold,
            "most": most,
        }
        for name in ("images", "right"):
            self.add_state(name, torch.zeros(len(specs), dtype=torch.long), dist_reduce_fx="sum")

    @property
    def facts(self) -> dict[str, Any]:
        """What the scores are: the rules' settings, the tasks of the prompts, and which of the
        benchmark's six are missing."""
        tasks = list(dict.fromkeys(spec["tag"] for spec in self.specs))
        missing = [task for task in TASKS if task not in tasks]
        return {
            "score": "GenEval",
            **self.rules,
            "prompts": len(self.specs),
            "tasks": tasks,
            "missing_tasks": missing,
        }

    def update(self, detections: Sequence[Sequence[Detection]], prompts: Sequence[int]) -> None:
        """One list of detections and the position of the prompt for each image. Raises ValueError
        if they do not fit."""
        if len(detections) != len(prompts):
            raise ValueError(
                f"{len(detections)} images but {len(prompts)} prompts: give the position of "
                "each image's prompt"
            )
        for found, prompt in zip(detections, prompts, strict=True):
            if not 0 <= prompt < len(self.specs):
                raise ValueError(
                    f"prompt {prompt} is none of the {len(self.specs)}: expected a position "
                    f"from 0 to {len(self.specs) - 1}"
                )
            self.images[prompt] += 1
            self.right[prompt] += geneval_correct(found, self.specs[prompt], **self.rules)

    def compute(self) -> dict[str, float]:
        """Raises ValueError if no image was given."""
        tasks: dict[str, list[int]] = {}
        rows = list(zip(self.specs, self.images.tolist(), self.right.tolist(), strict=True))
        for spec, images, right in rows:
            if images:
                counts = tasks.setdefault(spec["tag"], [0, 0])
                counts[0] += right
                counts[1] += images
        if not tasks:
            raise ValueError("no image was judged: call update before compute")
        scores = {f"task/{tag}": right / images for tag, (right, images) in tasks.items()}
        n_images, n_prompts = (
            sum(images for _, images, _ in rows),
            sum(images > 0 for _, images, _ in rows),
        )
        return {
            **scores,
            "overall": sum(scores.values()) / len(scores),
            "images_right": sum(right for _, _, right in rows) / n_images,
            "prompts_right": sum(right > 0 for _, _, right in rows) / n_prompts,
            "n_images": float(n_images),
            "n_prompts": float(n_prompts),
            "n_tasks": float(len(tasks)),
        }

    def prompt_scores(self, level: float = 0.95) -> list[dict[str, Any]]:
        """For each prompt that has images, over all ranks (which must all call it): its position as
        ``index``, ``prompt``, ``tag``, ``images``, ``right``, ``score``, and the ``low`` and
        ``high`` end of Wilson's interval of the score.

        The interval takes a prompt's images, made from different noise, as independent.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            counts = list(zip(self.images.tolist(), self.right.tolist(), strict=True))
        table = []
        for index, (spec, (images, right)) in enumerate(zip(self.specs, counts, strict=True)):
            if images:
                low, high = wilson(right, images, level)
                row = {
                    "index": index,
                    "prompt": spec.get("prompt", ""),
                    "tag": spec["tag"],
                    "images": images,
                    "right": right,
                }
                table.append({**row, "score": right / images, "low": low, "high": high})
        return table
