"""Where a search looks: scales, factors that not every candidate has, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from conf import load as conf
from sweeps import (
    gate_signal,
    gating_mode,
    lambda_m,
    mask_encoder,
    scene_losses,
    smoothing,
    threshold,
)
from sweeps.engine.errors import PlanError
from sweeps.engine.proposals import Proposals
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve
from sweeps.engine.scales import is_logarithmic, make_scale
from sweeps.engine.space import SearchSpace
from sweeps.sweep import Factor, Metric, Sweep

KERNEL, SIGMA = "method.separate.kernel", "method.separate.sigma"
MODE, KEEP, THRESHOLD = "method.gate.mode", "method.gate.keep", "method.gate.threshold"

MODES = Sweep(
    name="modes",
    question="Which?",
    origin="a test",
    # Behind each other in the wrong order
    factors=[
        Factor(KEEP, [0.3, 0.9]),
        Factor(THRESHOLD, [0.3, 0.7]),
        Factor(MODE, ["hard", "topk"]),
    ],
    control={KEEP: 0.9, THRESHOLD: 0.3, MODE: "hard"},
    metrics=[Metric("success", "Success")],
    headline="success",
    preset={"method": "maskattn"},
)


def ask(sweep: Sweep, *words: str) -> Request:
    every = ["mode=search", "sampler=random", *words]
    return resolve(sweep, conf.load(every, sweep.preset), every)


def propose(folder: Path, sweep: Sweep, count: int, *words: str) -> tuple[Proposals, list[Any]]:
    """So many proposals, or as many as there are, as trials of Optuna."""
    proposals = Proposals(ask(sweep, *words), folder, sweep.name, {})
    known: list[str] = []
    while len(known) < count and proposals.propose(known):
        known.append(proposals.cell(proposals.candidates()[-1]).text)
    return proposals, proposals.candidates()


@pytest.mark.parametrize(
    ("levels", "low", "zero_below"),
    [([1e-4, 1e-2], 1e-4, None), ([0.0, 0.01, 0.1], 0.001, 0.001), ([0.0, 1e-4, 1.0], 1e-4, 1e-4)],
)
def test_a_weight_is_searched_by_factors_and_zero_is_one_of_its_values(
    levels: list[float], low: float, zero_below: float | None
) -> None:
    factor = Factor("trainer.weight_decay", levels)
    assert is_logarithmic(factor)
    scale = make_scale(factor, True)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [scale.suggest(study.ask(), factor.key) for _ in range(300)]
    positive = sorted(value for value in found if value)
    assert positive[0] >= low and positive[-1] <= levels[-1]
    middle = (low * levels[-1]) ** 0.5
    assert 0.4 < sum(value < middle for value in positive) / len(positive) < 0.6
    if zero_below is None:
        assert len(positive) == 300
    else:
        assert 0.05 < found.count(0.0) / 300 < 0.15
        assert scale.distribution._contains(scale.number(0.0)), "the control's 0 can be told"


def test_other_numbers_are_searched_by_differences() -> None:
    bias, width = Factor("method.gate.bias", [-4.0, 2.0]), Factor("method.gate.width", [32, 256])
    assert not is_logarithmic(bias) and not is_logarithmic(width)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [make_scale(bias, False).suggest(study.ask(), "bias") for _ in range(100)]
    assert 0.5 < sum(value < 0 for value in found) / 100 < 0.8
    assert isinstance(make_scale(width, False).suggest(study.ask(), "width"), int)


def test_a_search_goes_on_with_the_scale_that_it_began_with(tmp_path: Path) -> None:
    proposals, _ = propose(tmp_path, lambda_m.SWEEP, 1)
    assert proposals.scales["method.masks.lambda_m"].distribution.log
    older = Proposals(ask(lambda_m.SWEEP), tmp_path, "older", {})
    older.study.ask().suggest_float("method.masks.lambda_m", 0.0, 0.1)
    again, found = propose(tmp_path, lambda_m.SWEEP, 1)
    assert again.scales["method.masks.lambda_m"].distribution.log and len(found) == 2
    again = Proposals(ask(lambda_m.SWEEP), tmp_path, "older", {})
    assert not again.scales["method.masks.lambda_m"].distribution.log
    assert again.propose([])


def test_a_factor_is_searched_only_where_it_is_read(tmp_path: Path) -> None:
    proposals, found = propose(tmp_path, MODES, 12)
    assert [factor.key for factor in proposals.space.order] == [MODE, KEEP, THRESHOLD]
    for trial in found:
        values, hard = trial.user_attrs["values"], trial.user_attrs["values"][MODE] == "hard"
        assert list(values) == MODES.keys
        assert trial.params.keys() == {MODE, THRESHOLD if hard else KEEP}
        assert values[KEEP if hard else THRESHOLD] == (0.9 if hard else 0.3), "the control's"
    assert len({trial.user_attrs["values"][MODE] for trial in found}) == 2
    control = next(cell for cell in proposals.sweep.cells() if cell.control)
    proposals.add_control(control, {0: {"success": 0.5}})
    assert proposals.queue.trials("COMPLETE")[0].params == {MODE: "hard", THRESHOLD: 0.3}


def test_a_sampler_that_insists_on_what_is_there_does_not_end_a_search(tmp_path: Path) -> None:
    proposals = Proposals(ask(gating_mode.SWEEP, "sampler=tpe"), tmp_path, "modes", {})
    known: list[str] = []
    for _ in range(3):
        while proposals.propose(known):
            candidate = proposals.candidates()[-1]
            known.append(proposals.cell(candidate).text)
            proposals.finish(candidate, {0: {"success": float(known[-1] == "mode=soft")}})
    assert len(known) == 4


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_learn_from_candidates_of_different_factors(tmp_path: Path, sampler: str) -> None:
    proposals = Proposals(ask(MODES, f"sampler={sampler}"), tmp_path, "modes", {})
    for number in range(14):
        assert proposals.propose([])
        value = proposals.candidates()[-1].user_attrs["values"][THRESHOLD]
        proposals.finish(proposals.candidates()[-1], {0: {"success": value + number / 1000}})
    assert len(proposals.candidates("COMPLETE")) == 14


@pytest.mark.parametrize(
    ("sweep", "cells"), [(gating_mode.SWEEP, 4), (gate_signal.SWEEP, 7), (mask_encoder.SWEEP, 9)]
)
def test_what_a_sweep_leaves_out_is_never_proposed_and_a_search_ends(
    tmp_path: Path, sweep: Sweep, cells: int
) -> None:
    grid = {cell.text for cell in sweep.cells() if not cell.untouched}
    proposals, found = propose(tmp_path, sweep, 50)
    texts = [proposals.cell(trial).text for trial in found]
    assert len(texts) == len(set(texts)) == cells and set(texts) == grid
    before = len(proposals.queue.trials())
    assert not proposals.propose(sorted(grid)) and len(proposals.queue.trials()) == before


def test_without_one_kernel_there_is_no_width_and_even_kernels_are_refused(tmp_path: Path) -> None:
    proposals, found = propose(tmp_path, smoothing.SWEEP, 8)
    kernels = [trial.user_attrs["values"][KERNEL] for trial in found]
    assert {*kernels} == {1, 3, 5} and kernels.count(1) == 1
    assert all((SIGMA in t.params) == (t.params[KERNEL] > 1) for t in found)
    refusals = proposals.refusals()
    assert refusals and all("method.separate.kernel" in told["reason"] for told in refusals)
    assert len({told["cell"] for told in refusals}) == len(refusals), "each is asked once"


def test_pairs_that_a_sweep_leaves_out_by_number_are_refused() -> None:
    space = SearchSpace(ask(scene_losses.SWEEP))
    off = {key: level for f in scene_losses.SWEEP.factors for key, level in [(f.key, f.levels[1])]}
    assert "leaves it out" in space.refusal(scene_losses.SWEEP.cell(off))
    assert space.refusal(next(c for c in scene_losses.SWEEP.cells() if c.control)) == ""


def test_a_search_over_what_nothing_reads_is_refused() -> None:
    with pytest.raises(PlanError, match=r"method\.gate\.mode=topk no trial reads it"):
        ask(threshold.SWEEP, "method.gate.mode=topk")


@pytest.mark.parametrize("seeds", [2, 4])
def test_seeds_that_cannot_prune_are_refused(seeds: int) -> None:
    with pytest.raises(PlanError, match=f"seeds={seeds}.*at least 5"):
        ask(threshold.SWEEP, "prune=seeds", f"seeds={seeds}")
    ask(threshold.SWEEP, "prune=seeds", "seeds=5")
