"""What datasets of captioned images share: crops, seeded captions and flips, latents, masks that
vanish, files that break late."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.coco_files import (
    listed,
    objects,
    picture,
    rectangle,
    write_captions,
    write_coco,
    write_instances,
)
from PIL import Image
from torch.utils.data import DataLoader

from datamodules import CocoDataModule
from datamodules.batch import collate
from datamodules.captioned import SIDES
from datamodules.coco import CocoDataset
from datamodules.crop import Crop, shrink, vanished
from datamodules.formats.index import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images with a dog in the dark left half; five captions each, of which one has a side in
    it."""
    folder, images = tmp_path_factory.mktemp("coco"), listed(range(40))
    for image in images:
        picture(folder / "val2017" / image["file_name"])
    texts = ["a dog", "the dog", "a dog Left of a tree", "dog"]
    captions = [
        {"id": k, "image_id": i["id"], "caption": text}
        for k, (i, text) in enumerate((i, t) for i in images for t in texts)
    ]
    write_captions(folder / "annotations", "val2017", images, 0, captions)
    dogs = [
        objects(i["id"], segmentation=rectangle(16, 0, 32, 32), bbox=[16, 0, 32, 32])
        for i in images
    ]
    write_instances(folder / "annotations", "val2017", images, dogs)
    return folder


def opened(root: Path, **more: Any) -> CocoDataset:
    dataset = CocoDataset(root, "val2017", 32, train=True, flip=True, seed=3, **more)
    dataset.with_phrases = True
    return dataset


def test_half_of_the_samples_are_mirrored_masks_and_boxes_too(root: Path):
    dataset = opened(root)
    seen = []
    for epoch in range(6):
        dataset.epoch = epoch
        for i in range(len(dataset)):
            sample, flipped = dataset[i], dataset.flipped(i)
            (phrase,) = sample["phrases"]
            assert torch.equal(phrase.mask[:16], sample["image"][0, :16] < 0), (
                "the mask lies on the dark half, wherever that is"
            )
            assert bool(sample["image"][0, 0, 0] > 0) == flipped and torch.equal(
                sample["image"], dataset.image(i, flipped)
            )
            if "Left" in sample["caption"]:
                assert not flipped
            else:
                seen.append(flipped)
    assert len(seen) > 120 and 0.4 < np.mean(seen) < 0.6
    assert torch.equal(dataset.pixels(0, flipped=True), dataset.pixels(0).flip(-1))
    boxes = [dataset.instances(0, flipped)[0].box for flipped in (False, True)]
    assert boxes == [(0, 0, 16, 16), (16, 0, 32, 16)]


def test_flips_follow_from_seed_epoch_and_id_and_leave_captions_alone(root: Path):
    one, other, plain = (
        opened(root),
        opened(root),
        CocoDataset(root, "val2017", 32, train=True, seed=3),
    )
    flips = [one.flipped(i) for i in range(40)]
    assert flips == [other.flipped(i) for i in range(40)] and not any(
        plain.flipped(i) for i in range(40)
    )
    assert [one[i]["caption"] for i in range(40)] == [plain[i]["caption"] for i in range(40)]
    other.epoch = 1
    assert flips != [other.flipped(i) for i in range(40)]
    other.epoch, other.seed = 0, 4
    assert flips != [other.flipped(i) for i in range(40)]
    evaluation = CocoDataset(root, "val2017", 32, flip=True)
    assert not any(evaluation.flipped(i) for i in range(40)) and {
        evaluation.caption(i).text for i in range(40)
    } == {"a dog"}


def test_captions_are_those_of_the_generator_that_they_always_had(root: Path):
    dataset = opened(root)
    dataset.epoch = 5
    for i in range(40):
        drawn = np.random.Generator(np.random.PCG64([3, 5, i])).integers(4)
        assert dataset.caption(i) == dataset.records[i].captions[drawn]


