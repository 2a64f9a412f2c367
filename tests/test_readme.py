"""The README: its size, and that its examples of an ablation, a method, a data set and a metric
work as they stand there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.coco_files import picture
from helpers.readme import ROOT, read_readme_files

EXAMPLES = ("Add an ablation", "Add a method", "Add a data set", "Add a metric")


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_is_short(heading: str):
    files = read_readme_files(heading)
    # What stands in a block is all that is to be written
    assert files and sum(len(source.splitlines()) for source in files.values()) <= 40


@pytest.mark.slow
def test_the_examples_of_the_readme_work_together(tmp_path: Path):
    """In a copy of the code, in which the files lie where a user puts them."""
    copy = tmp_path / "copy"
    for package in ("conf", "losses", "datamodules", "lightning_modules", "sweeps", "reports"):
        shutil.copytree(ROOT / package, copy / package)
    for path, source in read_readme_files().items():
        (copy / path).write_text(source)
    for split in ("train", "val"):
        for name in ("red_circle", "blue_square", "green_ring", "white_cross"):
            picture(tmp_path / "fruit" / split / f"{name}.jpg")
    settings = {
        "backbone": "embedded",
        "method.name": "channel_scale",
        "method.channel_scale.penalty": 0.5,
        "data.name": "fruit",
        "data.root": str(tmp_path / "fruit"),
        "data.train_images": 4,
        "trainer.steps": 2,
        "trainer.batch": 2,
        "evaluation.splits": ["val"],
        "evaluation.prompts": 4,
        "evaluation.steps": 1,
        "evaluation.detector": "none",
        "evaluation.extractor": "none",
        "evaluation.metrics": ["brightness"],
        "output": str(tmp_path / "runs"),
    }
    trial = tmp_path / "trial" / "run.yaml"
    trial.parent.mkdir()
    trial.write_text(json.dumps(settings))

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            capture_output=True,
            text=True,
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    command("lightning_modules.train", str(trial))
    result = json.loads((trial.parent / "result.json").read_text())
    assert 0 <= result["metrics"]["eval/brightness"] <= 255
    assert result["counts"]["trained_parameters"] == 8
    assert "warmup=20" in command("sweeps.warmup", "--plan", f"output={tmp_path / 'runs'}")
    inspected = command(
        "datamodules.inspect",
        "data.name=fruit",
        f"data.root={tmp_path / 'fruit'}",
        f"output={tmp_path / 'inspected'}",
    )
    assert "train: 4 samples" in inspected
