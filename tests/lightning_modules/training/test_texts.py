"""Concepts that a text encoder would cut off are refused without its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conf import load as conf
from conf.schema import Run
from lightning_modules.backbone.weights import shipped_folder
from lightning_modules.training.foresee import check_concepts
from lightning_modules.training.texts import read_text_encoders

LONG = " ".join(["red"] * 30) + " ring"


def run_with(*concepts: str, backbone: str = "embedded") -> Run:
    return conf.replace(
        Run(),
        {
            "method.name": "separate_enhance",
            "data.concepts": [*concepts],
            "backbone.path": backbone,
        },
    )


def copy_without_weights(to: Path) -> Path:
    shutil.copytree(shipped_folder("embedded"), to, ignore=shutil.ignore_patterns("*.safetensors"))
    return to


def test_concepts_that_are_too_long_for_the_tokenizer(tmp_path: Path) -> None:
    folder = copy_without_weights(tmp_path / "backbone")
    for backbone in ("embedded", str(folder)):
        check_concepts(run_with("red ring", "blue cross", backbone=backbone))
        with pytest.raises(ValueError, match=r"data\.concepts with data\.objects=2: .*is cut off"):
            check_concepts(run_with(LONG, "blue cross", backbone=backbone))


def test_a_backbone_whose_tokenizers_are_not_there_is_left_to_loading(tmp_path: Path) -> None:
    folder = copy_without_weights(tmp_path / "backbone")
    index = json.loads((folder / "model_index.json").read_text())
    assert "tokenizer" in index
    shutil.rmtree(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer_2")
    assert read_text_encoders(run_with("red ring", backbone=str(folder))) is None
    assert read_text_encoders(run_with("red ring", backbone=str(tmp_path / "nowhere"))) is None
