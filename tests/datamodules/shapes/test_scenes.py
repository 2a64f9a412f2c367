"""Scenes of the embedded world: what each split holds, and where it lies."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest

from conf.data.shapes import SPLITS
from datamodules.shapes.captions import draw_captions
from datamodules.shapes.placing import size_of
from datamodules.shapes.rendering import SIZE, coverage, render
from datamodules.shapes.scenes import Scene, Thing, frequencies, sample_scene
from datamodules.shapes.splits import RECIPES
from datamodules.shapes.vocabulary import COLORS, HELD_OUT, PLAIN, RELATIONS, SEEN, SHAPES

MANY = 120
SCENES = {split: [sample_scene(split, i) for i in range(MANY)] for split in SPLITS}
ALL = [scene for scenes in SCENES.values() for scene in scenes]
COUNTED = {"one": 1, "two": 2, "heldout": 2, "three": 3, "three_heldout": 3, "four": 4, "five": 5}


def combinations(scenes: list[Scene]) -> list[tuple[str, str]]:
    return [thing.combination for scene in scenes for thing in scene.things]


def test_same_triple_same_scene_and_any_change_another():
    first = sample_scene("val", 7, seed=3)
    assert first == sample_scene("val", 7, seed=3)
    others = {
        sample_scene(split, i, seed)
        for split in ("train", "val")
        for i in (7, 8)
        for seed in (3, 4)
    }
    assert len(others) == 8 and first in others


def test_the_world_stays_as_it_is():
    """Weights that are shipped were trained on these; numpy does not promise the same random
    numbers for ever."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for i in range(3):
            scene = sample_scene(split, i)
            digest.update(render(scene)[0].tobytes())
            digest.update(repr(draw_captions(split, i, scene)).encode())
    assert digest.hexdigest()[:16] == "9fab4756f2104efd"
    thing = sample_scene("heldout", 0).things[0]
    assert (thing.color, thing.shape) == ("purple", "ring")


def test_splits_are_declared_once():
    assert tuple(RECIPES) == SPLITS


def test_twelve_of_48_combinations_are_held_out_each_shape_twice_each_color_at_least_once():
    assert len(HELD_OUT) == 12 and len(SEEN) == 36 and not HELD_OUT & set(SEEN)
    assert Counter(shape for _, shape in HELD_OUT) == dict.fromkeys(SHAPES, 2)
    assert {color for color, _ in HELD_OUT} == set(COLORS)


def test_held_out_combinations_are_in_their_splits_alone():
    train = [sample_scene("train", i) for i in range(400)]
    assert set(combinations(train)) == set(SEEN)
    for split, scenes in SCENES.items():
        for scene in scenes:
            shown = HELD_OUT & set(combinations([scene]))
            assert bool(shown) == (split in ("heldout", "three_heldout")), (split, scene)
    for split in ("heldout", "three_heldout"):
        numbers = Counter(
            sum(thing.combination in HELD_OUT for thing in scene.things) for scene in SCENES[split]
        )
        assert set(numbers) == {1, 2} and 0.2 < numbers[2] / MANY < 0.47
        assert set(combinations(SCENES[split])) >= HELD_OUT
    assert all(
        sample_scene("heldout", i, count=1).things[0].combination in HELD_OUT for i in range(20)
    )


def test_numbers_of_things():
    counts = Counter(len(sample_scene("train", i).things) for i in range(500))
    shares = [counts[n] / 500 for n in range(1, 6)]
    assert shares == pytest.approx(RECIPES["train"].counts, abs=0.06)
    for split, count in COUNTED.items():
        assert {len(scene.things) for scene in SCENES[split]} == {count}
    for n in range(1, 6):
        assert all(len(sample_scene("train", i, count=n).things) == n for i in range(5))


def test_everything_lies_inside_the_canvas_and_nothing_overlaps():
    for scene in ALL:
        for thing in scene.things:
            assert min(thing.box[:2]) >= 0 and max(thing.box[2:]) <= SIZE, thing
        masks = np.stack([coverage(thing) > 0 for thing in scene.things])
        assert masks.sum(0).max() == 1, scene


