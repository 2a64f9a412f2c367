"""The DataModule of a run's settings, and what it needs before it can be built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.schema import Run
from lightning_modules.training import distributed
from lightning_modules.training.checks import ON_SUBJECTS, evaluated

if TYPE_CHECKING:
    from datamodules.captioned import CaptionedDataModule
    from datamodules.concepts import ConceptDataset
    from datamodules.loading import PairedDataModule
    from datamodules.prompts import PromptDataModule
    from datamodules.scene import SceneDataModule
    from lightning_modules.backbone.backbone import Backbone

Progress = Callable[[str, float], None]
PRIOR_STEPS, PRIOR_GUIDANCE, PRIOR_BATCH = 30, 7.5, 4  # how class images are drawn


def build_data(config: Run, emit: Progress, with_prior: bool = True) -> PairedDataModule:
    """The DataModule of the config, rendered or found, and set up. Without prior, class images that
    the config wants are left out.

    Raises FileNotFoundError or ValueError when a file is missing (class images: see `draw_prior`)
    or cannot serve.
    """
    emit(f"data: {config.data.name}", 0.0)
    if config.data.name == "scene":
        datamodule = _scene(config, with_prior and wants_prior(config))
    else:
        datamodule = _prompts(config) if config.data.name == "prompts" else _captioned(config, emit)
    distributed.once(datamodule.prepare_data)
    datamodule.setup()
    if config.data.concepts:
        datamodule.train_set = _concepts(config)
    if config.data.drop_captions:
        datamodule.train_set.drop = config.data.drop_captions
    datamodule.train_set.with_phrases = needs_phrases(config)
    return datamodule


def needs_phrases(config: Run) -> bool:
    """Whether training looks at the masks of a caption's words."""
    return config.method.name in (
        *ON_SUBJECTS,
        "separate_enhance",
    ) or config.method.gate.supervision in ("masks", "separate_enhance")


def _concepts(config: Run) -> ConceptDataset:
    """The training prompts that are made of words; evaluation stays with the data's own."""
    from datamodules.concepts import ConceptDataset

    data = config.data
    if data.name != "shapes":
        return ConceptDataset(data.concepts, data.objects, data.train_images, config.seed)
    from datamodules.shapes.world import COLORS, SHAPES

    words = {*COLORS, *SHAPES}
    if unknown := [concept for concept in data.concepts if not set(concept.split()) <= words]:
        raise ValueError(
            f"data.concepts names {unknown[0]!r}: the embedded world knows "
            f"{', '.join(sorted(COLORS))}; {', '.join(SHAPES)}"
        )
    # The embedded world's captions of several things have no "a photo of" before them, and it knows
    # no "with" between them.
    return ConceptDataset(
        data.concepts, data.objects, data.train_images, config.seed, "{}", (" and ",)
    )


def _prompts(config: Run) -> PromptDataModule:
    from datamodules.prompts import PromptDataModule

    data, trainer = config.data, config.trainer
    return PromptDataModule(
        data.root,
        data.layout,
        train_prompts=data.train_images,
        eval_prompts=data.eval_images,
        min_phrases=data.min_phrases,
        on_error=data.on_error,
        batch=trainer.batch,
        workers=data.workers,
        seed=config.seed,
    )


def _captioned(config: Run, emit: Progress) -> CaptionedDataModule:
    from datamodules.coco import CocoDataModule
    from datamodules.flickr30k import Flickr30kDataModule
    from datamodules.shapes.module import ShapesDataModule
    from datamodules.shapes.world import SPLITS

    data, trainer, evaluation = config.data, config.trainer, evaluated(config).evaluation
    common: dict[str, Any] = {
        "batch": trainer.batch,
        "workers": data.workers,
        "seed": config.seed,
        "min_phrases": data.min_phrases,
        "on_error": data.on_error,
        "verify": data.verify,
        "flip": data.flip,
        "mask_share": data.mask_share,
        "emit": lambda text: emit(text, 0.0),
    }
    if data.name == "shapes":
        if unknown := [split for split in evaluation.splits if split not in SPLITS]:
            raise ValueError(
                f"evaluation.splits names {unknown[0]!r}: this dataset has {', '.join(SPLITS)}"
            )
        root = Path(config.output) / "cache" / "shapes" if data.root == "auto" else Path(data.root)
        return ShapesDataModule(
            root, data.train_images, data.eval_images, eval_splits=evaluation.splits, **common
        )
    splits = tuple(evaluation.splits) if evaluation.prompts else ()
    common |= {"layout": data.layout, "index_root": Path(config.output) / "cache" / "index"}
    kind: type[CaptionedDataModule] = CocoDataModule
    if data.name == "flickr30k":
        kind = Flickr30kDataModule
        common |= {"split_by": data.split_by, "detokenise": data.detokenise}
    return kind(
        data.root,
        config.backbone.resolution,
        data.train_split,
        splits,
        data.train_images,
        data.eval_images,
        **common,
    )


