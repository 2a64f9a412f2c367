"""The traps inside COCO's annotation files and images: each is read right, or left out, counted and
named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.coco_files import (
    WIDTH,
    listed,
    objects,
    picture,
    rectangle,
    write_captions,
    write_coco,
    write_instances,
)
from pycocotools import mask as coco_mask

from datamodules import CocoDataModule
from datamodules.coco import CocoDataset
from datamodules.formats.index import DataError
from datamodules.formats.masks import _runs, usable

WHOLE = np.zeros((64, 96), np.uint8)
WHOLE[16:40, 40:56] = 1
COUNTS = [40 * 64 + 16, *[24, 40] * 15, 24, 24 + 40 * 64]
COMPRESSED = coco_mask.encode(np.asfortranarray(WHOLE))
TEXT = {"size": [64, 96], "counts": COMPRESSED["counts"].decode()}
RECTANGLE = torch.from_numpy(WHOLE[:, 16:80] > 0)


def dataset(
    root: Path, annotations: list[dict[str, Any]], ids: Sequence[int] = (1,), **more: Any
) -> CocoDataset:
    images = listed(list(ids))
    for image in images:
        picture(root / "val2017" / image["file_name"])
    write_captions(root / "annotations", "val2017", images)
    write_instances(root / "annotations", "val2017", images, annotations)
    return CocoDataset(root, "val2017", 64, **more)


def refused(tmp_path: Path, **more: Any) -> str:
    """What is said when the same is opened with on_error=raise."""
    with pytest.raises(DataError) as error:
        CocoDataset(tmp_path, "val2017", 64, on_error="raise", **more)
    return str(error.value)


@pytest.mark.parametrize(
    "segmentation",
    [
        rectangle(40, 16, 16, 24),
        rectangle(40, 16, 16, 24)[0],
        rectangle(40, 16, 16, 12) + rectangle(40, 28, 16, 12),
        rectangle(40, 16, 16, 24) + [[1, 2], [3, 4, 5, 6]],
        {"size": [64, 96], "counts": COUNTS},
        TEXT,
    ],
    ids=["polygon", "flat polygon", "two parts", "stray parts", "uncompressed", "compressed"],
)
def test_masks_in_every_form(tmp_path: Path, segmentation: Any):
    (found,) = dataset(tmp_path, [objects(1, segmentation=segmentation)]).instances(0)
    assert (
        torch.equal(found.mask, RECTANGLE)
        and found.box == (24, 16, 40, 40)
        and found.label == "dog"
    )


@pytest.mark.parametrize(
    ("crowd", "kept"),
    [
        ({"iscrowd": 1}, 0),
        ({"is_crowd": 1}, 0),
        ({"is_crowd": True}, 0),
        ({"iscrowd": 0}, 1),
        ({"is_crowd": 0}, 1),
        ({}, 1),
    ],
)
def test_crowds_are_left_out_by_either_key(tmp_path: Path, crowd: dict[str, Any], kept: int):
    annotation = {k: v for k, v in objects(1).items() if k != "iscrowd"} | crowd
    found = dataset(tmp_path, [annotation])
    assert (
        len(found.instances(0)) == kept
        and found.manifest["crowds"] == 1 - kept
        and not found.manifest["problems"]
    )


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([], "no mask"),
        (None, "no mask"),
        ([[1, 2, 3, 4]], "degenerate polygon"),
        ([[1, 2], [9, 2], [9, 9]], "polygon of points [[x, y], …], expected [[x, y, x, y, …]]"),
        ([[[1, 2], [9, 2], [9, 9]]], "polygon of points [[x, y], …], expected [[x, y, x, y, …]]"),
        ([[1, 2, 3, 4, 5, float("nan")]], "degenerate polygon"),
        ([[1, 2, 3, 4, 5, 6, 7]], "degenerate polygon"),
        ([["1", "2", "3", "4", "5", "6"]], "degenerate polygon"),
        ([[1, 2, 3, 4, 5, float("inf")]], "degenerate polygon"),
        ([[10, 10, 50, 10, 30, 10]], "polygon without area"),
        ([[10, 10, 10, 10, 10, 10]], "polygon without area"),
        ([[10.1, 10.1, 20.2, 20.2, 30.3, 30.3]], "polygon without area"),
        ([[10, 10, 50, 10, 30, 10], [5, 5, 5, 9, 5, 40]], "polygon without area"),
        ([[n for i in [*range(9, 40), *range(40, 9, -1)] for n in (i, i)]], "polygon without area"),
        ([[10.1, 10.1, 10.2, 10.1, 10.2, 10.2]], "polygon without a pixel of the image"),
        ([[90, -50, 200, 30, 200, -50]], "polygon without a pixel of the image"),
        ([[10, 10, 1e300, 10, 30, 40]], "polygon far outside the image"),
        ([[-1e9, 10, 50, 10, 30, 40]], "polygon far outside the image"),
        (rectangle(100, 10, 20, 20), "polygon outside the image"),
        ([[0.4, 0.2, 0.6, 0.2, 0.6, 0.7]], "polygon in fractions of the image, not in pixels"),
        ({"size": [64, 96], "counts": [64 * 96]}, "empty mask"),
        ({"size": [64, 96], "counts": [5, 5]}, "broken mask"),
        ({"size": [96, 64], "counts": COUNTS}, "mask of another size"),
        ({"size": [64, 96], "counts": "zzzz~~"}, "broken mask"),
        ({"size": [64, 96], "counts": TEXT["counts"][:-3]}, "broken mask"),
        ({"size": [64, 96], "counts": ""}, "broken mask"),
        ({"size": [64, 96], "counts": "é"}, "broken mask"),
        ({"size": [64, 96], "counts": 5}, "no mask"),
        ({"counts": COUNTS}, "mask of another size"),
    ],
    ids=str,
)
def test_masks_that_are_none_are_left_out(tmp_path: Path, segmentation: Any, kind: str):
    bad = objects(1, key=77) | {"segmentation": segmentation}
    found = dataset(tmp_path, [bad, objects(1, key=78)])
    assert [o.label for o in found.instances(0)] == ["dog"]
    path = tmp_path / "val2017" / "000000000001.jpg"
    detail = "image 1, annotation 77"
    if kind == "mask of another size":
        detail += f" of {segmentation.get('size')}, expected [64, 96]"
    assert found.manifest["problems"] == {kind: {"count": 1, "examples": [f"{path}: {detail}"]}}
    assert refused(tmp_path) == f"{path}: {kind}: {detail}"


def test_annotations_that_point_nowhere_are_left_out(tmp_path: Path):
    found = dataset(tmp_path, [objects(5, key=1), objects(1, 2, key=2), objects(1, 90, key=3)])
    path = tmp_path / "annotations" / "instances_val2017.json"
    assert [o.label for o in found.instances(0)] == ["toothbrush"]
    assert found.manifest["problems"] == {
        "annotation of no image": {"count": 1, "examples": [f"{path}: annotation 1 names image 5"]},
        "unknown category": {"count": 1, "examples": [f"{path}: annotation 2 names category 2"]},
    }
    assert refused(tmp_path) == f"{path}: annotation of no image: annotation 1 names image 5"


@pytest.mark.parametrize(
    "entry", [{"id": 18, "name": None}, {"id": 18, "name": 7}, {"id": 18, "name": " "}, "two names"]
)
def test_categories_without_one_name_are_unknown(tmp_path: Path, entry: Any):
    dataset(tmp_path, [objects(1, 18, key=1), objects(1, 90, key=2)])
    path = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    dog = next(one for one in content["categories"] if one["id"] == 18)
    if entry == "two names":
        content["categories"].append(dog | {"name": "cat"})
    else:
        dog |= entry
    path.write_text(json.dumps(content))
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [o.label for o in found.instances(0)] == ["toothbrush"]
    detail = f"{path}: annotation 1 names category 18"
    detail += ", which is cat and dog" if entry == "two names" else ""
    assert found.manifest["problems"] == {"unknown category": {"count": 1, "examples": [detail]}}


def test_captions_are_tidied_blank_ones_left_out_and_any_number_is_read(tmp_path: Path):
    dataset(tmp_path, [], [1, 2, 3])
    # Captions and instances count their annotations apart: an id may be given twice.
    more = [
        {"id": 0, "image_id": 1, "caption": c} for c in (" Two\r\ndogs \t run. ", " \n", None)
    ] + [{"id": 7, "image_id": 8, "caption": "of nothing"}]
    path = write_captions(
        tmp_path / "annotations", "val2017", listed([1, 2, 3])[:2], each=7, more=more
    )
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [r.id for r in found.records] == [1, 2] and found.manifest["without_caption"] == 1
    assert (
        len(found.records[0].captions) == 8
        and found.records[0].captions[7].text == "Two dogs run."
        and found.instances(0) == []
    )
    assert found.manifest["problems"]["blank caption"] == {
        "count": 2,
        "examples": [f"{path}: annotation 0"] * 2,
    }
    assert found.manifest["problems"]["annotation of no image"]["count"] == 1


def test_captions_that_are_no_text_are_told_with_what_they_are(tmp_path: Path):
    dataset(tmp_path, [], [1, 2])
    more = [{"id": i, "image_id": 1, "caption": c} for i, c in enumerate((5, ["a dog"]), 90)]
    path = write_captions(tmp_path / "annotations", "val2017", listed([1, 2]), more=more)
    problems = CocoDataset(tmp_path, "val2017", 64).manifest["problems"]
    assert problems == {
        "caption that is no text": {
            "count": 2,
            "examples": [f"{path}: annotation 90: 5", f"{path}: annotation 91: ['a dog']"],
        }
    }


def test_images_that_cannot_be_used_are_left_out_counted_and_named(tmp_path: Path):
    dataset(tmp_path, [], [1, 2, 3, 4, 5])
    paths = {i: tmp_path / "val2017" / f"{i:012d}.jpg" for i in range(1, 6)}
    paths[1].unlink()
    paths[2].write_bytes(paths[3].read_bytes()[:-30])
    paths[4].write_bytes(b"")
    picture(tmp_path / "val2017" / "999.jpg")  # on disk, and listed nowhere
    with pytest.warns(
        UserWarning,
        match=(
            r"split 'val2017': missing 1 \(first: .*000000000001.jpg\); " r"truncated 1 .*; empty 1"
        ),
    ):
        datamodule = CocoDataModule(tmp_path, 64, "val2017", ())
        datamodule.setup()
    found = datamodule.train_set
    assert (
        [r.id for r in found.records] == [3, 5]
        and found.manifest["listed"] == 5
        and found.manifest["images"] == 2
    )
    problems = json.loads(json.dumps(datamodule.manifest()))["train"]["problems"]
    assert {kind: (p["count"], p["examples"][0].split(":")[0]) for kind, p in problems.items()} == {
        "missing": (1, str(paths[1])),
        "truncated": (1, str(paths[2])),
        "empty": (1, str(paths[4])),
    }
    assert refused(tmp_path) == f"{paths[1]}: missing"
    for i in (3, 5):
        paths[i].unlink()
    with pytest.raises(
        DataError,
        match=(r"has no image with a caption: 5 listed, 0 of them without; missing 3 .*val2017"),
    ):
        CocoDataset(tmp_path, "val2017", 64)


@pytest.mark.parametrize("seed", range(20))
def test_compressed_runs_are_read_as_they_were_written(seed: int):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((8, 6)) < 0.3, np.ones((40, 90), bool)) ^ (
        rng.random((320, 540)) < 0.02 * (seed % 3)
    )
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat = mask.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    assert _runs(text) == ([0] if flat[0] else []) + runs


def test_entries_without_id_or_name_or_with_an_id_twice(tmp_path: Path):
    images = listed([1, 2])
    for image in images:
        picture(tmp_path / "val2017" / image["file_name"])
    odd = [
        {"id": None, "file_name": "x.jpg"},
        {"id": 3},
        {"id": 1, "file_name": "000000000002.jpg"},
    ]
    path = write_captions(tmp_path / "annotations", "val2017", images)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"images": [*images, *odd, images[0]]}))
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [(r.id, r.path.name) for r in found.records] == [
        (1, "000000000001.jpg"),
        (2, "000000000002.jpg"),
    ]
    assert {kind: p["count"] for kind, p in found.manifest["problems"].items()} == {
        "image without id or file name": 2,
        "id given twice": 1,
    }


def test_masks_for_another_size_cannot_be_placed(tmp_path: Path):
    found = dataset(tmp_path, [objects(1), objects(2)], [1, 2])
    picture(tmp_path / "val2017" / "000000000001.jpg", size=(48, 32))
    picture(tmp_path / "val2017" / "000000000002.jpg", size=(64, 96))
    found = CocoDataset(tmp_path, "val2017", 64)
    path = tmp_path / "val2017" / "000000000001.jpg"
    assert (
        len(found) == 2
        and found.instances(0) == found.instances(1) == []
        and found.pixels(0).shape == (3, 64, 64)
    )
    assert found.manifest["problems"]["size differs"]["count"] == 2, (
        "turned without EXIF saying so: nobody knows which way"
    )
    assert (
        refused(tmp_path) == f"{path}: size differs: image 1: 48x32, its annotations are for 96x64"
    )
    write_instances(tmp_path / "annotations", "val2017", listed([1, 2]), [])
    assert not CocoDataset(tmp_path, "val2017", 64).manifest["problems"], (
        "without masks the size of the file is the one that counts"
    )


def test_a_size_that_one_of_two_files_gives_counts_and_folders_before_a_name_do_not(tmp_path: Path):
    dataset(tmp_path, [])
    images = [{"id": 1, "file_name": "val2017/000000000001.jpg"}]
    write_captions(tmp_path / "annotations", "val2017", images)
    write_instances(
        tmp_path / "annotations", "val2017", [listed([1])[0] | {"width": 48}], [objects(1)]
    )
    assert set(CocoDataset(tmp_path, "val2017", 64).manifest["problems"]) == {"size differs"}


def test_polygons_of_a_larger_image_are_found_out_where_no_size_is_given(tmp_path: Path):
    dataset(tmp_path, [])
    images = [{"id": 1, "file_name": "000000000001.jpg"}]
    write_captions(tmp_path / "annotations", "val2017", images)
    large = objects(1, segmentation=rectangle(40, 16, 160, 240))
    write_instances(tmp_path / "annotations", "val2017", images, [large])
    found = CocoDataset(tmp_path, "val2017", 64)
    assert found.instances(0) == []
    (example,) = found.manifest["problems"]["size differs"]["examples"]
    assert "96x64, its annotations are for 200x256" in example


def test_no_size_and_no_box_are_found_out(tmp_path: Path):
    dataset(tmp_path, [])
    images = [{"id": 1, "file_name": "000000000001.jpg"}]
    write_captions(tmp_path / "annotations", "val2017", images)
    write_instances(
        tmp_path / "annotations",
        "val2017",
        images,
        [objects(1, bbox=None), objects(1, bbox=[40, 16, 0, 0])],
    )
    assert [o.box for o in CocoDataset(tmp_path, "val2017", 64).instances(0)] == [
        (24, 16, 40, 40)
    ] * 2


@pytest.mark.parametrize(("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("P", "png")])
def test_grey_cmyk_and_palette_images_are_read(tmp_path: Path, mode: str, suffix: str):
    images = [{"id": 1, "file_name": f"a.{suffix}", "width": 96, "height": 64}]
    picture(tmp_path / "val2017" / f"a.{suffix}", mode)
    write_captions(tmp_path / "annotations", "val2017", images)
    pixels = CocoDataset(tmp_path, "val2017", 64).pixels(0)
    assert (
        pixels.shape == (3, 64, 64)
        and pixels[:, :, :30].float().mean() < 60
        and pixels[:, :, 34:].float().mean() > 180
    )


def test_objects_outside_the_crop_are_left_out_and_boxes_end_at_its_edge(tmp_path: Path):
    outside = objects(1, 1, rectangle(0, 0, 16, 64), bbox=[0, 0, 16, 64])
    across = objects(1, 18, rectangle(8, 0, 16, 64), bbox=[8, 0, 16, 64])
    found = dataset(tmp_path, [outside, across])
    (thing,) = found.instances(0)
    assert (
        thing.label == "dog"
        and thing.box == (0, 0, 8, 64)
        and thing.mask[:, :8].all()
        and not thing.mask[:, 8:].any()
    )
    # A box that has nothing to do with its mask does not bring the image down.
    (thing,) = dataset(tmp_path / "x", [objects(1, bbox=[0, 0, 4, 4])]).instances(0)
    assert thing.box == (24, 16, 40, 40)


def test_numbers_and_limits_are_checked_as_asked(tmp_path: Path):
    said: list[str] = []
    dataset(tmp_path, [], list(range(1, 8)))
    found = CocoDataset(tmp_path, "val2017", 64, limit=3, emit=said.append, min_phrases=1)
    assert (
        [r.id for r in found.records] == [1, 2, 3]
        and found.manifest["captions"] == 15
        and found.manifest["objects"] == 0
    )
    CocoDataset(tmp_path, "val2017", 64, emit=said.append)
    assert said[-1] == "checking images of val2017: 7/7"
    assert usable(rectangle(0, 0, 5, 5), WIDTH, 64)[1] == ""


def test_full_verification_finds_what_headers_hide(tmp_path: Path):
    images = [{"id": i, "file_name": f"{i}.png", "width": 96, "height": 64} for i in (1, 2)]
    paths = [picture(tmp_path / "val2017" / image["file_name"]) for image in images]
    content = paths[0].read_bytes()
    place = content.index(b"IDAT") + 8
    paths[0].write_bytes(content[:place] + bytes(12) + content[place + 12 :])
    write_captions(tmp_path / "annotations", "val2017", images)
    assert len(CocoDataset(tmp_path, "val2017", 64)) == 2
    assert [r.id for r in CocoDataset(tmp_path, "val2017", 64, verify="full").records] == [2]
    assert str(paths[0]) in refused(tmp_path, verify="full")


def test_categories_are_in_the_order_of_their_ids(tmp_path: Path):
    root = write_coco(tmp_path, "val2017", [1])
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "categories": content["categories"][::-1]}))
    assert CocoDataset(root, "val2017", 64).categories == ["person", "dog", "toothbrush"]


def rewrite(root: Path, kind: str, **changes: Any) -> Path:
    """Changes the content of an annotation file of val2017."""
    path = root / "annotations" / f"{kind}_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


@pytest.mark.parametrize("order", [("annotations", "categories", "images"), ("images",)])
def test_lists_come_in_any_order(tmp_path: Path, order: tuple[str, ...]):
    dataset(tmp_path, [objects(1)])
    for kind in ("captions", "instances"):
        path = tmp_path / "annotations" / f"{kind}_val2017.json"
        content = json.loads(path.read_text())
        first = {key: content.pop(key) for key in order if key in content}
        path.write_text(json.dumps(first | content))
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [o.label for o in found.instances(0)] == ["dog"] and len(found.records[0].captions) == 5


@pytest.mark.parametrize("name", ["annotations", "categories"])
def test_lists_that_are_null_are_empty(tmp_path: Path, name: str):
    dataset(tmp_path, [])
    rewrite(tmp_path, "instances", **{name: None})
    found = CocoDataset(tmp_path, "val2017", 64)
    assert len(found) == 1 and found.instances(0) == [] and not found.manifest["problems"]


@pytest.mark.parametrize("name", ["annotations", "categories", "images"])
def test_entries_that_are_no_objects_are_left_out_and_named(tmp_path: Path, name: str):
    dataset(tmp_path, [objects(1)])
    path = tmp_path / "annotations" / "instances_val2017.json"
    rewrite(tmp_path, "instances", **{name: [None, *json.loads(path.read_text())[name], 7]})
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [o.label for o in found.instances(0)] == ["dog"]
    problem = found.manifest["problems"]["entry that is no object"]
    assert problem["count"] == 2
    assert problem["examples"][0].startswith(f"{path}: {name}[0] is null, expected")
    assert str(path) in refused(tmp_path)


def test_lists_of_another_kind_are_refused_by_file(tmp_path: Path):
    dataset(tmp_path, [objects(1)])
    path = rewrite(tmp_path, "instances", annotations={"1": {}})
    with pytest.raises(DataError, match=f"{path}: annotations is of type dict: expected a list"):
        CocoDataset(tmp_path, "val2017", 64)


@pytest.mark.parametrize(
    "size",
    [("96.0", "64.0"), ("96", 64), (96.0, 64.0), ("?", None), ([], 1), (10**400, -(10**400))],
)
def test_sizes_in_words(tmp_path: Path, size: tuple[Any, Any]):
    dataset(tmp_path, [objects(1)])
    image = listed([1])[0] | {"width": size[0], "height": size[1]}
    for kind in ("captions", "instances"):
        rewrite(tmp_path, kind, images=[image])
    found = CocoDataset(tmp_path, "val2017", 64)
    assert (found.records[0].width, found.records[0].height) == (96, 64)
    assert len(found.instances(0)) == 1 and not found.manifest["problems"]


def test_a_category_beside_a_caption_is_no_object(tmp_path: Path):
    dataset(tmp_path, [objects(1)])
    path = tmp_path / "annotations" / "captions_val2017.json"
    annotations = json.loads(path.read_text())["annotations"]
    rewrite(tmp_path, "captions", annotations=[a | {"category_id": 0} for a in annotations])
    found = CocoDataset(tmp_path, "val2017", 64)
    assert not found.manifest["problems"] and len(found.records[0].captions) == 5
    assert len(found.instances(0)) == 1


@pytest.mark.parametrize("key", [[1], {"a": 1}, None, 1.5])
def test_ids_of_odd_kinds_do_not_stop_the_reading(tmp_path: Path, key: Any):
    dataset(tmp_path, [objects(1)])
    odd = [objects(1) | {"category_id": key}, objects(1) | {"image_id": key}]
    categories = [
        {"id": key, "name": "odd"},
        {"id": "18", "name": "text"},
        {"id": 18, "name": "dog"},
    ]
    rewrite(tmp_path, "instances", annotations=[objects(1), *odd], categories=categories)
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [o.label for o in found.instances(0)] == ["dog"]
    assert {kind: p["count"] for kind, p in found.manifest["problems"].items()} == {
        "unknown category": 1,
        "annotation of no image": 1,
    }


def test_backslashes_in_file_names(tmp_path: Path):
    picture(tmp_path / "val2017" / "deep" / "1.jpg")
    picture(tmp_path / "val2017" / "deep" / "a\\b.jpg")
    names = {1: "deep\\1.jpg", 2: "deep/a\\b.jpg", 3: "C:\\data\\val2017\\3.jpg"}
    images = [{"id": i, "file_name": n, "width": 96, "height": 64} for i, n in names.items()]
    write_captions(tmp_path / "annotations", "val2017", images)
    others = [image | {"file_name": image["file_name"].replace("\\1", "/1")} for image in images]
    write_instances(tmp_path / "annotations", "val2017", others, [objects(1)])
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [r.path.name for r in found.records] == ["1.jpg", "a\\b.jpg"]
    assert list(found.manifest["problems"]) == ["missing"]
    assert "\\" not in found.manifest["problems"]["missing"]["examples"][0]


def test_progress_begins_before_anything_is_read(tmp_path: Path):
    said: list[str] = []
    dataset(tmp_path, [objects(1)])
    CocoDataset(tmp_path, "val2017", 64, emit=said.append)
    assert said[0] == f"listing the files of val2017 below {tmp_path}"
    assert [line.split(":")[0] for line in said[1:]] == [
        "reading captions_val2017.json",
        "reading instances_val2017.json",
        "checking images of val2017",
    ]


def test_thin_polygons_that_hold_a_pixel_are_masks(tmp_path: Path):
    shapes = [
        [[40, 16, 41, 16, 41, 40, 40, 40]],
        [[20, 10, 60, 50, 60, 10, 20, 50]],  # A bow tie, whose halves cancel out
        [[20, 10, 60, 10, 40, 10], rectangle(40, 16, 16, 24)[0]],
        [[-20, 10, 60, 10, 60, 200]],
    ]
    found = dataset(tmp_path, [objects(1, segmentation=s, key=k) for k, s in enumerate(shapes)])
    assert found.objects(0) == len(found.instances(0, share=0)) == len(shapes)
    assert not found.manifest["problems"] and not found.empty(0)


@pytest.mark.parametrize("box", [[40, 16, -16, -24], [40, 16, 0, 0], [400, 16, 5, 5], [1, 2], "x"])
def test_boxes_that_are_none_are_counted_and_the_mask_is_kept(tmp_path: Path, box: Any):
    found = dataset(tmp_path, [objects(1, key=7, bbox=box)])
    assert [o.box for o in found.instances(0)] == [(24, 16, 40, 40)]
    (kind,) = found.manifest["problems"]
    (example,) = found.manifest["problems"][kind]["examples"]
    assert kind.startswith("box") and "000000000001.jpg: image 1, annotation 7" in example


@pytest.mark.parametrize("box", [None, [], [-0.5, 16, 90, 24]])
def test_boxes_that_are_not_given_or_reach_over_the_edge_are_no_problem(tmp_path: Path, box: Any):
    assert not dataset(tmp_path, [objects(1, bbox=box)]).manifest["problems"]


@pytest.mark.parametrize("crowd", [2, -1, "yes", [1]])
def test_an_unknown_iscrowd_is_told(tmp_path: Path, crowd: Any):
    found = dataset(tmp_path, [objects(1, key=7, iscrowd=crowd), objects(1, key=8)])
    (example,) = found.manifest["problems"]["unknown iscrowd"]["examples"]
    assert f"image 1, annotation 7: iscrowd is {str(crowd)!r}" in example and found.objects(0) == 1


@pytest.mark.parametrize("crowd", [None, "", "false", 0.0])
def test_an_iscrowd_that_says_no_is_an_object(tmp_path: Path, crowd: Any):
    found = dataset(tmp_path, [objects(1, iscrowd=crowd)])
    assert found.objects(0) == 1 and not found.manifest["problems"]


def test_an_annotation_that_is_given_twice_is_one_object(tmp_path: Path):
    other = objects(1, segmentation=rectangle(20, 16, 10, 10), key=7)
    found = dataset(
        tmp_path, [objects(1, key=7), objects(1, key=7), other, objects(2, key=7)], [1, 2]
    )
    assert found.objects(0) == 2 and found.objects(1) == 1
    problem = found.manifest["problems"]["annotation given twice"]
    assert problem["count"] == 1 and "image 1, annotation 7" in problem["examples"][0]
    assert any("3 annotations with the id of another one" in n for n in found.manifest["notes"])


@pytest.mark.parametrize(
    ("listed_as", "named"), [(1, "1"), (1, 1.0), ("1", 1), (1, "000000000001"), ("1", "1")]
)
def test_an_id_is_the_same_as_text_and_as_a_number(tmp_path: Path, listed_as: Any, named: Any):
    images = [listed([1])[0] | {"id": listed_as}]
    picture(tmp_path / "val2017" / images[0]["file_name"])
    spoken = {"id": 1, "image_id": named, "caption": "a dog"}
    write_captions(tmp_path / "annotations", "val2017", images, each=0, more=[spoken])
    instances = [images[0] | {"id": named}] if isinstance(named, str) else images
    dog = objects(1, "18", key=7) | {"image_id": named}  # type: ignore[arg-type]
    write_instances(tmp_path / "annotations", "val2017", instances, [dog])
    found = CocoDataset(tmp_path, "val2017", 64)
    assert found.records[0].id == listed_as and found.caption(0).text == "a dog"
    assert [o.label for o in found.instances(0)] == ["dog"] and not found.manifest["problems"]
    same = type(listed_as) is type(named)
    assert any("another form" in n for n in found.manifest["notes"]) != same


def test_the_size_beside_the_masks_is_the_one_that_masks_are_for(tmp_path: Path):
    images = listed([1, 2])
    for image in images:
        picture(tmp_path / "val2017" / image["file_name"])
    write_captions(tmp_path / "annotations", "val2017", images)
    wrong = [images[0] | {"width": 64, "height": 96}, images[1] | {"width": 640, "height": 480}]
    write_instances(tmp_path / "annotations", "val2017", wrong)
    found = CocoDataset(tmp_path, "val2017", 64)
    swapped, larger = found.manifest["problems"]["size differs"]["examples"]
    assert "image 1: 96x64, its annotations are for 64x96 (width and height swapped)" in swapped
    assert "image 2: 96x64, its annotations are for 640x480" in larger
    assert found.objects(0) == found.objects(1) == 0


@pytest.mark.parametrize("color", [["red", "blue"], {"name": "red"}, 5, True, 1.5])
def test_a_colour_that_is_no_word_is_told_and_the_object_kept(tmp_path: Path, color: Any):
    odd = objects(1, attributes={"color": color})
    found = dataset(tmp_path, [odd])
    (thing,) = found.records[0].annotations
    assert (thing["label"], thing["color"]) == ("dog", None)
    told = found.manifest["problems"]["colour that is no word"]
    assert told["count"] == 1 and "instances_val2017.json" in told["examples"][0]
    assert json.dumps(color).replace(" ", "")[:10] in told["examples"][0].replace(" ", "")
    assert "colour that is no word" in refused(tmp_path)


def test_colours_and_names_of_categories_are_tidied(tmp_path: Path):
    dogs = [objects(1, attributes={"color": " dark  red "}), objects(1, key=2)]
    dogs[1]["attributes"] = {"color": "  "}
    path = tmp_path / "annotations" / "instances_val2017.json"
    dataset(tmp_path, dogs)
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "  Dog \t"
    path.write_text(json.dumps(content))
    found = CocoDataset(tmp_path, "val2017", 64)
    things = found.records[0].annotations
    assert [(t["label"], t["color"]) for t in things] == [("Dog", "dark red"), ("Dog", None)]


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg"])
def test_file_names_that_no_file_can_have_are_told(tmp_path: Path, name: str):
    images = listed([1, 2])
    picture(tmp_path / "val2017" / images[0]["file_name"])
    images[1]["file_name"] = name
    write_captions(tmp_path / "annotations", "val2017", images)
    found = CocoDataset(tmp_path, "val2017", 64)
    assert [record.id for record in found.records] == [1]
    told = found.manifest["problems"]["file name that no file can have"]
    assert "captions_val2017.json: image 2" in told["examples"][0]


def test_a_file_name_that_is_too_long_is_a_missing_file(tmp_path: Path):
    images = listed([1, 2])
    picture(tmp_path / "val2017" / images[0]["file_name"])
    images[1]["file_name"] = "a" * 5000
    write_captions(tmp_path / "annotations", "val2017", images)
    assert [record.id for record in CocoDataset(tmp_path, "val2017", 64).records] == [1]


def test_a_relation_that_is_no_word_is_told(tmp_path: Path):
    images = listed([1])
    picture(tmp_path / "val2017" / images[0]["file_name"])
    said = {"id": 7, "image_id": 1, "caption": "a dog", "relation": ["left of"]}
    write_captions(tmp_path / "annotations", "val2017", images, each=0, more=[said])
    found = CocoDataset(tmp_path, "val2017", 64)
    assert found.records[0].captions[0].relation is None
    assert found.manifest["problems"]["relation that is no word"]["count"] == 1
