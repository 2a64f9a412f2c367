"""The plan of an evaluation: the same prompts and noise for every method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from conf.schema import Evaluation, Run
from datamodules.build import build_data
from datamodules.prompts import PromptDataModule
from datamodules.shapes.reading import named_things
from datamodules.shapes.vocabulary import PATTERNS, SIZES
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.plan import find_cut, find_objects, plan, real_images


def test_every_prompt_has_noise_of_its_own_that_follows_from_seed_split_and_place(base: Run):
    datamodule = build_data(base, lambda text, share: None)
    prompts = plan(datamodule, base.evaluation, seed=0)
    assert [(p.split, p.index, p.id) for p in prompts] == [
        (s, i, i) for s in ("val", "heldout") for i in range(4)
    ]
    fewer = plan(datamodule, replace(base.evaluation, prompts=2), seed=0)
    assert fewer == [p for p in prompts if p.index < 2], "more prompts keep the noise of the first"
    other = plan(datamodule, base.evaluation, seed=1)
    assert len({p.noise for p in prompts + other}) == 16 and [p.text for p in other] == [
        p.text for p in prompts
    ]
    for prompt in prompts:
        wanted = prompt.target.objects
        assert named_things(prompt.text) == wanted
        places = [prompt.text.index(f"{color} {shape}") for color, shape in wanted]
        assert places == sorted(places), "a relation is that of the first object to the second"
        assert prompt.target.relation is None or f" {prompt.target.relation} " in prompt.text
    real = real_images(datamodule, prompts)
    assert (
        torch.equal(real[5], datamodule.eval_sets["heldout"].pixels(1))
        and real.dtype == torch.uint8
    )


def test_more_noises_per_prompt_keep_the_first_and_count_real_images_once(base: Run):
    datamodule = build_data(base, lambda text, share: None)
    asked = replace(base.evaluation, prompts=2)
    once, thrice = (plan(datamodule, replace(asked, noise_seeds=n), seed=1) for n in (1, 3))
    assert thrice[::3] == once and len({p.noise for p in thrice}) == 12
    assert {p.noise for p in thrice}.isdisjoint(
        p.noise for p in plan(datamodule, replace(base.evaluation, noise_seeds=3), seed=0)
    )
    assert torch.equal(real_images(datamodule, thrice), real_images(datamodule, once))


def test_prompts_of_the_embedded_world_say_how_many_objects_and_which_skills(base: Run):
    world = replace(
        base, evaluation=Evaluation(splits=["relation", "heldout", "one", "four"], prompts=4)
    )
    datamodule = build_data(world, lambda text, share: None)
    prompts = plan(datamodule, replace(world.evaluation, noise_seeds=2), seed=0)
    assert [p.number for p in prompts] == [0, 1] * 16
    for prompt in prompts:
        things = prompt.target.objects
        assert prompt.objects == len(things)
        assert ("many" in prompt.skills) == (len(things) > 2)
        assert ("relation" in prompt.skills) == (prompt.target.relation is not None)
        assert ("relation" in prompt.skills) == (prompt.split == "relation")
        assert ("held-out" in prompt.skills) == (prompt.split == "heldout")
        assert list(prompt.skills) == sorted(prompt.skills)


def test_targets_say_what_prompts_say_of_numbers_sizes_and_patterns(base: Run):
    splits = ["counting", "size", "pattern", "val"]
    world = replace(base, evaluation=Evaluation(splits=splits, prompts=4))
    datamodule = build_data(world, lambda text, share: None)
    for prompt in plan(datamodule, world.evaluation, seed=0):
        target, shown = prompt.target, datamodule.eval_sets[prompt.split].instances(prompt.index)
        assert target.objects == [(thing.color, thing.label) for thing in shown]
        assert bool(target.counted) == ("counting" in prompt.skills)
        assert bool(target.sizes) == ("size" in prompt.skills)
        assert bool(target.patterns) == ("pattern" in prompt.skills)
        for said, words in ((target.sizes, SIZES), (target.patterns, PATTERNS)):
            assert {*filter(None, said)} == {w for w in prompt.text.split() if w in words}
            assert len(said) in (0, len(shown))


def test_prompts_of_files_say_what_their_files_say(tmp_path: Path):
    lines = [
        {
            "prompt": "two dogs",
            "category": "how many",
            "wanted": {"include": [{"class": "dog", "count": 2}]},
        },
        {"prompt": "a cat and a dog"},
        {"prompt": "nothing", "phrases": []},
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    datamodule = PromptDataModule(tmp_path / "mine.jsonl")
    datamodule.setup()
    prompts = plan(
        datamodule, Evaluation(splits=[], prompts=None, noise_seeds=1, detector="none"), 0
    )
    known = [(p.objects, p.skills) for p in prompts]
    assert known == [(2, ("how-many",)), (2, ("mine",)), (None, ("mine",))]


def test_the_seed_of_a_prompt_in_its_file_is_that_of_its_noise(tmp_path: Path):
    lines = [{"prompt": f"a {what}", "seed": 7} for what in ("cat", "dog")] + [{"prompt": "a hat"}]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    datamodule = PromptDataModule(tmp_path / "mine.jsonl")
    datamodule.setup()
    asked = Evaluation(splits=[], prompts=None, noise_seeds=2, detector="none")
    noises = [[p.noise for p in plan(datamodule, asked, seed)] for seed in (0, 1)]
    assert noises[0][::2] == [7, 7, 2], "as torch.Generator().manual_seed(7) draws it"
    assert noises[0][1] == noises[0][3] and len({*noises[0], *noises[1]}) == 8


def test_prompts_that_are_longer_than_the_encoder_reads_are_found(
    embedded: Backbone, tmp_path: Path
):
    longest = embedded.text.length - 2  # Beside BOS and EOS
    texts = ["a red circle", " ".join(["red"] * longest), " ".join(["red"] * (longest + 1))]
    (tmp_path / "mine.txt").write_text("\n".join(texts))
    datamodule = PromptDataModule(tmp_path / "mine.txt", kind="text")
    datamodule.setup()
    asked = Evaluation(splits=[], prompts=None, noise_seeds=2, detector="none")
    assert find_cut(embedded, plan(datamodule, asked, 0)) == [texts[2]]
    whole, cut = (embedded.text.encode([text]).hidden for text in texts[1:])
    assert torch.equal(whole, cut), "the last word has no part in the image"


def test_other_words_are_drawn_on_the_same_noise_for_the_same_wish(base: Run, tmp_path: Path):
    config = replace(
        base,
        data=replace(base.data, eval_images=6),
        evaluation=replace(base.evaluation, splits=["relation"], prompts=6),
        output=str(tmp_path),
    )
    data = build_data(config, lambda text, share: None)
    own = plan(data, config.evaluation, 0)
    other = plan(data, replace(config.evaluation, wording="all"), 0)
    assert [p.noise for p in own] == [p.noise for p in other]
    assert [p.target for p in own] == [p.target for p in other]
    assert [p.questions for p in own] == [p.questions for p in other]
    assert all(p.text.startswith("a photo of ") for p in other)
    for prompts in (own, other):
        for prompt, objects in zip(prompts, find_objects(data, prompts), strict=True):
            assert [prompt.text[one.start : one.end] for one in objects] == [
                one.text for one in objects
            ]
