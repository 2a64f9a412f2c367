"""What the gates do while they are trained, for MLflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from datamodules.coco import CocoDataset
from lightning_modules.evaluation.gate_probe import GateProbe
from lightning_modules.methods.maskattn import MaskAttn


class GateDiagnostics(L.Callback):
    """Every ``every`` optimiser steps ``store`` gets, under ``gates/``:

    ``closed/site/…``, ``closed/kind/…``, ``closed/time/…``: share of closed gates since the last
    time, by layer, kind of token and timesteps; ``gradient/closed`` and ``gradient/open``: root
    mean square of the loss's gradient by a closed and by an open gate; ``opened`` and ``shut``: on
    the first training images with fixed noise, the share of gates that changed state since the last
    time.

    Of several processes all need this callback, one with a ``store``.
    """

    def __init__(
        self,
        every: int,
        dataset: CocoDataset,
        seed: int,
        store: Callable[[dict[str, float], int], None] | None,
    ) -> None:
        self.every, self.dataset, self.seed, self.store, self.last = every, dataset, seed, store, -1
        self.before: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, MaskAttn)
        if self.store is None:
            return
        self.probe = GateProbe(pl_module, self.dataset, self.seed, images=8)
        self._turnover()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self.last or (step % self.every and step != trainer.max_steps):
            return
        assert isinstance(pl_module, MaskAttn)
        self.last = step
        window, pl_module.window = pl_module.window, None
        if window is None:
            return
        window = window.joined(pl_module.gates.sites)
        if self.store is None:
            return
        values = {f"closed/{name}": value for name, value in window.shares().items()}
        values |= {
            f"gradient/{name}": value for name, value in window.gradients().items()
        } | self._turnover()
        self.store({f"gates/{name}": value for name, value in values.items()}, step)

    @torch.no_grad()
    def _turnover(self) -> dict[str, float]:
        record = self.probe.run()
        now = {site: gate > 0.5 for site, gate in record.gates.items()}
        before, self.before = self.before, now
        if before is None:
            return {}
        total = sum(
            int((torch.ones_like(gate) & record.read(site)).sum()) for site, gate in now.items()
        )
        opened = sum(int((~before[site] & gate).sum()) for site, gate in now.items())
        shut = sum(int((before[site] & ~gate).sum()) for site, gate in now.items())
        return {"opened": opened / total, "shut": shut / total}
