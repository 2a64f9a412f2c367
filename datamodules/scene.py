"""One scene, one or a few images with a mask for each subject, as training batches (Break-A-Scene,
section 1 of the paper's method)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from conf.contents import digest_contents
from conf.data.shapes import rendered_images
from conf.schema import Run
from conf.seeds import resolve_seeds
from datamodules.batch import Caption, Instance, Phrase
from datamodules.formats.scene_folder import (
    SUFFIXES,
    SceneFolder,
    Subject,
    View,
    load_image,
    read_scene,
)
from datamodules.loading import PairedDataModule

if TYPE_CHECKING:
    from datamodules.build import Emit

PREFIX = "a photo of "
# Those of the paper's evaluation.
PROMPTS = tuple(
    f"a photo of {{tokens}} {place}"
    for place in (
        "at the beach",
        "in the jungle",
        "in the snow",
        "in the street",
        "on top of a pink fabric",
        "on top of a wooden floor",
        "with a city in the background",
        "with a mountain in the background",
        "with the Eiffel tower in the background",
        "floating on top of water",
    )
)


def build(config: Run, emit: Emit) -> SceneDataModule:
    """The DataModule of a run's settings; with ``data.root=auto`` each seed of the data has a scene
    of its own, since what holds for one scene alone is no result."""
    data, trainer, subjects = config.data, config.trainer, config.method.subjects
    seed = resolve_seeds(config).data
    common: dict[str, Any] = {
        "batch": trainer.batch,
        "workers": data.workers,
        "seed": seed,
        "union_sampling": subjects.union_sampling,
        "flip": data.flip,
        "tokens": subjects.tokens or None,
        "length": max(trainer.batch * trainer.devices * 25, 100) * trainer.accumulate,
    }
    if data.root == "auto":
        from datamodules.shapes.scene import ShapesSceneDataModule

        folder = Path(config.output) / "cache" / "scenes" / f"{seed}-{data.subjects}"
        return ShapesSceneDataModule(
            folder, data.subjects, seed, rendered_images(config)[1], **common
        )
    return SceneDataModule(
        data.root, config.backbone.resolution, classes=subjects.classes or None, **common
    )


def digest(config: Run) -> str | None:
    """Digest of the content of images, masks and scene.json in the folder of a scene; None where
    there is no folder."""
    folder = Path(config.data.root)
    if not folder.is_dir():
        return None
    kinds = (*SUFFIXES, ".json")
    files = {path.name: path for path in folder.iterdir() if path.suffix.lower() in kinds}
    return digest_contents(files, Path(config.output) / "cache", f"files of {folder}")


class Draw(NamedTuple):
    """What one training sample shows: image, mirrored or not, and the numbers of the subjects that
    its caption names, in that order."""

    image: int
    flipped: bool
    subjects: tuple[int, ...]


class Entry(NamedTuple):
    """A prompt of an evaluation split, as `evaluate` names it."""

    id: int


def subsets(count: int) -> list[tuple[int, ...]]:
    """All non-empty subsets of ``count`` subjects, the smallest first."""
    sizes = range(1, count + 1)
    return [subset for size in sizes for subset in combinations(range(count), size)]


class SceneDataset(Dataset):
    """``length`` samples an epoch: an image of the scene, some of the subjects in it, their
    placeholders in the caption, their masks.

    With ``union_sampling`` a sample names k ~ Uniform{1..N} of the N subjects in its image in
    random order (union sampling); without, all of them in fixed order. With ``flip`` every other
    sample, at random, is mirrored. What a sample is follows from (seed, epoch, index) alone, and
    image and mirroring do not depend on ``union_sampling``.

    There are ``encodable`` images to encode: the ``variants`` of the scene's images, then the class
    images of ``prior``. ``image``, ``pixels`` and the rows of ``latents`` go by that number;
    captions, phrases and samples by the number of the sample.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        views: Sequence[View],
        length: int = 100,
        union_sampling: bool = True,
        flip: bool = True,
        seed: int = 0,
    ) -> None:
        self.subjects, self.views, self.length = list(subjects), list(views), length
        self.union_sampling, self.flip, self.seed, self.epoch = union_sampling, flip, seed, 0
        # How many different images of the scene a sample can show
        self.variants = len(self.views) * (1 + flip)
        self.prior: list[Path] = []
        self.prior_prompt = ""
        self.latents: Tensor | None = None
        self.with_phrases = True

    def __len__(self) -> int:
        return self.length

    @property
    def encodable(self) -> int:
        """How many images there are to encode: ``image(i)`` for i below it."""
        return self.variants + len(self.prior)

    def __getitem__(self, index: int) -> dict[str, Any]:
        def show(number: int, caption: str, image: int) -> dict[str, Any]:
            if self.latents is None:
                return {"id": number, "caption": caption, "image": self.image(image)}
            return {"id": number, "caption": caption, "latent": self.latents[image]}

        sample = show(index, self.caption(index).text, self.variant(index))
        if self.with_phrases:
            sample["phrases"] = self.phrases(index)
        if self.prior:
            # All of them in turn, over the epochs too
            number = (self.epoch * self.length + index) % len(self.prior)
            sample["prior"] = show(number, self.prior_prompt, self.variants + number)
        return sample

    def attach_prior(self, images: Sequence[Path], prompt: str) -> None:
        """Adds class images for prior preservation: each sample then carries one, captioned
        ``prompt``."""
        self.prior, self.prior_prompt = list(images), prompt

    def draw(self, index: int) -> Draw:
        """What sample ``index`` of this epoch shows."""
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, index]))
        image, mirrored = int(rng.integers(len(self.views))), bool(rng.random() < 0.5)
        present = list(self.views[image].masks)
        if self.union_sampling:
            k = int(rng.integers(len(present))) + 1
            present = [present[i] for i in rng.permutation(len(present))[:k]]
        return Draw(image, mirrored and self.flip, tuple(present))

    def variant(self, index: int) -> int:
        """Number of the image that sample ``index`` shows."""
        image, flipped, _ = self.draw(index)
        return image * (1 + self.flip) + flipped

    def caption(self, index: int) -> Caption:
        """Words "a photo of" and the placeholders of the sample's subjects."""
        return Caption(
            PREFIX + " and ".join(self.subjects[s].token for s in self.draw(index).subjects)
        )

    def phrases(self, index: int) -> list[Phrase]:
        """The placeholders in the caption of sample ``index``, from left to right, with their
        subjects' masks, float32 [H, W]."""
        image, flipped, subjects = self.draw(index)
        phrases, start = [], len(PREFIX)
        for subject in subjects:
            token, mask = self.subjects[subject].token, self.views[image].masks[subject]
            phrases.append(
                Phrase(token, start, start + len(token), mask.flip(-1) if flipped else mask)
            )
            start += len(token) + len(" and ")
        return phrases

    def image(self, number: int) -> Tensor:
        """float32 [3, resolution, resolution] in [-1, 1]."""
        return self.pixels(number).float() / 127.5 - 1

    def pixels(self, number: int) -> Tensor:
        """uint8 [3, resolution, resolution]."""
        if number >= self.variants:
            return load_image(self.prior[number - self.variants], self.views[0].pixels.shape[-1])
        image, flipped = divmod(number, 1 + self.flip)
        pixels = self.views[image].pixels
        return pixels.flip(-1) if flipped else pixels

    def digest(self) -> str:
        """Changes with everything that samples are made of: the images and how they are cropped,
        masks, placeholders, class images."""
        facts = digest_contents({p.name: p for p in self.prior})
        state = hashlib.sha256(repr((self.subjects, self.flip, self.prior_prompt, facts)).encode())
        for view in self.views:
            state.update(repr((tuple(view.pixels.shape), list(view.masks))).encode())
            for tensor in (view.pixels, *view.masks.values()):
                state.update(tensor.contiguous().numpy().tobytes())
        return state.hexdigest()[:12]


