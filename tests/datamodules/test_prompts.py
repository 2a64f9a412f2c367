"""Prompts as a dataset and as a DataModule."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules import PromptDataModule
from datamodules.batch import Caption
from datamodules.formats.index import DataError
from datamodules.formats.made_prompts import make_pairs
from datamodules.prompts import PromptDataset

OWN: list[dict] = [
    {
        "prompt": "a cat left of a dog",
        "category": "places",
        "wanted": {"include": [{"class": "dog"}, {"class": "cat", "position": ["left of", 0]}]},
    },
    {"prompt": "a red car and a blue bus", "phrases": ["red car", "blue bus"]},
    {"prompt": "a lake"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in OWN))
    (tmp_path / "more.txt").write_text("a lake\na bird on a tree\na bird on a tree\n")
    return tmp_path


def test_samples_have_words_but_no_image(folder: Path):
    module = PromptDataModule(folder / "mine.jsonl")
    module.setup()
    dataset = module.train_set
    assert (
        len(dataset) == 3
        and dataset.encodable == 0
        and dataset.instances(0) == []
        and dataset.latents is None
    )
    sample = dataset[1]
    assert sample.keys() == {"id", "caption", "phrases"} and (sample["id"], sample["caption"]) == (
        1,
        "a red car and a blue bus",
    )
    assert [(p.text, p.start, p.end, tuple(p.mask.shape)) for p in sample["phrases"]] == [
        ("red car", 2, 9, (0, 0)),
        ("blue bus", 16, 24, (0, 0)),
    ]
    assert sample["phrases"][0].mask.dtype == torch.bool
    assert (
        dataset.caption(0) == Caption("a cat left of a dog", "left of")
        and dataset.caption(1).relation is None
    )
    assert dataset.records[0].wanted["include"][1] == {
        "class": "cat",
        "count": 1,
        "position": ["left of", 0],
    }
    dataset.with_phrases = False
    assert dataset[1].keys() == {"id", "caption"}


def test_training_goes_over_all_prompts_once_in_the_order_of_the_seed(folder: Path):
    def epochs(seed: int) -> list[str]:
        module = PromptDataModule([folder / "mine.jsonl", folder / "more.txt"], batch=2, seed=seed)
        module.setup()
        return [text for batch in module.train_dataloader() for text in batch.captions]

    first = epochs(0)
    assert sorted(first) == [
        "a bird on a tree",
        "a cat left of a dog",
        "a lake",
        "a red car and a blue bus",
    ]
    assert first == epochs(0) and any(epochs(seed) != first for seed in range(1, 6))
    module = PromptDataModule(folder, batch=4)
    with pytest.raises(ValueError, match="3 training samples make no batch of 4"):
        module.setup()
        module.train_dataloader()


def test_batches_hold_phrases_and_nothing_to_encode(folder: Path):
    module = PromptDataModule("attend_and_excite", batch=8)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert (
        batch.images is None
        and batch.latents is None
        and [len(found) for found in batch.phrases] == [2] * 8
    )
    assert len(module.train_set) == 276 and list(module.eval_sets) == ["attend_and_excite"]


def test_evaluation_sets_are_files_or_categories(folder: Path):
    paths = [folder / "mine.jsonl", folder / "more.txt"]
    by_file, by_category = PromptDataModule(paths), PromptDataModule(paths, sets="category")
    by_file.setup()
    by_category.setup()
    assert {name: len(found) for name, found in by_file.eval_sets.items()} == {"mine": 3, "more": 2}
    assert {name: len(found) for name, found in by_category.eval_sets.items()} == {
        "places": 1,
        "mine": 2,
        "more": 2,
    }
    assert [r.id for r in by_category.eval_sets["more"].records] == [0, 1]
    (folder / "other").mkdir()
    (folder / "other" / "more.txt").write_text("a fox\n")
    with pytest.raises(
        DataError, match=("another file is named 'more': rename one, or set sets=category")
    ):
        PromptDataModule([*paths, folder / "other" / "more.txt"]).setup()
    with pytest.raises(ValueError, match="sets='tag': expected file or category"):
        PromptDataModule(paths, sets="tag")


def test_fewer_prompts_are_taken_evenly():
    module = PromptDataModule("attend_and_excite", train_prompts=46, eval_prompts=23)
    module.setup()
    assert len(module.train_set) == 46
    tags = [tag for tag, _ in module.eval_sets["attend_and_excite"].strata()]
    # Of 66, 144 and 66
    assert Counter(tags) == {"animals": 6, "animals_objects": 12, "objects": 5}
    again = PromptDataModule("attend_and_excite", eval_prompts=23)
    again.setup()
    drawn = [r.text for r in module.eval_sets["attend_and_excite"].records]
    assert drawn == [r.text for r in again.eval_sets["attend_and_excite"].records]


def test_prompts_of_few_phrases_are_left_out_of_training_only(folder: Path):
    module = PromptDataModule(folder / "mine.jsonl", min_phrases=2)
    module.setup()
    assert [r.text for r in module.train_set.records] == [
        line["prompt"] for line in OWN[:2]
    ] and len(module.eval_sets["mine"]) == 3
    with pytest.raises(DataError, match="none of 3 prompts.*min_phrases=3"):
        PromptDataModule(folder / "mine.jsonl", min_phrases=3).setup()


def test_the_manifest_says_what_was_read_and_left_out(folder: Path):
    (folder / "mine.jsonl").write_text((folder / "mine.jsonl").read_text() + '{"prompt": ""}\n')
    module = PromptDataModule([folder, folder / "more.txt"], min_phrases=1)
    manifest = module.manifest()
    assert (
        json.loads(json.dumps(manifest)) == manifest
        and module.train_set.manifest.items() <= manifest.items()
    )
    assert [(f["kind"], f["prompts"], f["duplicates"], f["wanted"]) for f in manifest["files"]] == [
        ("own", 3, 0, 1),
        ("text", 2, 1, 0),
    ]
    assert manifest["not_read"] == [str(folder / "more.txt")] and manifest["prompts"] == 5
    assert manifest["categories"] == {"places": 1, "mine": 2, "more": 2}
    assert manifest["train"] == 4 and manifest["evaluation"] == {"mine": 3, "more": 2}
    assert manifest["training"] == {"few_phrases": 0, "duplicates_across_files": 1}
    place = f"{folder / 'mine.jsonl'}:4: 'prompt' is '': give it some words"
    assert manifest["problems"] == {"prompt missing": {"count": 1, "examples": [place]}}
    with pytest.raises(DataError, match=r"mine.jsonl:4: prompt missing"):
        PromptDataModule(folder, on_error="raise").setup()


def test_without_prompts_nothing_is_set_up(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(
        DataError, match=(r"no prompts left in .*: " r"unusable file: .*a.txt: not UTF-8")
    ):
        PromptDataModule(tmp_path).setup()
    with pytest.raises(DataError, match="no prompts left in : no file was named"):
        PromptDataModule([]).setup()
    with pytest.raises(ValueError, match="a dataset of no prompts"):
        PromptDataset([])


def test_the_digest_follows_the_prompts():
    pairs = make_pairs()
    assert (
        PromptDataset(pairs).digest()
        == PromptDataset(pairs).digest()
        != PromptDataset(make_pairs(1)).digest()
    )
    assert PromptDataset(pairs).digest() != PromptDataset(pairs[:-1]).digest()
    seeded = [replace(pairs[0], seed=3), *pairs[1:]]
    assert PromptDataset(pairs).digest() != PromptDataset(seeded).digest()


def test_setting_up_again_keeps_what_was_set_since():
    module = PromptDataModule("attend_and_excite")
    module.setup("fit")
    module.train_set.with_phrases = False
    module.setup("fit")
    assert not module.train_set.with_phrases
