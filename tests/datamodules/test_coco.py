"""COCO layouts read back: pixels, captions, masks, order, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import CocoDataModule, ShapesDataModule
from datamodules.coco import CocoDataset
from datamodules.formats.index import DataError
from datamodules.loading import Order
from datamodules.shapes.captions import draw_captions, draw_prompt
from datamodules.shapes.rendering import render
from datamodules.shapes.scenes import sample_scene


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataModule:
    datamodule = ShapesDataModule(
        tmp_path_factory.mktemp("world"), train_images=24, eval_images=6, batch=4
    )
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def wide(root: Path, **extra: Any) -> Path:
    """One 96x64 image, blue in its middle square and red outside, with whatever ``extra`` the JSON
    files should hold."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[..., 0] = 255
    pixels[:, 16:80] = (0, 0, 255)
    (root / "odd").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "odd" / "COCO_odd_000007.png")
    images = [{"id": 42, "file_name": "COCO_odd_000007.png", "width": 96, "height": 64}]
    (root / "annotations").mkdir()
    caption = {"id": 1, "image_id": 42, "caption": "  a blue\n middle "}
    captions = {"images": images, "annotations": [caption]}
    (root / "annotations" / "captions_odd.json").write_text(json.dumps(captions))
    instances = {
        "images": images,
        "annotations": [],
        "categories": [{"id": 90, "name": "tooth brush"}],
    } | extra
    (root / "annotations" / "instances_odd.json").write_text(json.dumps(instances))
    return root


def annotation(segmentation: Any, **extra: Any) -> dict[str, Any]:
    base = {
        "id": 1,
        "image_id": 42,
        "category_id": 90,
        "segmentation": segmentation,
        "bbox": [40, 16, 16, 24],
        "iscrowd": 0,
    }
    return base | extra


RECTANGLE = torch.zeros(64, 64, dtype=torch.bool)
RECTANGLE[16:40, 24:40] = True  # columns 40 to 56 of the whole image, whose crop begins at 16


def test_images_captions_masks_and_colors_come_back_exactly(world: ShapesDataModule):
    for split, dataset in {"train": world.train_set, **world.eval_sets}.items():
        assert len(dataset) == (24 if split == "train" else 6)
        for index in range(len(dataset)):
            scene = sample_scene(split, index)
            pixels, masks = render(scene)
            assert torch.equal(dataset.pixels(index), torch.from_numpy(pixels).permute(2, 0, 1))
            captions = [(c.text, c.relation) for c in dataset.records[index].captions]
            assert captions == [c[:2] for c in draw_captions(split, index, scene)]
            found = dataset.instances(index)
            assert [(o.color, o.label) for o in found] == [(t.color, t.shape) for t in scene.things]
            for instance, thing, mask in zip(found, scene.things, masks, strict=True):
                assert torch.equal(instance.mask, torch.from_numpy(mask))
                assert instance.box == pytest.approx(thing.box, abs=0.02)


def test_images_are_scaled_to_plus_minus_one(world: ShapesDataModule):
    image, pixels = world.train_set.image(0), world.train_set.pixels(0)
    assert image.dtype == torch.float32 and image.shape == (3, 64, 64)
    assert torch.equal(((image + 1) * 127.5).round().to(torch.uint8), pixels)
    assert -1 <= float(image.min()) < 0 < float(image.max()) <= 1


def test_the_middle_square_is_read_by_file_name_and_the_caption_is_tidied(tmp_path: Path):
    dataset = CocoDataset(wide(tmp_path), "odd", 64)
    assert dataset[0]["id"] == 42 and dataset[0]["caption"] == "a blue middle"
    assert torch.equal(
        dataset.pixels(0),
        torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None].expand(3, 64, 64),
    )


def test_a_smaller_resolution_resizes_image_mask_and_box_alike(tmp_path: Path):
    polygon = [[40, 16, 56, 16, 56, 40, 40, 40]]
    dataset = CocoDataset(wide(tmp_path, annotations=[annotation(polygon)]), "odd", 32)
    (instance,) = dataset.instances(0)
    assert dataset.pixels(0).shape == (3, 32, 32)
    assert torch.equal(instance.mask, RECTANGLE[::2, ::2])
    assert instance.box == (12, 8, 20, 20)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[40, 16, 56, 16, 56, 40, 40, 40]],
        [[40, 16, 56, 16, 56, 28, 40, 28], [40, 28, 56, 28, 56, 40, 40, 40]],
        {"size": [64, 96], "counts": [40 * 64 + 16, *[24, 40] * 15, 24, 24 + 40 * 64]},
    ],
    ids=["polygon", "two polygons", "uncompressed RLE"],
)
def test_all_forms_of_masks(tmp_path: Path, segmentation: Any):
    (instance,) = CocoDataset(
        wide(tmp_path, annotations=[annotation(segmentation)]), "odd", 64
    ).instances(0)
    assert torch.equal(instance.mask, RECTANGLE)
    assert (
        instance.box == (24, 16, 40, 40)
        and instance.label == "tooth brush"
        and instance.color is None
    )


