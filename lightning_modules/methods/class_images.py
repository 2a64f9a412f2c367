"""Class images for prior preservation: drawn once by the untouched backbone, shared by all runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from conf import load as conf
from conf.files import create_folder, drop, write_atomically
from conf.schema import Run
from datamodules.formats.images import check_image
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.weights import weights_digest
from lightning_modules.training.keys import code_version

__all__ = ["class_image_folder", "draw_class_images"]

Emit = Callable[[str, float], None]
GUIDANCE, BATCH = 7.5, 4


def class_image_folder(config: Run) -> Path:
    """Where the class images of this backbone and prompt are, or will be."""
    subjects, backbone = config.method.subjects, config.backbone
    facts = {
        "prompt": subjects.prior_prompt,
        "images": subjects.prior_images,
        "steps": subjects.prior_steps,
        "backbone": None if Path(backbone.path).is_dir() else backbone.path,
        "revision": backbone.revision,
        "dtype": backbone.dtype,
        "weights": weights_digest(backbone.path, Path(config.output) / "cache", backbone.revision),
        "resolution": backbone.resolution,
        "code": code_version("lightning_modules.backbone"),
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
    missing = []
    for seed in range(count):
        if isinstance(problem := check_image(path := folder / _name(seed)), str):
            drop(path, emit, problem, "drawn again")
            missing.append(seed)
    _draw(config, backbone, folder, missing, emit)
    return [folder / _name(seed) for seed in range(count)]


def _name(seed: int) -> str:
    return f"{seed:04d}.png"


def _draw(config: Run, backbone: Backbone, folder: Path, wanted: Sequence[int], emit: Emit) -> None:
    """Draws the ``wanted`` images, in batches that do not depend on what is missing."""
    subjects, side = config.method.subjects, config.backbone.resolution
    for start in range(0, subjects.prior_images, BATCH):
        seeds = list(range(start, min(start + BATCH, subjects.prior_images)))
        if not set(seeds).intersection(wanted):
            continue
        prompts = [subjects.prior_prompt] * len(seeds)
        images = sampling.sample(
            backbone, prompts, seeds, subjects.prior_steps, GUIDANCE, side, BATCH
        )
        for seed, image in zip(seeds, images, strict=True):
            if seed in wanted:
                write_atomically(
                    folder / _name(seed), Image.fromarray(image.permute(1, 2, 0).numpy()).save
                )
        emit(f"class images: {seeds[-1] + 1}/{subjects.prior_images}", 0.0)
