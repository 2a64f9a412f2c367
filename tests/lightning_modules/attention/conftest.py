"""Small random UNets of every wiring, and PixArt's transformer."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest


@cache
def build(name: str) -> Any:
    from lightning_modules.architectures import build_transformer, build_unet
    from lightning_modules.embedded import build_unet as build_embedded

    if name == "pixart":
        return build_transformer(name, "cpu", scale="tiny", caption_channels=None)  # takes texts as its cross-attention does
    return build_embedded().eval() if name == "embedded" else build_unet(name, "cpu", scale="tiny")


@pytest.fixture(params=["sd15", "sd21", "sdxl", "embedded", "pixart"])
def any_unet(request: pytest.FixtureRequest) -> Any:
    """A frozen UNet of its own for each test."""
    return deepcopy(build(request.param)).requires_grad_(False)
