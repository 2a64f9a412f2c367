"""The data set that the README adds as two files: it is found by its name and gives batches."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.coco_files import picture
from helpers.readme import read_readme_files

import conf.data
import datamodules
from conf import load, spec
from datamodules.build import build_data, data_digest

NAMES = ("red_circle", "blue_square", "green_ring", "white_cross")


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A folder of code with the two files, and of images below ``images``."""
    for name, source in read_readme_files("Add a data set").items():
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True)
        path.write_text(source)
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
