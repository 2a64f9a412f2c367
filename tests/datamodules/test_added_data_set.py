"""A data set that a user adds as two files, as the README says: it is found by its name, and a
method trains on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.coco_files import picture

import conf.data
import datamodules
from conf import load, spec
from datamodules.build import build_data, data_digest

DECLARATION = """
from conf.spec import DataSpec

DATA = DataSpec("captions")
"""
MODULE = """
from datamodules.batch import Caption
from datamodules.captioned import CaptionedDataModule, CaptionedDataset
from datamodules.formats.index import Record
from datamodules.formats.reader import Reader


class FruitReader(Reader):
    def list_records(self, problems):
        paths = sorted((self.root / self.split).glob("*.jpg"))
        words = [path.stem.replace("_", " ") for path in paths]
        return [
            Record(path.stem, path, captions=[Caption(f"a photo of a {name}")])
            for path, name in zip(paths, words)
        ]


class FruitDataset(CaptionedDataset):
    reader = FruitReader


class FruitDataModule(CaptionedDataModule):
    kind = FruitDataset


def build(config, emit):
    return FruitDataModule.from_settings(config, emit)
"""
NAMES = ("red_circle", "blue_square", "green_ring", "white_cross")


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A folder of code with the two files, and of images below ``images``."""
    for folder, text in (("conf/data", DECLARATION), ("datamodules", MODULE)):
        path = tmp_path / "code" / folder / "fruit.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    for split in ("train", "val"):
        for name in NAMES:
            picture(tmp_path / "images" / split / f"{name}.jpg")
    return tmp_path


def test_an_added_data_set_is_found_by_its_name(added: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conf.data, "__path__", [*conf.data.__path__, str(added / "code/conf/data")])
    monkeypatch.setattr(
        datamodules, "__path__", [*datamodules.__path__, str(added / "code/datamodules")]
    )
    monkeypatch.delitem(sys.modules, "datamodules.fruit", raising=False)
    spec._declared.cache_clear()
    try:
        assert spec.data_sets()["fruit"].kind == "captions"
        config = load.load(
            ["evaluation.splits=[val]", "trainer.batch=2", f"output={added / 'out'}"]
        )
        config = replace(
            config, data=replace(config.data, name="fruit", root=str(added / "images"))
        )
        datamodule = build_data(config)
        (batch, _) = datamodule.train_dataloader()
        assert batch.images is not None and batch.images.shape == (2, 3, 64, 64)
        assert set(batch.captions) < {f"a photo of a {n.replace('_', ' ')}" for n in NAMES}
        assert len(datamodule.eval_sets["val"]) == 4
        assert datamodule.train_set.manifest["problems"] == {}
        before = data_digest(config)
        (added / "images" / "train" / "red_circle.jpg").unlink()
        assert data_digest(config) != before
    finally:
        spec._declared.cache_clear()


@pytest.mark.slow
def test_a_method_trains_on_an_added_data_set(added: Path):
    """In a copy of the code, in which the files lie where a user puts them."""
    copy = added / "copy"
    for package in ("conf", "losses", "datamodules", "lightning_modules"):
        shutil.copytree(Path(__file__).parents[2] / package, copy / package)
    shutil.copytree(added / "code", copy, dirs_exist_ok=True)
    code = """
import sys
from pathlib import Path
from conf import load
from conf.schema import Run
from lightning_modules.training.run import run
config = load.load(sys.argv[1:], schema=Run)
print(run(config, Path(config.output) / "run")["counts"])
"""
    settings = [
        "data.name=fruit",
        f"data.root={added / 'images'}",
        "data.train_images=4",
        "trainer.steps=2",
        "trainer.batch=2",
        "evaluation.prompts=0",
        f"output={added / 'out'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *settings],
        capture_output=True,
        text=True,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained_parameters" in done.stdout
    assert list((added / "out" / "adapters").glob("*/adapter.safetensors"))
