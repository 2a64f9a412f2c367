"""Golden cases: inputs with values from closed forms, quadrature and independent libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reports import statistics as st

CASES = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))["cases"]


def differing(found: Any, expected: Any, where: str) -> list[str]:
    """Paths of all expected values that were not found, to six digits."""
    if isinstance(expected, dict):
        wrong = []
        for key, value in expected.items():
            of = found[key] if isinstance(found, dict) else getattr(found, key)
            wrong += differing(of, value, f"{where}.{key}")
        return wrong
    if isinstance(expected, list):
        assert len(found) == len(expected), where
        pairs = enumerate(zip(found, expected, strict=True))
        return [w for i, (a, b) in pairs for w in differing(a, b, f"{where}[{i}]")]
    if found == pytest.approx(float(expected), rel=1e-6, abs=1e-8):
        return []
    return [f"{where}: {found}, expected {expected}"]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{i}-{case['function']}" for i, case in enumerate(CASES)]
)
def test_a_golden_case(case: dict) -> None:
    given = {k: float(v) if v == "inf" else v for k, v in case["input"].items() if k != "order"}
    found = getattr(st, case["function"])(**given)
    assert differing(found, case["expected"], case["function"]) == []
    assert case["by"]  # Each says how its values are known
