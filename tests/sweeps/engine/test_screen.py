"""``mode=screen``: which cells two levels of each factor make, and what they cannot tell apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf import load as conf
from sweeps.command import main
from sweeps.engine.errors import PlanError
from sweeps.engine.preview import print_preview
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve
from sweeps.gate_start import SWEEP as THREE
from sweeps.injection_layer import SWEEP as TWO
from sweeps.released import SWEEP as WITHIN
from sweeps.sepen_losses import SWEEP as WITH_GAP
from sweeps.sweep import Factor, Sweep, level_text

MORE = {
    "method.gate.threshold": ([0.3, 0.5, 0.6], 0.5),
    "method.gate.stage": (["high", "mid", "all"], "mid"),
    "method.gate.width": ([32, 128], 128),
}


def wide(factors: int) -> Sweep:
    """The three factors of gate_start and up to three more."""
    added = dict(list(MORE.items())[: factors - 3])
    return replace(
        THREE,
        factors=[*THREE.factors, *(Factor(key, levels) for key, (levels, _) in added.items())],
        control=THREE.control | {key: control for key, (_, control) in added.items()},
    )


def request(sweep: Sweep, *words: str) -> Request:
    return resolve(sweep, conf.load(["mode=screen", *words], sweep.preset), ["mode=screen", *words])


def levels(request: Request) -> np.ndarray:
    """0 for the control's level, 1 for the other, [cells, factors]."""
    cells = [cell for cell in request.cells if not cell.untouched]
    control = request.sweep.control
    return np.array(
        [[level_text(c.values[k]) != level_text(control[k]) for k in control] for c in cells]
    ).astype(int)


@pytest.mark.parametrize(("factors", "words", "count"), [(3, [], 8), (4, [], 8), (6, [], 16)])
def test_a_screen_is_the_smallest_fraction(factors: int, words: list[str], count: int) -> None:
    found = request(wide(factors), *words)
    design = levels(found)
    assert len(design) == count and len({*map(tuple, design)}) == count
    assert sum(cell.control for cell in found.cells) == 1
    assert found.cells[0].untouched
    signs = 2 * design - 1
    pairs = np.stack([signs[:, i] * signs[:, j] for i, j in combinations(range(factors), 2)], 1)
    assert not (signs.T @ signs - count * np.eye(factors)).any()
    assert not (signs.T @ pairs).any(), "main effects are free of two-way interactions"
    own = pairs.T @ pairs - count * np.eye(pairs.shape[1])
    assert bool(own.any()) == (factors > 3)


def test_resolution_five_tells_pairs_apart() -> None:
    assert len(levels(request(wide(4), "resolution=5"))) == 16
    signs = 2 * levels(request(wide(5), "resolution=5")) - 1
    pairs = np.stack([signs[:, i] * signs[:, j] for i, j in combinations(range(5), 2)], axis=1)
    assert len(signs) == 16 and not (pairs.T @ pairs - 16 * np.eye(10)).any()


def test_the_other_level_is_the_furthest_or_the_one_that_is_named() -> None:
    screen = request(wide(4)).screen
    assert screen is not None
    assert {key.rpartition(".")[2]: pair for key, pair in screen.levels.items()} == {
        "bias": (2.0, 4.0),  # The later of two that are as far
        "gradient": ("finite_difference", "released"),
        "protect": ("bos", "specials"),
        "threshold": (0.5, 0.3),
    }
    words = 'against=["bias=0","method.gate.gradient=exact","threshold=0.9"]'
    named = request(wide(4), words).screen
    assert named is not None
    others = [named.levels[f"method.gate.{k}"][1] for k in ("bias", "gradient", "threshold")]
    assert others == [0.0, "exact", 0.9]
    assert any("threshold=0.9" in name for name in named.names)


def test_a_plan_names_levels_and_aliases(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    print_preview(request(wide(4), f"output={tmp_path}"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "8 of the 16 combinations of 4 factors at two levels, a fraction of resolution IV" in (
        printed
    )
    assert "bias 4.0 against 2.0" in printed
    for pair in ("bias × gradient = protect × threshold", "bias × protect = gradient × threshold"):
        assert pair in printed


def test_other_columns_are_taken_where_combinations_are_left_out() -> None:
    """One of the 16 cells is left out, which another order of the factors does without."""
    whole = request(wide(6))
    cells = [c for c in whole.cells if not (c.untouched or c.control)]
    without = [dict(cells[2].values)]
    found = request(replace(wide(6), without=without))
    assert len(levels(found)) == 16 and cells[2].text not in [cell.text for cell in found.cells]


@pytest.mark.parametrize(
    ("sweep", "words", "message"),
    [
        (TWO, [], "mode=screen is for sweeps over 3 to 10 factors, but injection_layer varies 2"),
        (WITHIN, [], "one for each recipe; use mode=grid"),
        (WITH_GAP, [], "needs the cell separate_weight=0.0, enhance_weight=0.0, dist"),
        (THREE, ["against=[bias=2.0]"], "2.0 is its control level"),
        (THREE, ["against=[bias=0.0,bias=4.0]"], "given twice"),
        (THREE, ["against=[bais=0.0]"], "did you mean bias"),
        (THREE, ["against=[bias]"], "expected factor=level"),
        (THREE, ["against=[gradient=foo]"], "expected one of released, exact"),
        (THREE, ["against=[bias=high]"], "expected a number"),
        (THREE, ["mode=grid", "against=[bias=0.0]"], "against is for mode=screen, but mode=grid"),
        (THREE, ["mode=grid", "resolution=5"], "resolution is for mode=screen, but mode=grid"),
        (THREE, ["resolution=3"], "an integer of at least 4"),
    ],
)
def test_nonsense_is_refused_in_a_line(sweep: Sweep, words: list[str], message: str) -> None:
    with pytest.raises((PlanError, conf.ConfigError)) as caught:
        request(sweep, *words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_screen_is_of_the_study_that_a_grid_is_of(
    output: Path, trainer: Any, reports: list[str]
) -> None:
    """Trials that a grid shares with it are not run twice."""
    words = [f"output={output}", "seeds=1"]
    assert main(THREE, ["mode=screen", "against=[bias=0.0]", *words], train=trainer) == 0
    assert len(trainer.ran) == 9
    assert main(THREE, words, train=trainer) == 0
    assert len(trainer.ran) == 28 and not list(output.glob("gate_start-*"))
