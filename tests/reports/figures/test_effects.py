from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_sweeps import SCORE, make_sweep

from reports.factors import judge_factors
from reports.figures import effects
from reports.statistics import DIFFERS
from reports.tables import compare_cells, verdicts_of

FACTORS = {"head": ["x", "y"], "stage": ["p", "q", "r"]}
# Of head y: .4 at p and q, .1 at r; of stage r: .2 at x, −.1 at y
SHIFTS = {("x", "r"): 0.2, ("y", "p"): 0.4, ("y", "q"): 0.4, ("y", "r"): 0.3}


def make(skip: tuple[Any, ...] = (), factors: Any = None) -> Any:
    rng = np.random.default_rng(0)
    prompts = rng.random((3, 30))
    levels = {
        (head, stage): prompts + SHIFTS.get((head, stage), 0.0) + 0.02 * rng.random((3, 30))
        for head in "xy"
        for stage in "pqr"
        if (head, stage) not in skip
    }
    return make_sweep(levels, ("x", "p"), factors=factors or FACTORS, metric=SCORE)


def find(results: Any) -> list[effects.EffectPanel]:
    found = judge_factors(results, verdicts_of(compare_cells(results), results.headline))
    return effects.find_panels(results, found)


def test_a_panel_has_the_main_effects_and_each_combination() -> None:
    head, stage = find(make())
    assert (head.texts, stage.texts) == (("x", "y"), ("p", "q", "r"))
    assert head.verdicts[0] is None and stage.verdicts[0] is None
    assert head.verdicts[1].mean == pytest.approx((0.4 + 0.4 + 0.1) / 3, abs=0.01)
    assert stage.verdicts[2].mean == pytest.approx((0.2 - 0.1) / 2, abs=0.01)
    assert head.verdicts[1].verdict == DIFFERS
    singly = np.array(head.singly)
    assert singly == pytest.approx(np.array([[0, 0.4], [0, 0.4], [0, 0.1]]), abs=0.01)
    assert np.array(stage.singly)[:, 2] == pytest.approx([0.2, -0.1], abs=0.01)


def test_the_caption_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(effects, "save", lambda figure, folder, name: kept.append(figure))
    results = make()
    entries = compare_cells(results)
    picture = effects.draw_effects(results, entries, tmp_path)
    assert picture is not None and "all 3 at once" in picture.caption
    assert "Head y (differs: better" in picture.caption and "grey lines" in picture.caption
    [figure] = kept
    verdict = find(results)[0].verdicts[1]
    bars = [tuple(map(float, line.get_ydata())) for line in figure.axes[0].lines]
    assert (verdict.low, verdict.high) in bars


def test_what_compares_with_the_control_alone_has_no_main_effects(tmp_path: Path) -> None:
    """One factor, or one changed at a time: the forest plot shows it all."""
    rng = np.random.default_rng(0)
    one = make_sweep({x: rng.random((3, 9)) for x in "abc"}, "a", metric=SCORE)
    for results in (one, make(skip=(("y", "q"), ("y", "r")))):
        assert effects.draw_effects(results, compare_cells(results), tmp_path) is None


def test_long_names_and_many_factors_fit(tmp_path: Path) -> None:
    factors = {
        "surrogate": ["finite_difference", "renormalised"],
        "protect": ["none", "special_tokens"],
        "bias": ["0.0", "2.0"],
        "head": ["mlp", "linear"],
    }
    import itertools

    rng = np.random.default_rng(0)
    levels = {level: rng.random((2, 9)) for level in itertools.product(*factors.values())}
    results = make_sweep(levels, next(iter(levels)), factors=factors, metric=SCORE)
    picture = effects.draw_effects(results, compare_cells(results), tmp_path)
    assert picture is not None and (tmp_path / "effects.svg").is_file()
