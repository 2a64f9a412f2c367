"""Single training steps of a method, without a Trainer."""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.methods.base import Method, Step, StepDraws, Term, weighted_sum


def draws(method: Method, number: int = 0) -> StepDraws:
    """The random numbers of a step."""
    return method.draws_of(number)


def terms(method: Method, batch: Batch, number: int = 0) -> dict[str, Term]:
    return method.compute_terms(batch, draws(method, number))


def loss(method: Method, batch: Batch) -> Tensor:
    return weighted_sum(terms(method, batch))


def values(method: Method, batch: Batch) -> dict[str, float]:
    """The value of each term."""
    return {name: float(term.value.detach()) for name, term in terms(method, batch).items()}


def denoised(method: Method, batch: Batch) -> Step:
    """A step after its forward pass."""
    step = method.prepare(batch, draws(method))
    method.run_denoiser(step)
    return step


def run_step(method: Method, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """(the loss, what was logged) of `Method.training_step`."""
    logged: dict[str, Tensor] = {}
    method.log = lambda name, value, **_: logged.__setitem__(name, value)  # type: ignore[method-assign]
    return method.training_step(batch, 0), logged


def at_step(method: Method, number: int) -> None:
    """As if so many optimiser steps were done."""
    loop = SimpleNamespace(total_batch_idx=number)
    method._trainer = SimpleNamespace(global_step=number, global_rank=0, fit_loop=loop)  # type: ignore[assignment]
