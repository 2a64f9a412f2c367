"""A sweep over one's own data keeps the metrics that can be measured there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conf import load as conf
from sweeps.engine.errors import PlanError
from sweeps.engine.metrics import describe_evaluation, measurable
from sweeps.engine.resolve import resolve
from sweeps.engine.studies import result_settings
from sweeps.methods import SWEEP as METHODS
from sweeps.sweep import Factor
from sweeps.threshold import SWEEP

COCO = ["backbone=sdxl", "data=coco", "data.root=/data/coco", "evaluation.splits=[val2014]"]
COCO += ["trainer=paper512", "evaluation.steps=30", "evaluation.guidance=7.5"]
NO_JUDGE = [*COCO, "evaluation.detector=none", "evaluation.extractor=inception"]


def keys(*words: str, headline: str | None = None) -> set[str]:
    evaluation = conf.load(words, SWEEP.preset).evaluation
    return {metric.key for metric in measurable(SWEEP, evaluation, headline).metrics}


@pytest.mark.parametrize("sweep", [SWEEP, METHODS], ids=["threshold", "methods"])
def test_the_embedded_world_measures_what_the_sweep_names(sweep):
    assert measurable(sweep, conf.load([], sweep.preset).evaluation) == sweep


def test_without_a_judge_models_measure():
    measured = keys(*NO_JUDGE, "evaluation.aligners=[c]", headline="fid")
    assert {"fid", "kid", "clip_score", "gate_closed"} <= measured
    assert not {"success", "success_heldout", "score", "object_rate", "mask_iou"} & measured
    words = ["evaluation.detector=d", "evaluation.extractor=none"]
    measured = keys(*COCO, *words, headline="success")
    assert {"success", "spatial"} <= measured
    assert not {"fid", "score", "clip_score", "success_heldout"} & measured


def test_what_is_asked_of_images_is_in_the_table():
    assert "vqa_success" not in keys()
    assert {"vqa_score", "vqa_success"} <= set(keys("evaluation.vqa=judge"))


def test_a_metric_that_is_switched_on_is_in_the_table():
    assert not keys() & {"map_overlap", "map_activation"}
    assert keys("evaluation.metrics=[attention_maps]") > {"map_overlap", "map_activation"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "headline=success: this evaluation does not measure it; .* fid"),
        (["headline=beauty"], "headline=beauty: this evaluation does not"),
        (["headline=gate_closed"], "no better direction"),
        (["headline=precison"], "did you mean precision.$"),
        (["headline=fid", "mode=search", "objectives=[recal]"], "did you mean recall.$"),
    ],
)
def test_an_answer_that_cannot_be_measured_is_refused(words: list[str], message: str):
    with pytest.raises(PlanError, match=message):
        resolve(SWEEP, conf.load([*NO_JUDGE, *words], SWEEP.preset))


def test_a_share_is_known_to_one_at_most():
    resolve(SWEEP, conf.load(["until=1"], SWEEP.preset))
    with pytest.raises(PlanError, match="until=1.5 is half .* of success, a share: .* most 1"):
        resolve(SWEEP, conf.load(["until=1.5"], SWEEP.preset))


def test_a_mistyped_metric_is_told_with_the_nearest():
    with pytest.raises((PlanError, ValueError), match="no metric 'judgee'.*did you mean judge.$"):
        resolve(SWEEP, conf.load(["evaluation.metrics=[judgee]"], SWEEP.preset))


@pytest.mark.parametrize("words", [[], NO_JUDGE])
def test_the_answer_may_be_about_another_metric(words: list[str]):
    request = resolve(SWEEP, conf.load([*words, "headline=fid", "levels=[0.5]"], SWEEP.preset))
    assert request.sweep.headline == "fid" and request.sweep.direction == "lower"


def test_an_evaluation_is_described_without_places(tmp_path: Path):
    text = describe_evaluation(conf.load(["evaluation.noise_seeds=2"], SWEEP.preset).evaluation)
    assert "success by judge; FID, precision and recall (k = 3, ≤) on features of judge" in text
    assert "2 noise each" in text
    assert text.endswith("; noise and prompts the same for every cell of a seed")
    evaluation = conf.load([], SWEEP.preset).evaluation
    text = describe_evaluation(evaluation, ["sampling_seed"])
    assert text.endswith("; prompts the same for every cell of a seed")
    assert "same for" not in describe_evaluation(evaluation, ["sampling_seed", "prompt_seed"])
    (tmp_path / "my-clip").mkdir()
    models = [f"evaluation.extractor={tmp_path / 'my-clip'}", "evaluation.aligners=[openai/clip]"]
    words = [*COCO, "evaluation.detector=none", *models]
    text = describe_evaluation(conf.load(words, SWEEP.preset).evaluation)
    assert "features of my-clip" in text and "prompts by openai/clip" in text
    assert "success" not in text and str(tmp_path) not in text
    assert "all prompts of each split (val2014), as many noises as are published" in text


def test_the_difference_that_matters_can_be_set_and_is_no_part_of_a_study():
    plain, wide = (conf.load(words, SWEEP.preset) for words in ([], ["delta=0.2"]))
    assert result_settings(SWEEP, plain) == result_settings(SWEEP, wide)
    sweep = resolve(SWEEP, wide).sweep
    deltas = {metric.key: metric.delta for metric in sweep.metrics}
    assert (deltas["success"], deltas["success_heldout"], deltas["fid"]) == (0.2, 0.05, None)
    with pytest.raises(conf.ConfigError, match="delta"):
        conf.load(["delta=0"], SWEEP.preset)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate_with={evaluation.prompts: 0}"], "set evaluation.prompts=0 instead"),
        (["evaluate_with={evaluation.detector: none}"], "set evaluation.detector=none"),
        (["evaluate_with={evaluation.splits: [one]}"], r"set evaluation.splits=\[one\]"),
        (["evaluate_with={sampling_seed: 5}"], "set sampling_seed=5"),
        (["evaluate_with={prompt_seed: 5}", "mode=search"], "set prompt_seed=5"),
        (["evaluate_with={method.gate.threshold: 0.9}"], "which threshold varies"),
        (["evaluate_with={method.gate.threshold: 0.9}", "when=evaluate"], "threshold varies"),
        (["evaluate_with={output: /tmp/x}"], "evaluate_with has output"),
        (["evaluate_with={fresh: a}"], "evaluate_with has fresh"),
        (["evaluate_with={evaluate_with: {}}"], "evaluate_with has evaluate_with"),
    ],
)
def test_what_the_untouched_backbone_needs_too_is_no_late_setting(words: list[str], message: str):
    with pytest.raises(PlanError, match=message):
        resolve(SWEEP, conf.load(words, SWEEP.preset), words)


@pytest.mark.parametrize(
    ("key", "levels", "message"),
    [
        ("evaluation.prompts", [8, 0], "prompts=0: evaluation.prompts=0 measures nothing"),
        ("evaluation.detector", ["judge", "none"], "detector=none: headline=success: this eval"),
    ],
)
@pytest.mark.parametrize("when", ["train", "evaluate"])
def test_what_a_cell_does_not_measure_is_told_in_the_plan(key, levels, message, when):
    factor = Factor(key, levels, when=when)
    sweep = replace(SWEEP, name="own", factors=[factor], control={key: levels[0]})
    with pytest.raises(PlanError, match=message):
        resolve(sweep, conf.load([], sweep.preset), [])
