"""What a method costs: measured where asked for, kept with the adapter, nothing of a backbone that
nobody touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf import load as conf
from conf.schema import Evaluation, Run
from lightning_modules.evaluation import cost as costs
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics import Target
from lightning_modules.training import run as train


@pytest.mark.slow
def test_costs_stand_beside_the_metrics_and_with_the_adapter(base: Run, tmp_path: Path) -> None:
    config = conf.replace(base, {"seed": 31, "evaluation.costs": True})
    first = train.run(config, tmp_path / "a")
    metrics, counts = first["metrics"], first["counts"]
    assert metrics["eval/trained_parameters"] == counts["trained_parameters"]
    assert 0.1 < metrics["eval/train_memory"] < 64 and metrics["eval/sampling_time"] > 0
    again = train.run(config, tmp_path / "b")["metrics"]
    assert again["eval/train_seconds"] == metrics["eval/train_seconds"] > 0, (
        "those of the training, not of this run"
    )


class Slow(SimpleNamespace):
    """A method that takes three times as long as the backbone alone."""

    def __init__(self, clock: list[float], trains: bool = True) -> None:
        parameters = [torch.zeros(3), torch.zeros(4)]
        super().__init__(trains=trains, takes_masks=False, guides=[], backbone=None, resolution=64)
        self.parameters = lambda: parameters
        self.installed, self.clock = True, clock

    def generate(self, *args: Any) -> None:
        assert self.installed
        self.clock[0] += 6

    def remove(self) -> None:
        self.installed = False

    def install(self) -> None:
        self.installed = True


def test_costs_are_of_the_training_and_beside_the_untouched_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def sample(*args: Any) -> None:
        assert not method.installed
        clock[0] += 2

    monkeypatch.setattr(costs, "sample", sample)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    method: Any = Slow(clock)
    costs.write_training_cost(tmp_path / "adapter", {"seconds": 5.0, "memory": 2.0**31})
    prompts = [Prompt("val", i, i, "a ring", Target([]), i) for i in range(9)]
    found = costs.measure_costs(method, tmp_path / "adapter", prompts, Evaluation())
    assert found == {
        "trained_parameters": 7.0,
        "train_seconds": 5.0,
        "train_memory": 2.0,
        "sampling_time": 3.0,
    }
    assert method.installed
    assert costs.measure_costs(Slow(clock, trains=False), None, prompts, Evaluation()) == {}


def test_the_peak_is_of_the_block_alone() -> None:
    if not costs._reset_peak():
        pytest.skip("this system does not tell a process's peak memory")
    with costs.track_resources(torch.device("cpu")) as small:
        torch.ones(1)
    with costs.track_resources(torch.device("cpu")) as large:
        torch.ones(64 * 2**20)
    with costs.track_resources(torch.device("cpu")) as after:
        torch.ones(1)
    assert (
        large["memory"] - small["memory"] > 200 * 2**20
        and after["memory"] < large["memory"] - 100 * 2**20
    )
