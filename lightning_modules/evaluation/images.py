"""Generated images on disk, each drawn once: the same prompt on the same noise from the same
weights is found here by every trial, however many other prompts it draws, by a run that was killed,
and by a metric that is asked for later.

A folder holds what is drawn in one way, a file is named by what it shows. ``batches/*.json`` say
which images were drawn together, since rounding follows the batch, and what the method measured of
itself on each of them.
"""

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
from conf.devices import runs_on_cpu
from conf.files import DiskFull, drop, read_json, to_json, write_atomically
from conf.guiders import guider_facts
from conf.schema import Evaluation, Run
from conf.seeds import training_seeds
from conf.spec import methods, metrics
from datamodules.batch import Phrase
from datamodules.formats.images import check_image
from lightning_modules.backbone.precision import resolve_precision
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.training.contents import shipped_digests
from lightning_modules.training.keys import backbone_facts, method_facts, sampling_code

if TYPE_CHECKING:
    from lightning_modules.methods.base import ImageStats
    from lightning_modules.methods.mask_targets import PromptMasks
    from lightning_modules.metrics.registry import Columns

Emit = Callable[[str, float], None]
BATCHES = "batches"  # Folder, beside the images
# How PIL writes them: both keep every pixel
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "webp": {"lossless": True}}


def image_facts(config: Run, trained: str | None, guided: bool = False) -> dict[str, Any]:
    """What all images depend on that are drawn in one way, whatever they show (`image_keys`).
    ``config`` is that of the evaluation; ``trained`` the key of the adapter, None where nothing was
    trained; ``guided``: whether the method is given masks (`mask_guidance`)."""
    facts, evaluation = conf.to_dict(conf.as_run(config)), config.evaluation
    facts["method"] = method_facts(config)
    facts["method"].pop("init")
    facts["trainer"].pop("devices")
    told = ("masks", "turn", "mirror") if guided else ()
    # A method that learns on each prompt has no adapter, but a recipe
    learns = methods()[config.method.name].learns
    recipe = [facts["trainer"], training_seeds(config)] if learns else "none"
    shipped = shipped_digests(config)
    return {
        "code": sampling_code(config),
        "fresh": config.fresh,
        "backbone": backbone_facts(config),
        "method": facts["method"],
        "training": trained or recipe,
        "sampling": {
            key: getattr(evaluation, key) for key in ("steps", "guidance", "image_format", *told)
        }
        | guider_facts(evaluation)
        | _precision_facts(config, evaluation),
        **({"drawn with": shipped} if shipped else {}),
    }


def image_keys(
    prompts: Sequence[Prompt],
    masks: Sequence[PromptMasks] | None = None,
    objects: Sequence[Sequence[Phrase]] | None = None,
) -> list[str]:
    """Digests of what each image shows: its prompt on its noise, and what the method is given with
    it: ``masks`` of where things should be (`mask_guidance`), ``objects``, the words that name the
    prompt's objects."""
    keys = []
    for i, prompt in enumerate(prompts):
        facts: dict[str, Any] = {"prompt": prompt.text, "noise": prompt.noise}
        if masks is not None:
            facts["masks"] = _digest_masks(prompt, masks[i])
        if objects is not None:
            facts["objects"] = [(phrase.start, phrase.end) for phrase in objects[i]]
        keys.append(_digest(facts))
    return keys


