"""Things that change at the same path: each kind changes exactly the keys that depend on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.coco_files import write_coco
from helpers.in_place import opened_files, overwrite, replace_text, touch
from helpers.scene_files import write_scene
from PIL import Image

import conf.contents
from conf import load
from conf.schema import Run
from datamodules.build import build_data, data_digest
from lightning_modules.backbone.weights import weights_digest
from lightning_modules.methods.class_images import class_image_folder
from lightning_modules.training.contents import changed_contents, contents_of
from lightning_modules.training.keys import backbone_facts, training_key


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were made just now count as old, so that their digests are kept."""
    monkeypatch.setattr(conf.contents, "SETTLED", -3600.0)


def write_model(folder: Path) -> Path:
    """A diffusers folder with one weight of 70 MiB, and what lies beside such models."""
    for name, content in {
        "model_index.json": json.dumps({"unet": ["a", "b"], "scheduler": ["c", "d"]}).encode(),
        "unet/config.json": b'{"sample_size": 8}',
        "scheduler/scheduler_config.json": b'{"beta_start": 0.1}',
        "whole-model.safetensors": b"the same in another form",
        "README.md": b"words",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with (folder / "unet" / "model.safetensors").open("wb") as file:
        file.truncate(70 * 2**20)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each thing that a setting may name."""
    root = tmp_path_factory.mktemp("files")
    write_model(root / "model")
    coco = write_coco(root / "coco", "train", range(4))
    write_coco(root / "coco", "val", range(10, 13))
    for path in (coco / "train").glob("*.jpg"):
        # Two folders down
        (path.parent / "a" / "b").mkdir(parents=True, exist_ok=True)
        path.rename(path.parent / "a" / "b" / path.name)
    write_scene(root / "scene")
    entries = [{"token": "<asset0>", "class": "dog"}, {"token": "<asset1>", "class": "cat"}]
    (root / "scene" / "scene.json").write_text(json.dumps({"subjects": entries}))
    (root / "prompts.txt").write_text("a cat and a dog\na red bus\n")
    (root / "found.jsonl").write_text('{"image": 0, "detections": []}\n')
    (root / "vgg.pt").write_bytes(b"weights")
    for folder in ("clip", "colors", "dino"):
        (root / folder / "parts").mkdir(parents=True)
        (root / folder / "parts" / "model.safetensors").write_bytes(b"weights")
        (root / folder / "config.json").write_text("{}")
    (root / "adapter").mkdir()
    (root / "adapter" / "adapter.safetensors").write_bytes(b"weights")
    (root / "adapter" / "adapter.json").write_text('{"method": "maskattn"}')
    (root / "adapter" / "training.json").write_text('{"seconds": 10}')
    return root


@pytest.fixture
def place(files: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(files, tmp_path / "files"))


def settings(place: Path, *words: str) -> Run:
    """Of a run that reads all of them; ``words`` change that."""
    return load.load(
        [
            *("data=coco", f"data.root={place / 'coco'}", "data.train_split=train"),
            *("data.train_images=3", "data.min_phrases=0", "data.eval_images=3"),
            *("evaluation.splits=[val]", f"evaluation.detector={place / 'found.jsonl'}"),
            f"evaluation.color_classifier={place / 'colors'}",
            f"evaluation.extractor={place / 'dino'}",
            f"evaluation.extractor_weights={place / 'vgg.pt'}",
            f"evaluation.aligners=[{place / 'clip'}]",
            f"backbone.path={place / 'model'}",
            f"method.init={place / 'adapter'}",
            f"output={place.parent / 'out'}",
            *words,
        ],
        schema=Run,
        required=False,
    )


def keys_of(config: Run) -> dict[str, Any]:
    """What is stored, or kept apart, under each kind of key."""
    data = build_data(config)
    train, val = data.train_set, data.eval_sets["val"]
    contents = contents_of(config)
    # Beside the sets of the data each is named by its setting
    return {
        **{key.partition("=")[0]: d for key, d in contents.items() if "data.root" not in key},
        **{key.rpartition(" ")[2]: d for key, d in contents.items() if "data.root" in key},
        "adapter": training_key(config),
        "latents": train.digest(),
        "real statistics": val.digest(),
        "images": load.digest(backbone_facts(config)),
        "class images": class_image_folder(config).name,
    }


def redraw(path: Path) -> Path:
    """Another picture in a file of the same size in bytes."""
    with Image.open(path) as image:
        pixels = np.array(image)
    content, size = path.read_bytes(), path.stat().st_size
    pixels[8:16, 8:16] = 255 - pixels[8:16, 8:16]
    Image.fromarray(pixels).save(path, quality=20)
    smaller = path.read_bytes()
    path.write_bytes(content)
    assert len(smaller) < size
    # What follows the end of a JPEG is not looked at
    return overwrite(path, smaller + bytes(size - len(smaller)))


def first_train_image(place: Path) -> Path:
    return place / "coco" / "train" / "a" / "b" / "000000000000.jpg"


WEIGHTS = {"backbone.path", "adapter", "images", "class images"}
TRAIN, VAL = {"(train)", "adapter"}, {"(val)"}
CHANGES: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "large weights": (lambda p: overwrite(p / "model" / "unet" / "model.safetensors"), WEIGHTS),
    "a scheduler": (
        lambda p: replace_text(
            p / "model" / "scheduler" / "scheduler_config.json", "beta_start", "beta_stark"
        ),
        WEIGHTS,
    ),
    "weights that no pipeline reads": (
        lambda p: overwrite(p / "model" / "whole-model.safetensors"),
        set(),
    ),
    "an image two folders down": (lambda p: redraw(first_train_image(p)), TRAIN | {"latents"}),
    "an image beyond the limit": (
        lambda p: redraw(first_train_image(p).with_name("000000000003.jpg")),
        set(),
    ),
    "an evaluation image": (
        lambda p: redraw(p / "coco" / "val" / "000000000010.jpg"),
        VAL | {"real statistics"},
    ),
    "a caption": (
        lambda p: replace_text(
            p / "coco" / "annotations" / "captions_train.json", "caption 1 of 0", "caption 9 of 0"
        ),
        TRAIN,
    ),
    "an evaluation's caption": (
        lambda p: replace_text(
            p / "coco" / "annotations" / "captions_val.json", "caption 1 of 10", "caption 9 of 10"
        ),
        VAL,
    ),
    "a mask": (
        lambda p: replace_text(
            p / "coco" / "annotations" / "instances_train.json", "[40, 16,", "[41, 16,"
        ),
        TRAIN,
    ),
    "detections": (
        lambda p: replace_text(p / "found.jsonl", "0", "1"),
        {"evaluation.detector"},
    ),
    "a color classifier": (
        lambda p: overwrite(p / "colors" / "parts" / "model.safetensors"),
        {"evaluation.color_classifier"},
    ),
    "an extractor": (
        lambda p: overwrite(p / "dino" / "parts" / "model.safetensors"),
        {"evaluation.extractor"},
    ),
    "an extractor's weights": (
        lambda p: overwrite(p / "vgg.pt"),
        {"evaluation.extractor_weights"},
    ),
    "an aligner": (
        lambda p: overwrite(p / "clip" / "parts" / "model.safetensors"),
        {"evaluation.aligners"},
    ),
    "an adapter": (
        lambda p: overwrite(p / "adapter" / "adapter.safetensors"),
        {"method.init", "adapter"},
    ),
    "what an adapter cost": (lambda p: overwrite(p / "adapter" / "training.json"), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_place_changes_the_keys_that_depend_on_it(place: Path, name: str):
    change, expected = CHANGES[name]
    config = settings(place)
    before = keys_of(config)
    change(place)
    after = keys_of(config)
    assert {key for key in before if before[key] != after[key]} == expected


def test_touched_and_copied_files_keep_all_keys(place: Path, tmp_path: Path):
    before = keys_of(settings(place))
    for path in place.rglob("*"):
        touch(path)
    assert keys_of(settings(place)) == before
    moved = Path(shutil.copytree(place, tmp_path / "moved" / "elsewhere"))
    (moved / "model").rename(moved / "renamed")
    config = settings(moved, f"backbone.path={moved / 'renamed'}", "backbone.name=renamed")
    assert keys_of(config) == before


@pytest.mark.parametrize(
    ("data", "edit"),
    [
        (["data=scene", "data.root=scene"], lambda p: overwrite(p / "scene" / "mask1.png")),
        (["data=scene", "data.root=scene"], lambda p: overwrite(p / "scene" / "img.jpg")),
        (
            ["data=scene", "data.root=scene"],
            lambda p: replace_text(p / "scene" / "scene.json", "dog", "cow"),
        ),
        (
            ["data=prompts", "data.root=prompts.txt"],
            lambda p: replace_text(p / "prompts.txt", "cat", "cow"),
        ),
    ],
)
def test_scenes_and_prompts_are_keyed_by_content(place: Path, data: list[str], edit: Any):
    words = [word.replace("root=", f"root={place}/") for word in data]
    config = load.load(
        [*words, "evaluation.prompts=0", f"output={place.parent / 'out'}"], schema=Run
    )
    before = data_digest(config), contents_of(config)
    for path in place.rglob("*"):
        touch(path)
    assert before[0] and (data_digest(config), contents_of(config)) == before
    edit(place)
    assert data_digest(config) != before[0]
    changed = changed_contents(before[1], contents_of(config))
    assert changed and all(key.startswith("data.root=") for key in changed)


def test_a_second_start_opens_only_what_changed(place: Path, monkeypatch: pytest.MonkeyPatch):
    config = settings(place)

    def opened() -> set[str]:
        with opened_files(monkeypatch, place) as names:
            contents_of(config)
            training_key(config)
        # One of a few hundred bytes, which says where the others are
        return set(names) - {"model/model_index.json"}

    first = opened()
    assert "model/unet/model.safetensors" in first
    assert sum(name.endswith(".jpg") for name in first) >= 3 + 3
    assert opened() == set()
    redraw(first_train_image(place))
    # The index of the split is made again, of the annotations
    annotations = {f"coco/annotations/{kind}_train.json" for kind in ("captions", "instances")}
    assert opened() - annotations == {"coco/train/a/b/000000000000.jpg"}
    overwrite(place / "model" / "unet" / "config.json")
    assert opened() == {"model/unet/config.json"}


def test_what_is_not_measured_or_not_there_has_no_content(place: Path):
    contents = contents_of(settings(place, "evaluation.prompts=0", "method.init=null"))
    assert {key.partition("=")[0] for key in contents} == {"backbone.path", "data.root"}
    nowhere = settings(place, f"data.root={place / 'nowhere'}", "evaluation.prompts=0")
    assert not any("data.root" in key for key in contents_of(nowhere))


def test_a_model_of_the_hub_counts_by_the_commit_that_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert weights_digest("org/model") is None
    for commit in ("a" * 40, "b" * 40):
        reference = tmp_path / "models--org--model" / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
        assert weights_digest("org/model") == commit[:16]
    assert weights_digest("org/model", revision="v1") is None
    assert weights_digest("org/model", revision="c" * 40) == "c" * 40


def test_an_image_set_that_was_edited_is_indexed_and_encoded_again(place: Path):
    """An index and what is cached of it never serve an earlier content."""
    config = settings(place)
    first = build_data(config).train_set
    before = first.digest()
    turned = first_train_image(place)
    with Image.open(turned) as image:
        portrait = image.transpose(Image.Transpose.ROTATE_90)
    size = turned.stat().st_size
    content = turned.read_bytes()
    portrait.save(turned, quality=20)
    smaller = turned.read_bytes()
    turned.write_bytes(content)
    overwrite(turned, smaller + bytes(size - len(smaller)))
    replace_text(
        place / "coco" / "annotations" / "captions_train.json", "caption 0 of 1", "caption 8 of 1"
    )
    second = build_data(config).train_set
    assert second.records[0].width < second.records[0].height
    assert "caption 8 of 1" in set(second.texts()) - set(first.texts())
    assert second.records.folder != first.records.folder and second.digest() != before