def _scene(config: Run, with_prior: bool) -> SceneDataModule:
    from datamodules.scene import SceneDataModule
    from datamodules.shapes.scene import ShapesSceneDataModule

    data, trainer, chosen = config.data, config.trainer, config.method.subjects
    common: dict[str, Any] = {
        "batch": trainer.batch,
        "workers": data.workers,
        "seed": config.seed,
        "union_sampling": chosen.union_sampling,
        "flip": data.flip,
        "tokens": chosen.tokens or None,
        "length": max(trainer.batch * trainer.devices * 25, 100),
    }
    if with_prior:
        common |= {"prior_images": prior_folder(config), "prior_prompt": chosen.prior_prompt}
    if data.root == "auto":
        folder = Path(config.output) / "cache" / "scenes" / f"{config.seed}-{data.subjects}"
        # Each seed has a scene of its own: what holds for one scene alone is no answer.
        return ShapesSceneDataModule(folder, data.subjects, config.seed, data.eval_images, **common)
    return SceneDataModule(
        data.root, config.backbone.resolution, classes=chosen.classes or None, **common
    )


def with_subjects(config: Run, datamodule: Any) -> Run:
    """The config with the scene's placeholders and class words where it names none."""
    if config.data.name != "scene" or config.method.name not in ON_SUBJECTS:
        return config
    found = datamodule.train_set.subjects
    tokens = config.method.subjects.tokens or [subject.token for subject in found]
    classes = config.method.subjects.classes or [subject.class_word or "" for subject in found]
    return conf.replace(
        config, {"method.subjects.tokens": tokens, "method.subjects.classes": classes}
    )


def data_digest(config: Run) -> str | None:
    """What stands for data of one's own in a training's key: names, sizes and times of its files of
    annotations or prompts, and of the folders that images lie in; those of a scene by what is in
    them. None for the embedded world, which its settings determine."""
    data, root = config.data, Path(config.data.root)
    if data.name == "scene":
        return scene_digest(config)
    if data.name not in ("coco", "flickr30k", "prompts"):
        return None
    texts = (".json", ".jsonl", ".csv", ".token", ".txt")
    found = (
        [root]
        if root.is_file()
        else [root, *root.glob("*"), *root.glob("*/*")]
        if root.is_dir()
        else []
    )
    chosen = sorted(path for path in found if path.is_dir() or path.suffix.lower() in texts)
    facts = [
        (str(path.relative_to(root)), path.stat().st_size * path.is_file(), path.stat().st_mtime_ns)
        for path in chosen
    ]
    return conf.digest({"files": facts})


def scene_digest(config: Run) -> str | None:
    """Digest of the images and masks in the folder of a scene of one's own; None for other data,
    and where there is no folder."""
    from datamodules.formats.scene_folder import SUFFIXES

    folder = Path(config.data.root)
    if config.data.name != "scene" or config.data.root == "auto" or not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return conf.digest({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})


# --- class images --------------------------------------------------------------------------------


def wants_prior(config: Run) -> bool:
    return (
        config.data.name == "scene"
        and config.method.name in ON_SUBJECTS
        and config.method.subjects.prior_weight > 0
    )


def prior_folder(config: Run) -> Path:
    """Where the class images of this backbone and prompt are, or will be."""
    from lightning_modules.backbone.backbone import weights_digest

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

    from lightning_modules.backbone.backbone import sample

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
