"""The embedded world's scenes: what is rendered, and prompts in which shapes are placeholders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conf.schema import Evaluation
from datamodules.formats.scene_folder import Subject
from datamodules.shapes import scene as shapes_scene
from datamodules.shapes.rendering import SIZE
from datamodules.shapes.scene import SceneShapes, ShapesSceneDataModule, write_scene
from datamodules.shapes.vocabulary import COLORS, HELD_OUT, SEEN, SHAPES, words

SUBJECTS = (
    Subject("<asset0>", "square", "orange", "square"),
    Subject("<asset1>", "ring", "red", "ring"),
    Subject("<asset2>", "circle", "blue", "circle"),
)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_scene_shows_shapes_of_different_colours_and_the_first_is_held_out(
    tmp_path: Path, count: int
):
    firsts = set()
    for seed in range(8):
        folder = tmp_path / str(seed)
        write_scene(folder, seed, count)
        said = json.loads((folder / "scene.json").read_text())["subjects"]
        assert [s["token"] for s in said] == [f"<asset{i}>" for i in range(count)]
        assert all(s["class"] == s["shape"] in SHAPES for s in said)
        assert len({s["color"] for s in said}) == count
        assert (said[0]["color"], said[0]["shape"]) in HELD_OUT
        firsts.add((said[0]["color"], said[0]["shape"]))
        pixels = np.asarray(Image.open(folder / "img.png"))
        assert pixels.shape == (SIZE, SIZE, 3)
        for i, subject in enumerate(said):
            mask = np.asarray(Image.open(folder / f"mask{i}.png"))
            assert set(np.unique(mask)) == {0, 255}
            assert np.median(pixels[mask > 0], axis=0).tolist() == list(COLORS[subject["color"]])
    assert len(firsts) > 3


def test_a_scene_written_twice_is_byte_equal_and_left_alone(tmp_path: Path):
    write_scene(tmp_path / "a", 3)
    write_scene(tmp_path / "b", 3)
    assert files(tmp_path / "a") == files(tmp_path / "b") and len(files(tmp_path / "a")) == 4
    (tmp_path / "a" / "mine.txt").write_text("kept")
    write_scene(tmp_path / "a", 3)
    assert (tmp_path / "a" / "mine.txt").exists()
    write_scene(tmp_path / "a", 4, 3)
    assert len(files(tmp_path / "a")) == 5, "another scene replaces it"


def test_a_scene_of_another_world_is_rendered_again(tmp_path: Path):
    """What an earlier version left in the cache is not taken for one of this world."""
    write_scene(tmp_path / "a", 3)
    drawn = files(tmp_path / "a")
    card = json.loads(drawn["scene.json"])
    card["made"]["version"] -= 1
    (tmp_path / "a" / "scene.json").write_text(json.dumps(card))
    (tmp_path / "a" / "img.png").write_bytes(drawn["mask0.png"])
    write_scene(tmp_path / "a", 3)
    assert files(tmp_path / "a") == drawn


def test_an_interrupted_write_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_scene(tmp_path / "a", 3)
    before = files(tmp_path / "a")

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes_scene.json, "dumps", fails)
    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / "a", 4)
    assert files(tmp_path / "a") == before and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_two_processes_may_render_the_same_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_scene(tmp_path / "quick", 3)
    draw = shapes_scene._draw

    def overtaken(seed: int, subjects: int):
        (tmp_path / "quick").rename(tmp_path / "a")
        return draw(seed, subjects)

    monkeypatch.setattr(shapes_scene, "_draw", overtaken)
    write_scene(tmp_path / "a", 3)
    assert len(files(tmp_path / "a")) == 4 and [p.name for p in tmp_path.iterdir()] == ["a"]
    (tmp_path / "a").rename(tmp_path / "quick")
    with pytest.raises(OSError, match="not empty"):
        write_scene(tmp_path / "a", 4)


def test_what_is_not_ours_is_not_replaced(tmp_path: Path):
    (tmp_path / "img.png").write_bytes(b"precious")
    with pytest.raises(
        ValueError, match=("holds something that is no rendered scene.*give another folder")
    ):
        write_scene(tmp_path, 0)
    assert (tmp_path / "img.png").read_bytes() == b"precious"
    for count in (0, 4):
        with pytest.raises(
            ValueError, match=(f"a scene of {count} subjects cannot be drawn: expected 1, 2 or 3")
        ):
            write_scene(tmp_path / "x", 0, count)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_prompts_name_subjects_by_placeholders_and_others_in_plain_words(count: int):
    subjects = SUBJECTS[:count]
    dataset = SceneShapes(subjects, 120, seed=5)
    known = {(s.color, s.shape): i for i, s in enumerate(subjects)}
    vocabulary = {*words(), *(s.token for s in subjects)}
    forms, wholes = set(), set()
    for i in range(len(dataset)):
        caption, objects, phrases = dataset.caption(i), dataset.instances(i), dataset.phrases(i)
        numbers = [known.get((o.color, o.label)) for o in objects]
        assert sorted(n for n in numbers if n is not None) == list(dataset.subset(i))
        wholes.add(dataset.subset(i))
        for phrase, number, thing in zip(phrases, numbers, objects, strict=True):
            assert caption.text[phrase.start : phrase.end] == phrase.text and torch.equal(
                phrase.mask, thing.mask
            )
            before = caption.text[: phrase.start]
            if number is None:
                assert (thing.color, thing.label) in SEEN and thing.color not in {
                    s.color for s in subjects
                }
                assert phrase.text == f"{thing.color} {thing.label}" and before.endswith(
                    "an " if thing.color == "orange" else "a "
                )
            else:
                assert phrase.text == subjects[number].token and not before.endswith(("a ", "an "))
            shown = dataset.pixels(i)[:, thing.mask].median(1).values.tolist()
            assert shown == list(COLORS[thing.color or ""])
        assert [p.start for p in phrases] == sorted(p.start for p in phrases)
        assert set(caption.text.replace(",", " ,").split()) <= vocabulary
        forms.add(
            (
                caption.text.startswith("a photo of"),
                caption.relation,
                tuple(n is None for n in numbers),
            )
        )
        if caption.relation is not None:
            a, b = ((o.box[0] + o.box[2], o.box[1] + o.box[3]) for o in objects)
            places = {
                "left of": a[0] < b[0],
                "right of": a[0] > b[0],
                "above": a[1] < b[1],
                "below": a[1] > b[1],
            }
            assert places[caption.relation] and f" {caption.relation} " in caption.text
    assert len(wholes) == 2**count - 1
    assert {relation for _, relation, _ in forms} == {None, "left of", "right of", "above", "below"}
    assert {len(who) for *_, who in forms} == {1, 2} | ({3} if count > 1 else set())
    assert {
        (True, None, (False,)),
        (False, None, (False, True)),
        (False, None, (True, False)),
    } <= forms


def test_a_seed_and_an_index_fix_a_scene():
    a, b, c = (
        SceneShapes(SUBJECTS[:2], 9, 1),
        SceneShapes(SUBJECTS[:2], 20, 1),
        SceneShapes(SUBJECTS[:2], 9, 2),
    )
    assert [r.id for r in a.records] == list(range(9)) and len(b) == 20
    assert all(
        torch.equal(a.pixels(i), b.pixels(i)) and a.caption(i) == b.caption(i) for i in range(9)
    )
    assert not any(torch.equal(a.pixels(i), c.pixels(i)) for i in range(9))


def test_subjects_need_colour_and_shape():
    with pytest.raises(ValueError, match="subject <dog> has no color and shape"):
        SceneShapes([Subject("<dog>", "dog")], 3)


def test_the_module_renders_trains_and_plans_an_evaluation(tmp_path: Path):
    from lightning_modules.evaluation.plan import plan, real_images

    datamodule = ShapesSceneDataModule(
        tmp_path / "deep" / "scene", 2, scene_seed=1, eval_images=7, batch=4, seed=9, length=8
    )
    datamodule.prepare_data()
    datamodule.setup()
    batch = next(iter(datamodule.train_dataloader()))
    assert (
        batch.images is not None
        and batch.images.shape == (4, 3, SIZE, SIZE)
        and batch.phrases is not None
    )
    prompts = plan(datamodule, Evaluation(prompts=7, splits=["subjects"]), seed=0)  # type: ignore[arg-type]
    assert len(prompts) == 7 and all("<asset" in p.text for p in prompts)
    assert real_images(datamodule, prompts).shape == (7, 3, SIZE, SIZE)  # type: ignore[arg-type]
    first = datamodule.scene.subjects[0]
    assert (first.color, first.shape) in prompts[0].target.objects and first.token in prompts[
        0
    ].text
    other = ShapesSceneDataModule(
        datamodule.folder, 2, scene_seed=1, eval_images=7, seed=1, tokens=["<x>", "<y>"]
    )
    other.prepare_data()
    other.setup()
    texts = [
        other.eval_sets["subjects"]
        .caption(i)
        .text.replace("<x>", "<asset0>")
        .replace("<y>", "<asset1>")
        for i in range(7)
    ]
    assert texts == [p.text for p in prompts], (
        "all runs on a scene are judged by the same prompts, whatever their seed"
    )
