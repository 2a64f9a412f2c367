"""Images with captions, of any layout: the square that is seen, the caption that is drawn, flips,
latents, broken files.

A new data set of this kind is a `Reader`, a `CaptionedDataset` that names it and a
`CaptionedDataModule` that names both.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch import Tensor

from conf import load as conf
from conf.describe import show_count
from conf.schema import Run
from conf.seeds import resolve_seeds
from datamodules.batch import Caption, Phrase
from datamodules.crop import CroppedImages
from datamodules.formats.index import DataError
from datamodules.formats.reader import Reader, open_split
from datamodules.loading import PairedDataModule
from datamodules.phrases.link import Links, link_or_say_why
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger, load_tagger, name_objects

if TYPE_CHECKING:
    from datamodules.build import Emit
    from datamodules.shards import Rows

SIDES = re.compile(r"\b(left|right)(most|wards?|hand(ed)?)?\b", re.IGNORECASE)
# Keep the generators of flips and of dropped captions apart from that of captions
FLIP, DROP = 1, 2


class CaptionedDataset(CroppedImages):
    """The first ``limit`` images of one split below ``root``, each with one of its captions.

    In training the caption is drawn by a generator seeded with (seed, epoch, id), and with ``flip``
    half of the samples are mirrored by another one, images and masks alike, but never those whose
    caption says left or right; in evaluation it is the first caption. ``latents``, once attached,
    replace the images: [n, C, h, w], which are never mirrored, or [n, 2, C, h, w], plain and
    mirrored. With ``with_phrases`` a sample also says which words of its caption mean which
    objects.

    Captions of fewer than ``min_phrases`` noun phrases are left out, and images without any other;
    ``tagger`` finds these.
    ``resolution`` and ``mask_share`` are those of `CroppedImages`, ``verify`` that of
    `check_image`. ``index_root`` keeps the index; without, it is removed with the records. A kept
    one is used as long as annotation files are as they were and no image was added, removed,
    renamed or replaced; of images that were written to in place see `Records.images_changed`.
    ``options`` are those of the reader: ``layout`` and others.

    Raises DataError where nothing can be read, and for an image that cannot be decoded although its
    header is good; in training with ``on_error="skip"`` the next good sample replaces it instead.
    """

    reader: type[Reader]

    def __init__(
        self,
        root: str | Path,
        split: str,
        resolution: int,
        limit: int | None = None,
        train: bool = False,
        seed: int = 0,
        min_phrases: int = 0,
        *,
        index_root: str | Path | None = None,
        verify: str = "header",
        on_error: str = "skip",
        flip: bool = False,
        mask_share: float = 0.5,
        emit: Callable[[str], None] | None = None,
        tagger: Tagger = LIGHT_TAGGER,
        **options: Any,
    ) -> None:
        if emit:
            emit(f"listing the files of {split} below {root}")
        reader = self.reader(Path(root), split, min_phrases, **options)
        self.tagger = reader.tagger = tagger
        folder = None if index_root is None else Path(index_root)
        records = open_split(reader, folder, limit, verify, on_error, emit)
        super().__init__(records, split, resolution, mask_share)
        self.train, self.flip, self.on_error = train, flip, on_error
        self.seed, self.epoch = seed, 0
        self.latents: Tensor | Rows | None = None
        self.with_phrases = False
        # Whom a singular means where there are several (see `link`)
        self.singular = "one"
        # Whose words phrases are: those "linked" to objects, or all "nouns"
        self.naming = "linked"
        # Share of the captions that training leaves out: "" then, which names nothing
        self.drop = 0.0
        self.broken: set[Path] = set()

    def __getitem__(self, index: int) -> dict[str, Any]:
        for step in range(len(self)):
            row = (index + step) % len(self)
            try:
                return self._sample(row)
            except DataError as error:
                # In evaluation a stand-in would count twice.
                if self.on_error == "raise" or not self.train:
                    raise
                path = self.records[row].path
                if path not in self.broken:
                    self.broken.add(path)
                    warnings.warn(f"{error}; the next image replaces it", stacklevel=2)
        raise DataError(
            f"none of {show_count(len(self), 'image')} of split {self.split!r} can be decoded"
        )

    def _sample(self, index: int) -> dict[str, Any]:
        flipped = self.flipped(index)
        dropped = self.dropped(index)
        sample: dict[str, Any] = {
            "id": self.records[index].id,
            "caption": "" if dropped else self.caption(index).text,
        }
        if self.latents is None:
            sample["image"] = self.image(index, flipped)
        else:
            latent = self.latents[index]
            sample["latent"] = latent[int(flipped)] if latent.dim() == 4 else latent
        if self.with_phrases:
            sample["phrases"] = [] if dropped else self.phrases(index, flipped)
        return sample

    def caption(self, index: int) -> Caption:
        """The caption of this epoch's sample."""
        captions = self.records[index].captions
        return captions[int(self._rng(index).integers(len(captions))) if self.train else 0]

    def texts(self) -> Iterator[str]:
        """Every caption that a sample may have, and the dropped one."""
        yield ""
        for record in self.records:
            yield from (caption.text for caption in record.captions)

    def dropped(self, index: int) -> bool:
        """Whether the sample of this epoch has no caption."""
        return self.train and self.drop > 0 and float(self._rng(index, DROP).random()) < self.drop

    def flipped(self, index: int) -> bool:
        """Whether the sample of this epoch is mirrored."""
        only_plain = self.latents is not None and len(self.latents.shape) == 4
        if not (self.flip and self.train) or only_plain:
            return False
        drawn = bool(self._rng(index, FLIP).integers(2))
        return drawn and not SIDES.search(self.caption(index).text)

    def phrases(self, index: int, flipped: bool = False) -> list[Phrase]:
        """The words of the image's caption that mean its objects, with masks bool [resolution,
        resolution]; where ``naming`` is "nouns", all its noun phrases, without masks."""
        return self.links(index, flipped).phrases

    def links(self, index: int, flipped: bool = False) -> Links:
        """As `phrases`, and which words were left out and why, where that is known."""
        if self.naming == "nouns":
            return Links(self.objects_named(index), [])
        return self.linked(index, flipped)

    def linked(self, index: int, flipped: bool = False) -> Links:
        """The words of the image's caption that mean its objects, with their masks."""
        instances = self.instances(index, flipped)
        return link_or_say_why(self.caption(index).text, instances, self.singular, self.tagger)

    def objects_named(self, index: int) -> list[Phrase]:
        """What the image's caption names, without masks: its noun phrases."""
        return name_objects(self.caption(index).text, self.tagger)

    def _rng(self, index: int, *more: int) -> np.random.Generator:
        number = self.records[index].id
        if isinstance(number, str):
            number = int.from_bytes(hashlib.sha256(number.encode()).digest()[:8], "big")
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, abs(number), *more]))


