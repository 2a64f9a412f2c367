from __future__ import annotations

import pytest
from scipy import stats

from lightning_modules.metrics.intervals import wilson
from reports import statistics


@pytest.mark.parametrize(
    ("successes", "n"),
    [(0, 1), (1, 1), (0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (17, 80), (553, 553)],
)
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(successes: int, n: int, level: float):
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    low, high = wilson(successes, n, level)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1
    # The reports have the same formula
    assert (low, high) == pytest.approx(statistics.wilson(successes, n, level))


@pytest.mark.parametrize(
    ("successes", "n", "level"),
    [(0, 0, 0.95), (5, 4, 0.95), (-1, 4, 0.95), (1, 4, 0.0), (1, 4, 95)],
)
def test_what_is_no_share_is_refused(successes: int, n: int, level: float):
    with pytest.raises(ValueError, match="expected"):
        wilson(successes, n, level)
