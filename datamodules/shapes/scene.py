"""The embedded world's scenes: one image of coloured shapes to learn from, and prompts in which
these shapes are placeholders."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from conf.files import drop, named_when_full
from datamodules.batch import Caption, Instance, Phrase
from datamodules.formats.images import check_image
from datamodules.formats.scene_folder import SceneFolder, Subject, View, read_description
from datamodules.scene import Entry, SceneDataModule, subsets
from datamodules.shapes.captions import SceneCaption, clean_caption
from datamodules.shapes.rendering import SIZE, render
from datamodules.shapes.scenes import Scene, Thing, sample_scene
from datamodules.shapes.vocabulary import HELD_OUT, SEEN


def write_scene(folder: Path, seed: int, subjects: int = 2) -> None:
    """Renders one scene of 1 to 3 shapes of different colours into ``folder`` unless it is there:
    img.png, mask<i>.png, scene.json.

    Subject 0 is one of the held-out combinations. The scene is written beside its place and moved
    there whole. Raises ValueError when ``subjects`` is no such number, or when the folder holds
    something that was not made here.
    """
    if subjects not in (1, 2, 3):
        raise ValueError(f"a scene of {subjects} subjects cannot be drawn: expected 1, 2 or 3")
    made = {"seed": seed, "subjects": subjects, "size": SIZE, "version": 2}
    before = _made(folder)
    damaged = _find_damage(folder)
    if before == made and damaged is None:
        return
    if before is None and folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} holds something that is no rendered scene, and would be replaced: "
            "give another folder"
        )
    if damaged is not None:
        drop(damaged[0], None, damaged[1], "rendered again")
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        with named_when_full(folder):
            _write(scratch, _draw(seed, subjects), made)
        if before is not None:
            shutil.rmtree(folder)
        scratch.rename(folder)
    except OSError:
        # Another process may have been quicker with the same scene, and is reading it.
        if _made(folder) != made:
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _made(folder: Path) -> dict[str, Any] | None:
    """What a rendered scene was made of, or None where there is none."""
    if (damage := _find_damage(folder)) is not None and damage[0].suffix == ".json":
        return {}
    return read_description(folder / "scene.json").get("made")


def _find_damage(folder: Path) -> tuple[Path, str] | None:
    """The file of a rendered scene that was cut off, and what is wrong with it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not all(re.fullmatch(r"img\.png|mask\d\.png|scene\.json", name) for name in names):
        return None
    try:
        json.loads((folder / "scene.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        return folder / "scene.json", str(error)
    for name in sorted(names - {"scene.json"}):
        if isinstance(problem := check_image(folder / name), str):
            return folder / name, problem
    return None


def _draw(seed: int, subjects: int) -> Scene:
    # Colours tell the subjects apart, also for what segments by colour.
    scenes = (sample_scene("heldout", index, seed, subjects) for index in count_from())
    scene = next(s for s in scenes if len({t.color for t in s.things}) == subjects)
    things = sorted(scene.things, key=lambda t: (t.color, t.shape) not in HELD_OUT)
    return Scene(tuple(things), scene.background)


def _write(folder: Path, scene: Scene, made: dict[str, Any]) -> None:
    pixels, masks = render(scene)
    Image.fromarray(pixels).save(folder / "img.png")
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"mask{i}.png")
    entries = [
        {"token": f"<asset{i}>", "class": thing.shape, "color": thing.color, "shape": thing.shape}
        for i, thing in enumerate(scene.things)
    ]
    (folder / "scene.json").write_text(json.dumps({"subjects": entries, "made": made}, indent=1))


class Shown(NamedTuple):
    """One image of the split: what is in it, in the order of the caption, the number of the subject
    that each thing is, or None."""

    scene: Scene
    names: tuple[int | None, ...]
    caption: SceneCaption


class SceneShapes:
    """``size`` scenes that contain the subjects, and captions that name them by their placeholders.

    Image i contains the subset i mod (2^N - 1) of the N subjects, the smallest first, and, where
    there is room for three things, another object every other time. All else follows from (seed,
    i). Other objects are combinations of the world's training, in colours that no subject has, and
    are named in plain words: "<asset0> left of a blue circle", "<asset0> and <asset1>", "a photo of
    <asset1>".

    Raises ValueError on a subject without colour and shape.
    """

    def __init__(self, subjects: Sequence[Subject], size: int, seed: int = 0) -> None:
        for subject in subjects:
            if subject.color is None or subject.shape is None:
                raise ValueError(
                    f"subject {subject.token} has no color and shape: give both in "
                    "scene.json, as write_scene does"
                )
        self.subjects, self.size, self.seed = list(subjects), size, seed
        self.subsets = subsets(len(self.subjects))
        self.records = [Entry(i) for i in range(size)]

    def __len__(self) -> int:
        return self.size

    def subset(self, index: int) -> tuple[int, ...]:
        """The numbers of the subjects that image ``index`` contains."""
        return self.subsets[index % len(self.subsets)]

    def caption(self, index: int) -> Caption:
        shown = self._shown(index)
        return Caption(self._words(shown)[0], shown.caption.relation)

    def phrases(self, index: int) -> list[Phrase]:
        """The words of the caption for each thing, a placeholder or "blue circle", with its mask,
        bool [H, W]."""
        shown = self._shown(index)
        masks = torch.from_numpy(render(shown.scene)[1])
        text, spans = self._words(shown)
        return [Phrase(text[a:b], a, b, mask) for (a, b), mask in zip(spans, masks, strict=True)]

    def instances(self, index: int) -> list[Instance]:
        """The things of the image in the order of the caption."""
        scene = self._shown(index).scene
        masks = torch.from_numpy(render(scene)[1])
        return [
            Instance(t.shape, mask, t.box, t.color)
            for t, mask in zip(scene.things, masks, strict=True)
        ]

    def pixels(self, index: int) -> Tensor:
        """uint8 [3, SIZE, SIZE]."""
        return torch.from_numpy(render(self._shown(index).scene)[0]).permute(2, 0, 1)

    def _shown(self, index: int) -> Shown:
        rng = np.random.Generator(np.random.PCG64([self.seed, index]))
        numbers: list[int | None] = list(self.subset(index))
        taken = {s.color for s in self.subjects}
        pool = [c for c in SEEN if c[0] not in taken]
        other = pool[int(rng.integers(len(pool)))]
        if len(numbers) < 3 and rng.random() < 0.5:
            numbers.append(None)
        names = tuple(numbers[i] for i in rng.permutation(len(numbers)))
        # Places and sizes of any scene with as many things; what stands there is ours.
        scene = sample_scene("three", index, self.seed, len(names))
        things = tuple(
            self._thing(thing, name, other) for thing, name in zip(scene.things, names, strict=True)
        )
        scene = replace(scene, things=things)
        other_form = bool(rng.integers(2))
        opening = "a photo of " if len(names) == 1 and other_form else ""
        said = clean_caption(scene, relation=len(names) == 2 and not other_form, opening=opening)
        return Shown(scene, names, said)

    def _thing(self, place: Thing, name: int | None, other: tuple[str, str]) -> Thing:
        color, shape = (
            other if name is None else (self.subjects[name].color, self.subjects[name].shape)
        )
        assert color is not None and shape is not None
        return replace(place, color=color, shape=shape)

    def _words(self, shown: Shown) -> tuple[str, list[tuple[int, int]]]:
        """The caption with placeholders, without their articles, and the characters of each thing's
        words."""
        said, text, done = shown.caption.text, "", 0
        spans = []
        for (start, end, _), name in zip(shown.caption.phrases, shown.names, strict=True):
            before, words = said[done:start], said[start:end]
            if name is not None:
                before = before.removesuffix("an ").removesuffix("a ")
                words = self.subjects[name].token
            text += before
            spans.append((len(text), len(text) + len(words)))
            text, done = text + words, end
        return text, spans


class ShapesSceneDataModule(SceneDataModule):
    """Renders the scene of ``scene_seed`` into ``folder`` unless it is there; trains as
    `SceneDataModule`, evaluates on `SceneShapes`.

    The evaluation split, ``subjects``, depends on ``scene_seed`` and not on ``seed``: all runs are
    judged by the same prompts.
    """

    def __init__(
        self,
        folder: str | Path,
        subjects: int = 2,
        scene_seed: int = 0,
        eval_images: int = 512,
        batch: int = 1,
        workers: int = 0,
        seed: int = 0,
        length: int = 100,
        union_sampling: bool = True,
        flip: bool = True,
        tokens: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            folder,
            SIZE,
            batch,
            workers,
            seed,
            length,
            union_sampling,
            flip,
            tokens,
        )
        self.subjects, self.scene_seed, self.eval_images = subjects, scene_seed, eval_images
        self.eval_limit = eval_images

    def prepare_data(self) -> None:
        write_scene(self.folder, self.scene_seed, self.subjects)

    def evaluation(self, scene: SceneFolder, views: Sequence[View]) -> Mapping[str, Any]:
        return {"subjects": SceneShapes(scene.subjects, self.eval_images, self.scene_seed)}
