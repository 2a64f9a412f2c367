from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from helpers.image_sweeps import SCORE, make_sweep

from reports.lucky import find_luck, luck_blocks, state_luck, tabulate_luck


def make(luck: float, cells: int = 12, **facts: Any) -> Any:
    """Seed 1 has the noise that is lucky on prompt 3."""
    rng = np.random.default_rng(0)
    values = rng.random((cells, 3, 8))
    values[:, 1, 3] += luck
    levels = {f"l{i}": values[i] for i in range(cells)}
    return make_sweep(levels, "l0", metric=SCORE, **facts)


def test_a_lucky_noise_is_listed_with_its_prompt() -> None:
    results = make(5.0)
    luck = find_luck(results)
    assert luck is not None and luck.found.tested == 24
    [noise] = luck.found.lucky
    assert noise.noise == 1003 and luck.names[noise.prompts[0]] == "val/3"
    assert noise.p == 3.0**-12 or abs(noise.p * 3.0**12 - 1) < 1e-9
    table = tabulate_luck(results, luck)
    assert table is not None
    assert table.rows[0][:2] == ["1003", "prompt 3 (val)"] and table.rows[0][4] == "2e-06"
    assert luck.found.by_chance < 0.05
    said = "1 of 24 noises is lucky for every cell, where chance alone would give fewer than 0.1."
    assert said in state_luck(results, luck)
    some = replace(luck, found=replace(luck.found, by_chance=1.26))
    assert "chance alone would give at most 1.3" in state_luck(results, some)
    assert table.title.endswith("p: of this noise alone, not adjusted for the others.")
    assert [block["kind"] for block in luck_blocks(results)] == ["text", "table"]


def test_without_luck_none_is_listed() -> None:
    results = make(0.0)
    luck = find_luck(results)
    assert luck is not None and tabulate_luck(results, luck) is None
    assert "none of 24 noises" in state_luck(results, luck)


def test_nothing_is_said_where_nothing_can_be_told() -> None:
    same = make_sweep({"a": np.ones((3, 8)), "b": np.ones((3, 8))}, "a", metric=SCORE)
    shared = make(5.0, noise=range(8))  # One noise a prompt, in every seed
    alone = make(5.0, cells=1)
    for results in (same, shared, alone):
        assert find_luck(results) is None and luck_blocks(results) == []
    unknown = make(5.0)
    for cell in unknown.cells:
        for trial in cell.trials.values():
            trial.samples.noise[:] = [None] * 8
    assert find_luck(unknown) is None
