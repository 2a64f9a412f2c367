"""Class images for prior preservation: drawn once by the untouched backbone, shared by all runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from conf import load as conf
from conf.files import create_folder
from conf.schema import Run
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.weights import weights_digest
from lightning_modules.training.keys import code_version

__all__ = ["class_image_folder", "draw_class_images"]

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


def draw_class_images(
    config: Run, backbone: Backbone, emit: Callable[[str, float], None]
) -> list[Path]:
    """The files of the class images ``0000.png`` …, image i from seed i, drawn unless they
    exist."""
    folder, subjects = class_image_folder(config), config.method.subjects
    if not folder.is_dir():
        with create_folder(folder) as draft:
            for start in range(0, subjects.prior_images, BATCH):
                seeds = list(range(start, min(start + BATCH, subjects.prior_images)))
                prompts, side = [subjects.prior_prompt] * len(seeds), config.backbone.resolution
                images = sampling.sample(
                    backbone, prompts, seeds, subjects.prior_steps, GUIDANCE, side, BATCH
                )
                for seed, image in zip(seeds, images, strict=True):
                    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                    picture.save(draft / f"{seed:04d}.png")
                emit(f"class images: {seeds[-1] + 1}/{subjects.prior_images}", 0.0)
    return sorted(folder.iterdir())
