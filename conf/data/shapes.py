"""The embedded world: scenes of one to four coloured shapes, rendered with captions and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conf.spec import DataSpec

if TYPE_CHECKING:
    from conf.schema import Run


# Splits of so many things each, of combinations that training shows
COUNTED = {"one": 1, "two": 2, "three": 3, "four": 4}
MOST = 10_000_000  # Images that are rendered of one split
SPLITS = ("train", "val", "heldout", *COUNTED)


def rendered_images(config: Run) -> tuple[int, int]:
    """Numbers of training images and of images in each evaluation split. Raises ValueError where
    one is null: there is no end of what can be rendered."""
    train, evaluation = config.data.train_images, config.data.eval_images
    if train is None or evaluation is None:
        raise ValueError(
            f"data.train_images={train or 'null'}, data.eval_images={evaluation or 'null'} with "
            f"data={config.data.name}: the embedded world is rendered; say how many images"
        )
    for setting, images in (("train_images", train), ("eval_images", evaluation)):
        if images > MOST:
            raise ValueError(
                f"data.{setting}={images} with data={config.data.name}: the embedded world is "
                f"rendered; expected at most {MOST}"
            )
    return train, evaluation


def check(config: Run) -> None:
    """Raises ValueError as `rendered_images`."""
    rendered_images(config)


# It is rendered in one layout, with one split to train on; no two shapes of a scene have one name
UNREAD = ("layout", "train_split", "split_by", "detokenise", "subjects", "singular")
DATA = DataSpec(
    "captions",
    embedded=lambda config: True,
    check=check,
    unread=lambda config: UNREAD,
    splits=SPLITS,
)
