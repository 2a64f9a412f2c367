"""The folders of Flickr30k in every layout, and errors for those that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import flickr_files as files

from datamodules.formats.flickr_layouts import LAYOUTS, find
from datamodules.formats.index import DataError

Writer = Callable[[Path], Path]


@pytest.mark.parametrize(
    "folder",
    [
        "flickr30k-images",
        "flickr30k_images/flickr30k_images",
        "Images",
        "images",
        ".",
        "flickr30k/flickr30k-images",
        "archive/flickr30k_images/flickr30k_images",
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_folders_of_images(tmp_path: Path, folder: str, beside: bool):
    images = files.write_images(tmp_path / folder)
    (tmp_path / "thumbnails").mkdir()
    for i in range(5 if "flickr30k" in folder else 1):
        (tmp_path / "thumbnails" / f"{i}.jpg").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("A dog , a cat")
    path = files.write_bar(
        (images.parent if beside and images != tmp_path else tmp_path) / "results.csv"
    )
    layout = find(tmp_path)
    assert (layout.name, layout.captions, layout.images) == ("bar", path, images)
    assert (
        layout.split_file,
        layout.split_lists,
        layout.sentences,
        layout.boxes,
        layout.unrelated,
    ) == (None, {}, None, None, None)


def test_several_caption_files_and_a_name_that_forces_one(tmp_path: Path):
    files.write_images(tmp_path / "flickr30k-images")
    token, csv = (
        files.write_token(tmp_path / "results_20130124.token"),
        files.write_annotations(tmp_path / "annotations" / "a.csv"),
    )
    assert find(tmp_path).captions == csv
    assert find(tmp_path, "token").captions == token and find(tmp_path, "token").split_file == csv
    json = files.write_karpathy(tmp_path / "dataset_flickr30k.json")
    assert find(tmp_path).captions == json and find(tmp_path, "annotations").split_file == csv
    with pytest.raises(
        DataError,
        match=(
            r"of layout bar .* for results.csv.*, which is .* \(data.layout=auto takes it\); "
            r"known layouts: k"
        ),
    ):
        find(tmp_path, "bar")
    with pytest.raises(ValueError, match="data.layout='csv': expected auto, karpathy"):
        find(tmp_path, "csv")


def test_karpathys_files_of_other_datasets_are_let_be(tmp_path: Path):
    files.write_images(tmp_path / "Images")
    json = files.write_karpathy(tmp_path / "dataset_flickr30k.json")
    text = json.read_text()
    (tmp_path / "dataset_coco.json").write_text(
        text.replace('"sentids"', '"filepath": "val2014", "sentids"')
    )
    (tmp_path / "dataset_flickr8k.json").write_text(text)
    assert find(tmp_path).captions == json


@pytest.mark.parametrize("home", [".", "flickr30k_entities", "annotations"])
def test_entities(tmp_path: Path, home: str):
    files.write_images(tmp_path / "flickr30k-images")
    entities = files.write_entities(tmp_path / home)
    layout = find(tmp_path)
    assert (layout.name, layout.captions) == ("entities", entities / "Sentences")
    assert (layout.boxes, layout.unrelated) == (
        entities / "Annotations",
        entities / "UNRELATED_CAPTIONS",
    )
    assert layout.split_lists == {
        split: entities / f"{split}.txt" for split in ("train", "val", "test")
    }
    token = files.write_token(tmp_path / "results_20130124.token")
    assert find(tmp_path).captions == token and find(tmp_path).sentences == entities / "Sentences"


def test_lists_of_entities_in_a_folder_of_their_own(tmp_path: Path):
    files.write_images(tmp_path / "flickr30k-images")
    files.write_token(tmp_path / "results_20130124.token")
    files.write(tmp_path / "test.txt", ["some words"])
    files.write(tmp_path / "splits" / "val.txt", ["36979.jpg"])
    assert find(tmp_path).split_lists == {"val": tmp_path / "splits" / "val.txt"}


def test_what_does_not_fit_is_explained(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere is no folder: .* known layouts: karpathy: K"):
        find(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found nothing"):
        find(tmp_path)
    files.write_images(tmp_path / "photos")
    (tmp_path / "notes.txt").write_text("image,caption\n")
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError) as error:
        find(tmp_path)
    message = str(error.value)
    assert (
        f"no Flickr30k captions below {tmp_path}" in message
        and ". (instances.json, notes.txt), photos/ (4 images)" in message
    )
    assert all(LAYOUTS[kind] in message for kind in LAYOUTS) and "\n" not in message


def test_captions_without_images_are_explained(tmp_path: Path):
    files.write_token(tmp_path / "results_20130124.token")
    with pytest.raises(
        DataError,
        match=(
            "no images below .*: looked for flickr30k-images/.*; found .*results_20130124.token"
        ),
    ):
        find(tmp_path)