def test_equal_things_stand_together_and_are_alike():
    for split, scenes in SCENES.items():
        for scene in scenes:
            groups = [[scene.things[i] for i in group] for group in scene.groups]
            assert len({group[0].combination for group in groups}) == len(groups)
            for group in groups:
                assert len({(thing.size, thing.pattern) for thing in group}) == 1
            if split == "counting":
                assert max(map(len, groups)) > 1
            elif split not in ("train", "val"):
                assert max(map(len, groups)) == 1
    largest = Counter(max(map(len, scene.groups)) for scene in SCENES["counting"])
    assert set(largest) == {2, 3, 4, 5}


def test_sizes_and_patterns_are_where_they_can_be_told():
    for split, scenes in SCENES.items():
        things = [thing for scene in scenes for thing in scene.things]
        sized, patterned = (
            [thing for thing in things if thing.size],
            [thing for thing in things if thing.pattern != PLAIN],
        )
        assert bool(sized) == (split in ("train", "val", "size")), split
        assert bool(patterned) == (split in ("train", "val", "pattern")), split
        for thing in patterned:
            assert thing.radius >= 10.2
        for thing in things:
            # Nothing is nearly small or nearly large
            assert not 7.2 < thing.radius < 8.4 and not 11.5 < thing.radius < 13.5
            assert (thing.size == "small") == (thing.radius < 7.5)
            assert (thing.size == "large") == (thing.radius > 12)
    for scene in SCENES["size"]:
        assert any(thing.size for thing in scene.things)
    for scene in SCENES["pattern"]:
        assert any(thing.pattern != PLAIN for thing in scene.things)
    assert [size_of(r) for r in (5, 9, 14)] == ["small", None, "large"]


def test_similar_things_share_a_shape_and_pairs_to_bind_share_nothing():
    for scene in SCENES["similar"]:
        shapes = Counter(thing.shape for thing in scene.things)
        assert shapes.most_common(1)[0][1] > 1
    for split in ("two", "heldout", "relation", "size", "pattern"):
        for scene in SCENES[split]:
            for part in ("color", "shape"):
                said = [getattr(thing, part) for thing in scene.things]
                assert len(set(said)) == len(said)


def test_relations_are_true_and_no_other_could_be_meant():
    seen = Counter()
    for scene in ALL:
        if scene.relation is None:
            continue
        a, b = scene.things[:2]
        assert a.combination != b.combination and scene.groups[:2] == [(0,), (1,)]
        ahead = {
            "left of": a.box[2] < b.box[0],
            "right of": a.box[0] > b.box[2],
            "above": a.box[3] < b.box[1],
            "below": a.box[1] > b.box[3],
        }
        across, down = abs(a.x - b.x), abs(a.y - b.y)
        level, along = (down, across) if scene.relation in RELATIONS[:2] else (across, down)
        assert ahead[scene.relation] and along >= 1.5 * level
        seen[scene.relation] += 1
    assert set(seen) == set(RELATIONS) and min(seen.values()) > 0.2 * sum(seen.values())
    assert all(scene.relation for split in ("two", "relation") for scene in SCENES[split])


def test_combinations_are_as_unequally_frequent_as_asked():
    assert set(frequencies(0.0)) == {1.0}
    counts = Counter(
        combinations([sample_scene("train", i, count=1, zipf=1.0) for i in range(2000)])
    )
    share = dict(zip(SEEN, frequencies(1.0), strict=True))
    total = sum(share.values())
    for combination in sorted(share, key=lambda c: -share[c])[:5]:
        test = binomtest(counts[combination], 2000, share[combination] / total)
        assert test.pvalue > 1e-4, combination
    assert sample_scene("val", 3, zipf=1.0) == sample_scene("val", 3), "evaluation stays as it is"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 0), "split 'test' is unknown"),
        (("train", 0, 0, 6), "6 shapes cannot be drawn: expected 1 to 5"),
        (("train", 0, 0, 0), "0 shapes"),
    ],
)
def test_unknown_splits_and_counts_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        sample_scene(*arguments)


def test_a_thing_says_what_it_is():
    thing = Thing("red", "ring", 20, 30, 14, "dotted")
    assert (thing.name, thing.size, thing.box) == ("red ring", "large", (6, 16, 34, 44))