def test_latents_are_mirrored_where_flips_are_stored_and_else_nothing_is(root: Path):
    dataset = opened(root)
    flips = [dataset.flipped(i) for i in range(40)]
    dataset.latents = torch.arange(80.0).view(40, 2, 1, 1, 1)
    assert [int(dataset[i]["latent"]) for i in range(40)] == [
        2 * i + flipped for i, flipped in enumerate(flips)
    ] and any(flips)
    dataset.latents = torch.arange(40.0).view(40, 1, 1, 1)
    for i in range(40):
        sample = dataset[i]
        assert int(sample["latent"]) == i and sample["latent"].shape == (1, 1, 1)
        assert sample["phrases"][0].mask[0, 0] and not sample["phrases"][0].mask[0, -1], (
            "masks stay with the latent"
        )


@pytest.mark.slow
def test_worker_processes_give_the_same_samples(root: Path):
    dataset = opened(root)
    here = [dataset[i] for i in range(40)]
    batches = list(
        DataLoader(dataset, 8, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
    )
    assert [c for b in batches for c in b.captions] == [s["caption"] for s in here]
    assert torch.equal(
        torch.cat([b.images for b in batches]), torch.stack([s["image"] for s in here])
    )
    assert dataset.records.folder.is_dir(), "a worker's end leaves the index"
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000 and torch.equal(pickle.loads(sent)[7]["image"], here[7]["image"])


@pytest.fixture
def breaking(tmp_path: Path) -> Path:
    """Four images, of which those of ids 1 and 2 break after they were indexed."""
    return write_coco(tmp_path, "val2017", range(4))


def damage(root: Path) -> None:
    (root / "val2017" / f"{1:012d}.jpg").write_bytes(b"\xff\xd8 nothing")
    (root / "val2017" / f"{2:012d}.jpg").unlink()


def test_the_next_good_image_stands_in_for_one_that_breaks_late(breaking: Path):
    dataset = CocoDataset(breaking, "val2017", 32, train=True)
    damage(breaking)
    with pytest.warns(UserWarning) as caught:
        samples = [dataset[i] for i in (0, 1, 2, 3, 1)]
    assert [s["id"] for s in samples] == [0, 3, 3, 3, 3] and samples[1]["caption"] == samples[3][
        "caption"
    ]
    said = [str(w.message) for w in caught]
    assert len(said) == 2 and all("the next image replaces it" in text for text in said), (
        "once for each file"
    )
    assert "000000000001.jpg: image cannot be decoded" in said[0] and "000000000002.jpg" in said[1]
    for i in (0, 3):
        (breaking / "val2017" / f"{i:012d}.jpg").unlink()
    with (
        pytest.raises(DataError, match=("none of 4 images of split 'val2017' can be decoded")),
        pytest.warns(UserWarning),
    ):
        dataset[0]


@pytest.mark.parametrize("how", [{"train": True, "on_error": "raise"}, {"train": False}])
def test_nothing_stands_in_where_that_would_be_wrong(breaking: Path, how: dict[str, Any]):
    dataset = CocoDataset(breaking, "val2017", 32, **how)
    damage(breaking)
    with pytest.raises(
        DataError,
        match=(
            r"000000000001.jpg: image cannot be decoded .*replace "
            r"or delete it; verify=full finds all"
        ),
    ):
        dataset[1]


def test_an_image_that_was_replaced_by_one_of_another_size_is_noticed(breaking: Path):
    dataset = CocoDataset(breaking, "val2017", 32)
    picture(breaking / "val2017" / f"{1:012d}.jpg", size=(60, 90))
    with pytest.raises(
        DataError, match=(r"now \(60, 90\), \(96, 64\) when " r"it was indexed: start again")
    ):
        dataset.pixels(1)


def test_small_objects_vanish_or_not_and_are_counted(tmp_path: Path):
    images = listed([1])
    picture(tmp_path / "val2017" / images[0]["file_name"])
    write_captions(tmp_path / "annotations", "val2017", images)
    things = [
        rectangle(0, 0, 10, 10),
        rectangle(20, 5, 40, 40),
        rectangle(40, 30, 6, 6),
        rectangle(60, 50, 1, 1),
    ]
    write_instances(
        tmp_path / "annotations",
        "val2017",
        images,
        [objects(1, segmentation=t, bbox=None) for t in things],
    )
    half, any_ = (CocoDataset(tmp_path, "val2017", 32, mask_share=share) for share in (0.5, 0.0))
    assert len(half.instances(0)) == 2 and len(any_.instances(0)) == 3, (
        "one pixel is a quarter of its location"
    )
    assert (
        vanished(half, [32])[32]
        == {"objects": 4, "empty": 0, "outside": 1, "vanished": 1}
        == vanished(half, [32, 16], [0])[16]
    )
    assert (
        vanished(half, [4], rows=[0])[4] == {"objects": 4, "empty": 0, "outside": 1, "vanished": 2}
        and vanished(half, [4], rows=[])[4]["objects"] == 0
    )
    assert all(lost["vanished"] == 0 for lost in vanished(any_, (32, 8, 4)).values())
    with pytest.raises(
        ValueError, match=("data.mask_share=1.5: expected a share of a pixel, from 0")
    ):
        CocoDataset(tmp_path, "val2017", 32, mask_share=1.5)


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("a dog left of a cat", True),
        ("The RIGHT one", True),
        ("the rightmost dog", True),
        ("on the left-hand side", True),
        ("a bright dog", False),
        ("leftover pizza", False),
        ("a dog", False),
    ],
)
def test_captions_that_name_a_side_are_known(caption: str, says: bool):
    assert bool(SIDES.search(caption)) == says


