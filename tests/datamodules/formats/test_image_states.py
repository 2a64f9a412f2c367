"""What is noticed of images that change under a kept index: when a set is opened, when a run opens
it, when its content is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import picture, write_coco
from helpers.flickr_files import write_images, write_token
from helpers.in_place import overwrite

import conf.contents
from datamodules import CocoDataModule
from datamodules.captioned import CaptionedDataset
from datamodules.coco import CocoDataset
from datamodules.flickr30k import Flickr30kDataset
from datamodules.formats import coco_annotations, images, index, reader
from datamodules.formats.index import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path, "val2017", range(4))


def opened(root: Path) -> CaptionedDataset:
    """The split as a run opens it."""
    return CocoDataModule(root, 32, "val2017", (), index_root=root / "index").open("val2017", True)


def replaced(path: Path, **how: Any) -> None:
    """Another picture in the same place, moved there."""
    picture(path.with_suffix(".new.jpg"), **how).rename(path)


def test_an_image_that_is_written_to_in_place_is_asked_for_its_state_in_runs(root: Path):
    first = opened(root)
    again = opened(root)
    assert again.records.folder == first.records.folder and not again.records.images_changed()
    path = first.records[1].path
    before = path.parent.stat()
    picture(path, size=(60, 90))
    assert path.parent.stat() == before
    # Opening alone lists folders
    plain = CocoDataset(root, "val2017", 32, None, True, index_root=root / "index")
    assert plain.records.folder == first.records.folder
    run = opened(root)
    assert run.records.folder != first.records.folder and first.records.folder.is_dir()
    assert (run.records[1].width, run.records[1].height) == (60, 90)
    assert opened(root).records.folder == run.records.folder


def test_the_digest_of_images_is_that_of_their_present_content(root: Path):
    dataset = opened(root)
    digest = dataset.digest()
    path = dataset.records[2].path
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    overwrite(path, bytes(content))
    plain = CocoDataset(root, "val2017", 32, None, True, index_root=root / "index")
    assert plain.records.folder == dataset.records.folder and plain.digest() != digest
    assert opened(root).digest() == plain.digest()


def test_an_image_that_was_left_out_and_is_repaired_in_place_is_read(root: Path):
    path = root / "val2017" / f"{2:012d}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert 2 not in [record.id for record in opened(root).records]
    path.write_bytes(whole)
    assert 2 in [record.id for record in opened(root).records]


def test_an_image_that_is_replaced_by_another_file_is_noticed_when_folders_are_listed(
    root: Path,
):
    kept = {"index_root": root / "index"}
    first = CocoDataset(root, "val2017", 32, **kept)
    replaced(first.records[1].path, size=(60, 90))
    again = CocoDataset(root, "val2017", 32, **kept)
    assert again.records.folder != first.records.folder and again.records[1].width == 60


def test_opening_again_asks_no_image_for_its_state(root: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    real = conf.contents.file_state

    def spy(path: Any) -> str | None:
        asked.append(os.fspath(path))
        return real(path)

    for module in (coco_annotations, reader, images, index):
        monkeypatch.setattr(module, "file_state", spy)
    kept = {"index_root": root / "index"}
    CocoDataset(root, "val2017", 32, **kept)
    asked.clear()
    CocoDataset(root, "val2017", 32, **kept)
    assert asked and not [path for path in asked if path.endswith(".jpg")]
    opened(root)
    asked.clear()
    # As many as it reads
    CocoDataset(root, "val2017", 32, 2, **kept).records.images_changed()
    assert len([path for path in asked if path.endswith(".jpg")]) == 2


def test_opening_flickr_again_asks_no_image_for_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_images(tmp_path / "images")
    write_token(tmp_path / "results_20130124.token")
    kept = {"index_root": tmp_path / "index", "split_by": "all"}
    first = Flickr30kDataset(tmp_path, "all", 32, **kept)
    asked: list[str] = []
    real = conf.contents.file_state

    def spy(path: Any) -> str | None:
        asked.append(os.fspath(path))
        return real(path)

    for module in (reader, images, index):
        monkeypatch.setattr(module, "file_state", spy)
    again = Flickr30kDataset(tmp_path, "all", 32, **kept)
    assert again.records.folder == first.records.folder
    assert asked and not [path for path in asked if path.endswith(".jpg")]
    monkeypatch.undo()
    path = first.records[1].path
    picture(path, size=(60, 90))
    assert again.records.images_changed(again=True), "written to in place: only who trains asks"
    assert len(Flickr30kDataset(tmp_path, "all", 32, **kept)) == len(first)
    replaced(first.records[2].path, size=(60, 90))
    assert Flickr30kDataset(tmp_path, "all", 32, **kept).records.folder != first.records.folder


def test_after_an_image_of_another_size_was_met_starting_again_helps(root: Path):
    kept = {"index_root": root / "index"}
    dataset = CocoDataset(root, "val2017", 32, **kept)
    picture(dataset.records[1].path, size=(60, 90))
    with pytest.raises(DataError, match="start again"):
        CocoDataset(root, "val2017", 32, **kept).pixels(1)
    CocoDataset(root, "val2017", 32, **kept).pixels(1)
