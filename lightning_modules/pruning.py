"""A training that ends early when whoever started it asks, on all its processes at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

__all__ = ["StopWhenAsked"]


class StopWhenAsked(L.Callback):
    """Looks every ``every`` optimiser steps whether ``path`` exists. The first process looks, all follow: ranks that looked for themselves
    would part ways when the file appears between two looks. ``asked`` says afterwards whether that ended the training.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every, self.asked = path, every, False
        self.last = -1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self.last or step % self.every or step >= trainer.max_steps:
            return
        self.last = step
        if trainer.strategy.broadcast(trainer.is_global_zero and self.path.exists()):
            self.asked = trainer.should_stop = True
