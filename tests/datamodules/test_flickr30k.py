"""Flickr30k from disk to samples: which images a split has, which captions, where the phrases are,
and what is said of what is wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import flickr_files as files
from helpers.flickr_files import CAPTIONS
from PIL import Image

from datamodules import Flickr30kDataModule
from datamodules.flickr30k import Flickr30kDataset
from datamodules.formats.index import DataError
from datamodules.phrases.nouns import noun_phrases


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Four images, and captions of all of them in a file that names no splits."""
    files.write_images(tmp_path / "flickr30k-images")
    files.write_token(tmp_path / "results_20130124.token")
    return tmp_path


def dataset(root: Path, split: str = "all", **settings: Any) -> Flickr30kDataset:
    return Flickr30kDataset(root, split, settings.pop("resolution", 64), **settings)


def ids(found: Flickr30kDataset) -> list[int | str]:
    return [record.id for record in found.records]


def phrases(found: Flickr30kDataset, index: int, caption: int) -> dict[str, torch.Tensor]:
    """Masks by phrase of one of the captions, which is made the first."""
    record = found.records[index]
    order = [caption, *(i for i in range(len(record.captions)) if i != caption)]
    record.captions = [record.captions[i] for i in order]
    for annotation in record.annotations:
        if "caption" in annotation:
            annotation["caption"] = order.index(annotation["caption"])
    said = found.phrases(index)
    assert all(found.caption(index).text[p.start : p.end] == p.text for p in said)
    assert [p.start for p in said] == sorted(p.start for p in said)
    return {p.text: p.mask for p in said}


