"""Pictures of what the gates do: for a few fixed prompts, which tokens may act where, at the end
and while they are trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from conf.schema import Evaluation
from datamodules.coco import CocoDataModule, CocoDataset
from lightning_modules.evaluation.figures import draw_maps
from lightning_modules.evaluation.gate_probe import GateProbe
from lightning_modules.evaluation.plan import plan
from lightning_modules.methods.maskattn import MaskAttn

if TYPE_CHECKING:
    from PIL.Image import Image

PER_SPLIT = 2  # prompts drawn of each evaluation split: its first ones
IN_TRAINING = 4  # images that are looked at in training
LOOKS = 4  # pictures of a training beside the one of its start


def draw_gate_maps(
    method: MaskAttn, datamodule: CocoDataModule, config: Evaluation, seed: int, folder: Path
) -> None:
    """Writes ``gates.png`` and ``gates.json`` (prompts, tokens, share of open gates by token and
    resolution) to ``folder``.

    A map is the share of sampler steps and cross-attention sites of one resolution at which a
    token's gate was open, by location. Without such sites there is nothing to draw: on
    self-attention tokens are locations.
    """
    if not _cross(method):
        return
    prompts = plan(
        datamodule, replace(config, noise_seeds=1, prompts=min(PER_SPLIT, config.prompts)), seed
    )
    with method.gates.recording(conditional_half=config.guidance > 1, keep_maps=True) as record:
        texts, noises = [p.text for p in prompts], [p.noise for p in prompts]
        images = method.generate(texts, noises, None, config.steps, config.guidance, len(prompts))
    maps = _by_resolution(method, record.maps)
    tokens = [method.backbone.token_names(p.text) for p in prompts]
    content = [
        {
            "prompt": p.text,
            "tokens": tokens[i],
            "open": {
                str(side): [round(float(m[i, ..., t].mean()), 4) for t in range(len(tokens[i]))]
                for side, m in maps.items()
            },
        }
        for i, p in enumerate(prompts)
    ]
    (folder / "gates.json").write_text(json.dumps(content, indent=1))
    draw_maps(images, maps, tokens).save(folder / "gates.png")


class GateMaps(L.Callback):
    """Draws the gates over the first training images, noised at evenly spread timesteps, and hands
    the picture to ``store`` with the step: before the first step, after each quarter of the
    training, and after the last step."""

    def __init__(
        self, dataset: CocoDataset, seed: int, store: Callable[[Image, int], None]
    ) -> None:
        self.dataset, self.seed, self.store, self.last = dataset, seed, store, -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, MaskAttn)
        self.probe = GateProbe(pl_module, self.dataset, self.seed, IN_TRAINING)
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (
            trainer.global_step != self.last
            and (trainer.global_step * LOOKS) % trainer.max_steps < LOOKS
        ):
            self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, method: L.LightningModule) -> None:
        assert isinstance(method, MaskAttn)
        self.last = trainer.global_step
        if not _cross(method):
            return
        maps = _by_resolution(
            method, {name: gate > 0.5 for name, gate in self.probe.run().gates.items()}
        )
        order = self.probe.timesteps.argsort(descending=True).tolist()
        images = torch.stack([self.dataset.pixels(i) for i in order])
        tokens = [method.backbone.token_names(self.probe.captions[i]) for i in order]
        titles = [f"t = {int(self.probe.timesteps[i])}" for i in order]
        self.store(
            draw_maps(
                images, {side: opened[order] for side, opened in maps.items()}, tokens, titles
            ),
            self.last,
        )


def _cross(method: MaskAttn) -> list[str]:
    """The sites whose gates are of words."""
    return [site.name for site in method.gates.sites if site.kind == "cross"]


def _by_resolution(method: MaskAttn, gates: dict[str, Tensor]) -> dict[int, np.ndarray]:
    """Side, the finest first -> mean over the cross-attention sites of that resolution, [B, side,
    side, T]; ``gates`` are [B, N, T]."""
    found: dict[int, list[np.ndarray]] = {}
    for name in _cross(method):
        opened = gates[name].float().cpu()
        side = int(opened.shape[1] ** 0.5)
        found.setdefault(side, []).append(opened.reshape(len(opened), side, side, -1).numpy())
    return {side: np.mean(parts, axis=0) for side, parts in sorted(found.items(), reverse=True)}
