"""Methods by the names of their files: the classes that are found, and one that a user adds as two
files, as the README says."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
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

DECLARATION = """
from dataclasses import dataclass

from conf.fields import number
from conf.spec import MethodSpec


@dataclass
class ChannelScale:
    # Weight of the distance of the scales from 1
    penalty: float = number(0.1, minimum=0)


METHOD = MethodSpec(settings={"channel_scale": ChannelScale})
"""
MODULE = """
from torch import nn, ones

from lightning_modules.methods.base import Method, Term


class ChannelScale(Method):  # A trained scale for each latent channel that enters the denoiser
    name = "channel_scale"
    hook = None

    def __init__(self, *args):
        super().__init__(*args)
        self.adapter = nn.ParameterDict({"scale": ones(self.backbone.latent_size()[0], 1, 1)})
        self.install()

    def install(self):
        self.remove()
        self.adapter.to(self.backbone.device)
        scale = lambda model, args: (args[0] * self.adapter["scale"], *args[1:])
        self.hook = self.backbone.denoiser.register_forward_pre_hook(scale)

    def remove(self):
        if self.hook:
            self.hook = self.hook.remove()

    def losses(self, step):  # Terms of the loss; `step` knows prediction, target, timesteps, text …
        distance = (self.adapter["scale"] - 1).square().mean()
        return super().losses(step) | {"distance": Term(distance, self.config.channel_scale.penalty)}
"""
FILES = {"conf/method": DECLARATION, "lightning_modules/methods": MODULE}


def test_each_declared_method_is_a_class_of_its_name():
    assert {method_class(name).name for name in spec.methods()} == set(spec.methods())
    assert len({method_class(name) for name in spec.methods()}) == len(spec.methods())
    with pytest.raises(ValueError, match="method 'sdxl' is unknown: expected one of .*maskattn"):
        method_class("sdxl")


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The two files, where the packages find them."""
    for package, text in zip((conf.method, lightning_modules.methods), FILES.values(), strict=True):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "channel_scale.py").write_text(text)
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
    batch = Batch([0, 1], ["a red circle", "a ring"], latents=torch.randn(2, 4, 16, 16))
    loss, logged = run_step(method, batch)
    assert logged.keys() == {"train/denoising", "train/distance", "train/loss"}
    assert logged["train/distance"] == 1
    assert torch.allclose(loss, logged["train/denoising"] + 3 * logged["train/distance"])
    loss.backward()
    assert method.adapter["scale"].grad.shape == (4, 1, 1)


@pytest.mark.slow
def test_an_added_method_is_trained_drawn_and_read_again(tiny_folder: Path, tmp_path: Path):
    """In a copy of the code, in which the files lie where a user puts them."""
    for package in ("conf", "losses", "datamodules", "lightning_modules"):
        shutil.copytree(Path(__file__).parents[3] / package, tmp_path / package)
    for folder, text in FILES.items():
        (tmp_path / folder / "channel_scale.py").write_text(text)
    code = """
import sys
from pathlib import Path
from conf import load
from conf.schema import Run
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Method
from lightning_modules.training.run import run
config = load.load(sys.argv[1:], schema=Run)
assert run(config, Path(config.output) / "run")["counts"]["trained_parameters"] == 4
[folder] = Path(config.output, "adapters").iterdir()
method = Method.load_adapter(folder, Backbone.load(config.backbone.path))
assert method.config.channel_scale.penalty == 0.5, method.config
assert method.adapter["scale"].std() > 0
print(method.generate(["a red ring"], [1], steps=1).shape)
"""
    settings = [
        f"backbone.path={tiny_folder}",
        "method.name=channel_scale",
        "method.channel_scale.penalty=0.5",
        "data.train_images=4",
        "data.eval_images=4",
        "trainer.steps=2",
        "trainer.batch=2",
        "trainer.accelerator=cpu",
        "evaluation.prompts=2",
        "evaluation.steps=1",
        "evaluation.detector=none",
        "evaluation.precision_recall_k=1",
        f"output={tmp_path / 'out'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *settings],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[1, 3, 64, 64]" in done.stdout
    card = json.loads(next((tmp_path / "out" / "adapters").glob("*/adapter.json")).read_text())
    assert card["config"] == {"channel_scale": {"penalty": 0.5}}