def block(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def test_images_and_captions_of_everything(plain: Path):
    found = dataset(plain)
    assert ids(found) == [36979, 10002456, 1000092795, 2199200615]
    assert {
        str(record.id): [c.text for c in record.captions] for record in found.records
    } == CAPTIONS
    sample = found[2]
    assert sample["id"] == 1000092795 and sample["caption"] == CAPTIONS["1000092795"][0]
    assert sample["image"].shape == (3, 64, 64)
    inside = sample["image"][:, :, 4:-4]  # the crop is the blue square; JPEG blurs its edges
    assert (inside[2] > 0.8).all() and (inside[0] < -0.8).all()
    assert found.phrases(2) == [] and found.instances(2) == []
    assert (
        found.manifest["problems"] == {}
        and found.manifest["captions_from"] == "results_20130124.token"
    )
    assert found.manifest["split_by"] == "all" and found.manifest["images_in"] == "flickr30k-images"


def test_the_caption_of_an_epoch_is_drawn(plain: Path):
    found = dataset(plain, train=True)
    drawn = []
    for epoch in range(20):
        found.epoch = epoch
        drawn.append(found.caption(2).text)
    assert set(drawn) == set(CAPTIONS["1000092795"])


@pytest.mark.parametrize("split_file", ["karpathy", "annotations"])
@pytest.mark.parametrize("layout", ["auto", "token"])
def test_karpathys_split(plain: Path, split_file: str, layout: str):
    name = {"karpathy": "dataset_flickr30k.json", "annotations": "flickr_annotations_30k.csv"}[
        split_file
    ]
    {"karpathy": files.write_karpathy, "annotations": files.write_annotations}[split_file](
        plain / name
    )
    found = dataset(plain, "train", layout=layout)
    assert ids(found) == [10002456, 1000092795] and ids(dataset(plain, "val", layout=layout)) == [
        2199200615
    ]
    manifest = found.manifest
    assert manifest["split_by"] == "karpathy" and manifest["split_from"] == name
    assert manifest["split_counts"] == {"train": 2, "val": 1} and manifest["leaves_out"] == 1
    assert manifest["captions_from"] == ("results_20130124.token" if layout == "token" else name)
    assert manifest["problems"] == {}
    with pytest.raises(
        DataError,
        match=(r"no split 'test' in .*, which has " r"train \(2 images\), val \(1 image\)"),
    ):
        dataset(plain, "test", layout=layout)


def test_the_split_of_entities(plain: Path):
    files.write_entities(plain)
    assert ids(dataset(plain, "train", split_by="entities")) == [36979, 1000092795]
    found = dataset(plain, "test", split_by="entities")
    assert (
        ids(found) == [10002456] and found.manifest["split_from"] == "train.txt, val.txt, test.txt"
    )
    assert (
        found.manifest["split_counts"] == {"train": 2, "val": 1, "test": 1}
        and found.manifest["leaves_out"] == 0
    )


def test_without_a_file_that_says_the_split(plain: Path):
    with pytest.raises(
        DataError,
        match=(
            r"by karpathy has \(results_20130124.token does not\): put Karpathy's "
            r"dataset_flickr30k.json or f"
        ),
    ):
        dataset(plain, "train")
    with pytest.raises(
        DataError,
        match=(
            "put train.txt, val.txt and test.txt of Entities there, or take all images with "
            "data.split_by=all"
        ),
    ):
        dataset(plain, "train", split_by="entities")
    with pytest.raises(ValueError, match="data.split_by='mine': expected karpathy, entities, all"):
        dataset(plain, "train", split_by="mine")
    assert len(dataset(plain, "train", split_by="all")) == 4


def test_phrases_and_their_regions(plain: Path):
    files.write_entities(plain / "entities")
    found = dataset(plain)
    index = ids(found).index(1000092795)
    assert found.manifest["entities"] and found.manifest["reworded"] == 0
    # The crop begins at column 16; boxes in the file begin at 1 and hold their last pixel.
    chain_1 = block((0, 0, 16, 16), (24, 32, 40, 64))
    first = phrases(found, index, 0)
    assert first.keys() == {"Two young , White males"}, (
        "what lies wholly outside the crop gives no phrase"
    )
    assert torch.equal(first["Two young , White males"], chain_1)
    assert first["Two young , White males"].dtype == torch.bool


def test_one_box_of_two_chains_a_box_beyond_the_image_and_chains_without(plain: Path):
    files.write_entities(plain / "entities")
    index = ids(dataset(plain)).index(1000092795)
    third = phrases(found := dataset(plain), index, 2)
    assert third.keys() == {"A man", "a blue shirt"}
    assert torch.equal(third["a blue shirt"], block((24, 32, 40, 64)))
    second = phrases(dataset(plain), index, 1)
    assert second.keys() == {"sign"} and torch.equal(second["sign"], block((63, 59, 64, 64)))
    (types,) = [
        a["types"] for a in found.records[index].annotations if a["chain"] == "3" and "types" in a
    ]
    assert types == ["other", "scene"]


def test_masks_are_resized_and_mirrored_as_the_image_is(plain: Path):
    files.write_entities(plain / "entities")
    found = dataset(plain, resolution=32)
    index = ids(found).index(1000092795)
    (phrase,) = found.phrases(index)
    (mirrored,) = found.phrases(index, flipped=True)
    expected = block((0, 0, 16, 16), (24, 32, 40, 64))[::2, ::2]
    assert torch.equal(phrase.mask, expected) and torch.equal(mirrored.mask, expected.flip(-1))


def test_boxes_of_which_nothing_is_left_give_no_phrase(plain: Path):
    files.write_entities(plain)
    files.write_boxes(plain / "Annotations", "36979", files.thing(7, box=(43, 20, 44, 21)))
    assert dataset(plain, resolution=8).phrases(0) == []
    (phrase,) = dataset(plain, resolution=8, mask_share=0.0).phrases(0)
    assert phrase.mask.sum() == 1


def test_unrelated_captions_are_left_out(plain: Path):
    files.write_entities(plain)
    found = dataset(plain)
    record = found.records[ids(found).index(36979)]
    assert [c.text for c in record.captions] == CAPTIONS["36979"][:4]
    assert found.manifest["unrelated"] == 1


def test_unrelated_captions_are_counted_from_one_without_entities(plain: Path):
    (plain / "UNRELATED_CAPTIONS").write_text("36979 1\n")
    flickr = dataset(plain)
    captions = flickr.records[ids(flickr).index(36979)].captions
    assert [c.text for c in captions] == CAPTIONS["36979"][1:]


@pytest.mark.parametrize("with_entities", [True, False])
def test_captions_as_english_is_written(plain: Path, with_entities: bool):
    if with_entities:
        files.write_entities(plain)
    found = dataset(plain, detokenise=True)
    index = ids(found).index(1000092795)
    assert [c.text for c in found.records[index].captions] == [
        "Two young, White males are outside near many bushes.",
        'A sign says "Wet paint".',
        "A man in a blue shirt, standing in a garden",
        "a boy's friend doesn't wave",
        "Runner #7 | number 7, is tired.",
    ]
    if with_entities:
        assert phrases(found, index, 0).keys() == {"Two young, White males"}
        assert phrases(dataset(plain, detokenise=True), index, 4).keys() == {"Runner #7 | number 7"}


def test_captions_that_differ_from_entities_in_blanks_are_kept_others_not(plain: Path):
    captions = {
        name: [text.replace(" .", ".").replace(" ,", ",") for text in said]
        for name, said in CAPTIONS.items()
    }
    captions["1000092795"][2] = "A man in a green shirt, standing in a garden"
    files.write_karpathy(plain / "dataset_flickr30k.json", captions)
    files.write_entities(plain)
    found = dataset(plain, "train")
    index = ids(found).index(1000092795)
    said = [c.text for c in found.records[index].captions]
    assert said[0] == captions["1000092795"][0] and said[2] == CAPTIONS["1000092795"][2]
    assert found.manifest["reworded"] == 1
    assert phrases(found, index, 0).keys() == {"Two young, White males"}


def test_entities_alone_hold_captions_too(tmp_path: Path):
    files.write_images(tmp_path / "images")
    files.write_entities(tmp_path / "entities")
    found = dataset(tmp_path, "train", split_by="entities")
    assert (
        found.manifest["layout"] == "entities"
        and found.manifest["captions_from"] == "entities/Sentences"
    )
    assert [c.text for c in found.records[1].captions] == CAPTIONS["1000092795"] and len(
        found.phrases(1)
    ) == 1


def test_sentences_without_boxes_change_nothing(plain: Path):
    files.write_sentences(plain)
    found = dataset(plain)
    assert not found.manifest["entities"] and found.manifest["problems"] == {}
    assert {
        str(record.id): [c.text for c in record.captions] for record in found.records
    } == CAPTIONS


def test_entities_that_are_missing_or_broken_leave_the_image(plain: Path):
    files.write_entities(plain)
    (plain / "Annotations" / "36979.xml").write_text("<annotation>")
    files.write_boxes(plain / "Annotations", "1000092795", files.thing(1, box=(200, 1, 210, 9)))
    files.write(
        plain / "Sentences" / "10002456.txt",
        ["[/EN#1/people Men work .", "Men work on machine number 1 ."],
    )
    found = dataset(plain)
    assert len(found) == 4 and all(found.phrases(i) == [] for i in range(4))
    assert {kind: problem["count"] for kind, problem in found.manifest["problems"].items()} == {
        "boxes of Entities unusable": 1,
        "box outside the image": 1,
        "sentence that cannot be read": 1,
        "sentences of Entities missing": 1,
        "boxes of Entities missing": 2,
    }
    with pytest.raises(DataError, match=r"36979.xml: boxes of Entities unusable: is no XML"):
        dataset(plain, on_error="raise")


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((200, 1, 300, 64), "box outside the image"),
        ((80, 64, 17, 1), "box without area"),
        ((20, 10, 19, 30), "box without area"),
    ],
)
def test_boxes_of_nothing_are_told_as_what_they_are(
    plain: Path, box: tuple[int, int, int, int], kind: str
):
    files.write_entities(plain)
    files.write_boxes(plain / "Annotations", "36979", files.thing(7, box=box))
    problem = dataset(plain).manifest["problems"][kind]
    assert problem["count"] == 1 and f"36979.xml: {box}" in problem["examples"][0]


