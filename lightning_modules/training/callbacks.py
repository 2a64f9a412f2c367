"""What every training calls back: progress lines, metrics for a logger, and stopping before the
last step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from conf.files import named_when_full
from lightning_modules.training.checkpoints import LAST
from lightning_modules.training.distributed import all_gather_int
from lightning_modules.training.preemption import Notice
from lightning_modules.training.progress import LOSSES, PRUNE, Step, format_step

__all__ = ["MetricLines", "ProgressLines", "StopOnRequest", "StopOnSignal", "Stopped", "print_line"]


def print_line(line: str, share: float) -> None:
    """Progress for people: the line alone."""
    print(line, flush=True)


class ProgressLines(L.Callback):
    """Every ``every`` seconds: step, loss, seconds a step (of this process), time left. ``emit``
    gets the line and the share done."""

    def __init__(
        self, label: str, every: float = 30.0, emit: Callable[[str, float], None] | None = None
    ) -> None:
        self.label, self.every = label, every
        self.emit = emit or print_line

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.last = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        now, done, total = time.monotonic(), trainer.global_step, trainer.max_steps
        if now - self.last < self.every and done < total:
            return
        self.last = now
        pace = (now - self.began) / max(done - self.first, 1)
        loss = trainer.callback_metrics.get("train/loss")
        step = Step(done, total, None if loss is None else float(loss))
        self.emit(format_step(self.label, step, pace), done / total)


class _EveryFewSteps(L.Callback):
    """Calls ``act`` every ``every`` optimiser steps and at the last one, once for each. ``metrics``
    are then those of the training: with accumulation the mean over the batches of the step."""

    def __init__(self, every: int) -> None:
        self.every, self.last = every, -1
        self.metrics: dict[str, Tensor] = {}
        self._parts: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        for key, value in trainer.callback_metrics.items():
            if key.startswith("train/"):
                self._parts.setdefault(key, []).append(value.detach().clone())
        step = trainer.global_step
        if step == self.last:
            return  # In the middle of a step
        self.last, parts, self._parts = step, self._parts, {}
        if step % self.every == 0 or step == trainer.max_steps:
            self.metrics = {
                key: torch.stack(values).mean() if len(values) > 1 else values[0]
                for key, values in parts.items()
            }
            self.act(trainer, step)

    def act(self, trainer: L.Trainer, step: int) -> None:
        raise NotImplementedError


class MetricLines(_EveryFewSteps):
    """Hands the training metrics to ``store``, with their step."""

    def __init__(self, every: int, store: Callable[[dict[str, float], int], None]) -> None:
        super().__init__(every)
        self.store = store

    def act(self, trainer: L.Trainer, step: int) -> None:
        self.store({key: float(value) for key, value in self.metrics.items()}, step)


class StopOnRequest(_EveryFewSteps):
    """Stops the training when ``folder`` holds the file ``PRUNE``, and adds the loss to its file
    ``LOSSES``. ``stopped`` says afterwards whether that ended the training.

    The first process looks and all follow: if each looked for itself, they would disagree about a
    file that appears between two looks. Raises FloatingPointError, on all processes alike, when the
    loss is not finite: the adapter would be worth nothing.
    """

    def __init__(self, every: int, folder: Path) -> None:
        super().__init__(every)
        self.folder, self.stopped = folder, False

    def act(self, trainer: L.Trainer, step: int) -> None:
        loss = float(self.metrics.get("train/loss", math.nan))
        if not math.isfinite(loss):
            cure = "lower trainer.lr or trainer.clip, or set trainer.precision=32-true"
            raise FloatingPointError(f"the loss is {loss} at step {step}: {cure}")
        if trainer.is_global_zero:
            path = self.folder / LOSSES
            with named_when_full(path), path.open("a", encoding="utf-8") as losses:
                losses.write(f"{step} {loss:.6g}\n")
        if step < trainer.max_steps and trainer.strategy.broadcast(
            trainer.is_global_zero and (self.folder / PRUNE).exists()
        ):
            self.stopped = trainer.should_stop = True


class Stopped(Exception):
    """A signal ended the training; the message says at which step."""


class StopOnSignal(Checkpoint):
    """Ends the training after the optimiser step in which a process received a signal, with a
    checkpoint in ``folder``, on all processes: raises Stopped.

    All processes ask each other after each step. Lightning's own answer to SIGTERM ends after a
    batch, writes nothing, and speaks to other processes inside the signal handler.
    """

    # A Checkpoint, so that it runs after all that a checkpoint has the state of

    def __init__(self, notice: Notice, folder: Path, every: int) -> None:
        """``every``: at multiples of it another callback has written a checkpoint already."""
        self.notice, self.folder, self.every = notice, folder, every

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = trainer.global_step
        self.notice.install()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step == self.last:
            return  # In the middle of a step
        self.last = step
        number = max(all_gather_int(self.notice.number))
        if not number or step >= trainer.max_steps:
            return
        self.notice.number = number  # On all processes
        if step % self.every:
            trainer.save_checkpoint(self.folder / LAST)
        # A training that is asked to end ends its epoch, and Lightning writes that as its state
        raise Stopped(f"at step {step} of {trainer.max_steps}")
