"""One scene, a few images with a mask of each subject; ``data.root=auto`` renders one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conf.data import shapes
from conf.spec import DataSpec

if TYPE_CHECKING:
    from conf.schema import Run


def embedded(config: Run) -> bool:
    """Whether the scene is rendered."""
    return config.data.root == "auto"


def check(config: Run) -> None:
    """Raises ValueError where a rendered scene has no number of images to evaluate on."""
    if embedded(config):
        shapes.check(config)


def unread(config: Run) -> tuple[str, ...]:
    """A scene has no splits, and few images, each read as a whole; of the user's own nothing is
    rendered."""
    captions = ("train_split", "split_by", "detokenise", "min_phrases", "tagger", "singular")
    files = ("layout", "on_error", "verify", "mask_share", "train_images", "zipf", "careless")
    return (*captions, *files, *(() if embedded(config) else ("eval_images", "subjects")))


DATA = DataSpec(
    "scene",
    embedded=embedded,
    check=check,
    unread=unread,
    splits=("subjects",),
    defaults={"evaluation.splits": ["prompts"]},
)
