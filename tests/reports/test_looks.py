"""Reports of sweeps that were looked at more than once, or ended by a rule."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reports.answer.looks import state_looks, warn_of_looks
from reports.looks import read_level, read_seed_counts
from reports.statistics import compare_cells, dunnett_quantile


def tags(until: str, level: float, looks: int = 1, **more: Any) -> dict[str, str]:
    taken = [{"seeds": 3, "prompts": 56}, {"seeds": 5, "prompts": 112}]
    last = {"until": until, "planned": [3, 5, 8], "level": level, "taken": taken, **more}
    content = {"rounds": [last], "level": level, "looks": looks, "error": 0.0796}
    return {"looks": json.dumps(content), "cell_seeds": '{"threshold=0.4": 3}'}


def test_older_sweeps_have_no_looks() -> None:
    assert read_level({}) == 0.95 and read_seed_counts({}) == {}
    assert warn_of_looks({}) == "" and "is not recorded" in state_looks({})


def test_a_second_look_is_warned_of() -> None:
    told = tags("", 0.95, looks=2, stopped="all that was asked for")
    assert state_looks(told) == ""
    assert "Looked at 2 times" in warn_of_looks(told) and "8%" in warn_of_looks(told)


def test_a_rule_says_its_looks_and_level() -> None:
    told = state_looks(tags("settled", 1 - 0.05 / 3, stopped="every comparison is settled"))
    assert "2 looks taken" in told and "98.3 %" in told and "1 cell that was settled" in told
    assert read_level(tags("settled", 0.99)) == 0.99
    width = state_looks(tags("0.05", 0.95, stopped="every half-width is at most 0.05"))
    assert "stops by width, ±0.05" in width and "settled at an earlier look" not in width


def test_a_primary_comparison_stands_alone() -> None:
    y = np.random.default_rng(0).normal(size=(4, 3, 40))
    plain, fixed = compare_cells(y), compare_cells(y, primary=2)
    alone = {c.cell: c for c in fixed.comparisons}
    for before in plain.comparisons:
        after = alone[before.cell]
        assert after.family == (1 if before.cell == 2 else 3)
        if before.cell == 2:
            assert after.half_prompts_like_these < before.half_prompts_like_these
            df = after.df
            ratio = dunnett_quantile(1, df) / dunnett_quantile(3, df)
            assert after.half_prompts_like_these == pytest.approx(
                before.half_prompts_like_these * ratio, rel=0.02
            )
        else:
            assert after == before


def test_a_settled_cell_stands_as_it_was_and_others_without_it() -> None:
    from reports.image_tables import ImageTable
    from reports.judging import _judge_images
    from reports.results import CellResults, ReportedMetric

    rng = np.random.default_rng(1)
    names = ["control", "settled", "open"]
    y = {n: {s: rng.normal(size=30) for s in range(3 if n == "settled" else 8)} for n in names}
    metric = ReportedMetric("score", "Score", "higher", "")
    cells = [CellResults(n, n, {}, n, control=n == "control") for n in names]
    counts = {"control": 8, "settled": 3, "open": 8}
    results: Any = SimpleNamespace(
        headline=metric,
        primary="",
        untouched=None,
        levels=cells,
        seeds=list(range(8)),
        seeds_of=lambda cell: list(range(counts[cell])),
        control_of=lambda cell: None if cell.control else cells[0],
        trials=lambda: iter(()),
        cells=cells,
        controls=cells[:1],
        untrained=set(),
        config={},
    )
    table = ImageTable(metric, tuple(map(str, range(30))), y, False)
    found = {v.cell: v for v in _judge_images(results, table, 0.95, 3, None).levels}
    first = {n: {s: own[s] for s in range(3)} for n, own in y.items()}
    then = {c.cell: c for c in compare_cells(first, "control").comparisons}
    assert found["settled"].low == pytest.approx(then["settled"].low)
    alone = compare_cells({n: y[n] for n in ("control", "open")}, "control", family=2)
    assert found["open"].low == pytest.approx(alone.comparisons[0].low)
    assert len(found["open"].seeds) == 8 and found["open"].family == 2
