"""The untouched backbone as a method: every table needs it."""

from __future__ import annotations

from lightning_modules.method import Method


class Baseline(Method):
    name = "baseline"
    trains = False  # type: ignore[assignment]
