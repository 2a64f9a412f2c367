"""until= for real and very small: prompts are added to finished trials, then it stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.command import main
from sweeps.engine import until
from sweeps.engine.designs import Costs
from sweeps.threshold import SWEEP

pytestmark = pytest.mark.slow


def test_prompts_are_added_until_it_is_narrow(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in trainings of 60 steps: what is cheaper must not depend on this machine's load
    costs = Costs(training=295.0, image=1.0, splits=2, measured=True)
    monkeypatch.setattr(until, "measure_costs", lambda *_: costs)
    output = tmp_path / "runs"
    words = [f"output={output}", "levels=[0.4]", "when=evaluate", "method.gate.bias=0", "seeds=3"]
    words += ["trainer.steps=2", "trainer.warmup=1", "trainer.batch=4", "data.train_images=16"]
    words += ["data.eval_images=24", "evaluation.prompts=4", "evaluation.steps=3"]
    words += ["evaluation.keep_images=2", "evaluation.extractor=none", "headline=score"]
    assert main(SWEEP, [*words, "until=.12"]) == 0
    assert "every half-width is at most 0.12" in capfd.readouterr().out
    taken = json.loads((output / "threshold" / "looks.json").read_text())["rounds"][0]["taken"]
    assert taken[0]["design"]["prompts"] == 4 < taken[-1]["design"]["prompts"]
    assert max(reading["half"] for reading in taken[-1]["readings"]) <= 0.12
    answer = json.loads((output / "threshold" / "answer.json").read_text())
    halves = {r["cell"]: r["half"] for r in taken[-1]["readings"]}
    for told in answer["comparisons"]:
        if told["metric"] == "score" and told["cell"] in halves:
            width = (told["high"] - told["low"]) / 2
            assert width == pytest.approx(halves[told["cell"]], rel=1e-6), "as the report reads it"
    assert any("Looks planned at 3, 5, 8, 12 and 20 seeds" in text for text in answer["rule"])
    before = [path.stat().st_mtime_ns for path in sorted(output.rglob("result.json"))]
    assert main(SWEEP, [*words, "until=.12"]) == 0
    assert [path.stat().st_mtime_ns for path in sorted(output.rglob("result.json"))] == before
    assert main(SWEEP, [*words, "until=.12", "--plan"]) == 0
    assert "finished trials" in capfd.readouterr().out
