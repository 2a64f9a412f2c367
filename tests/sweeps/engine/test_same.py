"""Factors and settings that no trial reads are refused, and cells that are the same run once."""

from __future__ import annotations

import dataclasses

import pytest

from conf import load as conf
from sweeps import (
    gate_signal,
    gating_mode,
    lambda_m,
    mask_encoder,
    mask_vs_blank,
    methods,
    smoothing,
    threshold,
    viewpoint,
)
from sweeps.engine.errors import PlanError
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve
from sweeps.sweep import Factor, Metric, Sweep

MODE, THRESHOLD, BIAS = "method.gate.mode", "method.gate.threshold", "method.gate.bias"

MODES = Sweep(
    name="modes",
    question="Which?",
    origin="a test",
    factors=[Factor(MODE, ["hard", "soft", "topk"]), Factor(THRESHOLD, [0.3, 0.5, 0.7])],
    control={MODE: "hard", THRESHOLD: 0.5},
    metrics=[Metric("success", "Success")],
    headline="success",
    preset={"method": "maskattn"},
)
SOFT = dataclasses.replace(MODES, control={MODE: "soft", THRESHOLD: 0.5})
# A third factor, which is always read
THREE = dataclasses.replace(
    MODES,
    factors=[*MODES.factors, Factor(BIAS, [0.0, 2.0])],
    control={**MODES.control, BIAS: 2.0},
)


def ask(sweep: Sweep, *words: str) -> Request:
    return resolve(sweep, conf.load(words, sweep.preset), words)


def names(request: Request) -> list[str]:
    return [cell.text for cell in request.cells if not cell.untouched]


@pytest.mark.parametrize("mode", ["grid", "one_factor", "search"])
@pytest.mark.parametrize(
    ("sweep", "word", "cure"),
    [
        (threshold.SWEEP, "method.gate.mode=soft", "method.gate.mode=hard or learned"),
        (lambda_m.SWEEP, "method.masks.encoder=merged", "method.masks.encoder=per_mask"),
        (smoothing.SWEEP, "method.separate.control=denoising", "method.separate.control=none"),
    ],
)
def test_a_factor_that_no_trial_reads_is_refused(
    sweep: Sweep, word: str, cure: str, mode: str
) -> None:
    with pytest.raises(PlanError, match="no trial reads it") as refused:
        ask(sweep, word, f"mode={mode}")
    said = str(refused.value)
    assert sweep.keys[0] in said and word in said
    if mode != "search":
        assert cure in said
        assert all(str(level) in said for level in sweep.factors[0].levels)


def test_a_method_that_does_not_read_the_factor_names_those_that_do() -> None:
    with pytest.raises(PlanError, match=r"does not read method\.gate\.threshold.*method=maskattn"):
        ask(threshold.SWEEP, "method=mcgm")


def test_cells_that_are_the_same_are_planned_once_and_said() -> None:
    request = ask(MODES)
    assert names(request) == [
        "mode=hard, threshold=0.3",
        "mode=hard, threshold=0.5",
        "mode=hard, threshold=0.7",
        "mode=soft, threshold=0.5",
        "mode=topk, threshold=0.5",
    ]
    assert len(request.keys) == 6 * request.config.seeds
    for mode, note in zip(("soft", "topk"), request.notes, strict=True):
        assert note.startswith(f"mode={mode}, threshold=0.3; mode={mode}, threshold=0.7: the same")
        assert f"mode={mode}, threshold=0.5" in note and f"method.gate.mode={mode}" in note
    assert request.check_records()[:2] == request.notes


def test_a_control_stands_for_its_equals() -> None:
    request = ask(SOFT)
    assert "mode=soft, threshold=0.5" in names(request)
    assert len(names(request)) == 5
    assert names(ask(SOFT, "mode=one_factor")) == [
        "mode=hard, threshold=0.5",
        "mode=soft, threshold=0.5",
        "mode=topk, threshold=0.5",
    ]


def test_named_cells_that_are_the_same_run_once() -> None:
    two = "cells=['mode=soft, threshold=0.3', 'mode=soft, threshold=0.7']"
    request = ask(MODES, "mode=list", two)
    assert names(request) == ["mode=hard, threshold=0.5", "mode=soft, threshold=0.3"]
    assert len(request.notes) == 1
    one = "cells=['mode=soft, threshold=0.7']"
    assert names(ask(MODES, "mode=list", one))[1:] == ["mode=soft, threshold=0.7"]


def test_what_is_asked_for_and_the_same_as_another_is_refused_with_that() -> None:
    with pytest.raises(PlanError, match=r"primary=.*the same as mode=soft, threshold=0\.5"):
        ask(MODES, "primary=mode=soft, threshold=0.7")
    with pytest.raises(PlanError, match=r"to=.*the same as mode=soft, threshold=0\.5"):
        ask(MODES, "mode=path", "to=mode=soft, threshold=0.7")
    with pytest.raises(PlanError, match=r"mode=screen needs cells that differ.*mode=grid"):
        ask(THREE, "mode=screen", "against=['mode=topk']")


