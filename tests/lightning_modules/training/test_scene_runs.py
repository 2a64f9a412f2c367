"""Runs on a scene: what is refused before any long work, class images, placeholders, and what an
adapter is keyed by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.scene_files import write_scene
from PIL import Image

from conf import load as conf
from conf.schema import Run
from datamodules.build import build_data
from datamodules.shapes.vocabulary import SHAPES
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.break_a_scene import BreakAScene
from lightning_modules.methods.class_images import class_image_folder, draw_class_images
from lightning_modules.methods.registry import build_method
from lightning_modules.methods.untouched import Untouched
from lightning_modules.training import run as train

SUBJECTS = {"method.subjects.tokens": ["<a>"], "method.subjects.classes": [""]}


def silent(text: str, share: float) -> None:
    pass


def scene(base: Run, output: Path, root: Path | str = "auto", **changes: Any) -> Run:
    """A short training of Break-A-Scene; dots as double underscores."""
    settings = {
        "method.name": "break_a_scene",
        "data.name": "scene",
        "data.root": str(root),
        "evaluation.prompts": 0,
        "method.subjects.prior_images": 3,
        "trainer.steps": 2,
        "trainer.batch": 2,
        "output": str(output),
    }
    return conf.replace(
        base, settings | {key.replace("__", "."): value for key, value in changes.items()}
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[int]]]:
    """Prompts and seeds of all that is sampled; what is drawn is grey of the seed's brightness."""
    calls: list[tuple[list[str], list[int]]] = []

    def sample(
        backbone: Backbone,
        prompts: list[str],
        seeds: list[int],
        steps: int,
        guidance: float,
        side: int,
        _: int,
    ) -> torch.Tensor:
        calls.append((prompts, seeds))
        return torch.stack(
            [torch.full((3, side, side), 10 * seed, dtype=torch.uint8) for seed in seeds]
        )

    monkeypatch.setattr(sampling, "sample", sample)
    return calls


# --- what is refused ------------------------------------------------------------------------------


def other_size(folder: Path) -> None:
    Image.new("L", (64, 96), 255).save(folder / "mask1.png")


def empty_mask(folder: Path) -> None:
    Image.new("L", (96, 64), 0).save(folder / "mask0.png")


def no_image(folder: Path) -> None:
    (folder / "img.jpg").unlink()


def named(*tokens: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "scene.json").write_text(
            json.dumps({"subjects": [{"token": token} for token in tokens]})
        )

    return write


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (
            other_size,
            {},
            (
                "mask1.png has 64x96 pixels, img.jpg 96x64 .*: a "
                "mask must have the size of its image"
            ),
        ),
        (
            empty_mask,
            {},
            (r"mask0.png is empty \(all zero\): paint the " r"subject white, or drop the mask"),
        ),
        (no_image, {}, "no image at .*: expected img.jpg with mask0.png"),
        (
            None,
            {"method__subjects__tokens": ["<one>"]},
            ("masks of 2 subjects, but 1 token: give one for each mask"),
        ),
        (
            None,
            {"method__subjects__classes": ["dog"]},
            ("masks of 2 subjects, but 1 class word: give one for each mask"),
        ),
        (named("<one>"), {}, "masks of 2 subjects, but 1 subject in scene.json"),
        (
            None,
            {"method__subjects__tokens": ["<one>", "circle"]},
            ("placeholder 'circle' is already in the vocabulary: expected a new word"),
        ),
        (
            named("Ring", "<two>"),
            {},
            (
                "placeholder 'Ring' is already in the vocabulary: "
                "expected a new word, such as '<asset0>'"
            ),
        ),
        (
            None,
            {"method__subjects__schedule": "unet_only", "method__weights__trainable": "none"},
            ("nothing to train with weights.trainable=none"),
        ),
    ],
)
def test_a_scene_that_cannot_serve_is_refused_in_one_line_before_anything_is_drawn(
    base: Run,
    tmp_path: Path,
    drawn: list,
    spoil: Callable[[Path], None] | None,
    changes: dict[str, Any],
    message: str,
):
    folder = write_scene(tmp_path / "scene")
    if spoil:
        spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        train.run(scene(base, tmp_path / "out", folder, **changes), tmp_path / "run")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300 + len(str(folder))
    assert not drawn and not (tmp_path / "out").exists(), (
        "neither class images, nor latents, nor an adapter"
    )


def test_a_wrong_split_is_refused_before_anything_is_drawn(base: Run, tmp_path: Path, drawn: list):
    config = scene(base, tmp_path / "out", evaluation__prompts=4)
    with pytest.raises(
        ValueError, match=("evaluation.splits names 'val': this dataset has subjects")
    ):
        train.run(config, tmp_path / "run")
    assert not drawn and not (tmp_path / "out" / "adapters").exists()