class ScenePrompts:
    """Prompts about the subjects: each template with every non-empty subset of the placeholders in
    place of ``{tokens}``.

    A prompt's image is the first that shows the most of its subjects.
    """

    def __init__(
        self, subjects: Sequence[Subject], views: Sequence[View], templates: Sequence[str] = PROMPTS
    ) -> None:
        self.subjects, self.views = list(subjects), list(views)
        prompts = [
            (
                template.replace("{tokens}", " and ".join(self.subjects[s].token for s in subset)),
                subset,
            )
            for template in templates
            for subset in subsets(len(self.subjects))
        ]
        # A template without {tokens} is one prompt.
        self._subsets = dict(reversed(prompts))
        self.texts = list(dict.fromkeys(text for text, _ in prompts))
        self.records = [Entry(i) for i in range(len(self.texts))]

    def __len__(self) -> int:
        return len(self.texts)

    def strata(self) -> list[tuple[int, ...]]:
        """The subjects of each prompt: fewer of them are drawn evenly over these."""
        return [self._subsets[text] for text in self.texts]

    def caption(self, index: int) -> Caption:
        return Caption(self.texts[index])

    def phrases(self, index: int) -> list[Phrase]:
        """The placeholders of the prompt whose subjects are in its image, from left to right."""
        masks = self.views[self._view(index)].masks
        return [
            Phrase(token, start, end, masks[s])
            for s, token, start, end in self._mentions(index)
            if s in masks
        ]

    def count_objects(self, index: int) -> int:
        """How many subjects the prompt names."""
        return len(self._mentions(index))

    def instances(self, index: int) -> list[Instance]:
        """The prompt's subjects that are in its image; the label is the class word, or the
        placeholder where none is known."""
        instances = []
        for phrase in self.phrases(index):
            mask = phrase.mask >= 0.5
            if not mask.any():
                mask = phrase.mask > 0
            rows, columns = (
                mask.any(1).nonzero().flatten().tolist(),
                mask.any(0).nonzero().flatten().tolist(),
            )
            subject = next(s for s in self.subjects if s.token == phrase.text)
            box = (float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0)
            instances.append(
                Instance(subject.class_word or subject.token, mask, box, subject.color)
            )
        return instances

    def pixels(self, index: int) -> Tensor:
        """uint8 [3, resolution, resolution]."""
        return self.views[self._view(index)].pixels

    def _mentions(self, index: int) -> list[tuple[int, str, int, int]]:
        numbers = {subject.token: i for i, subject in enumerate(self.subjects)}
        pattern = "|".join(re.escape(token) for token in sorted(numbers, key=len, reverse=True))
        return [
            (numbers[m.group()], m.group(), m.start(), m.end())
            for m in re.finditer(pattern, self.texts[index])
        ]

    def _view(self, index: int) -> int:
        named = {s for s, *_ in self._mentions(index)}
        return max(range(len(self.views)), key=lambda j: len(named & self.views[j].masks.keys()))


