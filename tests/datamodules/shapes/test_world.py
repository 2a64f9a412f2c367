"""The embedded world: what a scene may hold, how it is drawn, and how a split lands on disk."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.shapes import world as shapes
from datamodules.shapes.world import (
    COLORS,
    HELD_OUT,
    INVERSE,
    SEEN,
    SHAPES,
    SIZE,
    Scene,
    Thing,
    render,
    sample_scene,
    words,
    write_dataset,
)

SCENES = [(split, sample_scene(split, i)) for split in shapes.SPLITS for i in range(150)]


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_triple_same_bytes_and_any_change_another_scene():
    first = sample_scene("val", 7, seed=3)
    assert first == sample_scene("val", 7, seed=3)
    assert render(first)[0].tobytes() == render(sample_scene("val", 7, seed=3))[0].tobytes()
    assert (
        len(
            {
                sample_scene(split, i, seed)
                for split in ("train", "val")
                for i in (7, 8)
                for seed in (3, 4)
            }
        )
        == 8
    )


def test_scenes_are_those_of_the_shipped_backbone():
    # Its weights and the judge's were trained on these; numpy does not promise the same random
    # numbers for ever.
    assert [sample_scene(split, 0).captions()[0][0] for split in shapes.SPLITS[:3]] == [
        "a yellow square left of a cyan square",
        "a white diamond, a yellow diamond and a cyan diamond",
        "a green triangle below a green ring",
    ]
    thing = sample_scene("heldout", 0).things[0]
    assert (thing.x, thing.y, thing.radius) == pytest.approx(
        (31.27987, 39.44006, 9.30775), abs=1e-4
    )
    assert render(sample_scene("heldout", 0))[0].mean((0, 1)) == pytest.approx(
        (101.2615, 109.3638, 102.4810), abs=0.01
    )


def test_twelve_of_48_combinations_are_held_out_each_shape_twice_each_color_at_least_once():
    assert len(HELD_OUT) == 12 and len(SEEN) == 36 and not HELD_OUT & set(SEEN)
    assert Counter(shape for _, shape in HELD_OUT) == dict.fromkeys(SHAPES, 2)
    assert {color for color, _ in HELD_OUT} == set(COLORS)


@pytest.mark.parametrize("split", ["train", "val"])
def test_held_out_combinations_never_occur_in_training_and_validation(split: str):
    scenes = [sample_scene(split, i) for i in range(400)] + [
        sample_scene(split, i, count=n) for n in (1, 2, 3) for i in range(100)
    ]
    shown = {(t.color, t.shape) for scene in scenes for t in scene.things}
    assert shown == set(SEEN)


def test_every_held_out_scene_shows_one_or_two_held_out_combinations():
    scenes = [sample_scene("heldout", i) for i in range(300)]
    counts = Counter(sum((t.color, t.shape) in HELD_OUT for t in scene.things) for scene in scenes)
    assert set(counts) == {1, 2} and 0.25 < counts[2] / 300 < 0.42
    assert {(t.color, t.shape) for scene in scenes for t in scene.things} >= HELD_OUT
    assert all(len(scene.things) == 2 for scene in scenes)
    assert all(
        (t.color, t.shape) in HELD_OUT
        for i in range(20)
        for t in sample_scene("heldout", i, count=1).things
    )


def test_numbers_of_shapes():
    counts = Counter(len(sample_scene("train", i).things) for i in range(500))
    assert [counts[n] / 500 for n in (1, 2, 3)] == pytest.approx([0.2, 0.55, 0.25], abs=0.06)
    assert all(
        len(sample_scene("train", i, count=n).things) == n for n in (1, 2, 3) for i in range(5)
    )


def test_everything_lies_inside_the_canvas_and_nothing_overlaps():
    for _, scene in SCENES:
        for thing in scene.things:
            assert min(thing.box[:2]) >= 0 and max(thing.box[2:]) <= SIZE, thing
        masks = np.stack([shapes.coverage(thing) > 0 for thing in scene.things])
        assert masks.sum(0).max() == 1, scene
        assert len({(t.color, t.shape) for t in scene.things}) == len(scene.things)


def test_relations_are_true_and_captions_say_the_same_from_both_sides():
    seen = set()
    for _, scene in SCENES:
        if len(scene.things) != 2:
            assert scene.relation is None
            continue
        a, b = scene.things
        ahead = {
            "left of": a.box[2] < b.box[0],
            "right of": a.box[0] > b.box[2],
            "above": a.box[3] < b.box[1],
            "below": a.box[1] > b.box[3],
        }
        assert scene.relation is not None and ahead[scene.relation]
        assert sum(ahead.values()) == 1, "another relation would be true of this scene as well"
        seen.add(scene.relation)
        (plain, stated), (turned, inverse), *_ = scene.captions()
        assert (
            plain.index(a.name)
            < plain.index(f" {stated} ")
            < plain.index(b.name, plain.index(stated or ""))
        )
        assert (
            turned.index(b.name) < turned.index(f" {inverse} ")
            and inverse == INVERSE[scene.relation]
        )
    assert seen == set(shapes.RELATIONS)


def test_captions_name_every_thing_in_words_of_the_vocabulary():
    vocabulary = set(words())
    for _, scene in SCENES:
        captions = [text for text, _ in scene.captions()]
        assert len(set(captions)) == len(captions)
        for text in captions:
            assert all(thing.name in text for thing in scene.things)
            assert set(text.replace(",", " ,").split()) <= vocabulary
            assert "a orange" not in text
    assert len(list(words())) == len(vocabulary)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_are_the_drawn_pixels(shape: str):
    thing = Thing("green", shape, 30.3, 33.8, 11.2)
    image, masks = render(Scene((thing,), background=100))
    cover = shapes.coverage(thing)
    assert masks.shape == (1, SIZE, SIZE) and masks.dtype == bool
    # The share of each pixel's way from the ground to the colour is its coverage.
    shift = (image.astype(float) - 100) / (np.asarray(COLORS["green"]) - 100.0)
    assert np.abs(shift - cover[..., None]).max() < 0.02
    assert np.array_equal(masks[0], cover >= 0.5)
    x0, y0, x1, y1 = thing.box
    rows, columns = np.nonzero(masks[0])
    assert (
        columns.min() >= x0 - 1
        and columns.max() <= x1
        and rows.min() >= y0 - 1
        and rows.max() <= y1
    )
    assert image.dtype == np.uint8 and (image[0, 0] == 100).all()


def test_shapes_differ_from_one_another():
    masks = [render(Scene((Thing("red", shape, 32, 32, 12),), 100))[1][0] for shape in SHAPES]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 0), "split 'test' is unknown"),
        (("train", 0, 0, 5), "5 shapes cannot be drawn"),
        (("train", 0, 0, 0), "0 shapes"),
    ],
)
def test_unknown_splits_and_counts_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        sample_scene(*arguments)


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
