"""Cells that are compared within the levels of another factor."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from helpers.image_results import SUCCESS, make_results
from scipy import stats

from reports.answer.conclusion import conclude
from reports.image_tables import keep_common_prompts
from reports.judging import judge
from reports.results import SweepResults
from reports.statistics import compare_cells as compare_tables
from reports.tables import compare_cells, find_improvements
from reports.verdicts import PER_SEED_T, POOLED

LABELS = [f"{block} / {name}" for block in ("one", "two") for name in ("none", "trained")]


def outcomes(share: float, seed: int, seeds: int = 3, prompts: int = 60) -> np.ndarray:
    return (np.random.default_rng(seed).random((seeds, prompts)) < share).astype(float)


def make(tables: dict[str, np.ndarray], *, own_prompts: bool = True, more: int = 0) -> SweepResults:
    """Two levels of the factor "block", each with prompts of its own; the first level's control
    has ``more`` prompts left out."""
    controls = [label for label in tables if label.endswith("none")]
    columns = {label: {"success": values} for label, values in tables.items()}
    results = make_results(columns, controls, SUCCESS, within=True)
    for cell, trial in results.trials():
        samples = trial.samples
        assert samples is not None
        if own_prompts:
            ids = [name.replace("val", cell.values["block"]) for name in samples.ids]
            trial.samples = dataclasses.replace(samples, ids=ids, splits=[i[:3] for i in ids])
    return results


def test_levels_with_prompts_of_their_own_are_judged_each_by_its_own_images() -> None:
    tables = {label: outcomes(0.6 + 0.3 * (i == 3), i) for i, label in enumerate(LABELS)}
    found = judge(make(tables), SUCCESS)
    assert [(v.cell, v.control) for v in found.levels] == [
        (LABELS[1], LABELS[0]),
        (LABELS[3], LABELS[2]),
    ]
    assert {v.rule for v in found.levels} == {POOLED} and found.by_images and not found.why
    for verdict, control in zip(found.levels, (0, 2), strict=True):
        own = {label: tables[label] for label in LABELS[control : control + 2]}
        y = {label: dict(enumerate(rows)) for label, rows in own.items()}
        alone = compare_tables(y, LABELS[control], level=0.95**0.5, binary=True).comparisons[0]
        assert verdict.family == 2 and verdict.half == alone.half_prompts_like_these
        # Trainings that levels share are counted once: with the degrees of freedom of this level
        means = own[verdict.cell].mean(1) - own[verdict.control].mean(1)
        quantile = stats.t.ppf((1 + 0.95**0.5) / 2, 2)
        t_half = quantile * means.std(ddof=1) / math.sqrt(3)
        assert verdict.images is not None
        assert verdict.images.half_these_prompts >= t_half * (1 - 1e-4)
    assert {v.prompts for v in found.levels} == {60}


def test_the_report_says_that_each_level_is_judged_by_itself() -> None:
    tables = {label: outcomes(0.6, i) for i, label in enumerate(LABELS)}
    results = make(tables)
    entries = compare_cells(results)
    answer = conclude(results, entries)
    rule = " ".join(answer.rule)
    assert "Levels of block have prompts of their own" in rule and "over 60 prompts a seed" in rule
    assert "In simulated sweeps" not in rule, "those were of pooled scatter"
    assert "as the pool's do" not in rule and "Images could not be used" not in rule
    assert "for prompts like these and other seeds" in answer.brackets
    assert {*find_improvements(results, judge(results, SUCCESS), 0.95)} == {LABELS[1], LABELS[3]}


def test_a_flat_difference_is_no_certainty() -> None:
    """No image of a level differs, so that the t-interval of its seeds has no width."""
    same = outcomes(0.95, 5)
    tables = dict(zip(LABELS, (same, same, outcomes(0.5, 6), outcomes(0.5, 7)), strict=True))
    first = judge(make(tables), SUCCESS).levels[0]
    assert first.half > 0 and first.images is not None and first.images.identical


def test_levels_with_the_same_prompts_share_their_scatter() -> None:
    tables = {label: outcomes(0.6, i) for i, label in enumerate(LABELS)}
    found = judge(make(tables, own_prompts=False), SUCCESS)
    assert not found.apart and found.pooled is not None and len(found.pooled.pool) == 4


def test_levels_whose_tables_lack_images_go_by_seeds() -> None:
    tables = {label: outcomes(0.6, i) for i, label in enumerate(LABELS)}
    results = make(tables)
    results.cells[1].trials[0].samples = None
    found = judge(results, SUCCESS)
    assert {v.rule for v in found.levels} == {PER_SEED_T} and "no table of its images" in found.why


def test_prompts_are_made_common_within_each_level() -> None:
    tables = {
        label: outcomes(0.6, i, prompts=40 if i == 1 else 60) for i, label in enumerate(LABELS)
    }
    results = make(tables)
    keep_common_prompts(results)
    sizes = {c.name: {len(t.samples.ids) for t in c.trials.values()} for c in results.cells}  # type: ignore[union-attr]
    assert sizes == {LABELS[0]: {40}, LABELS[1]: {40}, LABELS[2]: {60}, LABELS[3]: {60}}
    assert [v.prompts for v in judge(results, SUCCESS).levels] == [40, 60]
    assert results.fewer_prompts == (40, 60)


@pytest.mark.parametrize("own_prompts", [True, False])
def test_a_level_that_was_settled_early_stays_as_it_was(own_prompts: bool) -> None:
    """Its cell and control have three seeds, the others five."""
    tables = {
        label: outcomes(0.6, i, seeds=3 if label.startswith("one") else 5)
        for i, label in enumerate(LABELS)
    }
    early = make({k: t[:3] for k, t in tables.items()}, own_prompts=own_prompts)
    later = make(tables, own_prompts=own_prompts)
    later.tags["cell_seeds"] = json.dumps({LABELS[0]: 3, LABELS[1]: 3})
    before, after = (judge(results, SUCCESS).levels for results in (early, later))
    assert after[0].half == before[0].half and after[0].seeds == (0, 1, 2)
    # All seeds of the others tell how far their trainings scatter
    y = {k: dict(enumerate(tables[k])) for k in LABELS[2:]}
    own = {"level": 0.95**0.5} if own_prompts else {"family": 2, "rho": 0.0}
    alone = compare_tables(y, LABELS[2], binary=True, **own).comparisons[0]
    assert after[1].seeds == (0, 1, 2, 3, 4)
    assert after[1].half == pytest.approx(alone.half_prompts_like_these)


def test_a_primary_comparison_has_the_width_of_one() -> None:
    tables = {label: outcomes(0.6, i) for i, label in enumerate(LABELS)}
    results = make(tables)
    results.tags["primary"] = LABELS[3]
    first, primary = judge(results, SUCCESS).levels
    y = {k: dict(enumerate(tables[k])) for k in LABELS[2:]}
    alone = compare_tables(y, LABELS[2], binary=True).comparisons[0]
    assert (first.family, primary.family) == (2, 1) and {first.level, primary.level} == {0.95}
    assert primary.half == alone.half_prompts_like_these
