"""Methods are not trained on data that have nothing of what they look at; what only a share of the
data has is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import (
    write_captioned_split,
)
from helpers.flickr_files import write_images, write_token

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
    train._run(config, tmp_path / "trial", seed_run, None, Clock())
    notes = json.loads((tmp_path / "trial" / "data.json").read_text())["notes"]
    log = (tmp_path / "trial" / "log.txt").read_text()
    for told in ("3 of 4 images of 'train'", "3 of 4 captions of 'train'", "missing 1 (first: "):
        assert sum(told in note for note in notes) == 1
    assert len(notes) == 3 and tags["data.notes"].splitlines() == notes
    assert all(f"data: {note}" in log for note in notes), "notes of the split are there, too"


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
