"""Prompts made of concepts."""

from __future__ import annotations

import pytest

from datamodules.batch import collate
from datamodules.concepts import ConceptDataset, with_article

CONCEPTS = ["cat", "hot dog", "apple", "dog"]


def test_prompts_name_different_concepts_and_say_where():
    dataset = ConceptDataset(CONCEPTS, objects=3, length=50)
    texts = set()
    for i in range(50):
        sample = dataset[i]
        names = [phrase.text for phrase in sample["phrases"]]
        assert len(set(names)) == 3 and all(
            sample["caption"][p.start : p.end] == p.text for p in sample["phrases"]
        )
        starts = [p.start for p in sample["phrases"]]
        assert starts == sorted(starts) and sample["caption"].startswith("a photo of ")
        rest = (
            sample["caption"]
            .removeprefix("a photo of ")
            .replace(" with ", " and ")
            .replace(", ", " and ")
        )
        assert rest.split(" and ") == [with_article(name) for name in names]
        texts.add(sample["caption"])
    assert (
        len(texts) > 20
        and any("an apple" in text for text in texts)
        and any(" with " in text for text in texts)
    )


def test_a_word_inside_another_concept_is_not_it():
    for i in range(30):
        for phrase in ConceptDataset(["dog", "hot dog"], length=30).phrases(i):
            text = ConceptDataset(["dog", "hot dog"], length=30).caption(i).text
            assert phrase.text == "hot dog" or not text[: phrase.start].endswith("hot ")


def test_what_a_sample_is_follows_from_seed_epoch_and_index():
    first, again, other = (ConceptDataset(CONCEPTS, length=20, seed=seed) for seed in (1, 1, 2))
    texts = [first.caption(i).text for i in range(20)]
    assert (
        texts
        == [again.caption(i).text for i in range(20)]
        != [other.caption(i).text for i in range(20)]
    )
    again.epoch = 1
    assert texts != [again.caption(i).text for i in range(20)]


def test_the_longest_prompts_hold_the_longest_concepts_last():
    for (text, named), join in zip(
        ConceptDataset(CONCEPTS).longest(len), (" and ", " with "), strict=True
    ):
        assert text == f"a photo of an apple{join}a hot dog" and [
            text[p.start : p.end] for p in named
        ] == ["apple", "hot dog"]


def test_a_batch_of_concepts_has_neither_images_nor_latents():
    dataset = ConceptDataset(CONCEPTS)
    batch = collate([dataset[0], dataset[1]])
    assert (
        batch.images is None
        and batch.latents is None
        and [len(found) for found in batch.phrases or []] == [2, 2]
    )
    assert dataset.digest() != ConceptDataset(CONCEPTS, objects=3).digest()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["cat"],), "1 concept: no prompt of 2 objects: name 2 or more"),
        ((["cat", "dog", "Cat"],), "each concept once"),
        ((["cat", " "],), "expected words"),
        ((["cat", "dog"], 2, 10, 0, "a photo"), "template 'a photo' has no place for the concepts"),
    ],
)
def test_what_makes_no_prompt_is_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        ConceptDataset(*arguments)
