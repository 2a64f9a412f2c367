"""Generated images on disk, each drawn once: the same prompts on the same noise from the same
weights are found here by every trial, by a run that was killed, and by a metric that is asked for
later."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from conf import load as conf
from conf.describe import show_count
from conf.files import DiskFull, drop, read_json, to_json, write_atomically
from conf.schema import Run
from conf.seeds import training_seeds
from conf.spec import methods
from datamodules.batch import Phrase
from datamodules.formats.images import check_image
from datamodules.loading import ranks
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.training.contents import shipped_digests
from lightning_modules.training.keys import backbone_facts, method_facts, sampling_code

if TYPE_CHECKING:
    from lightning_modules.methods.mask_targets import PromptMasks

Emit = Callable[[str, float], None]
# How PIL writes them: both keep every pixel
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "webp": {"lossless": True}}


def image_facts(
    config: Run,
    prompts: Sequence[Prompt],
    trained: str | None,
    masks: Sequence[PromptMasks] | None = None,
    objects: Sequence[Sequence[Phrase]] | None = None,
) -> dict[str, Any]:
    """What images depend on. ``config`` is that of the evaluation; ``trained`` the key of the
    adapter, None where nothing was trained; ``masks``: what the method is given of where things
    should be (`mask_guidance`); ``objects``: the words that name each prompt's objects, where it is
    told these."""
    facts, evaluation = conf.to_dict(conf.as_run(config)), config.evaluation
    facts["method"] = method_facts(config)
    facts["method"].pop("init")
    facts["trainer"].pop("devices")
    guided = ("masks", "turn", "mirror") if masks is not None else ()
    # A method that learns on each prompt has no adapter, but a recipe
    learns = methods()[config.method.name].sections
    recipe = [facts["trainer"], training_seeds(config)] if learns else "none"
    shipped = shipped_digests(config)
    return {
        "code": sampling_code(config),
        "fresh": config.fresh,
        "backbone": backbone_facts(config),
        "method": facts["method"],
        "training": trained or recipe,
        "sampling": {
            key: getattr(evaluation, key) for key in ("steps", "guidance", "image_format", *guided)
        },
        "prompts": [[prompt.text, prompt.noise] for prompt in prompts],
        "masks": _digest_masks(prompts, masks) if masks is not None else None,
        **({"objects": [[(p.start, p.end) for p in each] for each in objects]} if objects else {}),
        **({"drawn with": shipped} if shipped else {}),
    }


def _digest_masks(prompts: Sequence[Prompt], masks: Sequence[PromptMasks]) -> str:
    """Of the masks that are given with the prompts, as they are, whatever made them, and of the
    words that they are the places of."""
    digest = hashlib.sha256()
    for prompt, of_prompt in zip(prompts, masks, strict=True):
        words = [(phrase.text, phrase.start, phrase.end) for phrase in prompt.phrases]
        digest.update(repr(words).encode())
        for _, mask in of_prompt or ():
            digest.update(repr((tuple(mask.shape), str(mask.dtype))).encode())
            digest.update(mask.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class DamagedImage(ValueError):
    """A kept image that cannot be decoded: ``path``."""

    def __init__(self, path: Path, reason: object) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} cannot be decoded ({reason})")


def load_images(paths: Sequence[Path]) -> Tensor:
    """uint8 [len(paths), 3, H, W]. Raises FileNotFoundError and DamagedImage."""
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as file:
                pictures.append(torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1))
        except Exception as error:  # Pillow's decoders raise errors of any kind
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedImage(path, error) from error
    return torch.stack(pictures)


class ImageStore:
    """``count`` images below ``root``, in a folder that ``facts`` name: ``00000.png`` … in the
    order of the prompts, and facts.json.

    A file appears whole or not at all, so that several processes may draw at once.
    """

    def __init__(self, root: Path, facts: dict[str, Any], count: int) -> None:
        self.folder = root / conf.digest(facts)
        self.count, self.form = count, facts["sampling"]["image_format"]
        self.folder.mkdir(parents=True, exist_ok=True)
        if read_json(self.folder / "facts.json") is None:
            write_atomically(self.folder / "facts.json", json.dumps(facts, indent=1))

    def path(self, row: int) -> Path:
        return self.folder / f"{row:05d}.{self.form}"

    def name(self, row: int) -> str:
        """Folder and file, which no other image below the same root has."""
        return f"{self.folder.name}/{self.path(row).name}"

    def missing(self, emit: Emit | None = None) -> list[int]:
        """The rows of images that are to be drawn. What was cut off is dropped, with a line."""
        there = {entry.name for entry in os.scandir(self.folder)}
        missing = []
        for row in range(self.count):
            path = self.path(row)
            if path.name in there:
                header = check_image(path)
                if not isinstance(header, str):
                    continue
                drop(path, emit, header, "drawn again")
            missing.append(row)
        return missing

    def save(self, row: int, image: Tensor) -> None:
        """uint8 [3, H, W]."""
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        options = FORMATS[self.form]
        write_atomically(
            self.path(row), lambda draft: picture.save(draft, format=self.form, **options)
        )

    def load(self, rows: Sequence[int]) -> Tensor:
        """uint8 [len(rows), 3, H, W]. Raises FileNotFoundError; ValueError where an image cannot be
        decoded, which is dropped."""
        try:
            return load_images([self.path(row) for row in rows])
        except DamagedImage as error:
            drop(error.path)
            raise ValueError(f"{error}: dropped; the same command draws it again") from error

    def check_space(self, images: int, side: int) -> None:
        """Raises DiskFull when the disk cannot hold so many more images of ``side`` pixels, three
        bytes a pixel."""
        needed, free = images * side * side * 3, shutil.disk_usage(self.folder).free
        if needed > free:
            raise DiskFull(
                self.folder,
                f"{show_count(images, 'image')} of {side} pixels: up to {needed / 2**30:.1f} GiB "
                f"at {self.folder}, {free / 2**30:.1f} GiB are free: make room, set output=, or "
                "lower evaluation.prompts",
            )

    @property
    def stats(self) -> dict[str, float] | None:
        """What the method measured of itself while all the images were drawn, the mean over images;
        NaN where it is undefined for some of them, None while some of it is not there."""
        first = read_json(self.folder / "stats-0.json")
        if first is None:
            return None
        parts = [read_json(self.folder / f"stats-{rank}.json") for rank in range(first["of"])]
        if None in parts:
            return None
        sums: dict[str, list[float]] = {}
        for part in parts:
            for key, value in part["values"].items() if part["images"] else ():
                total = sums.setdefault(key, [0, 0])
                total[0] += (math.nan if value is None else value) * part["images"]
                total[1] += part["images"]
        return {key: total / images for key, (total, images) in sums.items()}

    def write_stats(self, images: int, values: dict[str, float]) -> None:
        """What the method measured on this process's share of the images."""
        rank, world = ranks()
        content = {"images": images, "of": world, "values": values}
        write_atomically(self.folder / f"stats-{rank}.json", to_json(content))
