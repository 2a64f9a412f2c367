"""Class images for prior preservation: drawn once by the untouched backbone, shared by all runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from torch import Tensor

from conf import load as conf
from conf.files import create_folder
from conf.schema import Run
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.drawn_images import draw_files, drawing_facts, find_missing

__all__ = ["class_image_folder", "draw_class_images"]

Emit = Callable[[str, float], None]
GUIDANCE, BATCH = 7.5, 4


def class_image_folder(config: Run) -> Path:
    """Where the class images of this backbone and prompt are, or will be."""
    subjects = config.method.subjects
    facts = {
        "prompt": subjects.prior_prompt,
        "images": subjects.prior_images,
        "steps": subjects.prior_steps,
        **drawing_facts(config),
    }
    return Path(config.output) / "cache" / "prior" / conf.digest(facts)


def draw_class_images(config: Run, backbone: Backbone, emit: Emit) -> list[Path]:
    """The files of the class images ``0000.png`` …, image i from seed i, drawn unless they exist;
    one that was cut off is drawn again."""
    folder, count = class_image_folder(config), config.method.subjects.prior_images
    if not folder.is_dir():
        with create_folder(folder) as draft:
            _draw(config, backbone, draft, range(count), emit)
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    _draw(config, backbone, folder, find_missing(_paths(folder, count), emit), emit)
    return _paths(folder, count)


def _paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"{seed:04d}.png" for seed in range(count)]


def _draw(
    config: Run, backbone: Backbone, folder: Path, wanted: Collection[int], emit: Emit
) -> None:
    subjects, side = config.method.subjects, config.backbone.resolution

    def draw(seeds: range) -> Tensor:
        prompts = [subjects.prior_prompt] * len(seeds)
        return sampling.sample(
            backbone, prompts, list(seeds), subjects.prior_steps, GUIDANCE, side, BATCH
        )

    paths = _paths(folder, subjects.prior_images)
    draw_files(paths, wanted, draw, BATCH, emit, "class images")
