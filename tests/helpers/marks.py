"""Marks of parametrised tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*cases: Any) -> list[Any]:
    """Cases that the default suite leaves out, since the others there find the same faults."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]


def first_fast(cases: Iterable[Any], count: int = 1) -> list[Any]:
    """The first of the cases, and the others as `slow`."""
    cases = list(cases)
    return [*cases[:count], *slow(*cases[count:])]
