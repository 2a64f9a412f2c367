"""One's own detector judges a sweep: images are drawn and listed, detections written by the list,
and the same command measures them, with the numbers of a sweep that had the file from the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.evaluation.images import ImageStore
from lightning_modules.methods.separate_enhance import SeparateEnhance
from sweeps.command import main
from sweeps.sepen_losses import SWEEP

pytestmark = pytest.mark.slow

PROMPTS = [
    {
        "tag": "single_object",
        "include": [{"class": "circle", "count": 1}],
        "prompt": "a photo of a red circle",
    },
    {
        "tag": "two_object",
        "include": [{"class": "circle", "count": 1}, {"class": "square", "count": 1}],
        "prompt": "a photo of a red circle and a blue square",
    },
]
CELL = "separate_weight=0.0, enhance_weight=0.5, distillation_weight=1.0"


def test_draw_detect_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = {"steps": 0, "images": 0}
    step, save = SeparateEnhance.training_step, ImageStore.save

    def counted_step(method: SeparateEnhance, *given: Any) -> Any:
        counts["steps"] += 1
        return step(method, *given)

    def counted_save(images: ImageStore, *given: Any) -> None:
        counts["images"] += 1
        save(images, *given)

    monkeypatch.setattr(SeparateEnhance, "training_step", counted_step)
    monkeypatch.setattr(ImageStore, "save", counted_save)
    prompts, found = tmp_path / "prompts.jsonl", tmp_path / "found.jsonl"
    prompts.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    words = [
        *("data=prompts", f"data.root={prompts}", "method=separate_enhance", "seeds=1"),
        *("trainer.steps=2", "trainer.batch=2", "trainer.warmup=1", "evaluation.steps=2"),
        *("evaluation.noise_seeds=2", "evaluation.extractor=none", "evaluation.attention=false"),
        *(f"evaluation.detector={found}", "headline=success", "mode=list", f'cells=["{CELL}"]'),
    ]

    def run(output: str, *more: str) -> int:
        return main(SWEEP, [*words, f"output={tmp_path / output}", *more])

    assert run("runs") == 2
    assert "evaluation.draw_only=true" in capfd.readouterr().err
    # Elsewhere, so that the counts are of what comes later
    assert run("runs", "evaluation.draw_only=true", "launcher=process") == 0
    assert counts == {"steps": 0, "images": 0} and not list(tmp_path.glob("runs/*/report.*"))
    path = tmp_path / "runs" / "images" / "sepen_losses.jsonl"
    assert str(path) in capfd.readouterr().out
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 12 and all((path.parent / row["image"]).is_file() for row in rows)
    box = {"label": "circle", "box": [1, 1, 20, 20], "score": 0.9}
    for row in rows:
        row["detections"] = [box] * (row["noise_number"] == 0)
    found.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert run("runs") == 0
    assert counts == {"steps": 0, "images": 0}, "nothing is trained or drawn again"
    assert run("other") == 0
    assert counts == {"steps": 4, "images": 12}
    for output in ("runs", "other"):
        assert sorted(p.name for p in (tmp_path / output).glob("sepen_losses*")) == ["sepen_losses"]
        assert (tmp_path / output / "sepen_losses" / "report.pdf").is_file()
        results = sorted((tmp_path / output).glob("sepen_losses/trials/*/result.json"))
        metrics = [json.loads(result.read_text())["metrics"] for result in results]
        assert [each["eval/success"] for each in metrics] == [0.25] * 3
