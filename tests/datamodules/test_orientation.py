"""Pictures with an EXIF orientation: in each form, masks and boxes lie on what they are of, as they
are stored or as they are shown, and what cannot be told is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.coco_files import objects, write_captions, write_instances
from helpers.flickr_files import thing, write, write_boxes
from helpers.turned_files import SIZES, as_shown, bright, iou, write_picture
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules import CocoDataModule, Flickr30kDataModule, SceneDataModule
from datamodules.coco import CocoDataset
from datamodules.flickr30k import Flickr30kDataset
from datamodules.formats.images import check_image, decode_image, read_image
from datamodules.inspection import report

TURNS = range(1, 9)


def differ(turn: int, size: str) -> bool:
    """Whether the size tells stored from shown."""
    return turn >= 5 and size != "square"


# What is annotated, stored or shown pixels; shown ones only where the size says so
CASES = [
    (turn, size, way)
    for turn in TURNS
    for size in SIZES
    for way in ("stored", "shown")
    if way == "stored" or differ(turn, size)
]


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def polygon(mask: np.ndarray) -> list[list[float]]:
    x0, y0, x1, y1 = box_of(mask)
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def runs(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": list(mask.shape), "counts": np.diff([0, *edges, flat.size]).tolist()}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "polygon": polygon,
    "runs": runs,
    "compressed": compressed,
}


def write_coco(
    root: Path,
    mask: np.ndarray,
    form: str = "polygon",
    sized: bool = True,
    name: str = "1.png",
) -> Path:
    height, width = mask.shape
    size = {"width": width, "height": height} if sized else {}
    images = [{"id": 1, "file_name": name, **size}]
    x0, y0, x1, y1 = box_of(mask)
    things = [objects(1, segmentation=FORMS[form](mask), bbox=[x0, y0, x1 - x0, y1 - y0])]
    write_captions(root / "annotations", "val2017", images)
    write_instances(root / "annotations", "val2017", images, things)
    return root


def notes(dataset: Any) -> str:
    return " ".join(dataset.manifest["notes"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("turn", "name", "way"), CASES)
def test_masks_in_coco_form(tmp_path: Path, turn: int, name: str, way: str, form: str):
    stored = bright(SIZES[name])
    mask = stored if way == "stored" else as_shown(stored, turn)
    write_picture(tmp_path / "val2017" / "1.png", SIZES[name], turn)
    for resolution in (64, 32):
        dataset = CocoDataset(write_coco(tmp_path, mask, form), "val2017", resolution)
        for flipped in (False, True):
            (thing,) = dataset.instances(0, flipped)
            assert iou(thing.mask, dataset.pixels(0, flipped)) == 1
            assert thing.box == box_of(thing.mask.numpy())
    record = dataset.records[0]
    assert (record.height, record.width) == mask.shape and not dataset.manifest["problems"]
    assert record.as_stored == (turn > 1 and way == "stored")
    said = notes(dataset)
    assert ("does not tell" in said) == (turn > 1 and not differ(turn, name))
    assert ("of the size without it" in said) == (way == "stored" and differ(turn, name))


@pytest.mark.parametrize(("turn", "name", "way"), CASES)
def test_without_a_size_run_lengths_say_it_and_polygons_are_of_stored_pixels(
    tmp_path: Path, turn: int, name: str, way: str
):
    stored = bright(SIZES[name])
    write_picture(tmp_path / "val2017" / "1.png", SIZES[name], turn)
    mask = as_shown(stored, turn) if way == "shown" and differ(turn, name) else stored
    for form in ("runs", "polygon"):
        if form == "polygon":
            mask = stored
        dataset = CocoDataset(write_coco(tmp_path, mask, form, sized=False), "val2017", 64)
        (thing,) = dataset.instances(0)
        assert iou(thing.mask, dataset.pixels(0)) == 1


@pytest.mark.parametrize("turn", TURNS)
def test_without_masks_an_image_is_read_as_it_is_shown(tmp_path: Path, turn: int):
    stored = bright(SIZES["wide"])
    write_picture(tmp_path / "val2017" / "1.png", SIZES["wide"], turn)
    write_coco(tmp_path, stored)
    write_instances(tmp_path / "annotations", "val2017", [], [])
    dataset = CocoDataset(tmp_path, "val2017", 64)
    shown = as_shown(stored, turn)
    record = dataset.records[0]
    assert (record.height, record.width) == shown.shape and not notes(dataset)
    assert box_of((dataset.pixels(0)[0] > 127).numpy()) == box_of(as_shown(stored[:, 16:80], turn))


@pytest.mark.parametrize(("turn", "name", "way"), CASES)
def test_boxes_of_entities(tmp_path: Path, turn: int, name: str, way: str):
    stored = bright(SIZES[name])
    mask = stored if way == "stored" else as_shown(stored, turn)
    write_picture(tmp_path / "flickr30k-images" / "7.jpg", SIZES[name], turn, quality=95)
    write(tmp_path / "Sentences" / "7.txt", ["[/EN#1/people A man] runs ."])
    x0, y0, x1, y1 = box_of(mask)
    box = thing(1, box=(x0 + 1, y0 + 1, x1, y1))
    write_boxes(tmp_path / "Annotations", "7", box, mask.shape[::-1])
    dataset = Flickr30kDataset(tmp_path, "all", 64, split_by="all")
    for flipped in (False, True):
        (phrase,) = dataset.phrases(0, flipped)
        assert iou(phrase.mask, dataset.pixels(0, flipped)) == 1
    assert bool(notes(dataset)) == (turn > 1 and way == "stored")
    assert not dataset.manifest["problems"]


def test_boxes_of_an_image_that_was_made_smaller_follow_its_shape(tmp_path: Path):
    write_picture(tmp_path / "flickr30k-images" / "7.png", (96, 64), 6)
    write(tmp_path / "Sentences" / "7.txt", ["[/EN#1/people A man] runs ."])
    shown = as_shown(bright((96, 64)), 6)
    x0, y0, x1, y1 = (2 * side for side in box_of(shown))
    write_boxes(tmp_path / "Annotations", "7", thing(1, box=(x0 + 1, y0 + 1, x1, y1)), (128, 192))
    dataset = Flickr30kDataset(tmp_path, "all", 64, split_by="all")
    (phrase,) = dataset.phrases(0)
    assert iou(phrase.mask, dataset.pixels(0)) == 1 and not dataset.records[0].as_stored


def scene(folder: Path, name: str, turn: int, mask: np.ndarray, own: int = 1) -> SceneDataModule:
    """A scene of one image and one mask of the orientation ``own``."""
    write_picture(folder / "img.png", SIZES[name], turn)
    exif = Image.Exif()
    exif[0x0112] = own
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask0.png", exif=exif)
    module = SceneDataModule(folder, 64, flip=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.setup()
    (view,) = module.train_set.views
    assert iou(view.masks[0], view.pixels) == 1
    return module


@pytest.mark.parametrize(("turn", "name", "way"), CASES)
def test_masks_of_a_scene_go_by_size(tmp_path: Path, turn: int, name: str, way: str):
    stored = bright(SIZES[name])
    mask = stored if way == "stored" else as_shown(stored, turn)
    said = " ".join(scene(tmp_path, name, turn, mask).notes)
    assert ("none is turned" in said) == (turn > 1 and not differ(turn, name))
    assert ("of the size without it" in said) == (way == "stored" and differ(turn, name))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("turn", TURNS)
def test_masks_of_a_scene_may_be_turned_themselves(tmp_path: Path, turn: int, name: str):
    stored = bright(SIZES[name])
    # By the same orientation as the image: all is as viewers show it
    module = scene(tmp_path / "same", name, turn, stored, turn)
    assert not module.notes
    shown = as_shown(stored, turn)
    if name == "square":
        assert np.array_equal((module.train_set.pixels(0)[0] > 127).numpy(), shown)
    # By one of their own, which makes them as large as the image, or which does not tell
    back = {6: 8, 8: 6}.get(turn, turn)
    own = as_shown(stored, back) if differ(turn, name) else stored
    notes = scene(tmp_path / "own", name, 1, own, turn).notes
    assert bool(notes) == (turn > 1 and not differ(turn, name))


def test_masks_of_a_scene_that_follow_different_ways_are_refused(tmp_path: Path):
    write_picture(tmp_path / "img.jpg", (96, 64), 6)
    for i, shape in enumerate([(64, 96), (96, 64)]):
        Image.fromarray(np.eye(*shape, dtype=np.uint8) * 255).save(tmp_path / f"mask{i}.png")
    with pytest.raises(
        ValueError,
        match=r"mask1.png has 64x96 pixels, img.jpg 96x64 \(turned by EXIF: 64x96\) pixels: a mask",
    ):
        SceneDataModule(tmp_path, 64).setup()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("turn", TURNS)
def test_a_tiff_is_turned_once(tmp_path: Path, turn: int, compression: str):
    path = write_picture(tmp_path / "val2017" / "1.tif", (96, 64), turn, compression=compression)
    stored = bright((96, 64))
    header = check_image(path)
    assert header == (96, 64, turn)
    for as_stored, mask in ((False, as_shown(stored, turn)), (True, stored)):
        image = read_image(path, as_stored)
        assert np.array_equal(np.asarray(image)[..., 0] > 127, mask)
    dataset = CocoDataset(write_coco(tmp_path, stored, name="1.tif"), "val2017", 64)
    assert iou(dataset.instances(0)[0].mask, dataset.pixels(0)) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("turn", TURNS)
def test_the_way_back_is_the_way_back(tmp_path: Path, turn: int, suffix: str):
    path = write_picture(tmp_path / f"a.{suffix}", (96, 64), turn)
    stored = bright((96, 64))
    for as_stored, mask in ((False, as_shown(stored, turn)), (True, stored)):
        image, _ = decode_image(path, as_stored)
        assert np.array_equal(np.asarray(image.convert("L")) > 127, mask)


def test_what_is_kept_of_images_depends_on_how_they_are_read(tmp_path: Path):
    stored = bright((64, 64))
    digests = []
    for i, turn in enumerate((1, 3)):
        root = write_coco(tmp_path / str(i), stored)
        path = write_picture(root / "val2017" / "1.png", (64, 64), turn)
        dataset = CocoDataset(root, "val2017", 64)
        plain = f"1 1.png {path.stat().st_size}"
        digests.append((dataset.digest(), plain, dataset.records.rows_as_stored()))
    assert [rows for *_, rows in digests] == [[], [0]]
    # The same image without masks, which is read as it is shown, has another digest
    write_instances(tmp_path / "1" / "annotations", "val2017", [], [])
    assert CocoDataset(tmp_path / "1", "val2017", 64).digest() != digests[1][0]


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[list[Any]]:
    """A DataModule of each kind whose images do not tell how they are turned."""
    stored = bright((64, 64))
    coco = write_coco(tmp_path / "coco", stored)
    write_picture(coco / "val2017" / "1.png", (64, 64), 3)
    flickr = tmp_path / "flickr"
    write_picture(flickr / "flickr30k-images" / "7.jpg", (64, 64), 3)
    write(flickr / "Sentences" / "7.txt", ["[/EN#1/people A man] runs ."])
    write_boxes(flickr / "Annotations", "7", thing(1, box=(1, 1, 9, 9)), (64, 64))
    scene = tmp_path / "scene"
    write_picture(scene / "img.jpg", (64, 64), 3)
    Image.fromarray(stored.astype(np.uint8) * 255).save(scene / "mask0.png")
    yield [
        CocoDataModule(coco, 64, "val2017", ()),
        Flickr30kDataModule(flickr, 64, "all", (), split_by="all"),
        SceneDataModule(scene, 64),
    ]


def test_what_is_not_told_by_the_files_is_told_to_a_person(modules: list[Any], tmp_path: Path):
    for module in modules:
        with pytest.warns(UserWarning, match=r"EXIF orientation"):
            module.setup()
        said: list[str] = []
        report(module, tmp_path / "out", 1, said.append)
        (line,) = [line for line in said if "EXIF" in line]
        assert line.strip().startswith("note: ")
        assert "EXIF" in " ".join(module.manifest()["notes"])
        assert torch.is_tensor(module.train_set.pixels(0))
