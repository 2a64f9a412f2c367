"""A sweep over data of one's own keeps the metrics that can be measured there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from sweeps.engine.measurable import described, measurable
from sweeps.engine.resolve import PlanError, resolve
from sweeps.threshold import SWEEP

COCO = ["backbone=sdxl", "data=coco", "data.root=/data/coco", "evaluation.splits=[val2014]"]


def keys(*argv: str, headline: str | None = None) -> set[str]:
    config = conf.load(list(argv), SWEEP.preset)
    return {metric.key for metric in measurable(SWEEP, config.evaluation, headline).metrics}


def test_the_embedded_world_measures_what_the_sweep_names():
    assert measurable(SWEEP, conf.load([], SWEEP.preset).evaluation) == SWEEP


def test_without_a_judge_models_measure():
    found = keys(
        *COCO,
        "evaluation.detector=none",
        "evaluation.extractor=inception",
        "evaluation.aligners=[c]",
        headline="fid",
    )
    assert {"fid", "kid", "clip_score", "gate_closed"} <= found and not {
        "success",
        "success_heldout",
        "score",
        "object_rate",
    } & found
    found = keys(*COCO, "evaluation.detector=d", "evaluation.extractor=none", headline="success")
    assert "success" in found and not {"fid", "score", "clip_score", "success_heldout"} & found


@pytest.mark.parametrize(("argv", "message"), [
    (["evaluation.detector=none", "evaluation.extractor=inception"], "headline=success: this evaluation does not measure it; .* fid"),
    (["evaluation.detector=none", "evaluation.extractor=inception", "headline=beauty"], "headline=beauty: this evaluation does not"),
    (["evaluation.detector=none", "evaluation.extractor=inception", "headline=gate_closed"], "no better direction"),
])  # fmt: skip
def test_an_answer_that_cannot_be_measured_is_refused(argv: list[str], message: str):
    with pytest.raises(PlanError, match=message):
        resolve(SWEEP, conf.load([*COCO, *argv], SWEEP.preset))


def test_the_answer_may_be_about_another_metric():
    sweep, cells = resolve(SWEEP, conf.load(["headline=fid"], SWEEP.preset))
    assert sweep.headline == "fid" and sweep.direction == "lower" and len(cells) == 6
    argv: list[Any] = [
        *COCO,
        "evaluation.detector=none",
        "evaluation.extractor=inception",
        "headline=fid",
    ]
    assert resolve(SWEEP, conf.load(argv, SWEEP.preset))[0].headline == "fid"


def test_what_is_measured_is_said_in_words_without_places(tmp_path: Path):
    said = described(conf.load(["evaluation.noise_seeds=2"], SWEEP.preset).evaluation)
    assert (
        "success by judge; FID, precision and recall (k = 3, ≤) on features of judge, N = " in said
        and "2 noise each" in said
    )
    (tmp_path / "my-clip").mkdir()
    argv = [
        *COCO,
        "evaluation.detector=none",
        f"evaluation.extractor={tmp_path / 'my-clip'}",
        "evaluation.aligners=[openai/clip]",
    ]
    said = described(conf.load(argv, SWEEP.preset).evaluation)
    assert (
        "features of my-clip" in said
        and "prompts by openai/clip" in said
        and "success" not in said
        and str(tmp_path) not in said
    )
