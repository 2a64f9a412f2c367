"""What a method costs: measured where asked for, kept with the adapter, nothing of a backbone that
nobody touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conf import load as conf
from conf.schema import Run
from lightning_modules.evaluation import cost as costs
from lightning_modules.training import run as train

KEYS = ("eval/trained_parameters", "eval/train_seconds", "eval/train_memory", "eval/sampling_time")


def test_costs_stand_beside_the_metrics_and_with_the_adapter(base: Run, tmp_path: Path) -> None:
    config = conf.replace(base, {"seed": 31, "evaluation.costs": True})
    first = train.run(config, tmp_path / "a")["metrics"]
    assert (
        first["eval/trained_parameters"]
        == json.loads((tmp_path / "a" / "result.json").read_text())["counts"]["trained_parameters"]
    )
    assert (
        first["eval/train_seconds"] > 0
        and 0.1 < first["eval/train_memory"] < 64
        and first["eval/sampling_time"] > 0
    )
    again = train.run(config, tmp_path / "b")["metrics"]
    kept = json.loads(
        (
            Path(config.output) / "adapters" / train.training_key(config) / "training.json"
        ).read_text()
    )
    assert again["eval/train_seconds"] == first["eval/train_seconds"] == kept["seconds"], (
        "those of the training, not of this run"
    )


def test_nothing_is_measured_unasked_or_of_the_backbone(base: Run, tmp_path: Path) -> None:
    plain = train.run(conf.replace(base, {"seed": 31}), tmp_path / "a")["metrics"]
    untouched = train.run(
        conf.replace(base, {"method.name": "untouched", "evaluation.costs": True}), tmp_path / "b"
    )["metrics"]
    assert not set(KEYS) & (plain.keys() | untouched.keys())


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