def test_boxes_that_no_caption_names_are_counted(plain: Path):
    files.write_entities(plain)
    before = dataset(plain).manifest["unnamed_boxes"]
    boxes = files.thing(99, box=(1, 1, 9, 9)) + files.thing(box=(1, 1, 9, 9))
    files.write_boxes(plain / "Annotations", "36979", boxes)
    assert dataset(plain).manifest["unnamed_boxes"] == before + 2


def test_sentences_without_a_line_are_told(plain: Path):
    files.write_entities(plain)
    (plain / "Sentences" / "36979.txt").write_text("\n")
    problem = dataset(plain).manifest["problems"]["sentences of Entities unusable"]
    assert "36979.txt: has no caption" in problem["examples"][0]


def broken(root: Path) -> Path:
    images = root / "flickr30k-images"
    (images / "36979.jpg").unlink()
    (images / "10002456.jpg").write_bytes(b"<html>not found")
    lines = [
        *(root / "results_20130124.token").read_text().splitlines(),
        "1000092795.jpg#5\t  ",
        "no row",
    ]
    files.write(root / "results_20130124.token", lines)
    files.write_images(images, ["7"])
    (images / "._7.jpg").write_bytes(b"of another system")
    return images


def test_what_cannot_be_used_is_left_out_counted_and_listed(plain: Path):
    images = broken(plain)
    found = dataset(plain)
    assert ids(found) == [1000092795, 2199200615] and len(found.records[0].captions) == 5
    problems = found.manifest["problems"]
    assert {kind: problem["count"] for kind, problem in problems.items()} == {
        "row that cannot be read": 1,
        "image without captions": 1,
        "missing": 1,
        "no image": 1,
        "blank caption": 1,
    }
    assert problems["missing"]["examples"] == [str(images / "36979.jpg")]
    assert problems["image without captions"]["examples"] == [str(images / "7.jpg")]
    json.dumps(found.manifest)


