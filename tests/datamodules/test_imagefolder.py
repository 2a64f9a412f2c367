"""Images with captions in every form in which people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import imagefolder_files as forms
from helpers.coco_files import picture
from helpers.imagefolder_files import TEXTS
from helpers.question_files import as_lines, write_text

from conf import load
from datamodules.build import build_data, data_digest
from datamodules.formats.index import DataError
from datamodules.imagefolder import ImageFolderDataModule, ImageFolderDataset

SIZE = 32


def open_split(root: Path | str, split: str = "train", **options) -> ImageFolderDataset:
    return ImageFolderDataset(root, split, SIZE, **options)


def texts(dataset: ImageFolderDataset) -> list[str]:
    return [caption.text for record in dataset.records for caption in record.captions]


# --- every form -----------------------------------------------------------------------------------

FORMS: dict[str, tuple[Callable[[Path, Path], Path], str, str, dict[str, list[str]]]] = {
    "imagefolder": (
        lambda root, _: forms.write_imagefolder(root),
        "lines",
        "val",
        {"train": [*TEXTS[:2]], "val": [TEXTS[2]], "validation": [TEXTS[2]], "all": [*TEXTS]},
    ),
    "imagefolder-csv": (
        lambda root, _: forms.write_imagefolder(root, "csv"),
        "lines",
        "val",
        {"train": [*TEXTS[:2]], "val": [TEXTS[2]]},
    ),
    "texts": (
        lambda root, _: forms.write_texts(root),
        "texts",
        "all",
        # By the names of their files
        {"all": [TEXTS[0], TEXTS[2], TEXTS[1]], "train": [TEXTS[0], TEXTS[2], TEXTS[1]]},
    ),
    "own lines": (
        lambda root, _: forms.write_own_lines(root),
        "lines",
        "train",
        {"train": [*TEXTS]},
    ),
    "token_compose": (
        lambda root, _: forms.write_token_compose(root),
        "lines",
        "train",
        {"train": [*TEXTS[:2]]},
    ),
    "tables": (forms.write_tables, "tables", "test", {"train": [*TEXTS[:2]], "test": [TEXTS[2]]}),
    "webdataset": (forms.write_webdataset, "webdataset", "all", {"train": [*TEXTS]}),
    "blip": (
        lambda root, _: forms.write_blip(root),
        "karpathy",
        "val",
        {"train": [TEXTS[0], "again"] * 2, "val": [TEXTS[2], "some birds"]},
    ),
    "flickr8k": (
        lambda root, _: forms.write_flickr8k(root),
        "flickr8k",
        "val",
        {"train": [TEXTS[0], "another", TEXTS[1], "another"], "dev": [TEXTS[2], "another"]},
    ),
    "refcoco": (
        lambda root, _: forms.write_refcoco(root),
        "refcoco",
        "testA",
        {"train": ["left cat", "the right one", "cat on right"], "testA": ["a cat"]},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_found_by_itself(tmp_path: Path, name: str):
    write, layout, other, splits = FORMS[name]
    root = write(tmp_path / "data", tmp_path)
    for split, expected in splits.items():
        dataset = open_split(root, split, unpack_to=tmp_path / "unpacked", boxes="masks")
        assert texts(dataset) == expected
        assert dataset.manifest["layout"] == layout and dataset.manifest["problems"] == {}
        assert tuple(dataset[0]["image"].shape) == (3, SIZE, SIZE)
    module = ImageFolderDataModule(
        root, SIZE, "train", (other,), batch=1, index_root=tmp_path / "i", unpack_to=tmp_path / "u"
    )
    module.setup()
    assert len(next(iter(module.train_dataloader()))) == 1
    assert json.loads(json.dumps(module.manifest()))["train"]["layout"] == layout


def test_words_have_the_masks_that_their_lines_give(tmp_path: Path):
    root = forms.write_own_lines(tmp_path)
    dataset = open_split(root)
    phrases = dataset.phrases(0)
    # The crop takes the middle 64 of 96 pixels, two become one
    found = [(p.text, p.start, p.end, p.mask.nonzero().min(0).values.tolist()) for p in phrases]
    assert found == [("red cat", 2, 9, [4, 0]), ("mat", 15, 18, [8, 12])]
    assert [int(p.mask.sum()) for p in phrases] == [16 * 12, 16 * 16]
    assert [one.label for one in dataset.instances(0)] == ["red cat", "mat"]
    # A box is none until somebody says so
    assert dataset.phrases(1) == [] and dataset.manifest["boxes_as_masks"] == 0
    kinds = dataset.manifest["problems"]
    assert list(kinds) == ["box without a mask"] and kinds["box without a mask"]["count"] == 1
    assert f"{root / 'train.jsonl'}:2: 'dog'" in kinds["box without a mask"]["examples"][0]
    boxed = open_split(root, boxes="masks")
    (dog,) = boxed.phrases(1)
    assert (dog.text, int(dog.mask.sum())) == ("dog", 16 * 16)
    assert boxed.manifest["boxes_as_masks"] == 1 and boxed.content_digest(
        None
    ) != dataset.content_digest(None)


def test_words_with_masks_as_token_compose_has_them(tmp_path: Path):
    dataset = open_split(forms.write_token_compose(tmp_path))
    (cat,) = dataset.phrases(0)
    assert (cat.text, cat.start, cat.end) == ("cat", 6, 9) and int(cat.mask.sum()) == 16 * 12
    assert dataset.phrases(1) == []


def test_each_sentence_means_its_object(tmp_path: Path):
    dataset = open_split(forms.write_refcoco(tmp_path))
    left, right = dataset.records[0].captions[:2]
    assert left.phrases == ((0, 8, (0,)),) and right.phrases == ((0, 13, (1,)),)
    (phrase,) = dataset.phrases(0)
    assert phrase.text == "left cat" and phrase.mask[:, :12].any() and not phrase.mask[:, 16:].any()


def test_images_of_shards_are_unpacked_once(tmp_path: Path):
    root = forms.write_webdataset(tmp_path / "data", tmp_path)
    place = tmp_path / "unpacked"
    first = open_split(root, unpack_to=place)
    (folder,) = place.iterdir()
    states = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    again = open_split(root, unpack_to=place)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == states
    assert len(states) == 3 and again.digest() == first.digest()
    assert any("unpacked below" in note for note in first.manifest["notes"])
    assert texts(open_split(root)) == texts(first)  # In a temporary folder
    (root / "00001.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"00001.tar: cannot be read .*: download it again"):
        open_split(root, unpack_to=place)


def test_a_hub_dataset_is_a_folder_of_the_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repo, commit = tmp_path / "hub" / "datasets--me--pictures", "b" * 40
    forms.write_tables(repo / "snapshots" / commit, tmp_path)
    write_text(repo / "refs" / "main", commit)
    assert texts(open_split("hub:me/pictures", "test", unpack_to=tmp_path / "u")) == [TEXTS[2]]


# --- settings -------------------------------------------------------------------------------------


def test_settings_make_the_data_of_a_run(tmp_path: Path):
    root = forms.write_own_lines(tmp_path / "data")
    config = load.load(
        ["data.name=imagefolder", "evaluation.prompts=0", f"output={tmp_path / 'out'}"]
        + [f"data.root={root}", "trainer.batch=2"]
    )
    module = build_data(config)
    assert len(module.train_set) == 3
    before = data_digest(config)
    boxes = replace(config, data=replace(config.data, boxes="masks"))
    assert data_digest(boxes) != before
    (root / "train.jsonl").rename(root / "captions of mine.jsonl")
    with pytest.raises(DataError, match="holds no images with captions that are known"):
        build_data(config)
    named = replace(config, data=replace(config.data, annotations="captions of mine.jsonl"))
    assert len(build_data(named).train_set) == 3
    write_text(root / "my_val.jsonl", as_lines([{"image": "images/one.jpg", "caption": "a cat"}]))
    split = replace(config.data, annotations="my_{split}.jsonl", train_split="val")
    assert texts(build_data(replace(config, data=split)).train_set) == ["a cat"]
    missing = replace(config.data, annotations="other.json")
    with pytest.raises(DataError, match="data.annotations=other.json: there is no .*other.json"):
        build_data(replace(config, data=missing))


# --- what cannot be read --------------------------------------------------------------------------


def test_a_folder_of_nothing_is_explained(tmp_path: Path):
    picture(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError) as raised:
        open_split(tmp_path)
    message = str(raised.value)
    assert "Flickr8k.token.txt" in message and "found images/ (1 image)" in message
    assert "\n" not in message
    with pytest.raises(ValueError, match="data.layout='zip': expected auto, flickr8k"):
        open_split(tmp_path, layout="zip")
    with pytest.raises(DataError, match="layout|looked for parquet or Arrow shards"):
        open_split(tmp_path, layout="tables")


def test_a_pickle_is_refused_with_how_to_convert_it(tmp_path: Path):
    write_text(tmp_path / "refs(unc).p", "cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(DataError, match=r"refs\(unc\).p: a pickle.*json.dump\(pickle.load") as got:
        open_split(tmp_path)
    assert "\n" not in str(got.value) and not (tmp_path / "pwned").exists()


def test_a_split_that_is_not_there_is_named(tmp_path: Path):
    root = forms.write_imagefolder(tmp_path)
    with pytest.raises(DataError, match="has no split 'test': as lines it has train, val"):
        open_split(root, "test")


ROWS = [
    ({"file_name": "one.jpg"}, "caption missing"),
    ({"file_name": 3, "text": "a cat"}, "image missing"),
    ({"text": "a cat", "file_name": "one.jpg", "phrases": "cat"}, "wrong phrases"),
    (
        {"text": "a cat", "file_name": "one.jpg", "phrases": [{"words": "dog", "box": [0] * 4}]},
        "phrase not in the caption",
    ),
    (
        {"text": "a cat", "file_name": "one.jpg", "phrases": [{"words": "cat"}]},
        "phrase without a place",
    ),
    (
        {"text": "a cat", "file_name": "one.jpg", "phrases": [{"words": "cat", "maks": "a.png"}]},
        "unknown key",
    ),
    ({"text": "a cat", "file_name": "one.jpg", "attn_list": [["cat"]]}, "wrong phrases"),
]


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_a_wrong_line_is_left_out_with_its_place(tmp_path: Path, row: dict, kind: str):
    forms.pictures(tmp_path)
    good = {"file_name": "two.jpg", "text": "a dog"}
    path = write_text(tmp_path / "metadata.jsonl", as_lines([good, row]))
    dataset = open_split(tmp_path)
    assert texts(dataset) == ["a dog"]
    assert list(dataset.manifest["problems"]) == [kind]
    assert f"{path}:2" in dataset.manifest["problems"][kind]["examples"][0]
    with pytest.raises(DataError, match=f"metadata.jsonl:2: {kind}"):
        open_split(tmp_path, on_error="raise")


def test_masks_that_do_not_fit_are_told(tmp_path: Path):
    forms.pictures(tmp_path)
    picture(tmp_path / "small.png", size=(10, 10))
    forms.mask(tmp_path / "empty.png", 0, 0, 0, 0)
    rows = [
        {"file_name": name, "text": "a cat", "phrases": [{"words": "cat", "mask": mask}]}
        for name, mask in (("one.jpg", "gone.png"), ("two.jpg", "empty.png"))
    ]
    write_text(tmp_path / "metadata.jsonl", as_lines(rows))
    dataset = open_split(tmp_path)
    assert set(dataset.manifest["problems"]) <= {
        "mask that is not there",
        "empty mask",
        "mask that cannot be read",
    }
    assert sum(one["count"] for one in dataset.manifest["problems"].values()) == 2
    assert dataset.manifest["lack"]["fact"].startswith("mask that is not there (first: ")