class SceneDataModule(PairedDataModule):
    """Training batches of one scene folder (`scene_folder`) and the prompts to try its subjects
    with.

    ``tokens`` and ``classes`` go before those of scene.json; without either the placeholders are
    ``<asset0>``, ``<asset1>``, … and the class words are None.
    """

    def __init__(
        self,
        folder: str | Path,
        resolution: int,
        batch: int = 1,
        workers: int = 0,
        seed: int = 0,
        length: int = 100,
        union_sampling: bool = True,
        flip: bool = True,
        tokens: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(batch, workers, seed)
        self.folder, self.resolution, self.length = Path(folder), resolution, length
        self.union_sampling, self.flip, self.tokens, self.classes = (
            union_sampling,
            flip,
            tokens,
            classes,
        )

    def setup(self, stage: str | None = None) -> None:
        """Raises FileNotFoundError or ValueError when a file of the scene is missing or cannot be
        used."""
        # The Trainer calls this again: the latents attached since must stay.
        if hasattr(self, "train_set"):
            return
        self.scene = read_scene(self.folder, self.tokens, self.classes)
        views = self.scene.load(self.resolution)
        self.notes = [note for view in views for note in view.notes]
        self.warn()
        self.eval_sets = self.evaluation(self.scene, views)
        self.train_set = SceneDataset(
            self.scene.subjects,
            views,
            self.length,
            self.union_sampling,
            self.flip,
            self.seed,
        )

    def manifest(self) -> dict[str, Any]:
        """What the data are and what a person should know of them. Fits into JSON."""
        return super().manifest() | {"notes": self.notes}

    def evaluation(self, scene: SceneFolder, views: Sequence[View]) -> Mapping[str, Any]:
        """The evaluation datasets, by name."""
        return {"prompts": ScenePrompts(scene.subjects, views, scene.prompts or PROMPTS)}