def test_the_first_that_cannot_be_used_stops_where_it_is_wanted(plain: Path):
    (plain / "flickr30k-images" / "10002456.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="10002456.jpg: empty"):
        dataset(plain, on_error="raise")


def test_nothing_that_can_be_used(plain: Path):
    files.write_karpathy(plain / "dataset_flickr30k.json")
    (plain / "flickr30k-images" / "2199200615.jpg").unlink()
    with pytest.raises(
        DataError,
        match=(
            r"split 'val' below .* no image with a caption: 1 listed.* missing 1 \(first: "
            r".*2199200615.jpg"
        ),
    ):
        dataset(plain, "val")
    with pytest.raises(DataError, match="with a caption of 9 noun phrases or more"):
        dataset(plain, "train", min_phrases=9)


def test_captions_of_enough_phrases_keep_theirs(plain: Path):
    files.write_entities(plain)
    enough = [text for text in CAPTIONS["1000092795"] if len(noun_phrases(text)) >= 3]
    found = dataset(plain, min_phrases=3)
    assert ids(found) == [1000092795] and 0 < len(enough) < 5
    assert [c.text for c in found.records[0].captions] == enough
    assert phrases(found, 0, enough.index(CAPTIONS["1000092795"][2])).keys() == {
        "A man",
        "a blue shirt",
    }
    assert found.manifest["too_few_phrases"] == 4 + 5 + 5 + 5 - len(enough)


def test_a_limit_takes_the_first_by_id(plain: Path):
    assert ids(dataset(plain, limit=2)) == [36979, 10002456]


def test_names_that_are_no_numbers(tmp_path: Path):
    files.write_images(tmp_path / "Images", ["1000268201_693b08cb0e", "12"])
    files.write(
        tmp_path / "captions.txt",
        ["image,caption", "1000268201_693b08cb0e.jpg,A child .", "12.jpg,A dog ."],
    )
    found = dataset(tmp_path, train=True)
    assert ids(found) == [12, "1000268201_693b08cb0e"] and found[1]["caption"] == "A child ."


def test_the_index_is_made_anew_when_a_file_changes(
    plain: Path, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("index")

    def first() -> str:
        return dataset(plain, index_root=folder).caption(0).text

    assert first() == first() == CAPTIONS["36979"][0]
    assert len(list(folder.glob("*/manifest.json"))) == 1
    path = plain / "results_20130124.token"
    path.write_text(path.read_text().replace("A group of 0 people", "A crowd"))
    assert first() == "A crowd ."
    files.write_entities(plain)
    assert first() == "A group of 0 people ."
    files.write(plain / "Sentences" / "36979.txt", ["[/EN#7/people A band] ."])
    assert first() == "A band ." and len(dataset(plain, index_root=folder).phrases(0)) == 1
    (plain / "Annotations" / "36979.xml").unlink()
    assert dataset(plain, index_root=folder).phrases(0) == []
    image = plain / "flickr30k-images" / "36979.jpg"
    Image.new("RGB", (40, 30)).save(image.with_suffix(".new.jpg"))
    image.with_suffix(".new.jpg").rename(image)
    assert dataset(plain, index_root=folder).records[0].width == 40


def test_datasets_go_to_other_processes(plain: Path):
    files.write_entities(plain)
    found = dataset(plain)
    again = pickle.loads(pickle.dumps(found))
    assert again.caption(2) == found.caption(2) and torch.equal(
        again.phrases(2)[0].mask, found.phrases(2)[0].mask
    )


def test_the_datamodule(plain: Path):
    files.write_entities(plain)
    datamodule = Flickr30kDataModule(
        plain, 64, eval_splits=("val", "test"), batch=2, split_by="entities", detokenise=True
    )
    with pytest.warns(UserWarning, match="split '(val|test)': sentences of Entities missing 1"):
        datamodule.setup()
    datamodule.train_set.with_phrases = True
    (batch,) = datamodule.train_dataloader()
    assert (
        sorted(batch.ids) == [36979, 1000092795]
        and batch.images is not None
        and batch.phrases is not None
    )
    assert all(
        caption[p.start : p.end] == p.text
        for caption, said in zip(batch.captions, batch.phrases, strict=True)
        for p in said
    )
    assert list(datamodule.eval_sets) == ["val", "test"]
    assert datamodule.eval_sets["val"].caption(0).text == "Dog 0 runs."


def test_images_that_are_trained_and_measured_on_are_told(plain: Path):
    datamodule = Flickr30kDataModule(plain, 64, split_by="all")
    with pytest.warns(
        UserWarning, match=("4 of 4 images of 'val' also in the training split 'train'")
    ):
        datamodule.setup()
    assert any("trained on" in note for note in datamodule.manifest()["notes"])
