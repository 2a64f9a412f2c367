"""Declarations that are found by the names of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

import conf.metric
from conf import spec


def test_a_file_that_declares_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "contrast.py").write_text("METRICS = ()\n")
    monkeypatch.setattr(conf.metric, "__path__", [*conf.metric.__path__, str(tmp_path)])
    spec._declared.cache_clear()
    try:
        with pytest.raises(AttributeError, match="contrast.py declares nothing: expected METRIC"):
            spec.metrics()
    finally:
        spec._declared.cache_clear()
