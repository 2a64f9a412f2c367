"""The embedded world: scenes of one to five coloured shapes, rendered with captions and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.fields import number
from conf.spec import DataSpec

if TYPE_CHECKING:
    from conf.schema import Run

# ``train`` and ``val`` hold a bit of everything, the others one skill each
SPLITS = (
    *("train", "val", "heldout"),
    *("one", "two", "three", "three_heldout", "four", "five"),
    *("counting", "relation", "size", "pattern", "similar"),
)

MOST = 10_000_000  # Images that are rendered of one split


def _rate(default: float) -> float:
    return number(default, minimum=0, maximum=1)


@dataclass(frozen=True)
class Careless:
    """``data.careless``: how carelessly the captions of rendered training images are written, as
    rates. Evaluation prompts are always clean."""

    # Objects (or groups of equal ones) that are not named, of those beyond the first
    left_out: float = _rate(0.35)
    # Named objects without their colour
    color_dropped: float = _rate(0.25)
    # Captions that exchange the colours of two objects, where that names no held-out combination
    colors_swapped: float = _rate(0.15)
    # Groups of equal objects without their number
    number_dropped: float = _rate(0.3)
    # Captions that say how two objects lie, where that can be said
    relation_said: float = _rate(0.1)
    # Named objects that are small or large with a word for it
    size_said: float = _rate(0.3)
    # Named objects with a pattern with a word for it
    pattern_said: float = _rate(0.5)
    # Captions that name objects in an order of their own
    shuffled: float = _rate(0.5)
    # Captions with synonyms and other ways to put things
    paraphrased: float = _rate(0.5)


# As the captions of large web crawls are
WEB = Careless()
# True, and nothing is missing; a relation need not be said
CLEAN = Careless(
    left_out=0,
    color_dropped=0,
    colors_swapped=0,
    number_dropped=0,
    relation_said=0.5,
    size_said=1,
    pattern_said=1,
)


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
