"""All figures here are drawn at few dots an inch."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def always_coarse(coarse: None) -> None: ...
