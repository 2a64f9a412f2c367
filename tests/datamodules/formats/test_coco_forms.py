"""COCO's form under other names, with boxes alone, LVIS's and panoptic annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_files import CATEGORIES, HEIGHT, WIDTH, listed, objects, picture
from PIL import Image

from datamodules.coco import CocoDataset
from datamodules.formats.index import DataError

NAMES = [f"{i:012d}.jpg" for i in (1, 2)]


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def instances(annotations: list[dict], **more: object) -> dict:
    return {"images": listed([1, 2]), "annotations": annotations, "categories": CATEGORIES} | more


def pictures(folder: Path) -> None:
    for name in NAMES:
        picture(folder / name)


def open_split(root: Path, split: str = "mine", **options) -> CocoDataset:
    return CocoDataset(root, split, 64, **options)


def test_a_file_of_another_name_can_be_named(tmp_path: Path):
    pictures(tmp_path / "images")
    captioned = [{"id": 5, "image_id": i, "caption": "a dog"} for i in (1, 2)]
    write(tmp_path / "val_instances_default.json", instances([objects(1), *captioned]))
    with pytest.raises(DataError, match="holds no COCO dataset"):
        open_split(tmp_path)
    dataset = open_split(tmp_path, annotations="{split}_instances_default.json", split="val")
    assert dataset.manifest["layout"] == "named" and len(dataset) == 2
    assert [phrase.text for phrase in dataset.phrases(0)] == ["dog"]
    assert len(open_split(tmp_path, annotations="val_instances_default.json")) == 2
    with pytest.raises(DataError, match="data.annotations=no.json: there is no .*no.json; found v"):
        open_split(tmp_path, annotations="no.json")


@pytest.mark.parametrize("segmentation", [[], None])
def test_boxes_are_masks_where_somebody_says_so(tmp_path: Path, segmentation: object):
    pictures(tmp_path / "train")
    one = objects(1) | {"segmentation": segmentation}
    other = objects(2, key=2) | {"segmentation": segmentation, "bbox": [0, 0, 0, 5]}
    write(tmp_path / "train" / "_annotations.coco.json", instances([one, other]))
    without = open_split(tmp_path, "train")
    assert without.instances(0) == []
    assert without.manifest["problems"]["no mask"]["count"] == 2
    assert "set data.boxes=masks" in without.manifest["lack"]["cure"]
    dataset = open_split(tmp_path, "train", boxes="masks")
    (dog,) = dataset.instances(0)
    # x from 40 - 16 on in the crop, 16 wide and 24 high
    assert dog.mask[16:40, 24:40].all() and int(dog.mask.sum()) == 16 * 24
    assert dataset.manifest["boxes_as_masks"] == 1
    assert dataset.manifest["problems"]["no mask"]["count"] == 1
    assert dataset.content_digest(None) != without.content_digest(None)


def test_masks_go_before_boxes(tmp_path: Path):
    pictures(tmp_path / "train")
    write(tmp_path / "train" / "_annotations.coco.json", instances([objects(1)]))
    plain, boxed = open_split(tmp_path, "train"), open_split(tmp_path, "train", boxes="masks")
    assert plain.instances(0)[0].mask.equal(boxed.instances(0)[0].mask)
    assert "boxes_as_masks" not in boxed.manifest


def test_lvis_names_images_by_their_addresses(tmp_path: Path):
    pictures(tmp_path / "train2017")
    images = [
        {"id": i, "coco_url": f"http://images/train2017/{name}", "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(NAMES, 1)
    ]
    annotation = objects(1)
    del annotation["iscrowd"]
    write(tmp_path / "lvis_v1_train.json", instances([annotation], images=images))
    dataset = open_split(tmp_path, "train")
    assert [thing.label for thing in dataset.instances(0)] == ["dog"]
    assert dataset.caption(0).text == "a photo of a dog"


def panoptic(root: Path) -> Path:
    """A dog, a person that is a crowd, and grass."""
    pictures(root / "val2017")
    plane = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    plane[16:40, 40:56] = (1, 2, 0)  # 1 + 2 * 256
    plane[40:, :] = (7, 0, 1)
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    Image.fromarray(plane).save(folder / "000000000001.png")
    segments = [
        {"id": 513, "category_id": 18, "iscrowd": 0, "bbox": [40, 16, 16, 24], "area": 384},
        {"id": 9, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 5, 5], "area": 9},
        {"id": 65543, "category_id": 200, "iscrowd": 0, "bbox": [0, 40, 96, 24], "area": 9},
    ]
    content = {
        "images": listed([1, 2]),
        "annotations": [
            {"image_id": 1, "file_name": "000000000001.png", "segments_info": segments}
        ],
        "categories": [
            *({"isthing": 1} | one for one in CATEGORIES),
            {"id": 200, "name": "grass-merged", "isthing": 0},
        ],
    }
    captions = [{"id": i, "image_id": i, "caption": "a dog on grass"} for i in (1, 2)]
    write(
        root / "annotations" / "captions_val2017.json",
        {"images": listed([1, 2]), "annotations": captions},
    )
    return write(root / "annotations" / "panoptic_val2017.json", content)


def test_things_of_panoptic_annotations_have_masks(tmp_path: Path):
    panoptic(tmp_path)
    dataset = open_split(tmp_path, "val2017")
    (dog,) = dataset.instances(0)
    assert dog.label == "dog" and dog.mask[16:40, 24:40].all() and int(dog.mask.sum()) == 384
    assert dataset.instances(1) == [] and dataset.manifest["crowds"] == 1
    assert dataset.categories == ["person", "dog", "toothbrush"]
    assert "segments of stuff, not of things, are left out: 1" in dataset.manifest["notes"]
    assert [phrase.text for phrase in dataset.phrases(0)] == ["dog"]


def test_panoptic_masks_that_are_not_there_are_told(tmp_path: Path):
    path = panoptic(tmp_path)
    plane = tmp_path / "annotations" / "panoptic_val2017" / "000000000001.png"
    plane.write_bytes(b"no image")
    problems = open_split(tmp_path, "val2017").manifest["problems"]
    assert problems["mask that cannot be read"]["count"] == 1
    plane.unlink()
    plane.parent.rmdir()
    with pytest.raises(DataError, match="its masks are not in .*: unpack panoptic_val2017.zip"):
        open_split(tmp_path, "val2017")
    path.write_text("{}")
    with pytest.raises(DataError, match="panoptic_val2017.json: no panoptic annotations"):
        open_split(tmp_path, "val2017")
