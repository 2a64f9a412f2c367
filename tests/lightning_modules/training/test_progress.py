"""Lines of progress and training metrics handed on, without a Trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.training import callbacks
from lightning_modules.training.callbacks import MetricLines, ProgressLines


def trainer(step: int, steps: int = 100, **metrics: float) -> Any:
    return SimpleNamespace(
        global_step=step,
        max_steps=steps,
        callback_metrics={k: torch.tensor(v) for k, v in metrics.items()},
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now.time)
    return now


def test_lines_come_every_so_often_and_at_the_end(clock: SimpleNamespace):
    lines: list[tuple[str, float]] = []
    callback = ProgressLines("vae", every=10, emit=lambda text, share: lines.append((text, share)))
    callback.on_train_start(trainer(0), None)  # type: ignore[arg-type]
    for step in range(1, 101):
        clock.time = 3.0 * step
        callback.on_train_batch_end(trainer(step, **{"train/loss": 0.5}), None, None, None, 0)  # type: ignore[arg-type]
    assert [round(share * 100) for _, share in lines] == [*range(4, 100, 4), 100]
    assert lines[0] == ("vae: step 4/100, loss 0.5000, 3.00 s a step, 5 min left", 0.04)


def test_a_resumed_training_counts_its_own_steps_alone(clock: SimpleNamespace):
    lines: list[tuple[str, float]] = []
    callback = ProgressLines("vae", every=1, emit=lambda text, share: lines.append((text, share)))
    callback.on_train_start(trainer(50), None)  # type: ignore[arg-type]
    clock.time = 12.0
    callback.on_train_batch_end(trainer(52), None, None, None, 0)  # type: ignore[arg-type]
    assert lines == [("vae: step 52/100, 6.00 s a step, 5 min left", 0.52)]


def test_metrics_are_handed_on_once_a_step_and_at_the_last():
    stored: list[tuple[dict[str, float], int]] = []
    callback = MetricLines(4, lambda values, step: stored.append((values, step)))
    for step in (1, 2, 3, 4, 4, 5, 8, 9, 10):  # two batches of one step: accumulation
        callback.on_train_batch_end(
            trainer(step, 10, **{"train/loss": step, "other": 1.0}), None, None, None, 0
        )  # type: ignore[arg-type]
    assert stored == [({"train/loss": step}, step) for step in (4.0, 8.0, 10.0)]
