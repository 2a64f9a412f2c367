"""How well images show what their prompts ask for, as a torchmetrics Metric over any detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import Metric

from lightning_modules.metrics.detection import Detection, Target, judge_image
from lightning_modules.metrics.distribution import gather_to_cpu


class Composition(Metric):
    """Rates over all images seen; the definitions per image stand in `lightning_modules.metrics.detection`.

    ``compute`` returns a dict of floats:

    * ``success``: share of images in which every wanted object is right
    * ``object_rate``, ``color_rate``, ``shape_rate``: sums over images of what was found, over the sum of wanted objects
    * ``relation_rate``: share of images whose prompt states a relation in which it holds; a missing object makes it wrong.
      Absent if no prompt states one.
    * ``extra_objects``: mean number of objects per image that nobody asked for
    * ``n_images``

    Every state is a sum, so that ranks with unequal numbers of images (none included) reduce exactly. Images that a sampler repeated to
    fill the last batch would count twice: give each image once.
    """

    full_state_update = False
    COUNTS = ("images", "successes", "wanted", "objects", "colors", "shapes", "extra", "relations", "relations_right")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dist_sync_fn=gather_to_cpu, **kwargs)
        for name in self.COUNTS:
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, detections: Sequence[Sequence[Detection]], targets: Sequence[Target]) -> None:
        """One list of detections and one target per image. Raises ValueError if their numbers differ."""
        if len(detections) != len(targets):
            raise ValueError(f"{len(detections)} images but {len(targets)} targets: give one target per image")
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
