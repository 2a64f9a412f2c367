"""What the methods that learn the subjects of a scene need beside their data: placeholders, and class
images for prior preservation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.schema import Run
from conf.spec import data_kind, methods

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

Progress = Callable[[str, float], None]
# How class images are drawn
PRIOR_STEPS, PRIOR_GUIDANCE, PRIOR_BATCH = 30, 7.5, 4


def with_subjects(config: Run, datamodule: Any) -> Run:
    """The config with the scene's placeholders and class words where it names none."""
    if not _learns_subjects(config):
        return config
    found = datamodule.train_set.subjects
    tokens = config.method.subjects.tokens or [subject.token for subject in found]
    classes = config.method.subjects.classes or [subject.class_word or "" for subject in found]
    return conf.replace(
        config, {"method.subjects.tokens": tokens, "method.subjects.classes": classes}
    )


def _learns_subjects(config: Run) -> bool:
    sections = methods()[config.method.name].sections
    return data_kind(config) == "scene" and "subjects" in sections


# --- class images --------------------------------------------------------------------------------


def wants_prior(config: Run) -> bool:
    return _learns_subjects(config) and config.method.subjects.prior_weight > 0


def prior_folder(config: Run) -> Path:
    """Where the class images of this backbone and prompt are, or will be."""
    from lightning_modules.backbone.weights import weights_digest

    chosen, backbone = config.method.subjects, config.backbone
    facts = {
        "prompt": chosen.prior_prompt,
        "images": chosen.prior_images,
        "backbone": backbone.path,
        "revision": backbone.revision,
        "weights": weights_digest(backbone.path),
        "resolution": backbone.resolution,
    }
    return Path(config.output) / "cache" / "prior" / conf.digest(facts)


def draw_prior(config: Run, backbone: Backbone, emit: Progress) -> None:
    """Draws the class images that prior preservation needs with the untouched backbone, unless they
    are there."""
    import os
    import shutil

    from PIL import Image

    from lightning_modules.backbone.sampling import sample

    folder, chosen = prior_folder(config), config.method.subjects
    if folder.is_dir():
        return
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    scratch.mkdir(parents=True, exist_ok=True)  # of a process that was killed: it drew the same
    try:
        for start in range(0, chosen.prior_images, PRIOR_BATCH):
            seeds = list(range(start, min(start + PRIOR_BATCH, chosen.prior_images)))
            prompts = [chosen.prior_prompt] * len(seeds)
            images = sample(
                backbone,
                prompts,
                seeds,
                PRIOR_STEPS,
                PRIOR_GUIDANCE,
                config.backbone.resolution,
                PRIOR_BATCH,
            )
            for seed, image in zip(seeds, images, strict=True):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(scratch / f"{seed:04d}.png")
            emit(f"class images: {seeds[-1] + 1}/{chosen.prior_images}", 0.0)
        scratch.rename(folder)
    except OSError:
        # Another run may have been quicker with the same images, and is reading them.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def attach_prior(config: Run, datamodule: Any) -> None:
    """Adds the class images, which were drawn, to the samples."""
    images = sorted(prior_folder(config).iterdir())
    datamodule.train_set.attach_prior(images, config.method.subjects.prior_prompt)
