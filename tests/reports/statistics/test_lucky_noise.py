from __future__ import annotations

import numpy as np
import pytest

from reports.statistics import find_lucky_noises


def test_p_is_the_chance_that_every_cell_favours_the_same_noise() -> None:
    """Ten cells, of whose three noises of prompt 0 the second is right: (1/3)^10. On the other
    prompts cells differ, so that none is left out as a copy."""
    y = np.zeros((10, 3 + 20))
    y[:, 1] = 1
    y[np.arange(10), 3 + np.arange(10)] = 1
    prompts = [0, 0, 0, *(1 + i // 2 for i in range(20))]
    noises = [5, 6, 7, *range(100, 120)]
    found = find_lucky_noises(y, prompts, noises)
    assert found.tested == 23 and found.cells == 10
    [lucky] = found.lucky
    assert (lucky.noise, lucky.prompts, lucky.mean, lucky.others) == (6, (0,), 1.0, 0.0)
    assert lucky.p == pytest.approx(3.0**-10, rel=1e-9)
    # Each of the three noises has such a p with that chance, and no noise of the other prompts
    assert found.by_chance == pytest.approx(3 * 3.0**-10, rel=1e-9)


def test_p_of_ranks_with_ties_by_hand() -> None:
    """Three noises; doubled ranks of cell 0 are 1 1 −2, of cell 1 2 0 −2, of cell 2 0 0 0. The sums
    of noise 0 are 3 of 9 equally likely from −4 to 3: only 1 + 2 reaches it, in 2 of 9 ways."""
    y = [[1.0, 1.0, 0.0], [0.9, 0.5, 0.1], [0.2, 0.2, 0.2]]
    found = find_lucky_noises(y, [0, 0, 0], [1, 2, 3], rate=1.0)
    assert [(noise.noise, noise.p) for noise in found.lucky] == [
        (1, pytest.approx(2 / 9)),
        # 1 + 0, or better: of 9 ways 1 + 2 (twice) and 1 + 0 (twice)
        (2, pytest.approx(4 / 9)),
    ]
    worse = find_lucky_noises(y, [0, 0, 0], [1, 2, 3], rate=1.0, better="lower")
    # Noise 3 alone: −1 × (−2 − 2) = 4, in one of 9 ways
    assert [(n.noise, n.p) for n in worse.lucky] == [(3, pytest.approx(1 / 9))]


def test_a_noise_of_several_prompts_is_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.random((8, 3 * 6))
    prompts = np.repeat(np.arange(6), 3)
    noises = np.tile([11, 12, 13], 6)
    y[:, noises == 12] += 2.0
    found = find_lucky_noises(y, prompts.tolist(), noises.tolist())
    assert found.tested == 3
    [lucky] = found.lucky
    assert lucky.noise == 12 and lucky.prompts == tuple(range(6))
    assert lucky.p == pytest.approx(3.0**-48, rel=1e-6)


def test_copies_of_a_cell_and_prompts_of_one_noise_say_nothing() -> None:
    y = np.tile([0.0, 1.0, 0.0, 1.0], (20, 1))
    found = find_lucky_noises(y, [0, 0, 0, 1], [1, 2, 3, 4])
    assert found.cells == 1 and found.tested == 3 and not found.lucky
    assert find_lucky_noises(y, [0, 1, 2, 3], [1, 2, 3, 4]).tested == 0
    assert find_lucky_noises(np.zeros((3, 0)), [], []).tested == 0


def test_chance_alone_lists_few_and_shared_luck_many() -> None:
    rng = np.random.default_rng(1)
    prompts = np.tile(np.arange(60), 3).tolist()
    noises = list(range(180))
    by_chance, found = 0, []
    for _ in range(20):
        ease = rng.random(60)
        alone = rng.random((6, 3, 60)) < ease
        by_chance += len(find_lucky_noises(alone.reshape(6, -1), prompts, noises).lucky)
        luck = rng.normal(0, 2, (1, 3, 60)) + rng.normal(0, 1, (6, 3, 60)) > 0
        found.append(find_lucky_noises(luck.reshape(6, -1), prompts, noises))
    assert by_chance <= 6  # Of 3,600
    assert min(len(one.lucky) for one in found) > 4
    assert all(one.by_chance <= 0.05 * len(one.lucky) for one in found)


@pytest.mark.parametrize(
    ("y", "prompts", "match"),
    [
        (np.zeros((2, 3)), [0, 0], "got"),
        (np.full((2, 2), np.nan), [0, 0], "finite"),
    ],
)
def test_bad_input_is_refused(y: np.ndarray, prompts: list[int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        find_lucky_noises(y, prompts, [1, 2])
    with pytest.raises(ValueError, match="better="):
        find_lucky_noises(np.zeros((2, 2)), [0, 0], [1, 2], better="none")
