"""The way from the control to a cell, one factor at a time, and which changes are needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from helpers.image_results import SUCCESS, make_results
from helpers.printed_commands import find_commands

from reports.ablation import Ablation, find_ablation
from reports.answer.ablation import (
    confirming_command,
    need_word,
    state_ablation,
    state_next_path,
    state_path_rule,
)
from reports.answer.conclusion import conclude
from reports.factor_tables import factor_blocks, factor_tables
from reports.factors import judge_factors
from reports.judging import judge
from reports.results import SweepResults
from reports.statistics import DIFFERS, compare_cells
from reports.tables import compare_cells as entries_of

FACTORS = ("bias", "width", "stage")
CELLS = [*itertools.product("01", repeat=3)]
BASE = ("0", "0", "0")
Cell = tuple[str, ...]


def images(share: float, key: int, prompts: int = 150, seeds: int = 3) -> np.ndarray:
    hard = np.random.default_rng(7).normal(0, 0.8, (1, prompts))
    noise = np.random.default_rng(3).normal(0, 0.8, (seeds, prompts))
    own = np.random.default_rng([5, key]).normal(0, 0.3, (seeds, prompts))
    return (3.2 * (share - 0.5) + hard + noise + own > 0).astype(float)


def gain(cell: Cell) -> float:
    """The second change is worth most, the third nothing, and it hurts alone."""
    bias, width, stage = (int(level) for level in cell)
    return 0.4 + 0.15 * bias + 0.25 * width + 0.002 * stage - 0.2 * stage * (1 - bias)


def made(share: Callable[[Cell], float] = gain, cells: list[Cell] = CELLS) -> SweepResults:
    tables = {
        " / ".join(cell): {"success": images(share(cell), CELLS.index(cell))} for cell in cells
    }
    results = make_results(tables, " / ".join(BASE), SUCCESS, factors=FACTORS)
    for cell in results.cells:
        cell.name = ", ".join(f"{key}={level}" for key, level in cell.values.items())
    return results


def ablate(results: SweepResults) -> Ablation:
    found = find_ablation(results, judge(results, SUCCESS))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def results() -> SweepResults:
    return made()


def mean(results: SweepResults, name: str) -> float:
    cell = next(cell for cell in results.cells if cell.name == name)
    return float(np.mean([*cell.per_seed("success").values()]))


def test_steps_go_by_the_largest_gain_to_the_best_cell(results: SweepResults) -> None:
    found = ablate(results)
    names = [cell.name for cell in results.cells]
    assert found.chosen and found.target.name == max(names, key=lambda name: mean(results, name))
    assert [change.factor for change in found.steps[:2]] == [1, 0]
    at = "bias=0, width=0, stage=0"
    for change in found.steps:
        assert change.verdict.mean == pytest.approx(
            mean(results, change.cell.name) - mean(results, at)
        )
        at = change.cell.name
    assert at == found.target.name and found.whole


def test_intervals_hold_for_every_single_change_at_once(results: SweepResults) -> None:
    """Which are 3 · 2² in a full grid of three factors; so they hold for those that are chosen."""
    found, table = ablate(results), judge(results, SUCCESS).table
    assert table is not None and found.family == 12
    names = {tuple(cell.values.values()): cell.name for cell in results.cells}
    pairs = [
        (names[cell], names[(*cell[:i], "0", *cell[i + 1 :])])
        for cell in CELLS
        for i in range(3)
        if cell[i] == "1"
    ]
    expected = {
        (c.cell, c.control): c for c in compare_cells(table.y, pairs=pairs, binary=True).comparisons
    }
    at = names[BASE]
    for change in found.steps:
        one = expected[change.cell.name, at]
        assert change.verdict.low == pytest.approx(one.low)
        assert change.verdict.high == pytest.approx(one.high)
        at = change.cell.name


def test_what_a_target_needs(results: SweepResults) -> None:
    results = made()
    results.tags["mode"] = "path"
    results.config["to"] = "bias=1, width=1, stage=1"
    found = ablate(results)
    assert not found.chosen and found.target.name == results.config["to"] and found.family == 12
    words = {FACTORS[change.factor]: need_word(change) for change in found.removals}
    assert words["bias"] == words["width"] == "needed"
    assert words["stage"] in ("not needed (no difference that matters)", "open")
    text = conclude(results, entries_of(results)).text
    assert state_ablation(results, found) in text
    assert "needed: bias 1 (" in text and "then bias 1 (" in text
    for change in found.removals:
        assert change.verdict.mean == pytest.approx(
            mean(results, found.target.name) - mean(results, change.cell.name)
        )


def test_a_change_that_hurts_is_better_taken_back() -> None:
    results = made(lambda cell: gain(cell) - 0.2 * (cell[2] == "1"))
    results.tags["mode"], results.config["to"] = "path", "bias=1, width=1, stage=1"
    found = ablate(results)
    last = found.removals[-1]
    assert (last.factor, last.verdict.verdict) == (2, DIFFERS)
    assert need_word(last) == "better without"


def test_only_what_was_measured_is_a_step() -> None:
    cells = [cell for cell in CELLS if cell != ("0", "1", "0")]
    results = made(cells=cells)
    results.tags["mode"], results.config["to"] = "path", "bias=1, width=1, stage=1"
    found = ablate(results)
    assert found.steps[0].factor == 0 and found.steps[0].of == 2
    text = state_path_rule(made(cells=[BASE, ("1", "1", "0"), ("1", "0", "0")]), found)
    assert "chosen for its gain" in text and found.family == 12
    less = ablate(made(cells=[BASE, ("1", "1", "0"), ("1", "0", "0")]))
    assert len(less.steps) == 2 and len(less.removals) == 1 and not less.whole
    assert "run by mode=path 'to=bias=1, width=1, stage=0'" in state_path_rule(results, less)


def test_there_is_no_path_without_two_changes() -> None:
    alone = made(lambda cell: 0.4 + 0.3 * (cell == ("1", "0", "0")))
    assert find_ablation(alone, judge(alone, SUCCESS)) is None
    chance = made(lambda cell: 0.6)
    assert find_ablation(chance, judge(chance, SUCCESS)) is None, "the best is not told apart"
    apart = made(cells=[BASE, ("1", "1", "0")])
    assert find_ablation(apart, judge(apart, SUCCESS)) is None
    titles = [t.title for t in factor_tables(alone, entries_of(alone))]
    assert not any("from the control to" in title for title in titles)


def test_a_screen_prints_the_path_that_follows(results: SweepResults) -> None:
    results.tags["command"] = "python -m sweeps.gate_start mode=screen 'against=[bias=1]' seeds=3"
    results.tags["mode"] = "screen"
    try:
        texts = [b["text"] for b in factor_blocks(results, entries_of(results)) if "text" in b]
        (text,) = [text for text in texts if "better by its main effect" in text]
    finally:
        del results.tags["mode"]
    assert "mode=screen" not in text and "against" not in text and "seeds=3" in text
    assert text.endswith("mode=path 'to=bias=1, width=1, stage=0'") and [*find_commands(text)]
    flat = made(lambda cell: 0.6)
    effects = judge_factors(flat, judge(flat, SUCCESS))
    assert effects is not None and "no path" in state_next_path(flat, effects)


def test_the_section_says_that_means_flatter_and_how_to_check(results: SweepResults) -> None:
    results.tags["command"] = "python -m sweeps.gate_start seeds=3 trainer.steps=9"
    command = confirming_command(results, ablate(results))
    assert [*find_commands(command)] and "trainer.steps=9 " in command
    assert command.endswith("seed=3 seeds=3") and command.count("seeds=") == 1
    text = state_path_rule(results, ablate(results))
    assert "best of 8 cells" in text and "flatter" in text and "all 12 single changes" in text
    blocks = factor_blocks(results, entries_of(results))
    assert [b["text"] for b in blocks if b["kind"] == "heading"] == [
        "Several factors",
        "Step by step",
    ]
    tables = factor_tables(results, entries_of(results))
    assert tables[-2].columns[-1] == "Best of" and tables[-1].columns[-1] == "Needed"
