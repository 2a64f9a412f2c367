"""The DataModule of a run's settings: what the settings ask of it, and what stands for its data in
keys."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import write_coco
from helpers.in_place import replace_text
from helpers.scene_files import write_scene

from conf import load as conf
from conf.schema import Run
from conf.spec import data_sets
from datamodules import CocoDataModule, PromptDataModule, SceneDataModule, ShapesDataModule
from datamodules.build import build_data, data_digest
from datamodules.concepts import ConceptDataset
from datamodules.shapes.scene import ShapesSceneDataModule


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    def load(*words: str) -> Run:
        small = ["data.train_images=4", "data.eval_images=2", "trainer.batch=2"]
        words = (*small, f"output={tmp_path / 'out'}", *words)
        return conf.load(words, schema=Run, required=False)

    return load


def test_notes_are_left_to_whoever_builds_the_data_to_tell_once(settings: Any, tmp_path: Path):
    folder = write_scene(tmp_path / "scene")
    (folder / "mask1.png").write_bytes((folder / "mask0.png").read_bytes())
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datamodule = build_data(
            settings("data=scene", f"data.root={folder}"), lambda text, _: said.append(text)
        )
    assert datamodule.notes == [f"{folder / 'mask1.png'} shows the same as mask0.png"]
    assert not any("mask1.png" in line for line in said)


def test_prompts_that_are_left_out_are_told_by_the_data_alone_too(tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a cat and a dog\nnothing\n")
    with pytest.warns(UserWarning, match="fewer than data.min_phrases=2 phrases"):
        PromptDataModule(tmp_path / "prompts.txt", min_phrases=2).setup()


def test_every_data_set_is_built_by_its_name(settings: Any, tmp_path: Path):
    write_coco(tmp_path / "coco", "train", range(4))
    write_scene(tmp_path / "scene")
    (tmp_path / "prompts.txt").write_text("a cat and a dog\na red bus\n")
    kinds = {
        ("data=shapes",): ShapesDataModule,
        ("data=coco", f"data.root={tmp_path / 'coco'}", "data.train_split=train"): CocoDataModule,
        ("data=scene", f"data.root={tmp_path / 'scene'}"): SceneDataModule,
        ("data=scene", "data.root=auto"): ShapesSceneDataModule,
        ("data=prompts", f"data.root={tmp_path / 'prompts.txt'}"): PromptDataModule,
    }
    for words, kind in kinds.items():
        datamodule = build_data(settings(*words, "data.min_phrases=0", "evaluation.prompts=0"))
        assert type(datamodule) is kind and len(datamodule.train_set) > 0
    assert {"shapes", "coco", "flickr30k", "scene", "prompts"} <= set(data_sets())


def test_settings_reach_the_data(settings: Any):
    config = settings("data.drop_captions=1", "data.flip=true", "method=separate_enhance")
    train_set = build_data(config).train_set
    assert train_set.with_phrases and train_set.flip and len(train_set) == 4
    assert {train_set[i]["caption"] for i in range(4)} == {""}
    assert not build_data(settings("method=maskattn")).train_set.with_phrases
    with pytest.raises(ValueError, match="'test': this dataset has train, val, heldout"):
        build_data(settings("evaluation.splits=[test]"))


def test_concepts_take_the_place_of_captions(settings: Any):
    words = ["method=separate_enhance", "data.objects=2"]
    train_set = build_data(settings(*words, "data.concepts=[red circle,blue ring,cross]")).train_set
    assert isinstance(train_set, ConceptDataset) and len(train_set) == 4
    texts = {train_set.caption(i).text for i in range(4)}
    assert all(text.startswith("a ") and " and a " in text for text in texts)
    with pytest.raises(ValueError, match="data.concepts names 'red dog': the embedded world knows"):
        build_data(settings(*words, "data.concepts=[red dog,ring]"))


def test_data_are_keyed_by_what_is_in_their_files(settings: Any, tmp_path: Path):
    root = write_coco(tmp_path / "coco", "train", range(2))
    coco = settings(
        "data=coco", f"data.root={root}", "data.train_split=train", "data.min_phrases=0"
    )
    scene = settings("data=scene", f"data.root={write_scene(tmp_path / 'scene')}")
    first = data_digest(coco), data_digest(scene)
    assert first == (data_digest(coco), data_digest(scene)) and first[0] != first[1]
    replace_text(root / "annotations" / "captions_train.json", "caption 1 of", "Caption 1 of")
    write_scene(tmp_path / "scene", brightness=90)
    assert data_digest(coco) != first[0] and data_digest(scene) != first[1]
    assert data_digest(settings("data=scene", f"data.root={tmp_path / 'nowhere'}")) is None
    for embedded in (settings(), settings("data=scene", "data.root=auto")):
        assert data_digest(embedded) is None
