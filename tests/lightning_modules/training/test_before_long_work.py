"""What the settings, the data and the backbone rule out together is refused before images are
encoded, class images drawn or steps taken."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.coco_files import write_captioned_split

from conf import load as conf
from conf.schema import Run
from datamodules.build import build_data
from lightning_modules.methods.break_a_scene import BreakAScene
from lightning_modules.methods.registry import build_method
from lightning_modules.methods.separate_enhance import SeparateEnhance
from lightning_modules.training import fit
from lightning_modules.training import run as train


def fail(*_: Any, **__: Any) -> None:
    raise AssertionError("long work has begun")


def silent(text: str, share: float) -> None:
    """Takes a line of progress."""


@pytest.mark.parametrize("supervision", ["masks", "none"])
def test_a_training_set_that_makes_no_batch_is_refused_before_images_are_encoded(
    supervision: str, base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 3, masked=3)
    changes = {
        "data": "coco",
        "data.root": str(root),
        "data.train_split": "train",
        "data.train_images": None,
        "data.min_phrases": 0,
        "method.gate.supervision": supervision,
        "method.gate.denoising_weight": 1.0,
        "evaluation.prompts": 0,
        "output": str(tmp_path / "runs"),
    }
    monkeypatch.setattr(fit, "_encode", fail)
    with pytest.raises(ValueError, match="3 training samples, which make no batch of .*batch=4"):
        train.run(conf.replace(base, changes), tmp_path / "trial")


def test_an_adapter_to_start_from_is_checked_before_class_images_are_drawn(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    changes = {
        "method": "break_a_scene",
        "method.weights.rank": 1,
        "data": "scene",
        "data.root": "auto",
        "data.train_images": 4,
        "evaluation.prompts": 0,
        "output": str(tmp_path),
    }
    config = conf.replace(base, changes)
    backbone = train._load_backbone(config, silent)
    datamodule = build_data(config)
    first = build_method(BreakAScene.complete(config, datamodule), backbone)
    first.save_adapter(tmp_path / "first")
    first.remove()
    second = {"method.weights.rank": 2, "method.init": str(tmp_path / "first")}
    monkeypatch.setattr(BreakAScene, "extend_data", fail)
    with pytest.raises(ValueError, match="does not fit"):
        train._prepare(conf.replace(config, second), backbone, datamodule, tmp_path, silent)


def test_a_prompt_whose_objects_are_not_read_is_refused_before_any_is_drawn(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    changes = {
        "method": "separate_enhance",
        "method.separate.test_time": 1,
        "data.train_images": 4,
        "output": str(tmp_path),
    }
    config = conf.replace(base, changes)
    backbone, datamodule = train._load_backbone(config, silent), build_data(config)
    monkeypatch.setattr(backbone.text, "locate_phrases", lambda texts, _: ([[]] * len(texts), []))
    with pytest.raises(ValueError, match=r"names nothing .*among the first \d+ tokens"):
        train._prepare(config, backbone, datamodule, tmp_path, silent)


def test_heads_that_have_no_halves_are_refused_before_images_are_encoded(base: Run):
    changes = {
        "method": "separate_enhance",
        "method.separate.store": "second_half",
        "method.separate.heads": "each",
    }
    config = conf.replace(base, changes)
    method: Any = build_method(config, train._load_backbone(config, silent))
    assert isinstance(method, SeparateEnhance)
    method.check_data(SimpleNamespace())
    method.map_sites = [dataclasses.replace(site, heads=3) for site in method.map_sites]
    with pytest.raises(ValueError, match="3 heads at .*an odd number.*store=all"):
        method.check_data(SimpleNamespace())