# --- class images --------------------------------------------------------------------------------


def test_class_images_are_drawn_once_by_the_untouched_backbone(
    base: Run, embedded: Backbone, tmp_path: Path, drawn: list
):
    config = scene(
        base,
        tmp_path,
        method__subjects__prior_images=6,
        method__subjects__prior_prompt="a photo of a ring",
    )
    datamodule = build_data(config)
    assert datamodule.train_set.prior == []
    draw_class_images(config, embedded, silent)
    assert drawn == [(["a photo of a ring"] * 4, [0, 1, 2, 3]), (["a photo of a ring"] * 2, [4, 5])]
    draw_class_images(config, embedded, silent)
    assert len(drawn) == 2, "they are there"
    folder = class_image_folder(config)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert [int(np.asarray(Image.open(path)).mean()) for path in sorted(folder.iterdir())] == [
        0,
        10,
        20,
        30,
        40,
        50,
    ]
    method = build_method(conf.replace(config, SUBJECTS), embedded)
    method.extend_data(config, datamodule, silent)
    method.remove()
    train_set = datamodule.train_set
    assert len(train_set.prior) == 6 and train_set[0]["prior"]["caption"] == "a photo of a ring"

    # Seeds and trainings share them, another prompt, number, size or backbone does not.
    assert (
        class_image_folder(
            conf.replace(config, {"seed": 4, "trainer.lr": 0.5, "method.name": "mcgm"})
        )
        == folder
    )
    others = {
        "method.subjects.prior_prompt": "a ring",
        "method.subjects.prior_images": 7,
        "method.subjects.prior_steps": 50,
        "backbone.path": "embedded",
    }
    assert (
        len(
            {
                folder,
                *(
                    class_image_folder(conf.replace(config, {key: value}))
                    for key, value in others.items()
                ),
            }
        )
        == 5
    )
    for off in (
        {"method.subjects.prior_weight": 0.0, "method.subjects.prior_prompt": "another"},
        {"method.name": "untouched", "method.subjects.prior_prompt": "another"},
        {"data.name": "shapes", "method.subjects.prior_prompt": "another"},
    ):
        other = conf.replace(config, off)
        method = build_method(conf.replace(other, SUBJECTS), embedded)
        method.extend_data(other, build_data(other), silent)
        method.remove()
    assert len(drawn) == 2, "they want none"


@pytest.mark.parametrize("size", [0, 60])
def test_a_class_image_that_was_cut_off_is_drawn_again(
    base: Run, embedded: Backbone, tmp_path: Path, drawn: list, size: int
):
    config, lines = scene(base, tmp_path, method__subjects__prior_images=6), []
    first = draw_class_images(config, embedded, silent)
    whole = [path.read_bytes() for path in first]
    first[5].write_bytes(whole[5][:size])
    again = draw_class_images(config, embedded, lambda text, share: lines.append(text))
    assert again == first and [path.read_bytes() for path in again] == whole
    assert drawn[2:] == drawn[1:2] and sum(str(first[5]) in line for line in lines) == 1


def test_class_images_appear_whole_or_not_at_all(
    base: Run, embedded: Backbone, tmp_path: Path, drawn: list, monkeypatch: Any
):
    config = scene(base, tmp_path, method__subjects__prior_images=6)
    folder, sample = class_image_folder(config), sampling.sample

    def power_cut(*args: Any) -> torch.Tensor:
        if len(drawn) == 1:
            raise KeyboardInterrupt
        return sample(*args)

    monkeypatch.setattr(sampling, "sample", power_cut)
    with pytest.raises(KeyboardInterrupt):
        draw_class_images(config, embedded, silent)
    assert not list(folder.parent.iterdir())

    # Another run that finishes first wins, and nothing is left over.
    def overtaken(*args: Any) -> torch.Tensor:
        if not folder.exists():
            folder.mkdir()
            (folder / "theirs.png").touch()
        return sample(*args)

    monkeypatch.setattr(sampling, "sample", overtaken)
    draw_class_images(config, embedded, silent)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name] and (
        folder / "theirs.png"
    ).exists()


# --- subjects and keys ----------------------------------------------------------------------------


