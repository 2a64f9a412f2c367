"""Declarations that are found by the names of their files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import conf.metric
from conf import spec


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("METRICS = ()\n", "contrast.py: AttributeError: declares nothing: expected METRIC"),
        ("x = (\n", "contrast.py, line 1: SyntaxError: "),
        ("\nimport nowhere\n", "contrast.py, line 2: ModuleNotFoundError: No module named"),
        (
            "from conf.spec import MetricSpec\nMETRIC = MetricSpec(output=())\n",
            "line 2: TypeError: .*did you mean outputs",
        ),
    ],
)
def test_a_faulty_file_is_named_and_the_others_are_there(
    content: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    (tmp_path / "contrast.py").write_text(content)
    monkeypatch.delitem(sys.modules, "conf.metric.contrast", raising=False)
    monkeypatch.setattr(conf.metric, "__path__", [*conf.metric.__path__, str(tmp_path)])
    spec._declared.cache_clear()
    try:
        assert "judge" in spec.metrics() and "contrast" not in spec.metrics()
        printed = capsys.readouterr().err
        assert re.search(why, printed) and printed.startswith("left out: ")
        assert printed.count("\n") == 1
    finally:
        spec._declared.cache_clear()


def test_a_share_has_a_difference_that_matters_and_others_what_they_declare():
    assert spec.Metric("a", "A", unit="share").delta == 0.05
    assert spec.Metric("a", "A", unit="share", delta=0.1).delta == 0.1
    assert spec.Metric("a", "A").delta is None
    declared = {m.key: m for known in spec.metrics().values() for m in known.outputs}
    assert all(m.delta for m in declared.values() if "IoU" in m.label or m.unit == "share")
    assert declared["fid"].delta is None
    for wrong in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"metric a: delta={wrong}; expected a difference"):
            spec.Metric("a", "A", delta=wrong)