def test_a_path_goes_around_steps_that_change_nothing() -> None:
    soft = dataclasses.replace(THREE, control={**SOFT.control, BIAS: 2.0})
    request = ask(soft, "mode=path", "to=mode=hard, threshold=0.7, bias=0.0")
    assert request.path is not None
    assert "mode=soft, threshold=0.7, bias=2.0" not in names(request)
    assert "mode=hard, threshold=0.5, bias=2.0" in names(request)
    means = {"mode=hard, threshold=0.5, bias=2.0": 0.6, "mode=soft, threshold=0.5, bias=0.0": 0.5}
    later = {cell.text for cell in request.path.cells(means)}
    assert "mode=hard, threshold=0.7, bias=2.0" in later


@pytest.mark.parametrize(
    "sweep", [threshold.SWEEP, gate_signal.SWEEP, smoothing.SWEEP, mask_encoder.SWEEP]
)
def test_sweeps_of_the_catalogue_have_no_cell_twice(sweep: Sweep) -> None:
    request = ask(sweep, "mode=grid")
    assert request.notes == []
    assert names(request) == [cell.text for cell in sweep.cells() if not cell.untouched]


@pytest.mark.parametrize(
    ("sweep", "words", "cure"),
    [
        (threshold.SWEEP, ["method.masks.lambda_m=3"], "method=mcgm"),
        (threshold.SWEEP, ["method.gate.keep=0.3"], "method.gate.mode=topk"),
        (threshold.SWEEP, ["method.gate.keep=0.3", "mode=search"], "method.gate.mode=topk"),
        (threshold.SWEEP, ["evaluate_with={method.gate.keep: 0.3}"], "method.gate.mode=topk"),
        (threshold.SWEEP, ["data.concept_draw=batch"], "data.concepts"),
        (threshold.SWEEP, ["data.detokenise=true"], "data=flickr30k"),
        (threshold.SWEEP, ["backbone.revision=main"], "backbone.path"),
        (threshold.SWEEP, ["evaluation.color_classifier=mean"], "evaluation.detector"),
        (lambda_m.SWEEP, ["method.subjects.token_lr=0.1"], "data=scene"),
    ],
)
def test_a_setting_of_the_command_that_no_trial_reads_is_refused(
    sweep: Sweep, words: list[str], cure: str
) -> None:
    key = words[0].removeprefix("evaluate_with={").partition("=")[0].partition(":")[0]
    with pytest.raises(PlanError, match="nothing reads it") as refused:
        ask(sweep, *words)
    assert str(refused.value).startswith(f"{key}=") and cure in str(refused.value)


@pytest.mark.parametrize(
    ("sweep", "word"),
    [
        (gating_mode.SWEEP, "method.gate.keep=0.8"),
        (methods.SWEEP, "method.masks.lambda_m=0.01"),
        (threshold.SWEEP, "method.gate.threshold=0.5"),
        (threshold.SWEEP, "trainer.lr=0.001"),
        (threshold.SWEEP, "sampling_seed=3"),
    ],
)
def test_a_setting_that_some_trial_reads_is_taken(sweep: Sweep, word: str) -> None:
    if word.partition("=")[0] in sweep.keys:
        with pytest.raises(PlanError, match="is what this sweep varies"):
            ask(sweep, word)
    else:
        assert ask(sweep, word).cells


@pytest.mark.parametrize("mode", ["soft", "topk"])
def test_a_factor_that_acts_after_training_is_read_after_it(mode: str) -> None:
    late = f"evaluate_with={{method.gate.mode: {mode}}}"
    with pytest.raises(PlanError, match=rf"method\.gate\.mode={mode} no trial reads it"):
        ask(threshold.SWEEP, "when=evaluate", late)
    with pytest.raises(PlanError, match="no trial reads it"):
        ask(threshold.SWEEP, "when=evaluate", late, "mode=search")
    # Each is trained with its own, or drawn with it
    assert len(names(ask(threshold.SWEEP, late))) == 5
    words = ["when=evaluate", "method.gate.mode=soft", "evaluate_with={method.gate.mode: hard}"]
    assert len(names(ask(threshold.SWEEP, *words))) == 5


def test_cells_that_are_the_same_after_one_training_run_once() -> None:
    late = dataclasses.replace(
        MODES,
        factors=[Factor(MODE, ["hard", "soft"]), Factor(THRESHOLD, [0.3, 0.5], when="evaluate")],
    )
    assert names(ask(late))[2:] == ["mode=soft, threshold=0.5"]


@pytest.mark.parametrize(
    ("word", "by"),
    [
        ("evaluation.masks=none", "evaluation.masks=target"),
        ("evaluation.masks=blank", "evaluation.masks=target"),
        ("method=maskattn", "method=attention_guidance or mcgm"),
    ],
)
def test_a_factor_by_which_no_image_is_drawn_is_refused(word: str, by: str) -> None:
    """The masks that objects are measured against would turn, and no object with them."""
    with pytest.raises(PlanError, match=r"evaluation\.turn .* no image depends on it") as refused:
        ask(viewpoint.SWEEP, word)
    assert by in str(refused.value)
    assert len(names(ask(viewpoint.SWEEP, "evaluation.masks=wrong"))) == 8
    assert len(names(ask(mask_vs_blank.SWEEP, "evaluation.turn=90"))) == 4