def test_masks_shrink_by_area():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:2, :2] = mask[4, 4] = mask[5, 4] = True
    assert shrink(mask, 4).nonzero().tolist() == [[0, 0], [2, 2]]
    assert shrink(mask, 4, 0.6).nonzero().tolist() == [[0, 0]] and shrink(
        mask, 2, 0
    ).nonzero().tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("seed", range(20))
def test_masks_shrink_to_the_bit_as_torch_does_it(seed: int):
    rng = np.random.default_rng(seed)
    for side in (1, 7, 16, 64, 100):
        height, width = rng.integers(1, 150, 2)
        mask = torch.zeros(height, width, dtype=torch.bool)
        y, x = rng.integers(height), rng.integers(width)
        mask[y : y + 1 + rng.integers(height), x : x + 1 + rng.integers(width)] = True
        mask &= torch.from_numpy(rng.random((height, width)) < rng.choice([0.5, 1]))
        covered = torch.nn.functional.interpolate(
            mask[None, None].float(), (side, side), mode="area"
        )[0, 0]
        for share in (0, 0.1, 1 / 3, 0.5, 1):
            expected = covered >= share if share else covered > 0
            assert torch.equal(shrink(mask, side, share), expected)


def test_a_crop_is_the_same_for_pixels_masks_and_boxes():
    values = np.zeros((48, 100, 3), np.uint8)
    values[8:24, 38:58] = 255
    for mirrored in (False, True):
        crop = Crop.centre(100, 48, 24, mirrored)
        pixels, mask, box = (
            crop.pixels(Image.fromarray(values)),
            crop.mask(values[..., 0] > 0),
            crop.box(38, 8, 58, 24),
        )
        assert mask is not None and box is not None
        x0, y0, x1, y1 = map(int, box)
        expected = torch.zeros(24, 24, dtype=torch.bool)
        expected[y0:y1, x0:x1] = True
        assert (x0, x1) == ((8, 18) if mirrored else (6, 16))
        assert torch.equal(mask, expected) and torch.equal(pixels[0] > 127, expected)
    assert (
        crop.mask(np.zeros((48, 100), bool)) is None
        and crop.box(0, 0, 26, 48) is None
        and crop.box(20, 40, 30, 60) == (22, 20, 24, 24)
    )


def test_order_and_captions_go_with_flips_and_epochs_through_the_module(root: Path):
    datamodule = CocoDataModule(root, 32, "val2017", (), batch=8, seed=3, flip=True)
    datamodule.setup()
    assert (
        datamodule.train_set.flip
        and datamodule.train_set.train
        and datamodule.manifest()["evaluation"] == {}
    )
    datamodule.trainer = SimpleNamespace(current_epoch=2, fit_loop=SimpleNamespace(batch_idx=-1))  # type: ignore[assignment]
    dataset = opened(root)
    dataset.epoch = 2
    place = {record.id: i for i, record in enumerate(dataset.records)}
    for batch in datamodule.train_dataloader():
        for i, name in enumerate(batch.ids):
            assert batch.images is not None and torch.equal(
                batch.images[i], dataset[place[name]]["image"]
            )
