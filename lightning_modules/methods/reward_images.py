"""Images of training captions, drawn once by the untouched backbone and scored by a reward: shared
by all runs that ask for the same.

Below ``<output>/cache/rewarded/<key>`` lie the images ``00000-0.png`` (number of the caption, and
of its noise), ``captions.json``, and for each reward ``rewards-<key>.json`` with the score of each
image. What was interrupted goes on where it stopped; an image or a file of scores that was cut off
is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock
from torch import Tensor

from conf import load as conf
from conf.contents import digest_contents
from conf.files import drop, read_json, to_json, write_atomically
from conf.schema import Run
from datamodules.formats.scene_folder import load_image
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.drawn_images import draw_files, drawing_facts, find_missing
from lightning_modules.methods.rewards import Reward
from lightning_modules.training.contents import shipped_digests
from lightning_modules.training.keys import code_version

__all__ = ["RewardedImages", "make_rewarded_images", "select_captions"]

Emit = Callable[[str, float], None]
BATCH = 16  # Images that are drawn at once
SCORED = 64  # Images that are scored at once


class Drawing(Protocol):
    """How images are drawn: how many of a caption, in how many steps, at which scale of
    guidance."""

    noises: int
    steps: int
    guidance: float


@dataclass(frozen=True)
class RewardedImages:
    """A file, its caption and its reward for each image; those of a caption stand together."""

    paths: list[Path]
    captions: list[str]
    rewards: list[float]

    @property
    def mean(self) -> float:
        return sum(self.rewards) / len(self.rewards)


def select_captions(dataset: Any, count: int, reward: Reward) -> list[str]:
    """Of each sample the first caption that the reward reads and no earlier sample has, up to
    ``count`` of them, the same for every seed; of prompts that are made of words, those of the
    first epoch. Raises ValueError where it reads none."""
    captions: dict[str, None] = {}
    why = ""
    for row in range(len(dataset)):
        for text in _list_captions(dataset, row):
            if text in captions:
                continue
            if not (problem := reward.explain_unreadable(text)):
                captions[text] = None
                break
            why = why or problem
        if len(captions) == count:
            break
    if not captions:
        raise ValueError(
            f"the reward {reward.facts['reward']} reads none of the training captions ({why}): "
            "give captions that say what an image must show"
        )
    return list(captions)


def _list_captions(dataset: Any, row: int) -> list[str]:
    records = getattr(dataset, "records", None)
    own = getattr(records[row], "captions", None) if records is not None else None
    return [caption.text for caption in own] if own else [dataset.caption(row).text]


def make_rewarded_images(
    config: Run,
    settings: Drawing,
    backbone: Backbone,
    captions: Sequence[str],
    reward: Reward,
    emit: Emit,
) -> RewardedImages:
    """Draws and scores what is not there yet: ``noises`` images of each caption, image j of caption
    i from seed i * noises + j. One process at a time does; others wait and find what it made."""
    facts = {
        "captions": list(captions),
        "noises": settings.noises,
        "steps": settings.steps,
        "guidance": settings.guidance,
        **drawing_facts(config),
    }
    folder = Path(config.output) / "cache" / "rewarded" / conf.digest(facts)
    locks = Path(config.output) / "cache" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    prompts = [caption for caption in captions for _ in range(settings.noises)]
    paths = [
        folder / f"{i:05d}-{j}.png" for i in range(len(captions)) for j in range(settings.noises)
    ]
    with FileLock(locks / f"rewarded-{folder.name}.lock"):
        _draw(config.backbone.resolution, settings, backbone, prompts, paths, emit)
        write_atomically(folder / "captions.json", to_json(list(captions)))
        rewards = _score(config, folder, prompts, paths, reward, emit)
    return RewardedImages(paths, prompts, rewards)


def _draw(
    side: int,
    settings: Drawing,
    backbone: Backbone,
    prompts: list[str],
    paths: list[Path],
    emit: Emit,
) -> None:
    def draw(numbers: range) -> Tensor:
        own = [prompts[number] for number in numbers]
        return sampling.sample(
            backbone, own, list(numbers), settings.steps, settings.guidance, side, BATCH
        )

    draw_files(paths, find_missing(paths, emit), draw, BATCH, emit, "images to be scored")


def _score(
    config: Run,
    folder: Path,
    prompts: Sequence[str],
    paths: Sequence[Path],
    reward: Reward,
    emit: Emit,
) -> list[float]:
    """The rewards, from their file where that is of these images."""
    facts = {
        "reward": reward.facts,
        "weights": shipped_digests(config),
        "code": code_version("lightning_modules.methods.rewards", skip=()),
    }
    file = folder / f"rewards-{conf.digest(facts)}.json"
    images = digest_contents({path.name: path for path in paths})
    kept = read_json(file, emit)
    if _is_of(kept, images, len(paths)):
        return kept["rewards"]
    if kept is not None:
        drop(file, emit, "of other images", "scored again")
    rewards: list[float] = []
    for start in range(0, len(paths), SCORED):
        rows = slice(start, start + SCORED)
        pixels = torch.stack([load_image(p, config.backbone.resolution) for p in paths[rows]])
        rewards += reward.score(prompts[rows], pixels)
        emit(f"rewards: {len(rewards)}/{len(paths)}", 0.0)
    names = [path.name for path in paths]
    content = {**facts, "images": images, "files": names, "rewards": rewards}
    write_atomically(file, json.dumps(content, indent=1))
    return rewards


def _is_of(kept: Any, images: str, count: int) -> bool:
    """Whether a file of scores is of these images."""
    if not isinstance(kept, dict) or kept.get("images") != images:
        return False
    rewards = kept.get("rewards")
    return (
        isinstance(rewards, list)
        and len(rewards) == count
        and all(isinstance(reward, float) for reward in rewards)
    )