def test_placeholders_and_class_words_come_from_the_scene_where_the_config_names_none(
    base: Run, tmp_path: Path
):
    folder: Any = write_scene(tmp_path / "scene", masks=3)

    def found(**changes: Any) -> tuple[list[str], list[str]]:
        config = scene(base, tmp_path / "out", folder, **changes)
        chosen = BreakAScene.complete(config, build_data(config)).method.subjects
        return chosen.tokens, chosen.classes

    assert found() == (["<asset0>", "<asset1>", "<asset2>"], ["", "", ""])
    assert found(method__subjects__tokens=["<a>", "<b>", "<c>"]) == (
        ["<a>", "<b>", "<c>"],
        ["", "", ""],
    )
    (folder / "scene.json").write_text(
        json.dumps({"subjects": [{"token": f"<s{i}>", "class": "ring"} for i in range(3)]})
    )
    assert found() == (["<s0>", "<s1>", "<s2>"], ["ring"] * 3)
    assert found(method__subjects__classes=["star", "ring", "circle"])[1] == [
        "star",
        "ring",
        "circle",
    ]
    folder = "auto"
    assert found(method__subjects__classes=["star", "disc"]) == (
        ["<asset0>", "<asset1>"],
        ["star", "disc"],
    )
    assert all(word in SHAPES for word in found()[1])
    other = conf.replace(scene(base, tmp_path / "out"), {"method.name": "untouched"})
    assert Untouched.complete(other, build_data(other)) is other


def test_an_adapter_is_keyed_by_the_pixels_of_its_scene(base: Run, tmp_path: Path):
    config = scene(base, tmp_path / "out", write_scene(tmp_path / "a"))
    key = train.training_key(config)
    assert key == train.training_key(scene(base, tmp_path / "out", write_scene(tmp_path / "b"))), (
        "wherever it lies"
    )
    (tmp_path / "a" / "notes.txt").write_text("no part of it")
    assert train.training_key(config) == key
    keys = {key}
    for change in ("brightness", "mask", "masks"):
        if change == "mask":
            mask = np.array(Image.open(tmp_path / "a" / "mask1.png"))
            mask[0, 0] = 255
            Image.fromarray(mask).save(tmp_path / "a" / "mask1.png")
        else:
            write_scene(
                tmp_path / "a", **{"brightness": {"brightness": 201}, "masks": {"masks": 3}}[change]
            )
        keys.add(train.training_key(config))
    assert len(keys) == 4
    write_scene(tmp_path / "a")
    (tmp_path / "a" / "mask2.png").unlink()
    assert train.training_key(config) == key
    auto = scene(base, tmp_path / "out")
    assert (
        len({train.training_key(conf.replace(auto, {"data.subjects": n})) for n in (1, 2, 3)}) == 3
    )


# --- a whole run --------------------------------------------------------------------------------


def test_a_painted_over_scene_is_learnt_anew_and_an_unchanged_one_is_not(
    base: Run, tmp_path: Path, drawn: list, monkeypatch: Any
):
    trained: list[list[str]] = []
    step = BreakAScene.training_step

    def spied(method: BreakAScene, batch: Any, batch_idx: int) -> torch.Tensor:
        trained.append(batch.captions)
        return step(method, batch, batch_idx)

    monkeypatch.setattr(BreakAScene, "training_step", spied)
    config = scene(base, tmp_path / "out", write_scene(tmp_path / "scene"), trainer__steps=1)
    for brightness, count in ((200, 1), (200, 1), (90, 2)):
        write_scene(tmp_path / "scene", brightness=brightness)
        train.run(config, tmp_path / "run")
        assert len(trained) == count
    assert len(list((tmp_path / "out" / "adapters").iterdir())) == 2 and len(drawn) == 1


@pytest.mark.slow
def test_the_embedded_worlds_scene_from_training_to_measures(base: Run, tmp_path: Path):
    subjects = {"method__subjects__tokens": ["<one>", "<two>"], "method__subjects__prior_images": 1}
    config = scene(
        base, tmp_path, evaluation__prompts=4, evaluation__splits=["subjects"], **subjects
    )
    result = train.run(config, tmp_path / "run")
    assert result["metrics"]["eval/n_images"] == 4 and result["counts"]["trained_parameters"] > 0
    assert all(np.isfinite(list(result["metrics"].values())))
    prompts = pd.read_parquet(tmp_path / "run" / "scores.parquet")["prompt"].tolist()
    assert (
        "<one>" in prompts[0]
        and "<two>" in prompts[1]
        and all(token in prompts[2] for token in ("<one>", "<two>"))
    )
    assert [path.name for path in (tmp_path / "cache" / "scenes").iterdir()] == ["0-2"]
    # Each seed has its own scene, and all seeds the same class images.
    train.run(conf.replace(config, {"seed": 1, "evaluation.prompts": 0}), tmp_path / "other")
    assert {path.name for path in (tmp_path / "cache" / "scenes").iterdir()} == {"0-2", "1-2"}
    assert (
        len(list((tmp_path / "cache" / "prior").iterdir())) == 1
        and len(list((tmp_path / "adapters").iterdir())) == 2
    )


def test_splits_that_are_named_for_the_evaluation_alone_are_there(base: Run):
    config = conf.replace(base, {"evaluate_with": {"evaluation.splits": ["heldout"]}})
    assert set(build_data(config).eval_sets) == {"heldout"}
