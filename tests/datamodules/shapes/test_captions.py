"""Captions of the embedded world: clean prompts that read back as they were meant, and careless
captions at their rates."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from conf.data.shapes import CLEAN, SPLITS, WEB, Careless
from datamodules.shapes.captions import (
    SceneCaption,
    clean_caption,
    draw_caption,
    draw_captions,
    draw_prompt,
)
from datamodules.shapes.dice import Dice
from datamodules.shapes.reading import find_skills, named_things, read_prompt
from datamodules.shapes.scenes import Scene, Thing, sample_scene
from datamodules.shapes.vocabulary import HELD_OUT, INVERSE, PLAIN, SYNONYMS, words

MANY = 100
SCENES = {split: [sample_scene(split, i) for i in range(MANY)] for split in SPLITS}
CAPTIONS = {
    split: [draw_captions(split, i, scene) for i, scene in enumerate(scenes)]
    for split, scenes in SCENES.items()
}
EVALUATION = [split for split in SPLITS if split != "train"]
FAITHFUL = replace(CLEAN, shuffled=0, paraphrased=0)
RED, BLUE = Thing("red", "circle", 15, 32, 9), Thing("blue", "square", 45, 32, 9)
# What every prompt of a split asks for, and what none of them may
TAGS = {
    "one": ("", "binding similar held-out counting many relation size pattern"),
    "two": ("binding", "similar held-out counting many relation size pattern"),
    "heldout": ("binding held-out", "similar counting many relation size pattern"),
    "three": ("many", "held-out counting relation size pattern"),
    "three_heldout": ("many held-out", "counting relation size pattern"),
    "four": ("many", "held-out counting relation size pattern"),
    "five": ("many", "held-out counting relation size pattern"),
    "counting": ("counting", "held-out relation size pattern"),
    "relation": ("relation binding", "held-out counting size pattern"),
    "size": ("size", "held-out counting many relation pattern"),
    "pattern": ("pattern", "held-out counting many relation size"),
    "similar": ("similar", "held-out counting relation size pattern"),
    "val": ("", "held-out"),
}


def test_every_word_is_in_the_vocabulary_and_none_twice():
    vocabulary = [*words()]
    assert len(vocabulary) == len(set(vocabulary))
    used = Counter(
        word
        for captions in CAPTIONS.values()
        for row in captions
        for caption in row
        for word in caption.text.replace(",", " ,").split()
    )
    assert set(used) <= set(vocabulary)
    said = " ".join(caption.text for row in CAPTIONS["train"] + CAPTIONS["val"] for caption in row)
    assert all(f" {synonym}" in said for row in SYNONYMS.values() for synonym in row)


@pytest.mark.parametrize("split", EVALUATION)
def test_every_prompt_reads_back_to_exactly_what_its_image_shows(split: str):
    for i, (scene, captions) in enumerate(zip(SCENES[split], CAPTIONS[split], strict=True)):
        prompt = draw_prompt(split, i, scene)
        assert prompt == captions[0]
        mentions, relation = read_prompt(prompt.text)
        assert relation == prompt.relation and relation in (None, scene.relation)
        assert named_things(prompt.text) == [thing.combination for thing in scene.things]
        shown = [scene.things[group[0]] for group in scene.groups]
        assert len(mentions) == len(shown)
        for mention, group, thing in zip(mentions, scene.groups, shown, strict=True):
            assert mention.number == len(group)
            assert (mention.color, mention.shape) == thing.combination
            assert mention.size == thing.size
            assert (mention.pattern or PLAIN) == thing.pattern
        assert not set(prompt.text.split()) & {s for row in SYNONYMS.values() for s in row}


@pytest.mark.parametrize("split", SPLITS)
def test_phrases_are_the_words_that_name_their_things(split: str):
    for scene, captions in zip(SCENES[split], CAPTIONS[split], strict=True):
        assert len(captions) == 5
        for caption in captions:
            mentions = read_prompt(caption.text).mentions
            assert [(m.start, m.end) for m in mentions] == [p[:2] for p in caption.phrases]
            things = [number for phrase in caption.phrases for number in phrase.things]
            assert len(set(things)) == len(things)
            for mention, phrase in zip(mentions, caption.phrases, strict=True):
                assert phrase.things in scene.groups
                shown = scene.things[phrase.things[0]]
                assert mention.shape == shown.shape, "whatever is said of its colour"
                assert mention.number in (None, len(phrase.things))
                assert mention.size in (None, shown.size)
                assert mention.pattern in (None, shown.pattern)


def test_other_captions_of_evaluation_are_clean_too():
    for split in EVALUATION:
        for scene, captions in zip(SCENES[split], CAPTIONS[split], strict=True):
            for caption in captions:
                assert Counter(named_things(caption.text)) == Counter(
                    thing.combination for thing in scene.things
                )


def test_no_caption_of_training_names_what_is_held_out():
    swaps = replace(WEB, colors_swapped=1, left_out=0, color_dropped=0)
    for i, scene in enumerate(SCENES["train"] + SCENES["val"]):
        dice = Dice(5, i)
        named = [named_things(draw_caption(scene, swaps, dice).text) for _ in range(5)]
        named += [named_things(draw_caption(scene, WEB, dice).text) for _ in range(5)]
        assert not HELD_OUT & {thing for things in named for thing in things}


@pytest.mark.parametrize("split", TAGS)
def test_splits_ask_for_their_skills(split: str):
    always, never = (set(said.split()) for said in TAGS[split])
    found = [set(find_skills(captions[0].text)) for captions in CAPTIONS[split]]
    for skills in found:
        assert always <= skills and not never & skills
    if split == "val":
        assert set.union(*found) == {*TAGS["one"][1].split()} - {"held-out"}


def test_skills_are_bound_where_colours_and_shapes_could_change_places():
    for prompt, skills in {
        "a red ring": [],
        "a red ring and a red cross": [],
        "a red ring and a cyan ring": ["similar"],
        "a red ring left of a blue cross": ["binding", "relation"],
        "two red rings": ["counting"],
        "a small red ring that is dotted": ["size", "pattern"],
        "a photo of a scarlet circle together with a violet hoop": ["binding", "held-out"],
        "a red ring, a red cross and a cyan ring": ["binding", "similar", "many"],
    }.items():
        assert find_skills(prompt) == skills, prompt


def test_other_words_are_passed_over():
    assert read_prompt("a photo of a dog").mentions == []
    one, other = read_prompt("A CAT beside the large stripy golden boxes, and some plus").mentions
    assert (one.number, one.color, one.shape, one.size, one.pattern) == (
        None,
        "yellow",
        "square",
        "large",
        "striped",
    )
    assert (other.number, other.color, other.shape) == (1, None, "cross")
    assert named_things("circles and a red encircled diamonds") == []
    assert read_prompt("a red circle to the left of a blue square").relation == "left of"
    assert read_prompt("a red circle is not left of a blue square").relation is None


def rate_of(hits: int, trials: int, rate: float) -> bool:
    return trials > 150 and binomtest(hits, trials, rate).pvalue > 1e-3


def captions_with(careless: Careless, split: str = "val") -> list[tuple[Scene, SceneCaption]]:
    """Four of each scene."""
    scenes = SCENES[split] + [sample_scene(split, i) for i in range(MANY, 2 * MANY)]
    return [
        (scene, draw_caption(scene, careless, Dice(9, i, k)))
        for i, scene in enumerate(scenes)
        for k in range(4)
    ]


def test_objects_are_left_out_at_their_rate_but_never_the_first():
    trials = hits = 0
    for scene, caption in captions_with(replace(FAITHFUL, left_out=0.35)):
        trials += len(scene.groups) - 1
        hits += len(scene.groups) - len(caption.phrases)
        assert caption.phrases[0].things == scene.groups[0]
    assert rate_of(hits, trials, 0.35)


@pytest.mark.parametrize(
    ("key", "part", "rate"),
    [
        ("color_dropped", "color", 0.25),
        ("number_dropped", "number", 0.3),
        ("size_said", "size", 0.3),
        ("pattern_said", "pattern", 0.5),
    ],
)
def test_words_are_dropped_or_said_at_their_rates(key: str, part: str, rate: float):
    trials = hits = 0
    split = "counting" if part == "number" else part if part in ("size", "pattern") else "val"
    for scene, caption in captions_with(replace(FAITHFUL, **{key: rate}), split):
        mentions = read_prompt(caption.text).mentions
        for mention, group in zip(mentions, scene.groups, strict=True):
            thing = scene.things[group[0]]
            if part == "number" and len(group) == 1:
                continue
            if part in ("size", "pattern") and getattr(thing, part) in (None, PLAIN):
                continue
            trials += 1
            missing = getattr(mention, part) is None
            hits += missing if key.endswith("dropped") else not missing
    assert rate_of(hits, trials, rate)


def test_relations_are_said_at_their_rate_and_true():
    trials = hits = 0
    for scene, caption in captions_with(replace(CLEAN, relation_said=0.1), "relation"):
        trials, hits = trials + 1, hits + (caption.relation is not None)
        if caption.relation:
            pair = [phrase.things for phrase in caption.phrases[:2]]
            true = scene.relation if pair == [(0,), (1,)] else INVERSE[scene.relation or ""]
            assert sorted(pair) == [(0,), (1,)] and caption.relation == true
    assert rate_of(hits, trials, 0.1)


def test_colours_are_swapped_at_their_rate_where_they_can_be():
    trials = hits = 0
    for scene, caption in captions_with(replace(FAITHFUL, colors_swapped=0.15), "three"):
        always = draw_caption(scene, replace(FAITHFUL, colors_swapped=1), Dice(1))
        true = [scene.things[group[0]].color for group in scene.groups]
        if [m.color for m in read_prompt(always.text).mentions] == true:
            continue
        trials += 1
        said = [mention.color for mention in read_prompt(caption.text).mentions]
        hits += said != true
        assert Counter(said) == Counter(true)
    assert rate_of(hits, trials, 0.15)


def test_order_and_words_change_at_their_rates():
    trials = shuffled = paraphrased = 0
    for scene, caption in captions_with(replace(FAITHFUL, shuffled=0.5, relation_said=0), "five"):
        trials += 1
        shuffled += [phrase.things for phrase in caption.phrases] != scene.groups
    assert rate_of(shuffled, trials, 0.5 * (1 - 1 / 120))
    plain = [clean_caption(scene, relation=False).text for scene in SCENES["five"]]
    other = [
        draw_caption(scene, replace(FAITHFUL, paraphrased=0.5, relation_said=0), Dice(2, i)).text
        for i, scene in enumerate(SCENES["five"])
    ]
    # One in a thousand is paraphrased into the plain words
    paraphrased = sum(a != b for a, b in zip(plain, other, strict=True))
    assert binomtest(paraphrased, MANY, 0.5).pvalue > 1e-3


def test_clean_captions_in_plain_words():
    scene = Scene((RED, BLUE), 100, "left of")
    assert clean_caption(scene).text == "a red circle left of a blue square"
    assert clean_caption(scene, relation=False).text == "a red circle and a blue square"
    third = Thing("orange", "ring", 30, 50, 6)
    more = Scene((RED, BLUE, third, replace(third, x=50)), 100, "left of")
    assert clean_caption(more) == (
        "a red circle left of a blue square, and two small orange rings",
        "left of",
        ((2, 12, (0,)), (23, 34, (1,)), (44, 62, (2, 3))),
    )
    marked = Scene((replace(third, radius=14, pattern="dotted"),), 100)
    assert clean_caption(marked, opening="a photo of ").text == (
        "a photo of a large dotted orange ring"
    )
    orange = Scene((replace(third, radius=9),), 100)
    assert clean_caption(orange).text == "an orange ring"


def test_captions_follow_from_seed_split_and_index():
    scene = SCENES["val"][0]
    assert draw_captions("val", 0, scene) == draw_captions("val", 0, scene)
    seeds = {tuple(draw_captions("train", 0, scene, seed)) for seed in range(5)}
    assert len(seeds) == 5


def test_five_captions_of_an_image_differ():
    several = [len({c.text for c in row}) for row in CAPTIONS["train"]]
    assert np.mean(several) > 3
