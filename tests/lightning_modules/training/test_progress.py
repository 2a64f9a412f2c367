"""What a training calls back, without a Trainer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.training import callbacks
from lightning_modules.training.callbacks import MetricLines, ProgressLines, StopOnRequest
from lightning_modules.training.progress import PRUNE, format_duration


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
    callback.on_train_start(trainer(0), Any)
    for step in range(1, 101):
        clock.time = 3.0 * step
        callback.on_train_batch_end(trainer(step, **{"train/loss": 0.5}))
    assert [round(share * 100) for _, share in lines] == [*range(4, 100, 4), 100]
    assert lines[0] == ("vae: step 4/100, loss 0.5000, 3.00 s a step, 5 min left", 0.04)


def test_a_resumed_training_counts_its_own_steps_alone(clock: SimpleNamespace):
    lines: list[tuple[str, float]] = []
    callback = ProgressLines("vae", every=1, emit=lambda text, share: lines.append((text, share)))
    callback.on_train_start(trainer(50), Any)
    clock.time = 12.0
    callback.on_train_batch_end(trainer(52))
    assert lines == [("vae: step 52/100, 6.00 s a step, 5 min left", 0.52)]


def test_metrics_are_handed_on_once_a_step_and_at_the_last():
    stored: list[tuple[dict[str, float], int]] = []
    callback = MetricLines(4, lambda values, step: stored.append((values, step)))
    for step in (1, 2, 3, 4, 4, 5, 8, 9, 10):  # two batches of one step: accumulation
        callback.on_train_batch_end(
            trainer(step, 10, **{"train/loss": step, "other": 1.0}), None, None, None, 0
        )  # type: ignore[arg-type]
    assert stored == [({"train/loss": step}, step) for step in (4.0, 8.0, 10.0)]


@pytest.mark.parametrize(("asked_at", "stops"), [(3, 4), (5, 6), (9, None)])
def test_a_training_stops_at_the_next_look_but_not_after_its_last_step(
    tmp_path: Path, asked_at: int, stops: int | None
):
    callback, state = StopOnRequest(2, tmp_path), trainer(0, 10, **{"train/loss": 0.5})
    state.is_global_zero, state.strategy = True, SimpleNamespace(broadcast=lambda value: value)
    for step in range(1, 11):
        state.global_step = step
        if step == asked_at:
            (tmp_path / PRUNE).touch()
        callback.on_train_batch_end(state, None, None, None, 0)
        if callback.stopped:
            break
    assert (step if callback.stopped else None) == stops
    last = stops or 10
    assert (tmp_path / "losses.txt").read_text() == "".join(
        f"{k} 0.5\n" for k in range(2, last + 1, 2)
    )


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path):
    with pytest.raises(FloatingPointError, match="at step 4.*trainer.lr"):
        StopOnRequest(2, tmp_path).on_train_batch_end(trainer(4, **{"train/loss": float("nan")}))


def test_durations_as_people_write_them():
    assert [format_duration(s) for s in (0, 89, 90, 5399, 5400)] == [
        "0 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
    ]
