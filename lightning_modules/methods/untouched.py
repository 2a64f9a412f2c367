"""The untouched backbone as a method: every table needs it."""

from __future__ import annotations

from lightning_modules.methods.base import Method


class Untouched(Method):
    name = "untouched"
    trains = False  # type: ignore[assignment]
