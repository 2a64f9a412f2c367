"""Methods are not trained on data that have nothing of what they look at; what only a share of the
data has is said."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import (
    listed,
    objects,
    rectangle,
    write_captioned_split,
    write_instances,
)
from helpers.flickr_files import write_entities, write_images, write_token

from conf import load as conf
from conf.schema import Run
from datamodules.build import build_data, singular
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.training import run as train
from lightning_modules.training.keys import training_key
from lightning_modules.training.needs import check_needs
from lightning_modules.training.progress import Clock

GATES = {"method": "maskattn", "method.gate.supervision": "masks"}
MAPS = {"method": "maskattn", "method.gate.supervision": "separate_enhance"}
SEPEN = {"method": "separate_enhance"}
TOKEN_COMPOSE = {"method": "token_compose"}
NOUNS = {**SEPEN, "method.separate.objects": "nouns"}


@pytest.fixture(scope="module")
def captions_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioned_split(
        tmp_path_factory.mktemp("captions"), ["A dog sleeps."] * 4, masked=0
    )


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = ["A dog sleeps.", "A dog runs.", "A dog sits.", "Nothing but snow."]
    root = write_captioned_split(
        tmp_path_factory.mktemp("half"), [*captions, "A lost dog."], masked=3
    )
    (root / "train" / "000000000005.jpg").unlink()
    return root


def settings(base: Run, root: Path, output: Path, changes: dict[str, Any]) -> Run:
    return conf.replace(
        base,
        {
            "data": "coco",
            "data.root": str(root),
            "data.train_split": "train",
            "data.min_phrases": 0,
            "data.train_images": None,
            "evaluation.prompts": 0,
            "output": str(output),
            "trainer.steps": 1,
            **changes,
        },
    )


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        (GATES, "method.gate.supervision=none"),
        (MAPS, "method.gate.supervision=none"),
        ({"method": "mcgm"}, "data=scene"),
        ({"method": "break_a_scene"}, "data=scene"),
        (SEPEN, "method.separate.objects=nouns"),
        (TOKEN_COMPOSE, "method.finetune.objects=nouns"),
    ],
)
def test_data_without_masks_are_refused_before_weights_are_loaded(
    base: Run,
    captions_alone: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    cure: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Backbone, "load", None)
    config = settings(base, captions_alone, tmp_path, changes)
    with pytest.raises(ValueError, match=f"0 of 4 images with masks.*instances file.*{cure}"):
        train.run(config, tmp_path / "trial")


def test_masks_of_what_no_caption_names_are_no_supervision(base: Run, tmp_path: Path):
    root = write_captioned_split(tmp_path / "data", ["A cat."] * 4, masked=4)
    with pytest.raises(ValueError, match="names an object of its image .4 of 4 images with masks"):
        train.run(settings(base, root, tmp_path, GATES), tmp_path / "trial")


def test_losses_that_compare_objects_need_a_caption_that_names_two(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Backbone, "load", None)
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 4, masked=4)
    given = {"method": "finetune", "method.finetune.losses": {"iou": 1.0, "enhance": 1.0}}
    config = settings(base, root, tmp_path, given)
    with pytest.raises(
        ValueError, match="compares objects, 2 of a caption or more, but no caption"
    ):
        train.run(config, tmp_path / "trial")


LINE = [[10, 10, 50, 10, 30, 10]]
ELSEWHERE = [[200, 10, 250, 10, 230, 40]]


@pytest.mark.parametrize(
    ("annotations", "fact", "cure"),
    [
        ([], "instances_train.json has no annotation of an object", "add annotations"),
        (
            [objects(i, segmentation=LINE, key=i) for i in (1, 2)],
            "of 2 annotations of objects in instances_train.json none serves: 2 × polygon without "
            "area (first: .*000000000001.jpg: image 1, annotation 1",
            "mend the annotations",
        ),
        (
            [objects(1, iscrowd=1), objects(2, iscrowd=1, key=2), objects(1, 55, key=3)],
            "2 × crowd region; 1 × unknown category",
            "annotate single objects",
        ),
        ([objects(77), objects(78)], "2 × annotation of no image", "file of these images"),
        ([objects(1, segmentation=[])], "1 × no mask", "not boxes alone"),
        ([objects(1, segmentation=ELSEWHERE)], "1 × polygon outside the image", "mend"),
        ([objects(4)], "1 × of images that cannot be read", "put the images"),
        ([objects(5)], "1 × of images without a caption that is read", "give the captions"),
        ([objects(3)], "1 × of images beyond the first 2", "data.train_images"),
    ],
)
def test_what_is_told_of_masks_is_what_is_the_case(
    base: Run, tmp_path: Path, annotations: list[dict[str, Any]], fact: str, cure: str
):
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 4 + [" "], masked=0)
    (root / "train" / "000000000004.jpg").unlink()
    write_instances(root / "annotations", "train", listed(range(1, 6)), annotations)
    changes = {**GATES, "data.train_images": 2 if "beyond" in fact else None}
    with pytest.raises(
        ValueError, match=f"0 of . images with masks.*{fact.replace('(', '.')}"
    ) as e:
        check_needs(*needs(base, root, tmp_path, changes))
    assert cure in str(e.value) and "put the instances file" not in str(e.value)


def needs(base: Run, root: Path, output: Path, changes: dict[str, Any]) -> tuple[Run, Any]:
    config = settings(base, root, output, changes)
    return config, build_data(config)


@pytest.mark.parametrize("method", [GATES, MAPS, SEPEN, {"method": "mcgm"}])
def test_every_method_that_needs_masks_tells_what_is_the_case(
    base: Run, tmp_path: Path, method: dict[str, Any]
):
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 2, masked=0)
    lines = [objects(i, segmentation=LINE, key=i) for i in (1, 2)]
    write_instances(root / "annotations", "train", listed([1, 2]), lines)
    with pytest.raises(ValueError, match="2 × polygon without area.*mend the annotations"):
        check_needs(*needs(base, root, tmp_path, method))


@pytest.mark.parametrize(
    ("captions", "boxes", "told"),
    [
        (["A cat."], [rectangle(40, 16, 16, 24)], "of dog.*give captions that name these objects"),
        (["A dog."], [rectangle(0, 10, 5, 20)], "none of whose 2 masks has a pixel in the square"),
        (
            ["A dog."],
            [rectangle(20, 16, 16, 24), rectangle(60, 16, 16, 24)],
            "a singular among several objects.*data.singular=all",
        ),
    ],
)
def test_masks_without_a_word_are_no_missing_file(
    base: Run, tmp_path: Path, captions: list[str], boxes: list[Any], told: str
):
    root = write_captioned_split(tmp_path / "data", captions * 2, masked=0)
    dogs = [
        objects(i, segmentation=box, key=10 * i + k) for i in (1, 2) for k, box in enumerate(boxes)
    ]
    write_instances(root / "annotations", "train", listed([1, 2]), dogs)
    with pytest.raises(ValueError, match=f"2 of 2 images with masks.*{told}") as error:
        check_needs(*needs(base, root, tmp_path, GATES))
    assert "instances file" not in str(error.value)


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (("Sentences", "Annotations"), "no Sentences and no Annotations of Flickr30k Entities"),
        (("Annotations",), "no Annotations of Flickr30k Entities.*, Sentences alone.; put Annot"),
        (("Sentences",), "no Sentences of Flickr30k Entities.*, Annotations alone.; put Sentences"),
        (("*.xml",), "are there, but: .*4 × boxes of Entities missing .first: "),
        (("bndbox",), "2 × boxes of Entities missing .*2 × image without a phrase that has a box"),
    ],
)
def test_what_is_told_of_entities_is_what_is_the_case(
    base: Run, tmp_path: Path, lacking: tuple[str, ...], told: str
):
    root = tmp_path / "flickr"
    write_images(root / "images")
    write_token(root / "results_20130124.token")
    write_entities(root)
    for path in [*(root / "Sentences").glob("*"), *(root / "Annotations").glob("*")]:
        if path.parent.name in lacking or path.match(lacking[0]):
            path.unlink()
        elif lacking == ("bndbox",) and path.suffix == ".xml":
            path.write_text(path.read_text().replace("bndbox", "nobndbox"))
    for name in ("Sentences", "Annotations"):
        if name in lacking:
            (root / name).rmdir()
    changes = {"data": "flickr30k", "data.split_by": "all", "data.min_phrases": 0, **GATES}
    with pytest.raises(ValueError, match=f"0 of 4 images with masks or boxes: .*{told}"):
        check_needs(*needs(base, root, tmp_path, changes))


def test_captions_of_entities_without_boxes_are_refused(base: Run, tmp_path: Path):
    write_images(tmp_path / "flickr" / "images")
    write_token(tmp_path / "flickr" / "results_20130124.token")
    changes = {"data": "flickr30k", "data.split_by": "all", "data.min_phrases": 0, **GATES}
    config = settings(base, tmp_path / "flickr", tmp_path, changes)
    with pytest.raises(ValueError, match="0 of . images with masks or boxes.*Entities"):
        train.run(config, tmp_path / "trial")


def test_what_only_a_share_has_is_said(base: Run, half: Path, tmp_path: Path):
    tags: dict[str, str] = {}

    class SeedRun:
        note = staticmethod(tags.update)

        def __getattr__(self, name: str) -> Any:
            return lambda *values, **named: None

    tmp_path.joinpath("trial").mkdir()
    config = settings(base, half, tmp_path, GATES)
    seed_run: Any = SeedRun()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train._run(config, tmp_path / "trial", seed_run, None, Clock())
    notes = json.loads((tmp_path / "trial" / "data.json").read_text())["notes"]
    log = (tmp_path / "trial" / "log.txt").read_text()
    for told in ("3 of 4 images of 'train'", "3 of 4 captions of 'train'", "missing 1 (first: "):
        assert sum(told in note for note in notes) == 1
    assert len(notes) == 3 and tags["data.notes"].splitlines() == notes
    assert all(f"data: {note}" in log for note in notes), "notes of the split are there, too"
    assert all(log.count(note) == 1 for note in notes)
    assert not any(note in str(each.message) for each in caught for note in notes)


def test_noun_phrases_need_no_masks_but_nouns(base: Run, captions_alone: Path, tmp_path: Path):
    config = settings(base, captions_alone, tmp_path / "a", NOUNS)
    datamodule = build_data(config)
    assert not check_needs(config, datamodule)
    assert [p.text for p in datamodule.train_set[0]["phrases"]] == ["dog"]
    root = write_captioned_split(tmp_path / "data", ["So beautiful!"] * 4, masked=0)
    config = settings(base, root, tmp_path / "b", NOUNS)
    with pytest.raises(ValueError, match="give captions that name objects"):
        check_needs(config, build_data(config))


def test_prompts_that_name_nothing_are_refused(base: Run, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("a photo of a cat and a lamp\nso beautiful\n")
    prompts = {**SEPEN, "data": "prompts", "evaluation.extractor": "none"}
    config = settings(base, tmp_path / "mine.txt", tmp_path, prompts)
    datamodule = build_data(config)
    (share,) = check_needs(config, datamodule)
    assert "1 of 2 captions" in share
    cat = datamodule.train_set[0]["phrases"]
    assert [phrase.text for phrase in cat] == ["cat", "lamp"]
    each = {"method.separate.test_time": 1, "evaluation.prompts": None, "evaluation.splits": []}
    config = conf.replace(config, each | {"evaluation.detector": "none"})
    with pytest.raises(ValueError, match="'so beautiful' of 'mine' names none"):
        check_needs(config, build_data(config))


def test_attention_is_not_measured_where_captions_name_nothing(
    base: Run, captions_alone: Path, tmp_path: Path
):
    measured = {
        "method": "maskattn",
        "evaluation.prompts": 2,
        "evaluation.splits": ["train"],
        "evaluation.attention": True,
        "evaluation.detector": "none",
    }
    config = settings(base, captions_alone, tmp_path, measured)
    with pytest.raises(ValueError, match="evaluation.attention=true.*set it to false"):
        check_needs(config, build_data(config))


def test_whose_mask_a_singular_has_is_part_of_the_key(base: Run, half: Path, tmp_path: Path):
    gates = settings(base, half, tmp_path, GATES)
    assert singular(gates) == "one" and singular(conf.replace(gates, SEPEN)) == "all"
    keys = {
        choice: training_key(conf.replace(gates, {"data.singular": choice}))
        for choice in ("auto", "one", "all", "none")
    }
    assert keys["auto"] == keys["one"] and len(set(keys.values())) == 3
