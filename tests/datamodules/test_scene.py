"""Scenes as training batches: which subjects a sample names, where they are, that a seed fixes all
of it, and prompts about them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import SceneDataModule
from datamodules.batch import Batch
from datamodules.coco import CocoDataset
from datamodules.scene import PROMPTS, subsets

SIZE = 16


def band(subject: int) -> np.ndarray:
    """The mask of a subject: its row, left half."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[subject, : SIZE // 2] = 255
    return mask


def write(folder: Path, *images: tuple[int, ...], said: dict[str, Any] | None = None) -> Path:
    """A scene with, for each image, the numbers of the subjects in it; each subject's mask is white
    on the image too."""
    folder.mkdir(parents=True, exist_ok=True)
    for j, subjects in enumerate(images):
        number = "" if len(images) == 1 else str(j)
        pixels = np.full((SIZE, SIZE), 20 * j, np.uint8)
        for subject in subjects:
            pixels = np.maximum(pixels, band(subject))
            Image.fromarray(band(subject)).save(folder / f"mask{number}{subject}.png")
        Image.fromarray(pixels).save(folder / f"img{number}.png")
    if said is not None:
        (folder / "scene.json").write_text(json.dumps(said))
    return folder


def classes(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (24, SIZE), (0, 10 * i, 255)).save(folder / f"{i}.jpg", quality=100)
    return folder


def module(
    folder: Path,
    resolution: int = SIZE,
    prior: Path | None = None,
    prior_prompt: str = "a photo",
    **options: Any,
) -> SceneDataModule:
    datamodule = SceneDataModule(folder, resolution, **options)
    datamodule.prepare_data()
    datamodule.setup()
    if prior:
        datamodule.train_set.attach_prior(sorted(prior.iterdir()), prior_prompt)
    return datamodule


def named(caption: str) -> list[int]:
    """The numbers of the subjects of a caption, which must be of the expected form."""
    words = caption.removeprefix("a photo of ").split(" and ")
    assert caption == "a photo of " + " and ".join(f"<asset{int(w[6:-1])}>" for w in words)
    return [int(w[6:-1]) for w in words]


def test_samples_name_one_to_all_subjects_equally_often_and_in_any_order(tmp_path: Path):
    dataset = module(write(tmp_path, (0, 1, 2)), length=1200).train_set
    drawn = [tuple(named(dataset.caption(i).text)) for i in range(len(dataset))]
    sizes, orders = Counter(map(len, drawn)), Counter(drawn)
    assert [sizes[k] / 1200 for k in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.05)
    assert len(orders) == 3 + 6 + 6 and min(orders.values()) > 30
    assert all(len(set(one)) == len(one) for one in orders)


def test_phrases_are_the_placeholders_of_the_caption_with_their_masks(tmp_path: Path):
    dataset = module(write(tmp_path, (0, 1, 2), (0, 2)), length=40).train_set
    flips = set()
    for i in range(len(dataset)):
        sample, draw = dataset[i], dataset.draw(i)
        assert (
            [int(p.text[6:-1]) for p in sample["phrases"]]
            == named(sample["caption"])
            == list(draw.subjects)
        )
        for phrase in sample["phrases"]:
            assert sample["caption"][phrase.start : phrase.end] == phrase.text
            assert phrase.mask.dtype == torch.float32 and phrase.mask.shape == (SIZE, SIZE)
            mask = torch.from_numpy(band(int(phrase.text[6:-1])).astype(np.float32)) / 255
            assert torch.equal(phrase.mask, mask.flip(-1) if draw.flipped else mask)
            assert bool((sample["image"][0][phrase.mask > 0] == 1).all()), (
                "the mask is mirrored with its image"
            )
        assert float(sample["image"][0, -1, -1]) == pytest.approx(20 * draw.image / 127.5 - 1)
        flips.add((draw.image, draw.flipped))
        if draw.image == 1:
            assert 1 not in draw.subjects
    assert flips == {(j, f) for j in (0, 1) for f in (False, True)}
    dataset.with_phrases = False
    assert "phrases" not in dataset[0]


def test_without_union_sampling_all_subjects_in_fixed_order_on_the_same_images(tmp_path: Path):
    folder = write(tmp_path, (0, 1, 2), (0, 2))
    fixed, drawn = module(folder, union_sampling=False).train_set, module(folder).train_set
    for i in range(30):
        assert fixed.draw(i).subjects == ((0, 1, 2) if fixed.draw(i).image == 0 else (0, 2))
        assert fixed.draw(i)[:2] == drawn.draw(i)[:2] and fixed.variant(i) == drawn.variant(i)


