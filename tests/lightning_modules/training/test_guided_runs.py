"""Runs whose images are guided by attention maps: what they leave, share and refuse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conf.method.attention_guidance import AttentionGuidance
from conf.schema import Run
from datamodules.batch import Phrase
from lightning_modules.evaluation.plan import Prompt, check_objects
from lightning_modules.metrics.detection import Target
from lightning_modules.training import run as train


def guided(base: Run, folder: Path, name: str = "attention_guidance", **given: Any) -> Run:
    config = copy.deepcopy(base)
    config.method.name, config.output = name, str(folder)
    settings = {"losses": {"enhance": 1.0}, "side": 8, "step_size": 10.0, **given}
    config.method.attention_guidance = AttentionGuidance(**settings)
    return config


@pytest.mark.slow
def test_a_guided_run_counts_and_shares_its_adapter(base: Run, tmp_path: Path) -> None:
    config = guided(base, tmp_path, "maskattn", losses={})
    plain = train.run(config, tmp_path / "plain")
    config.evaluate_with = {
        "method.attention_guidance.losses": {"enhance": 1.0},
        "method.attention_guidance.side": 8,
    }
    late = train.run(config, tmp_path / "late")
    assert late["counts"] == plain["counts"]
    assert len([*(tmp_path / "adapters").glob("*/adapter.json")]) == 1
    assert late["metrics"]["eval/guidance_moves"] == 1  # One of two steps
    assert late["metrics"]["eval/guidance_fallback"] == 0
    assert "eval/guidance_moves" not in plain["metrics"]

    result = train.run(guided(base, tmp_path), tmp_path / "alone")
    table = pd.read_parquet(tmp_path / "alone" / "scores.parquet")
    assert (table["guidance_moves"] == 1).all() and (table["guidance_fallback"] == 0).all()
    assert result["counts"]["trained_parameters"] == 0
    assert result["ran"]["sampling"]["guided"] is True  # Classifier-free, too
    first = sorted(path.stat().st_mtime_ns for path in (tmp_path / "images").glob("*/*.png"))
    train.run(guided(base, tmp_path), tmp_path / "again")
    again = sorted(path.stat().st_mtime_ns for path in (tmp_path / "images").glob("*/*.png"))
    assert again == first


class Sets:
    """The objects that a data set knows of its prompts."""

    def __init__(self, **objects: list[list[Phrase]]) -> None:
        self.eval_sets = {split: self for split in objects}
        self.objects = objects

    def objects_named(self, index: int) -> list[Phrase]:
        return self.objects["val"][index]


def phrases(prompt: str, *words: str) -> list[Phrase]:
    return [Phrase(w, prompt.index(w), prompt.index(w) + len(w), None) for w in words]  # type: ignore[arg-type]


def test_prompts_that_guidance_cannot_act_on_are_refused_before_training(sd1: Any) -> None:
    texts = ["a red circle", "a red circle " + "and a blue square " * 30 + "and a white ring"]
    prompts = [Prompt("val", i, i, text, Target([]), i) for i, text in enumerate(texts)]
    sets = Sets(
        val=[phrases(texts[0], "red circle"), phrases(texts[1], "red circle", "white ring")]
    )
    check_objects(sd1, sets, prompts[:1], fewest=1)
    check_objects(sd1, sets, prompts)  # Weights are trained on what is read
    with pytest.raises(ValueError, match="'a red circle' of 'val' names 1 object: .* 2 or more"):
        check_objects(sd1, sets, prompts[:1], fewest=2)
    with pytest.raises(ValueError, match="names 'white ring' behind the first 77 tokens"):
        check_objects(sd1, sets, prompts, fewest=1)
