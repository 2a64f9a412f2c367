"""Words of a caption and the objects that they mean."""

from __future__ import annotations

import pytest
import torch

from datamodules import ShapesDataModule
from datamodules.batch import Instance, collate
from datamodules.coco import CocoDataset
from datamodules.phrases import link


def instance(label: str, column: int, color: str | None = None) -> Instance:
    """An object that is one column of a 4x4 image."""
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, column] = True
    return Instance(label, mask, (column, 0, column + 1, 4), color)


def found(caption: str, *instances: Instance) -> list[tuple[str, list[int]]]:
    """(text, columns of the mask) of every phrase, whose characters must be its text."""
    phrases = link(caption, instances)
    assert all(caption[p.start : p.end] == p.text and p.mask.dtype == torch.bool for p in phrases)
    return [(p.text, p.mask[0].nonzero().flatten().tolist()) for p in phrases]


def test_objects_are_named_by_colour_and_category_from_left_to_right():
    ring, square = instance("ring", 0, "red"), instance("square", 1, "blue")
    assert found("a blue square above a red ring", ring, square) == [("blue square", [1]), ("red ring", [0])]
    assert found("a dog and a cat", instance("cat", 2), instance("dog", 3)) == [("dog", [3]), ("cat", [2])]


def test_what_is_not_named_whole_is_left_out():
    ring, dog = instance("ring", 0, "red"), instance("dog", 1)
    assert found("a ring and a blue ring, a red  ring", ring) == []
    assert found("two dogs, a hotdog, dog_2 and a doghouse", dog) == []
    assert found("a (dog), a dog's bowl and a dog-lead", dog) == [("dog", [1])] * 3
    assert found("nothing", ring, dog) == [] and found("a dog") == []


def test_case_does_not_matter_and_the_caption_keeps_its_own():
    assert found("A Red RING.", instance("ring", 0, "red")) == [("Red RING", [0])]


def test_names_are_words_and_no_patterns():
    assert found("a t.v. and a tev.", instance("t.v.", 2)) == [("t.v.", [2])]


@pytest.mark.parametrize(
    ("caption", "columns"),
    [
        ("a dog beside a dog", [[0], [2]]),  # as many mentions as objects: each its own, in the order of the dataset
        ("a dog", [[0, 2]]),
        ("a dog, a dog and a dog", [[0, 2]] * 3),
    ],
)
def test_several_objects_of_a_name(caption: str, columns: list[list[int]]):
    assert [mask for _, mask in found(caption, instance("dog", 0), instance("dog", 2))] == columns


def test_words_belong_to_the_longest_name():
    dog, sausage = instance("dog", 0), instance("hot dog", 1)
    expected = [("dog", [0]), ("hot dog", [1])]
    assert found("a dog eats a hot dog", dog, sausage) == found("a dog eats a hot dog", sausage, dog) == expected
    assert found("a hot dog", dog, sausage) == [("hot dog", [1])]


def test_captions_of_the_embedded_world_name_every_object(tmp_path_factory: pytest.TempPathFactory):
    world = ShapesDataModule(tmp_path_factory.mktemp("world"), train_images=12, eval_images=4, batch=4)
    world.prepare_data()
    world.setup()
    world.train_set.with_phrases = True
    for index in range(len(world.train_set)):
        sample, objects = world.train_set[index], world.train_set.instances(index)
        assert sorted(p.text for p in sample["phrases"]) == sorted(f"{o.color} {o.label}" for o in objects)
        assert torch.equal(torch.stack([p.mask for p in sample["phrases"]]).any(0), torch.stack([o.mask for o in objects]).any(0))
    batch = next(iter(world.train_dataloader()))
    assert batch.phrases is not None and len(batch.phrases) == 4
    for caption, phrases in zip(batch.captions, batch.phrases, strict=True):
        assert phrases and all(caption[p.start : p.end].lower() == p.text.lower() and p.mask.shape == (64, 64) for p in phrases)
    # Evaluation, and training that does not ask for them, have none.
    assert "phrases" not in world.eval_sets["val"][0]
    plain = CocoDataset(world.root, "train", 64, 2)
    assert collate([plain[0], plain[1]]).phrases is None