def test_half_of_the_samples_are_mirrored_when_asked(tmp_path: Path):
    folder = write(tmp_path, (0, 1))
    plain, mirrored = (
        module(folder, flip=False, length=400).train_set,
        module(folder, length=400).train_set,
    )
    assert sum(mirrored.draw(i).flipped for i in range(400)) == pytest.approx(200, abs=40)
    assert not any(plain.draw(i).flipped for i in range(400))
    assert [plain.caption(i) for i in range(400)] == [mirrored.caption(i) for i in range(400)]
    assert plain.variants == 1 and mirrored.variants == 2


def test_a_seed_an_epoch_and_an_index_fix_a_sample(tmp_path: Path):
    folder = write(tmp_path, (0, 1, 2), (0, 1))

    def draws(seed: int, epoch: int) -> list:
        dataset = module(folder, seed=seed).train_set
        dataset.epoch = epoch
        return [dataset.draw(i) for i in reversed(range(30))][::-1]

    assert draws(1, 3) == draws(1, 3)
    assert len({tuple(draws(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def at(datamodule: SceneDataModule, epoch: int, batches: int = 0) -> list[tuple[int, str, int]]:
    """(id, caption, prior id) of what is left of an epoch of which ``batches`` are done, in
    order."""
    datamodule.trainer = SimpleNamespace(
        current_epoch=epoch, fit_loop=SimpleNamespace(batch_idx=batches - 1)
    )  # type: ignore[assignment]
    return [
        row
        for b in datamodule.train_dataloader()
        for row in zip(b.ids, b.captions, b.prior.ids, strict=True)
    ]  # type: ignore[union-attr]


def test_epochs_go_on_where_they_stopped_and_need_no_worker(tmp_path: Path):
    options: dict[str, Any] = {
        "batch": 4,
        "length": 12,
        "prior": classes(tmp_path / "classes"),
    }
    folder = write(tmp_path / "scene", (0, 1, 2))
    datamodule = module(folder, **options)
    whole = at(datamodule, 2)
    assert sorted(i for i, _, _ in whole) == list(range(12)) and whole != at(datamodule, 1)
    assert at(datamodule, 2, batches=2) == whole[8:] and len(datamodule.train_dataloader()) == 3
    assert at(module(folder, workers=1, **options), 2) == whole
    assert at(module(folder, union_sampling=False, **options), 2) != whole


def test_samples_of_different_numbers_of_subjects_make_a_batch(tmp_path: Path):
    batch = next(iter(module(write(tmp_path, (0, 1, 2)), batch=16).train_dataloader()))
    assert isinstance(batch, Batch) and batch.prior is None and batch.phrases is not None
    assert (
        batch.images is not None
        and batch.images.shape == (16, 3, SIZE, SIZE)
        and batch.images.dtype == torch.float32
    )
    assert {len(phrases) for phrases in batch.phrases} == {1, 2, 3}


def test_class_images_accompany_the_samples_all_in_turn(tmp_path: Path):
    folder, prior = write(tmp_path / "scene", (0, 1)), classes(tmp_path / "classes")
    datamodule = module(folder, batch=2, length=4, prior=prior, prior_prompt="a photo of a dog")
    seen: list[int] = []
    for epoch in range(3):
        datamodule.train_set.epoch = epoch
        for i in range(4):
            seen.append(datamodule.train_set[i]["prior"]["id"])
    assert seen == [0, 1, 2] * 4
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.prior is not None and batch.prior.captions == ["a photo of a dog"] * 2
    assert batch.prior.images is not None and batch.prior.images.shape == (2, 3, SIZE, SIZE)
    green = ((batch.prior.images[:, 1].mean((1, 2)) + 1) * 127.5 / 10).round().tolist()
    assert green == batch.prior.ids and batch.prior.prior is None and batch.prior.phrases is None


def test_latents_go_by_variant(tmp_path: Path):
    folder = write(tmp_path / "scene", (0, 1), (1,))
    datamodule = module(folder, batch=8, prior=classes(tmp_path / "classes"))
    dataset = datamodule.train_set
    assert dataset.variants == 4 and dataset.encodable == 7
    samples = [dataset[i] for i in range(40)]
    every = [dataset.image(v) for v in range(dataset.encodable)]
    assert len({image.numpy().tobytes() for image in every}) == 7
    assert torch.equal(dataset.pixels(1), dataset.pixels(0).flip(-1))
    dataset.latents = torch.stack(every)
    datamodule.setup("fit")  # as the Trainer does
    assert datamodule.train_set is dataset
    for i, sample in enumerate(samples):
        assert torch.equal(dataset[i]["latent"], sample["image"]) and "image" not in dataset[i]
        assert torch.equal(dataset[i]["prior"]["latent"], sample["prior"]["image"])
    batch = next(iter(datamodule.train_dataloader()))
    assert (
        batch.images is None
        and batch.latents is not None
        and batch.latents.shape == (8, 3, SIZE, SIZE)
    )
    assert (
        batch.prior is not None and batch.prior.images is None and batch.prior.latents is not None
    )
    with pytest.raises(IndexError):
        dataset.image(7)


def test_coco_says_how_many_images_there_are_to_encode():
    dataset = CocoDataset.__new__(CocoDataset)
    dataset.records = [None] * 3  # type: ignore[list-item]
    assert dataset.encodable == 3


def test_digest_changes_with_everything_that_samples_are_made_of(tmp_path: Path):
    folder, prior = write(tmp_path / "a", (0, 1)), classes(tmp_path / "classes")
    ways: list[dict[str, Any]] = [
        {},
        {"resolution": 8},
        {"flip": False},
        {"tokens": ["<a>", "<b>"]},
        {"prior": prior},
    ]
    digests = [module(folder, **way).train_set.digest() for way in ways]
    digests += [module(write(tmp_path / "b", (1, 0), (0, 1))).train_set.digest()]
    Image.fromarray(np.roll(band(0), 1, 1)).save(folder / "mask0.png")
    digests += [module(folder).train_set.digest()]
    Image.new("RGB", (SIZE, SIZE), "white").save(folder / "img.png")
    digests += [module(folder).train_set.digest()]
    assert len(set(digests)) == len(digests) == 8
    assert module(folder, length=7, union_sampling=False, seed=3).train_set.digest() == digests[-1]


def test_placeholders_and_class_words_may_be_given(tmp_path: Path):
    folder = write(
        tmp_path,
        (0, 1),
        said={"subjects": [{"token": "<dog>", "class": "dog"}, {"token": "<cat>"}]},
    )
    dataset = module(folder, union_sampling=False).train_set
    assert dataset.caption(0).text == "a photo of <dog> and <cat>"
    other = module(folder, union_sampling=False, tokens=("<x>", "<yy>"), classes=("wolf", "lynx"))
    assert other.train_set.caption(0).text == "a photo of <x> and <yy>"
    assert [p[:3] for p in other.train_set.phrases(0)] == [("<x>", 11, 14), ("<yy>", 19, 23)]
    assert [s.class_word for s in other.scene.subjects] == ["wolf", "lynx"]
    longer = module(folder, tokens=("sks", "sks2")).eval_sets["prompts"]
    assert [[p.text for p in longer.phrases(i)] for i in range(3)] == [
        ["sks"],
        ["sks2"],
        ["sks", "sks2"],
    ]


def test_prompts_take_every_subset_of_the_subjects(tmp_path: Path):
    assert subsets(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    prompts = module(write(tmp_path / "plain", (0, 1))).eval_sets["prompts"]
    assert len(prompts) == 3 * len(PROMPTS) == 30
    assert [prompts.caption(i).text for i in range(3)] == [
        "a photo of <asset0> at the beach",
        "a photo of <asset1> at the beach",
        ("a photo of <asset0> and <asset1> at the beach"),
    ]
    assert [r.id for r in prompts.records] == list(range(30))
    folder = write(
        tmp_path / "said",
        (0,),
        (0, 1),
        said={"prompts": ["{tokens} on ice", "<asset1> alone, no <asset2>"]},
    )
    prompts = module(folder).eval_sets["prompts"]
    assert [prompts.caption(i).text for i in range(len(prompts))] == [
        "<asset0> on ice",
        "<asset1> on ice",
        "<asset0> and <asset1> on ice",
        "<asset1> alone, no <asset2>",
    ]
    assert [int(prompts.pixels(i)[0, -1, -1]) for i in range(4)] == [0, 20, 20, 20], (
        "the first image with the most of its subjects"
    )
    assert [[p[:3] for p in prompts.phrases(i)] for i in (2, 3)] == [
        [("<asset0>", 0, 8), ("<asset1>", 13, 21)],
        [("<asset1>", 0, 8)],
    ]


def test_subjects_of_prompts_are_objects_with_masks_and_boxes(tmp_path: Path):
    folder = write(
        tmp_path,
        (0, 1),
        said={
            "subjects": [
                {"token": "<asset0>", "class": "dog", "color": "red"},
                {"token": "<asset1>"},
            ]
        },
    )
    Image.fromarray(band(1) // 4).save(folder / "mask1.png")
    dog, other = module(folder).eval_sets["prompts"].instances(2)
    assert (dog.label, dog.color, dog.box) == ("dog", "red", (0, 0, 8, 1))
    assert (other.label, other.color, other.box) == ("<asset1>", None, (0, 1, 8, 2))
    assert torch.equal(dog.mask, torch.from_numpy(band(0) > 0)) and torch.equal(
        other.mask, torch.from_numpy(band(1) > 0)
    )


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path):
    folder = write(tmp_path / "scene", (0, 1))
    with pytest.raises(ValueError, match="3 training samples make no batch of 4"):
        module(folder, batch=4, length=3).train_dataloader()
    with pytest.raises(ValueError, match="masks of 2 subjects, but 1 token"):
        module(folder, tokens=["<a>"])