class CaptionedDataModule(PairedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name: ``train_images``
    and ``eval_images`` of each.

    ``index_root`` is where indices are kept; without, they are made in a temporary folder that goes
    with the object. ``emit`` gets lines on the progress of checks. The other arguments, and
    the ``options`` of a data set, are those of `CaptionedDataset`.
    """

    kind: type[CaptionedDataset]
    train_set: Any
    eval_sets: dict[str, Any]

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        train_split: str = "train",
        eval_splits: Sequence[str] = ("val",),
        train_images: int | None = None,
        eval_images: int | None = None,
        batch: int = 16,
        workers: int = 0,
        seed: int = 0,
        min_phrases: int = 0,
        *,
        flip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(batch, workers, seed)
        self.root, self.resolution = Path(root), resolution
        self.train_split, self.eval_splits = train_split, tuple(eval_splits)
        self.train_images, self.eval_images = train_images, eval_images
        self.eval_limit = eval_images
        self.min_phrases, self.flip, self.options = min_phrases, flip, options

    @classmethod
    def from_settings(cls, config: Run, emit: Emit, **options: Any) -> Self:
        """The DataModule of a run's settings; ``options`` are those of this data set alone."""
        data, evaluation = config.data, conf.with_eval_overrides(config).evaluation
        return cls(
            data.root,
            config.backbone.resolution,
            data.train_split,
            tuple(evaluation.splits) if evaluation.measures else (),
            data.train_images,
            evaluation.prompts or None if data.eval_images is None else data.eval_images,
            index_root=Path(config.output) / "cache" / "index",
            **cls.common_settings(config, emit),
            **options,
        )

    @staticmethod
    def common_settings(config: Run, emit: Emit) -> dict[str, Any]:
        """The arguments that all data sets of captioned images take from a run's settings."""
        data = config.data
        return {
            "batch": config.trainer.batch,
            "workers": data.workers,
            "seed": resolve_seeds(config).data,
            "min_phrases": data.min_phrases,
            "on_error": data.on_error,
            "verify": data.verify,
            "flip": data.flip,
            "mask_share": data.mask_share,
            "tagger": load_tagger(data.tagger),
            "emit": lambda text: emit(text, 0.0),
        }

    def open(self, split: str, train: bool) -> CaptionedDataset:
        """One split, for training or evaluation, of images in the state in which they are now: each
        that the split reads is asked for it."""
        dataset = self._open(split, train)
        return self._open(split, train) if dataset.records.images_changed() else dataset

    def _open(self, split: str, train: bool) -> CaptionedDataset:
        if not train:
            return self.kind(self.root, split, self.resolution, self.eval_images, **self.options)
        return self.kind(
            self.root,
            split,
            self.resolution,
            self.train_images,
            True,
            self.seed,
            self.min_phrases,
            flip=self.flip,
            **self.options,
        )

    def identities(self, dataset: CaptionedDataset) -> set[Any]:
        """The images of a split by what is the same in every split: name and size of the file."""
        return set(dataset.records.columns()[1])

    def remarks(self) -> list[str]:
        """What a person should know of the splits, in sentences: problems and notes of each, and
        images that are trained on and measured on."""
        told: dict[str, list[str]] = {}  # Sentence -> the splits that it is true of
        for dataset in (self.train_set, *self.eval_sets.values()):
            kinds = [
                f"{kind} {problem['count']} (first: {problem['examples'][0]})"
                for kind, problem in dataset.manifest["problems"].items()
            ]
            notes = ["; ".join(kinds)] if kinds else []
            for note in [*notes, *dataset.manifest.get("notes", [])]:
                splits = told.setdefault(note, [])
                splits += [] if dataset.split in splits else [dataset.split]
        remarks = [
            f"{'split' if len(splits) == 1 else 'splits'} {', '.join(map(repr, splits))}: {note}"
            for note, splits in told.items()
        ]
        trained = self.identities(self.train_set)
        for split, dataset in self.eval_sets.items():
            if shared := len(trained & self.identities(dataset)):
                remarks.append(
                    f"{shared} of {show_count(len(dataset), 'image')} of {split!r} also in the "
                    f"training split {self.train_split!r}: what is measured there was trained on"
                )
        return remarks

    def setup(self, stage: str | None = None) -> None:
        # The Trainer calls this again: the latents attached since must stay.
        if hasattr(self, "train_set"):
            return
        self.eval_sets = {split: self.open(split, train=False) for split in self.eval_splits}
        self.train_set = self.open(self.train_split, train=True)
        self.notes = self.remarks()
        self.warn()

    def manifest(self) -> dict[str, Any]:
        """What each split is made of and what was left out of it: ``train``, ``evaluation`` by
        name, ``notes``. Fits into JSON."""
        evaluation = {split: dataset.manifest for split, dataset in self.eval_sets.items()}
        return {"train": self.train_set.manifest, "evaluation": evaluation, "notes": self.notes}
