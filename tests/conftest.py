"""The environment of all tests: no network, no telemetry, no display, one thread each, and no GPU
but for tests of the marker ``gpu``."""

from __future__ import annotations

import os
import re

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
)


def pytest_configure(config: pytest.Config) -> None:
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