def test_crowds_are_left_out(tmp_path: Path):
    polygon = [[40, 16, 56, 16, 56, 40, 40, 40]]
    root = wide(tmp_path, annotations=[annotation(polygon, iscrowd=1), annotation(polygon, id=2)])
    assert len(CocoDataset(root, "odd", 64).instances(0)) == 1


def at(datamodule: CocoDataModule, epoch: int, batches: int = 0) -> list[tuple[int, str]]:
    """(id, caption) of what is left of an epoch of which ``batches`` are done, in order."""
    datamodule.trainer = SimpleNamespace(
        current_epoch=epoch, fit_loop=SimpleNamespace(batch_idx=batches - 1)
    )  # type: ignore[assignment]
    return [
        pair
        for batch in datamodule.train_dataloader()
        for pair in zip(batch.ids, batch.captions, strict=True)
    ]


def seeded(world: ShapesDataModule, seed: int) -> ShapesDataModule:
    datamodule = ShapesDataModule(world.root, 24, 6, batch=4, seed=seed)
    datamodule.setup()
    return datamodule


def test_a_seed_fixes_order_and_captions_over_epochs(world: ShapesDataModule):
    one, same, other = seeded(world, 1), seeded(world, 1), seeded(world, 2)
    for epoch in (0, 1, 7):
        assert at(one, epoch) == at(same, epoch)
        assert sorted(i for i, _ in at(one, epoch)) == list(range(24))
        assert [i for i, _ in at(one, epoch)] != [i for i, _ in at(other, epoch)]
        assert dict(at(one, epoch)) != dict(at(other, epoch)), (
            "captions are drawn anew for each seed"
        )
    assert [i for i, _ in at(one, 0)] != [i for i, _ in at(one, 1)]
    assert dict(at(one, 0)) != dict(at(one, 1)), "captions are drawn anew each epoch"


def test_without_a_trainer_the_first_epoch_is_read(world: ShapesDataModule):
    datamodule = seeded(world, 1)
    batch = next(iter(datamodule.train_dataloader()))
    assert list(zip(batch.ids, batch.captions, strict=True)) == at(seeded(world, 1), 0)[:4]
    assert (
        batch.images is not None
        and batch.images.shape == (4, 3, 64, 64)
        and batch.latents is None
        and len(batch) == 4
    )


def test_an_epoch_taken_up_again_goes_on_behind_what_was_done(world: ShapesDataModule):
    datamodule = seeded(world, 3)
    whole = at(datamodule, 2)
    assert at(datamodule, 2, batches=4) == whole[16:]
    assert len(datamodule.train_dataloader()) == 6, "Lightning counts the batches that came before"
    # A finished epoch's counter still stands when the next epoch's order is asked for.
    assert at(datamodule, 3, batches=6) == at(datamodule, 3)


def test_order_skips_and_keeps_its_length():
    assert (
        list(Order(9, 1, 0, skip=5)) == list(Order(9, 1, 0))[5:]
        and len(Order(9, 1, 0, skip=5)) == 9
    )


def test_evaluation_reads_the_first_caption(world: ShapesDataModule):
    dataset = world.eval_sets["val"]
    assert [dataset[i]["caption"] for i in range(6)] == [
        draw_prompt("val", i, sample_scene("val", i)).text for i in range(6)
    ]


def test_attached_latents_stand_in_for_images(world: ShapesDataModule):
    datamodule = seeded(world, 1)
    datamodule.train_set.latents = torch.arange(24.0).view(24, 1, 1, 1)
    datamodule.setup("fit")  # as the Trainer does
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.images is None and batch.latents is not None
    assert batch.latents.flatten().tolist() == batch.ids


def test_digest_changes_with_images_resolution_and_number(world: ShapesDataModule, tmp_path: Path):
    ways = (("val", 64, 6), ("val", 32, 6), ("val", 64, 5), ("heldout", 64, 6))
    digests = {CocoDataset(world.root, *way).digest() for way in ways}
    assert len(digests) == 4
    assert CocoDataset(world.root, "val", 64, 6).digest() in digests


def test_what_is_missing_is_named(tmp_path: Path, world: ShapesDataModule):
    with pytest.raises(
        DataError,
        match=(r"data\.root=.*nowhere is no folder.*coco: " r"annotations/captions_<split>"),
    ):
        CocoDataModule(tmp_path / "nowhere", 64, "val2017").setup()
    (tmp_path / "bare").mkdir()
    with pytest.raises(
        DataError,
        match=("no COCO dataset: looked for .*captions_bare.json.*only the folders bare"),
    ):
        CocoDataset(tmp_path, "bare", 64)
    root = wide(tmp_path / "x")
    (root / "annotations" / "captions_odd.json").unlink()
    with pytest.raises(
        DataError, match=("split 'odd' .* has no image with a caption: 1 listed, 1 of them without")
    ):
        CocoDataset(root, "odd", 64)
    few = ShapesDataModule(world.root, 24, 6, batch=25)
    few.setup()
    with pytest.raises(ValueError, match="24 training samples make no batch of 25"):
        few.train_dataloader()
