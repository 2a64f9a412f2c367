"""Trainings that end before their last step: because whoever started them asks, or because their
loss is no number any more."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L

__all__ = ["StopWhenAsked"]


class StopWhenAsked(L.Callback):
    """Looks every ``every`` optimiser steps whether ``folder`` has the file ``name``, and adds the
    loss to its file ``losses``. The first process looks, all follow: ranks that looked for
    themselves would part ways when the file appears between two looks. ``asked`` says afterwards
    whether that ended it.

    Raises FloatingPointError, on all processes alike, when the loss is not finite: such a training
    makes an adapter that is worth nothing.
    """

    def __init__(self, folder: Path, name: str, losses: str, every: int) -> None:
        self.folder, self.name, self.losses, self.every, self.asked = (
            folder,
            name,
            losses,
            every,
            False,
        )
        self.last = -1

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self.last or (step % self.every and step < trainer.max_steps):
            return
        self.last = step
        loss = (
            float(trainer.callback_metrics["train/loss"])
            if "train/loss" in trainer.callback_metrics
            else 0.0
        )
        if not math.isfinite(loss):
            cure = "lower trainer.lr or trainer.clip, or set trainer.precision=32-true"
            raise FloatingPointError(f"the loss is {loss} at step {step}: {cure}")
        if trainer.is_global_zero:
            with (self.folder / self.losses).open("a", encoding="utf-8") as losses:
                losses.write(f"{step} {loss:.6g}\n")
        if step < trainer.max_steps and trainer.strategy.broadcast(
            trainer.is_global_zero and (self.folder / self.name).exists()
        ):
            self.asked = trainer.should_stop = True
