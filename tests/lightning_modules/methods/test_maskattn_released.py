"""MaskAttn's released preset against numbers that the authors' training code gave on a small random
SDXL: losses, gradients, rates and gate heads of four steps of two batches, with posterior samples,
noise and timesteps of `StepDraws`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.architectures import build_pipeline
from torch.utils.data import DataLoader, Dataset

from conf import load as conf
from conf.schema import Run
from datamodules.batch import collate
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Method
from lightning_modules.methods.registry import build_method

GOLDEN = json.loads(Path(__file__).with_name("released_maskattn.json").read_text())
SIDE, STEPS = 128, 4
SCALES = (1, 7)  # Of the parameters those of normalisations, which are near one


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Pictures(Dataset):
    def __len__(self) -> int:
        return len(GOLDEN["captions"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = normal(100 + index, 3, SIDE, SIDE).clamp(-1, 1)
        return {"id": index, "image": image, "caption": GOLDEN["captions"][index]}


def build(folder: Path) -> tuple[Run, Method]:
    words = ["method=maskattn_released", "trainer=paper512", "evaluation.prompts=0"]
    small = [
        f"backbone.resolution={SIDE}",
        "method.gate.width=16",
        f"trainer.steps={STEPS}",
        "trainer.accumulate=2",
        "trainer.warmup=2",
        "trainer.lr=0.05",
    ]
    config = conf.load([*words, *small], schema=Run)
    method = build_method(config, Backbone(build_pipeline("sdxl", folder, scale="tiny"), "sdxl"))
    with torch.no_grad():
        for i, parameter in enumerate(method.parameters()):
            drawn = normal(500 + i, *parameter.shape)
            if parameter.dim() == 2:
                parameter.copy_(drawn * parameter.shape[1] ** -0.5)
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * drawn + float(i in SCALES))
    return config, method


class Watch(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps: list[dict[str, Any]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        norms = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
        rate = optimizer.param_groups[0]["lr"]
        self.steps.append({"gradient_norm": float(torch.stack(norms).norm()), "lr": rate})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/denoising"]))
        if len(self.losses) % 2 == 0:
            self.steps[-1]["weights"] = [numbers(p) for p in pl_module.parameters()]


def numbers(tensor: torch.Tensor) -> list[float]:
    """A projection and the norm."""
    flat = tensor.detach().double().flatten()
    wave = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return [float(flat @ wave), float(flat.norm())]


def test_four_steps_are_those_of_the_authors_code(tmp_path: Path):
    config, method = build(tmp_path)
    watch, recipe = Watch(), config.trainer
    trainer = L.Trainer(
        max_steps=recipe.steps,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[watch],
    )
    trainer.fit(method, DataLoader(Pictures(), recipe.batch, collate_fn=collate))
    assert watch.losses == pytest.approx(GOLDEN["losses"], rel=1e-5)
    assert len(watch.steps) == STEPS
    for found, golden in zip(watch.steps, GOLDEN["steps"], strict=True):
        assert found["lr"] == pytest.approx(golden["lr"], abs=1e-12)
        # A gradient passes through six gates of slope 10^4, one after another
        assert found["gradient_norm"] == pytest.approx(golden["gradient_norm"], rel=1e-3)
        for mine, theirs in zip(found["weights"], golden["weights"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)
