"""Methods by the names of their files: the classes that are found, and one that a user adds as two
files, as the README says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.readme import read_readme_files
from helpers.training_steps import run_step

import conf.method
import lightning_modules.methods
from conf import spec
from conf.schema import Method as MethodConfig
from conf.schema import Trainer
from datamodules.batch import Batch
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Method
from lightning_modules.methods.registry import method_class


def test_each_declared_method_is_a_class_of_its_name():
    assert {method_class(name).name for name in spec.methods()} == set(spec.methods())
    assert len({method_class(name) for name in spec.methods()}) == len(spec.methods())
    with pytest.raises(ValueError, match="method 'sdxl' is unknown: expected one of .*maskattn"):
        method_class("sdxl")


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The two files, where the packages find them."""
    for path, source in read_readme_files("Add a method").items():
        package = conf.method if path.startswith("conf") else lightning_modules.methods
        folder = (tmp_path / path).parent
        folder.mkdir(parents=True)
        (tmp_path / path).write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.channel_scale", raising=False)
    importlib.invalidate_caches()
    spec._declared.cache_clear()
    yield
    spec._declared.cache_clear()


def test_an_added_method_trains_what_it_declares(embedded: Backbone, added: Any):
    config = MethodConfig("channel_scale")
    # The schema of a new process has the section
    config.channel_scale = spec.methods()["channel_scale"].settings["channel_scale"](penalty=3.0)
    method = method_class("channel_scale")(embedded, config, Trainer(), 64)
    assert isinstance(method, Method) and method.trains
    with torch.no_grad():
        method.adapter["scale"] *= 2
    batch = Batch(
        [0, 1], ["a red circle", "a ring"], latents=torch.randn(2, *embedded.latent_size())
    )
    loss, logged = run_step(method, batch)
    assert logged.keys() == {"train/denoising", "train/distance", "train/loss"}
    assert logged["train/distance"] == 1
    assert torch.allclose(loss, logged["train/denoising"] + 3 * logged["train/distance"])
    loss.backward()
    assert method.adapter["scale"].grad.shape == (8, 1, 1)
