from __future__ import annotations

import numpy as np
import pytest

from reports.statistics import probability_of_improvement

# Signs against the control (cell 0) of cell 1: + + 0 −, + 0 0 0; of cell 2: none
Y = np.array(
    [
        [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]],
        [[0.6, 0.9, 0.5, 0.1], [0.7, 0.5, 0.5, 0.5]],
        [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]],
    ]
)


def test_ties_count_half() -> None:
    """3 better, 4 equal, 1 worse of 8: (3 + 4/2) / 8."""
    better, same = probability_of_improvement(Y)
    assert better.share == pytest.approx(5 / 8) and same.share == 0.5
    assert better.low < 5 / 8 < better.high and same.low < 0.5 < same.high
    worse, _ = probability_of_improvement(Y, better="lower")
    assert worse.share == pytest.approx(3 / 8)
    assert (worse.low, worse.high) == pytest.approx((1 - better.high, 1 - better.low))


def test_pairs_have_controls_of_their_own() -> None:
    y = {"a": Y[0], "b": Y[1], "c": Y[1], "d": Y[0]}
    found = probability_of_improvement(y, pairs=[("b", "a"), ("d", "c")])
    assert [one.cell for one in found] == ["b", "d"]
    assert [one.share for one in found] == pytest.approx([5 / 8, 3 / 8])
    alone = probability_of_improvement({"a": Y[0], "b": Y[1]}, "a")
    same = probability_of_improvement({"a": Y[0], "b": Y[1]}, pairs=[("b", "a")])
    assert alone == same


def test_a_seed_that_is_missing_leaves_the_others() -> None:
    y = {"a": dict(enumerate(Y[0])), "b": {1: Y[1][1]}, "c": dict(enumerate(Y[1]))}
    found = {one.cell: one.share for one in probability_of_improvement(y, "a")}
    assert found == pytest.approx({"b": 5 / 8, "c": 5 / 8})
