"""COCO in every layout that people have: where its files are found, and what is said where they are
not."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from helpers.coco_files import (
    listed,
    objects,
    picture,
    rectangle,
    write,
    write_captions,
    write_coco,
    write_instances,
    write_karpathy,
)

from datamodules import CocoDataModule
from datamodules.coco import CocoDataset
from datamodules.formats.coco_layouts import Images, find, image_folders, survey
from datamodules.formats.index import DataError

IDS = [9, 25, 139]
V2014 = "COCO_val2014_{:012d}.jpg"


def ids(dataset: CocoDataset) -> list[int | str]:
    return [record.id for record in dataset.records]


@pytest.mark.parametrize(
    "images",
    [
        "val2017",
        "images/val2017",
        "val2017/val2017",
        "images",
        "",
        "coco/images/val2017",
        "all/of/them/here/val2017",
    ],
)
def test_coco_2017_wherever_its_images_are(tmp_path: Path, images: str):
    dataset = CocoDataset(write_coco(tmp_path, "val2017", IDS, images=images), "val2017", 64)
    assert (
        ids(dataset) == IDS
        and dataset.manifest["layout"] == "coco"
        and not dataset.manifest["problems"]
    )
    assert [r.path for r in dataset.records] == [tmp_path / images / f"{i:012d}.jpg" for i in IDS]
    assert [len(r.captions) for r in dataset.records] == [5] * 3 and [
        o.label for o in dataset.instances(1)
    ] == ["dog"]
    assert dataset.pixels(2).shape == (3, 64, 64) and dataset.categories == [
        "person",
        "dog",
        "toothbrush",
    ]


@pytest.mark.parametrize("moved", ["", "coco", "coco/2017", "instances_only_root"])
def test_annotation_files_may_lie_deeper(tmp_path: Path, moved: str):
    write_coco(tmp_path, "val2017", IDS)
    (tmp_path / moved).mkdir(parents=True, exist_ok=True)
    shutil.move(tmp_path / "annotations", tmp_path / moved / "notes")
    assert ids(CocoDataset(tmp_path, "val2017", 64)) == IDS


def test_2014_with_both_splits_in_one_flat_folder(tmp_path: Path):
    write_coco(tmp_path, "val2014", IDS, V2014, "all")
    write_coco(tmp_path, "train2014", [30, 36], "COCO_train2014_{:012d}.jpg", "all")
    assert ids(CocoDataset(tmp_path, "val2014", 64)) == IDS and ids(
        CocoDataset(tmp_path, "train2014", 64)
    ) == [30, 36]


def test_annotations_of_2014_find_the_images_of_2017_and_the_reverse(tmp_path: Path):
    write_coco(tmp_path, "val2014", IDS[:2], V2014, "train2017")
    for path in list((tmp_path / "train2017").iterdir()):
        path.rename(path.with_name(path.name[-16:]))
    assert [r.path.name for r in CocoDataset(tmp_path, "val2014", 64).records] == [
        "000000000009.jpg",
        "000000000025.jpg",
    ]
    other = write_coco(tmp_path / "x", "val2017", IDS)
    for path in list((other / "val2017").iterdir()):
        path.rename(path.with_name(f"COCO_val2014_{path.name}"))
    assert ids(CocoDataset(other, "val2017", 64)) == IDS


@pytest.mark.parametrize("kind", ["captions", "instances"])
def test_either_file_alone(tmp_path: Path, kind: str):
    write_coco(tmp_path, "val2017", IDS)
    (
        tmp_path
        / "annotations"
        / f"{'instances' if kind == 'captions' else 'captions'}_val2017.json"
    ).unlink()
    dataset = CocoDataset(tmp_path, "val2017", 64)
    assert ids(dataset) == IDS
    if kind == "captions":
        assert (
            dataset.instances(0) == []
            and dataset.phrases(0) == []
            and not dataset.manifest["notes"]
        )
    else:
        assert dataset.caption(0).text == "a photo of a dog" and [
            p.text for p in dataset.phrases(0)
        ] == ["dog"]
        assert "captions are made of the names of the objects" in dataset.manifest["notes"][0]


def karpathy(root: Path) -> Path:
    splits = {
        9: ("train2014", "train"),
        25: ("val2014", "restval"),
        42: ("val2014", "val"),
        139: ("val2014", "test"),
        30: ("train2014", "train"),
    }
    write_karpathy(root / "captions" / "dataset_coco.json", splits)
    for i, (folder, _) in splits.items():
        picture(root / folder / f"COCO_{folder}_{i:012d}.jpg")
    return root


def test_karpathy_train_is_train_and_restval(tmp_path: Path):
    root = karpathy(tmp_path)
    found = {
        split: ids(CocoDataset(root, split, 64)) for split in ("train", "restval", "val", "test")
    }
    assert found == {"train": [9, 25, 30], "restval": [25], "val": [42], "test": [139]}
    dataset = CocoDataset(root, "train", 64)
    assert (
        dataset.manifest["notes"] == [("train holds Karpathy's train and restval images")]
        and dataset.manifest["layout"] == "karpathy"
    )
    assert dataset.caption(1).text == "caption 0 of 25" and dataset.instances(1) == []


def test_karpathy_takes_masks_from_instance_files_by_cocoid(tmp_path: Path):
    root = karpathy(tmp_path)
    write_instances(root / "annotations", "val2014", listed([25, 42, 77], V2014))
    # The same image in another file, as 2017 has it, must not give its objects twice.
    write_instances(root / "annotations", "train2017", listed([25, 9]))
    dataset = CocoDataset(root, "train", 64)
    assert ids(dataset) == [9, 25, 30] and [len(dataset.instances(i)) for i in range(3)] == [
        1,
        1,
        0,
    ]
    assert ("1 image without masks: in none of the instance files") in dataset.manifest["notes"][
        1
    ] and not dataset.manifest["problems"]
    assert len(CocoDataset(root, "val", 64).instances(0)) == 1


def test_karpathy_with_all_images_in_one_folder(tmp_path: Path):
    root = karpathy(tmp_path)
    (root / "flat").mkdir()
    for folder in ("train2014", "val2014"):
        for path in list((root / folder).iterdir()):
            path.rename(root / "flat" / path.name)
        (root / folder).rmdir()
    assert ids(CocoDataset(root, "train", 64)) == [9, 25, 30]


def test_roboflow_has_annotations_beside_the_images(tmp_path: Path):
    for split, name in (("train", "a_jpg.rf.1f"), ("valid", "b_jpg.rf.2e")):
        picture(tmp_path / split / f"{name}.jpg")
        images = [{"id": 0, "file_name": f"{name}.jpg", "width": 96, "height": 64}]
        categories = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "ox", "supercategory": "pets"},
        ]
        content = {
            "images": images,
            "categories": categories,
            "annotations": [objects(0, 1), objects(0, 0)],
        }
        write(tmp_path / split / "_annotations.coco.json", content)
    dataset = CocoDataset(tmp_path, "valid", 64)
    assert (
        dataset.manifest["layout"] == "roboflow"
        and dataset.records[0].path == tmp_path / "valid" / "b_jpg.rf.2e.jpg"
    )
    assert dataset.caption(0).text == "a photo of an ox and a pets"
    with pytest.raises(
        DataError,
        match=(
            "has no split 'val2017': roboflow has train, valid; set data.train_split and "
            "evaluation.splits"
        ),
    ):
        find(tmp_path, "val2017")
    assert ids(CocoDataset(tmp_path / "valid", "all", 64)) == [0], "an export that was not split"


def test_auto_takes_the_layout_that_has_the_split_and_a_name_forces_one(tmp_path: Path):
    root = write_coco(karpathy(tmp_path), "val2017", IDS)
    assert [find(root, split).layout for split in ("val2017", "test")] == ["coco", "karpathy"]
    write_coco(root, "val", [1, 2], images="own")
    assert ids(CocoDataset(root, "val", 64)) == [1, 2] and ids(
        CocoDataset(root, "val", 64, layout="karpathy")
    ) == [42]
    with pytest.raises(
        DataError, match=("has no split 'val2017': karpathy has restval, test, train, val")
    ):
        find(root, "val2017", "karpathy")
    with pytest.raises(
        DataError,
        match=(
            "holds no dataset of layout roboflow: looked for val/_annotations.coco.json .*up to "
            "3 folders deep"
        ),
    ):
        find(root, "val", "roboflow")
    with pytest.raises(
        ValueError, match=("data.layout='voc': expected auto, coco, karpathy, roboflow")
    ):
        find(root, "val", "voc")


def test_a_folder_that_fits_nothing_is_explained(tmp_path: Path):
    for i in range(3):
        picture(tmp_path / "pictures" / f"{i}.jpg")
    write(tmp_path / "labels.json", [])
    (tmp_path / "train2017.zip").write_bytes(b"PK")
    with pytest.raises(DataError) as error:
        CocoDataModule(tmp_path, 64).setup()
    for part in (
        "captions_val2017.json",
        "val2017/_annotations.coco.json",
        ("found . (labels.json, train2017.zip), pictures/ (3 images)"),
        "coco: annotations/captions_<split>.json",
        "karpathy:",
        "roboflow:",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="train2017.zip is a file: unpack it"):
        find(tmp_path / "train2017.zip", "train2017")


def test_names_of_splits_that_exist_are_given(tmp_path: Path):
    write_coco(tmp_path, "val2017", IDS)
    with pytest.raises(DataError, match="has no split 'val': coco has val2017"):
        CocoDataset(tmp_path, "val", 64)


def test_an_empty_split_is_refused(tmp_path: Path):
    write_captions(tmp_path / "annotations", "val2017", [])
    with pytest.raises(
        DataError, match=(r"captions_val2017.json: split 'val2017' is empty: " r"it lists no image")
    ):
        CocoDataset(tmp_path, "val2017", 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON: .*download it again"),
        ("", "cannot be read as JSON: it is empty: download it again"),
        (
            '{"images": [],\n}',
            "cannot be read as JSON: .*character 15: correct it there, or download",
        ),
        (" \n", "cannot be read as JSON: it is empty"),
        ("\ufeff", "cannot be read as JSON: it is empty"),
        ("<!DOCTYPE html>", "cannot be read as JSON: it is a page of HTML"),
        ("version https://git-lfs.github.com/spec/v1", "cannot be read as JSON: .*git lfs pull"),
        (gzip.compress(b"{}", mtime=0), "cannot be read as JSON: it is packed by gzip: unpack it"),
        (b"PK\x03\x04rest", "cannot be read as JSON: it is a ZIP archive: unpack it"),
        ("[]", "has no list of images"),
        ('{"annotations": []}', "has no list of images"),
    ],
)
def test_files_that_are_no_annotations_are_named(
    tmp_path: Path, content: str | bytes, message: str
):
    write_coco(tmp_path, "val2017", IDS)
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "annotations" / "instances_val2017.json").write_bytes(data)
    with pytest.raises(DataError, match=f"instances_val2017.json: {message}"):
        CocoDataset(tmp_path, "val2017", 64)


@pytest.mark.parametrize("ending", [".gz", ".zip", ".zst"])
def test_annotation_files_that_are_packed_are_told(tmp_path: Path, ending: str):
    write_coco(tmp_path, "val2017", IDS)
    captions, instances = (
        tmp_path / "annotations" / f"{kind}_val2017.json" for kind in ("captions", "instances")
    )
    instances.rename(f"{instances}{ending}")
    found = CocoDataset(tmp_path, "val2017", 64).manifest
    told = f"{instances}{ending} is packed"
    assert told in found["lack"]["fact"] and any(told in note for note in found["notes"])
    captions.rename(f"{captions}{ending}")
    with pytest.raises(DataError, match=f"_val2017.json{ending} is packed: unpack it"):
        CocoDataset(tmp_path, "val2017", 64)


def test_an_index_is_kept_until_something_on_disk_changes(tmp_path: Path):
    root, kept = write_coco(tmp_path / "data", "val2017", IDS), tmp_path / "index"
    (root / "val2017" / f"{25:012d}.jpg").unlink()

    def opened() -> CocoDataset:
        return CocoDataset(root, "val2017", 64, index_root=kept)

    first = opened()
    assert ids(first) == [9, 139] and opened().records.folder == first.records.folder
    picture(root / "val2017" / f"{25:012d}.jpg")
    assert ids(opened()) == IDS, "an image that was downloaded since is found"
    write_captions(root / "annotations", "val2017", listed(IDS), each=7)
    assert [len(r.captions) for r in opened().records] == [7] * 3
    records = CocoDataset(root, "val2017", 64).records
    folder = records.folder
    assert [r.id for r in records] == IDS
    del records
    assert not folder.exists() and not [
        p for p in root.iterdir() if p.name not in ("annotations", "val2017")
    ], "the dataset stays as it is"


def test_images_are_found_by_whatever_path_the_annotations_give(tmp_path: Path):
    for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
        picture(tmp_path / "pics" / name)
    images = Images([tmp_path / "pics"])
    assert len(images) == 3 and images.find("b/1.jpg") == tmp_path / "pics" / "b" / "1.jpg"
    assert (
        images.find("pics/b/1.jpg")
        == images.find(".\\b\\1.jpg")
        == tmp_path / "pics" / "b" / "1.jpg"
        and not images.ambiguous
    )
    assert (
        images.find("2.jpg") == images.find("other/2.jpg") == tmp_path / "pics" / "b" / "2.jpg"
        and images.find("3.jpg") is None
    )
    assert images.find("1.jpg") == tmp_path / "pics" / "a" / "1.jpg" and images.ambiguous == 1
    (tmp_path / "loop").symlink_to(tmp_path)
    assert survey(tmp_path) and Images([tmp_path / "loop"]).find("2.jpg")


def test_folders_of_a_split_come_before_others(tmp_path: Path):
    picture(tmp_path / "train2017" / "deep" / "1.jpg")
    picture(tmp_path / "thumbnails" / "1.jpg")
    (tmp_path / "x" / "train2017").mkdir(parents=True)
    tree = survey(tmp_path)
    assert image_folders(tree, "coco", "train2017") == (tmp_path / "train2017",)
    assert image_folders(tree, "coco", "mine") == (
        tmp_path / "thumbnails",
        tmp_path / "train2017" / "deep",
    )


@pytest.mark.parametrize(
    ("train", "ids_", "evaluated", "shared"),
    [
        ("train2017", [9, 25, 30], "val2014", 2),
        ("train2017", [1, 2], "val2014", 0),
        ("train", [9, 25, 30], "val2014", 0),
    ],
)
def test_training_on_what_is_measured_is_said(
    tmp_path: Path,
    train: str,
    ids_: list[int],
    evaluated: str,
    shared: int,
    recwarn: pytest.WarningsRecorder,
):
    write_coco(write_coco(tmp_path, train, ids_), evaluated, IDS, V2014)
    datamodule = CocoDataModule(tmp_path, 64, train, (evaluated,))
    datamodule.setup()
    said = [str(w.message) for w in recwarn if "trained on" in str(w.message)]
    assert said == datamodule.manifest()["notes"] and len(said) == bool(shared)
    if shared:
        assert said[0].startswith(
            "2 of 3 images of 'val2014' also in the training split 'train2017'"
        )


def test_karpathy_splits_overlap_with_those_of_2017(tmp_path: Path):
    root = write_coco(karpathy(tmp_path), "train2017", [139, 9])
    with pytest.warns(
        UserWarning, match=("1 of 1 image of 'test' also in the training split 'train2017'")
    ):
        CocoDataModule(root, 64, "train2017", ("test",)).setup()


def test_masks_of_a_polygon_stay_where_the_image_is_nested(tmp_path: Path):
    write_coco(tmp_path, "val2017", IDS, images="images/val2017")
    entries = listed(IDS)
    write_instances(
        tmp_path / "annotations",
        "val2017",
        entries,
        [objects(9, segmentation=rectangle(16, 0, 32, 64))],
    )
    mask = CocoDataset(tmp_path, "val2017", 32).instances(0)[0].mask
    assert mask[:, :16].all() and not mask[:, 16:].any()
