"""A training step that is two steps of the optimiser, each with a loss and noise of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.methods.training_step import StepDraws, Term, TrainingStep


class SecondStep(TrainingStep):
    """Adds a second step of the same optimiser to each training step, where ``has_second_step``:
    with a backward pass and a clipping of its own, at the same learning rate.

    The Trainer counts both as one: ``trainer.steps``, schedules, checkpoints and the steps of logs
    are training steps. Of accumulated batches each step takes all. ``train/loss`` is the sum of
    both losses.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._batches: list[tuple[Batch, StepDraws]] = []  # Of the first step
        self._first_loss: Tensor
        self._second: StepDraws | None = None  # While the second step runs: its random numbers

    @property
    def has_second_step(self) -> bool:
        return False

    def second_terms(self, batch: Batch, draws: StepDraws) -> dict[str, Term]:
        """The terms of the second step's loss."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self.has_second_step:
            return super().training_step(batch, batch_idx)
        if self._second is None:
            draws = self.step_draws()
            self._batches.append((batch, draws))
            loss = self.log_terms(self.compute_terms(batch, draws))
            self._first_loss = loss.detach()
            self.log("train/loss", self._first_loss)  # Until the second step is there
            return loss
        loss = self.log_terms(self.second_terms(batch, self._second))
        self.log("train/loss", self._first_loss + loss.detach())
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.has_second_step:
            optimizer.step(closure=partial(self._second_backward, optimizer))

    @torch.enable_grad()
    def _second_backward(self, optimizer: Any) -> Tensor:
        """The gradient of the second step, over the batches of the first."""
        # The strategy's own methods: autocast, the scaling of losses and the sum of gradients over
        # processes are theirs.
        strategy, batches = self.trainer.strategy, self._batches
        self._batches = []
        optimizer.zero_grad()
        try:
            for batch, self._second in batches:
                loss: Any = strategy.training_step(batch, 0)
                strategy.backward(loss / self.trainer.accumulate_grad_batches, optimizer)
        finally:
            self._second = None
        return loss.detach()
