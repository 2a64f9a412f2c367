"""Plain progress lines with an estimate, for long training in a terminal or in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L

from lightning_modules.training.steps import Step, step_line


class ProgressLines(L.Callback):
    """Every ``every`` seconds: step, loss, seconds a step (of this process), time left. ``emit``
    gets the line and the share done."""

    def __init__(
        self, label: str, every: float = 30.0, emit: Callable[[str, float], None] | None = None
    ) -> None:
        self.label, self.every = label, every
        self.emit = emit or (lambda line, share: print(line, flush=True))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.spoke = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now, done, total = time.monotonic(), trainer.global_step, trainer.max_steps
        if now - self.spoke < self.every and done < total:
            return
        self.spoke = now
        pace = (now - self.began) / max(done - self.first, 1)
        loss = trainer.callback_metrics.get("train/loss")
        step = Step(done, total, None if loss is None else float(loss))
        self.emit(step_line(self.label, step, pace), done / total)


class MetricLines(L.Callback):
    """Hands the training metrics on every ``every`` optimiser steps; ``store`` gets the values and
    the step."""

    def __init__(self, every: int, store: Callable[[dict[str, float], int], None]) -> None:
        self.every, self.store, self.last = every, store, -1

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        # With accumulation several batches end at the same step.
        if step != self.last and (step % self.every == 0 or step == trainer.max_steps):
            self.last = step
            self.store(
                {
                    k: float(v)
                    for k, v in trainer.callback_metrics.items()
                    if k.startswith("train/")
                },
                step,
            )
