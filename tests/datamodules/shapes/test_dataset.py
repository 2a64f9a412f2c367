"""Splits of the embedded world on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conf import load as conf
from conf.data.shapes import CLEAN, WEB
from datamodules.build import build_data
from datamodules.shapes import dataset as shapes
from datamodules.shapes.captions import draw_captions
from datamodules.shapes.dataset import write_dataset
from datamodules.shapes.module import ShapesDataModule, ShapesDataset
from datamodules.shapes.reading import read_prompt
from datamodules.shapes.rendering import SIZE, render
from datamodules.shapes.scenes import Scene, sample_scene


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_split_written_twice_is_byte_equal(tmp_path: Path):
    for name in ("a", "b"):
        write_dataset(tmp_path / name, {"train": 5, "heldout": 3})
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert first == second and len(first) == 5 + 3 + 2 * 3
    write_dataset(tmp_path / "c", {"train": 5, "heldout": 3}, seed=1)
    assert files(tmp_path / "c")["train/000000000000.png"] != first["train/000000000000.png"]


def test_files_hold_what_was_rendered(tmp_path: Path):
    from pycocotools import mask as coco_mask

    write_dataset(tmp_path, {"val": 4})
    content = json.loads((tmp_path / "annotations" / "instances_val.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    for index in range(4):
        scene = sample_scene("val", index)
        pixels, masks = render(scene)
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / "val" / f"{index:012d}.png")), pixels
        )
        found = [a for a in content["annotations"] if a["image_id"] == index]
        assert [(a["attributes"]["color"], names[a["category_id"]]) for a in found] == [
            (t.color, t.shape) for t in scene.things
        ]
        for annotation, mask in zip(found, masks, strict=True):
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]).astype(bool), mask)
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0


def test_a_complete_split_is_left_alone_and_another_count_replaces_it(tmp_path: Path):
    write_dataset(tmp_path, {"train": 3})
    (tmp_path / "train" / "mine.txt").write_text("kept")
    write_dataset(tmp_path, {"train": 3})
    assert (tmp_path / "train" / "mine.txt").exists()
    write_dataset(tmp_path, {"train": 2})
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == [
        "000000000000.png",
        "000000000001.png",
    ]


def test_a_split_of_another_world_is_rendered_again(tmp_path: Path):
    """What an earlier version left in the cache is not taken for one of this world."""
    root, marker = tmp_path / "world", tmp_path / "world" / "annotations" / "made_heldout.json"
    write_dataset(root, {"heldout": 2})
    image, made = root / "heldout" / "000000000001.png", json.loads(marker.read_text())
    drawn = image.read_bytes()
    for version in (made["version"] - 1, None):
        image.write_bytes((root / "heldout" / "000000000000.png").read_bytes())
        older = {key: value for key, value in made.items() if key not in ("version", "bytes")}
        marker.write_text(json.dumps(older | ({"version": version} if version else {})))
        write_dataset(root, {"heldout": 2})
        assert image.read_bytes() == drawn and json.loads(marker.read_text()) == made


class Crash(Exception):
    pass


def test_an_interrupted_write_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(tmp_path, {"train": 3})
    before, draw = files(tmp_path), shapes.render

    def third_fails(scene: Scene, size: int = SIZE):
        if scene == sample_scene("train", 2):
            raise Crash
        return draw(scene, size)

    monkeypatch.setattr(shapes, "render", third_fails)
    with pytest.raises(Crash):
        write_dataset(tmp_path, {"train": 5})
    assert files(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_interrupted_between_its_files_a_split_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
):
    write_dataset(tmp_path / "whole", {"train": 3})
    write_dataset(tmp_path / "torn", {"train": 3})
    calls, write = 0, shapes._write_json

    def fails(path: Path, content: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fail_at:
            raise Crash
        write(path, content)

    monkeypatch.setattr(shapes, "_write_json", fails)
    with pytest.raises(Crash):
        write_dataset(tmp_path / "torn", {"train": 5})
    monkeypatch.undo()
    write_dataset(tmp_path / "torn", {"train": 3})
    assert files(tmp_path / "torn") == files(tmp_path / "whole")


def test_captions_on_disk_are_those_of_the_scenes_with_their_phrases(tmp_path: Path):
    careless = replace(WEB, left_out=0.9)
    write_dataset(tmp_path, {"train": 6, "counting": 3}, careless=careless)
    for split in ("train", "counting"):
        content = json.loads((tmp_path / "annotations" / f"captions_{split}.json").read_text())
        instances = json.loads((tmp_path / "annotations" / f"instances_{split}.json").read_text())
        owners = {one["id"]: one for one in instances["annotations"]}
        for index in range(3):
            scene = sample_scene(split, index)
            expected = draw_captions(split, index, scene, careless=careless)
            found = [one for one in content["annotations"] if one["image_id"] == index]
            assert [(one["caption"], one["relation"]) for one in found] == [c[:2] for c in expected]
            for one, caption in zip(found, expected, strict=True):
                for (start, end, ids), words in zip(one["phrases"], caption.phrases, strict=True):
                    assert (start, end) == words[:2]
                    meant = [scene.things[i] for i in words.things]
                    assert [owners[i]["image_id"] for i in ids] == [index] * len(meant)
                    assert [owners[i]["attributes"] for i in ids] == [
                        {"color": t.color, "size": t.size, "pattern": t.pattern} for t in meant
                    ]


def test_the_marker_says_how_captions_of_training_were_written(tmp_path: Path):
    write_dataset(tmp_path, {"train": 2, "val": 2}, careless=CLEAN, zipf=1.0)
    train, val = (
        json.loads((tmp_path / "annotations" / f"made_{split}.json").read_text())
        for split in ("train", "val")
    )
    assert train["careless"] == asdict(CLEAN) and train["zipf"] == 1.0
    assert "careless" not in val and train["version"] == val["version"] == 2
    before = files(tmp_path)
    write_dataset(tmp_path, {"train": 2, "val": 2}, careless=WEB, zipf=1.0)
    changed = {name for name, content in files(tmp_path).items() if before[name] != content}
    assert changed == {"annotations/captions_train.json", "annotations/made_train.json"}


def dataset(root: Path, split: str, count: int, **more: Any) -> ShapesDataset:
    write_dataset(root, {split: count}, careless=replace(WEB, colors_swapped=1, left_out=0))
    return ShapesDataset(root, split, SIZE, count, **more)


def test_words_have_the_masks_of_the_things_they_stand_for(tmp_path: Path):
    world = dataset(tmp_path, "train", 40, train=True)
    wrong = joined = bare = 0
    for index in range(40):
        scene = sample_scene("train", index)
        masks = render(scene)[1]
        for world.epoch in range(3):
            text = world.caption(index).text
            mentions = read_prompt(text).mentions
            phrases = world.phrases(index)
            assert [p[:3] for p in phrases] == [
                (text[m.start : m.end], m.start, m.end) for m in mentions
            ]
            for phrase, mention in zip(phrases, mentions, strict=True):
                own = [
                    number
                    for number, mask in enumerate(masks)
                    if (phrase.mask.numpy() & mask).any()
                ]
                assert np.array_equal(phrase.mask.numpy(), masks[own].any(0))
                assert {scene.things[i].shape for i in own} == {mention.shape}
                assert tuple(own) in scene.groups
                colors = {scene.things[i].color for i in own}
                wrong += mention.color is not None and mention.color not in colors
                bare += mention.color is None
                joined += len(own) > 1
    assert wrong > 10 and joined > 10 and bare > 10
    named = world.objects_named(0)
    assert [p[:3] for p in named] == [p[:3] for p in world.phrases(0)]


def test_mirrored_masks_and_captions_without_phrases(tmp_path: Path):
    world = dataset(tmp_path, "two", 3)
    plain, mirrored = world.phrases(0), world.phrases(0, flipped=True)
    assert all((a.mask == b.mask.flip(-1)).all() for a, b in zip(plain, mirrored, strict=True))
    path = tmp_path / "annotations" / "captions_two.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["phrases"] = "of another tool"
    path.write_text(json.dumps(content))
    again = ShapesDataset(tmp_path, "two", SIZE, 3)
    assert again.caption(0).phrases == ()
    for a, b in zip(again.phrases(0), plain, strict=True):
        assert a[:3] == b[:3] and (a.mask == b.mask).all()


def test_runs_of_other_captions_keep_out_of_each_others_way(tmp_path: Path):
    roots = set()
    for words in ([], ["data.careless.left_out=0"], ["data.zipf=1"]):
        config = conf.load(
            [f"output={tmp_path}", "data.train_images=16", "data.eval_images=2", *words]
        )
        datamodule = build_data(config)
        assert isinstance(datamodule, ShapesDataModule)
        roots.add(datamodule.root)
        marker = json.loads((datamodule.root / "annotations" / "made_train.json").read_text())
        assert marker["careless"] == asdict(config.data.careless)
        assert marker["zipf"] == config.data.zipf
    assert len(roots) == 3
