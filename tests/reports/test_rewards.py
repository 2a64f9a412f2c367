from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_results import SUCCESS, make_results

from reports.figures.rewards import draw_rewards
from reports.results import ReportedMetric
from reports.rewards import BOTH, HACKED, OPEN, UNMOVED, find_gains, is_reward, reward_blocks
from reports.tables import compare_cells

REWARD = ReportedMetric("reward_judge", "Reward judge's score", "higher", "")
SEEDS, PROMPTS = 4, 60


def make(headline: ReportedMetric = SUCCESS, *others: ReportedMetric) -> Any:
    """Cells whose reward and success rise by what their names say."""
    rng = np.random.default_rng(0)
    reward = rng.random((SEEDS, PROMPTS)) * 0.4
    right = (rng.random((SEEDS, PROMPTS)) < 0.5).astype(float)

    def add(table: np.ndarray, by: float) -> np.ndarray:
        return table + by + 0.02 * rng.random(table.shape)

    def turn(count: int) -> np.ndarray:
        """So many wrong images of each seed are right, below 0 the other way around."""
        changed = right.copy()
        for row in changed:
            row[np.flatnonzero(row == (0 if count > 0 else 1))[: abs(count)]] = float(count > 0)
        return changed

    noisy = (rng.random((SEEDS, PROMPTS)) < 0.5).astype(float)
    tables = {
        "control": (reward, right),
        "hacked": (add(reward, 0.3), turn(-15)),
        "honest": (add(reward, 0.3), turn(20)),
        "unclear": (add(reward, 0.3), noisy),
        "idle": (add(reward, -0.01), turn(20)),
    }
    metrics = others or (headline, REWARD)
    cells = {
        name: {m.key: gain if is_reward(m) else success for m in metrics}
        for name, (gain, success) in tables.items()
    }
    return make_results(cells, "control", *metrics)


def test_cells_are_read_by_reward_and_measure() -> None:
    results = make()
    gains = find_gains(results, compare_cells(results))
    assert [*gains] == [REWARD]
    readings = {gain.cell.name: gain.reading for gain in gains[REWARD]}
    assert readings == {"hacked": HACKED, "honest": BOTH, "unclear": OPEN, "idle": UNMOVED}


def test_the_section_names_what_was_hacked(tmp_path: Path) -> None:
    results = make()
    entries = compare_cells(results)
    picture = draw_rewards(find_gains(results, entries), results, tmp_path)
    assert picture is not None and (tmp_path / "rewards.svg").is_file()
    assert f"hacked: {HACKED}" in picture.alt
    blocks = reward_blocks(results, entries, picture)
    assert [block["kind"] for block in blocks] == ["heading", "text", "picture", "table"]
    said = blocks[1]["text"]
    assert "Reward hacking: hacked is better than the control by reward judge's score" in said
    assert "open by success: unclear;" in said and "Better by both: honest." in said
    rows = {row[0]: row[3] for row in blocks[3]["rows"]}
    assert rows["hacked"] == HACKED and rows["idle"] == UNMOVED and "control" not in rows


def test_nothing_is_said_without_a_reward_or_a_measure(tmp_path: Path) -> None:
    without = make(SUCCESS, SUCCESS)
    alone = make(REWARD, REWARD)
    for results in (without, alone):
        entries = compare_cells(results)
        assert find_gains(results, entries) == {} and reward_blocks(results, entries, None) == []
        assert draw_rewards({}, results, tmp_path) is None
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("key", "found"), [("reward", True), ("reward_judge", True), ("rewarded", False)]
)
def test_a_reward_is_known_by_its_key(key: str, found: bool) -> None:
    assert is_reward(ReportedMetric(key, key, "higher", "")) is found
    assert not is_reward(ReportedMetric(key, key, "none", ""))
