"""Images that the untouched backbone draws before a training, kept as files for all runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from conf.files import drop, write_atomically
from conf.schema import Run
from datamodules.formats.images import check_image
from lightning_modules.backbone.weights import weights_digest
from lightning_modules.training.keys import code_version

__all__ = ["draw_files", "drawing_facts", "find_missing"]

Emit = Callable[[str, float], None]


def drawing_facts(config: Run) -> dict[str, Any]:
    """What of the backbone and the code images depend on, beside prompts, seeds and the sampler's
    settings."""
    backbone = config.backbone
    return {
        "backbone": None if Path(backbone.path).is_dir() else backbone.path,
        "revision": backbone.revision,
        "dtype": backbone.dtype,
        "weights": weights_digest(backbone.path, Path(config.output) / "cache", backbone.revision),
        "resolution": backbone.resolution,
        "code": code_version("lightning_modules.backbone"),
    }


def find_missing(paths: Sequence[Path], emit: Emit) -> set[int]:
    """The numbers of the images that are not there; one that was cut off is dropped, with a
    line."""
    missing = set()
    for number, path in enumerate(paths):
        if isinstance(problem := check_image(path), str):
            if path.exists():
                drop(path, emit, problem, "drawn again")
            missing.add(number)
    return missing


def draw_files(
    paths: Sequence[Path],
    missing: Collection[int],
    draw: Callable[[range], Tensor],
    batch: int,
    emit: Emit,
    what: str,
) -> None:
    """Writes the ``missing`` images, each as a whole. ``draw`` gives uint8 [n, 3, H, W] of the
    images by their numbers, in batches that do not depend on what is missing; after each, ``emit``
    gets a line."""
    for start in range(0, len(paths), batch):
        numbers = range(start, min(start + batch, len(paths)))
        if not set(numbers).intersection(missing):
            continue
        for number, image in zip(numbers, draw(numbers), strict=True):
            if number in missing:
                write_atomically(
                    paths[number], Image.fromarray(image.permute(1, 2, 0).numpy()).save
                )
        emit(f"{what}: {numbers[-1] + 1}/{len(paths)}", 0.0)