def _precision_facts(config: Run, evaluation: Evaluation) -> dict[str, str]:
    device = "cpu" if runs_on_cpu(config.trainer.accelerator) else "gpu"
    precision = resolve_precision(evaluation, device, getattr(torch, config.backbone.dtype))
    return {} if precision == "32-true" else {"precision": precision}


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def _digest_masks(prompt: Prompt, masks: PromptMasks) -> str:
    """Of the masks that are given with a prompt, as they are, whatever made them, and of the words
    that they are the places of."""
    words = [(phrase.text, phrase.start, phrase.end) for phrase in prompt.phrases]
    digest = hashlib.sha256(repr(words).encode())
    for _, mask in masks or ():
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
    """The images ``keys`` (`image_keys`; one may come twice) below ``root``, in a folder that
    ``facts`` name, which facts.json has.

    A file appears whole or not at all, so that several processes may draw at once. Images are asked
    for by their rows in ``keys``.
    """

    def __init__(self, root: Path, facts: dict[str, Any], keys: Sequence[str]) -> None:
        self.folder = root / conf.digest(facts)
        self.keys, self.form = list(keys), facts["sampling"]["image_format"]
        self.folder.mkdir(parents=True, exist_ok=True)
        if read_json(self.folder / "facts.json") is None:
            write_atomically(self.folder / "facts.json", json.dumps(facts, indent=1))

    def path(self, row: int) -> Path:
        return self.folder / f"{self.keys[row]}.{self.form}"

    def name(self, row: int) -> str:
        """Folder and file, which no other image below the same root has."""
        return f"{self.folder.name}/{self.path(row).name}"

    def missing(self, emit: Emit | None = None) -> list[int]:
        """The rows of images that are to be drawn. What was cut off is dropped, with a line."""
        there = {entry.name for entry in os.scandir(self.folder)}
        missing = []
        for row in range(len(self.keys)):
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

    def plan_batches(self, rows: Sequence[int], size: int) -> list[list[int]]:
        """Batches of ``size`` images at most in which ``rows`` are drawn, in this order, each image
        once. One that was begun and not ended is drawn as it was begun: rounding follows the batch.
        Keeps which they are."""
        row_of = {key: row for row, key in reversed([*enumerate(self.keys)])}
        wanted = dict.fromkeys(self.keys[row] for row in rows)
        batches = []
        for batch in _read_batches(self.folder):
            known = all(key in row_of for key in batch["images"])
            if known and len(batch["images"]) <= size and wanted.keys() & set(batch["images"]):
                batches.append(batch["images"])
                wanted = {key: None for key in wanted if key not in set(batch["images"])}
        rest = list(wanted)
        batches += [rest[start : start + size] for start in range(0, len(rest), size)]
        for keys in batches:
            _write_batch(self.folder, keys, None)
        return [[row_of[key] for key in keys] for keys in batches]

    def write_stats(self, rows: Sequence[int], stats: ImageStats) -> None:
        """What the method measured of itself on a batch of `plan_batches`."""
        _write_batch(self.folder, [self.keys[row] for row in rows], stats)

    def measured(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Key of an image -> what the method measured of itself on it: name -> sum and count."""
        known: dict[str, dict[str, tuple[float, float]]] = {}
        for batch in _read_batches(self.folder):
            if batch["stats"] is None:
                continue
            for i, key in enumerate(batch["images"]):
                own = {name: tuple(of[i]) if of else (0, 0) for name, of in batch["stats"].items()}
                known.setdefault(key, own)
        return known

    def columns(self) -> Columns:
        """Of each image what the method measured of itself on it, if that is a declared metric, and
        the count that it is weighted by; None where nothing was counted or is known."""
        known = self.measured()
        columns: Columns = {}
        for metric in (output for spec in metrics().values() for output in spec.outputs):
            own = [known.get(key, {}).get(metric.key, (0, 0)) for key in self.keys]
            if any(metric.key in of for of in known.values()):
                columns[metric.key] = [part / count if count else None for part, count in own]
                if metric.weight:
                    columns[metric.weight] = [count for _, count in own]
        return columns

    @property
    def stats(self) -> dict[str, float] | None:
        """What the method measured of itself on all the images, totals of sums by those of counts;
        NaN where nothing was counted, None while some of it is not there."""
        known = self.measured()
        if not all(key in known for key in self.keys):
            return None
        totals: dict[str, list[float]] = {}
        for key in self.keys:
            for name, (part, count) in known[key].items():
                total = totals.setdefault(name, [0, 0])
                total[0] += part
                total[1] += count
        return {name: part / count if count else math.nan for name, (part, count) in totals.items()}


def _write_batch(folder: Path, keys: Sequence[str], stats: ImageStats | None) -> None:
    path = folder / BATCHES / f"{_digest(list(keys))}.json"
    if stats is not None or read_json(path) is None:
        write_atomically(path, to_json({"images": list(keys), "stats": stats}))


def _read_batches(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / BATCHES).glob("[!.]*.json"))
    return [batch for batch in map(read_json, files) if batch is not None]
