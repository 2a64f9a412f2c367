from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.metrics import functional
from lightning_modules.metrics.functional import (
    Manifold,
    density_coverage,
    manifold_scores,
    precision_recall,
)


def gaussian(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def whole_numbers(n: int, d: int, seed: int) -> Tensor:
    """Points of a small grid: many distances are exactly equal."""
    return torch.randint(0, 3, (n, d), generator=torch.Generator().manual_seed(seed)).double()


SETS = {
    "random": (gaussian(45, 6, 0), gaussian(38, 6, 1) * 1.2 + 0.3),
    "ties": (whole_numbers(40, 3, 2), whole_numbers(50, 3, 3)),
    "identical": (gaussian(30, 5, 4), gaussian(30, 5, 4)),
    "duplicates": (gaussian(8, 5, 5).repeat(6, 1), gaussian(8, 5, 5)[:4].repeat(7, 1)),
    "one collapsed mode": (gaussian(30, 5, 6), gaussian(30, 5, 6)[:1].repeat(20, 1)),
    "smallest": (gaussian(6, 3, 7), gaussian(6, 3, 8)),
    "fewer samples than features": (gaussian(7, 40, 9), gaussian(8, 40, 10)),
    "constant features": (torch.full((9, 4), 2.0), torch.full((7, 4), 2.0)),
    "constant features apart": (torch.full((9, 4), 2.0), torch.full((7, 4), 5.0)),
    "common offset": (
        gaussian(40, 8, 11, torch.float32) + 100,
        gaussian(40, 8, 12, torch.float32) * 1.1 + 100,
    ),
    "offset duplicates": (
        gaussian(9, 8, 13, torch.float32).repeat(5, 1) + 100,
        gaussian(9, 8, 13, torch.float32).repeat(6, 1) + 100,
    ),
}


def by_hand(real: Tensor, fake: Tensor, k: int, density_k: int, strict: bool) -> list[float]:
    x, y = real.double().numpy(), fake.double().numpy()

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a[:, None] - b[None]) ** 2).sum(2)

    def radii(a: np.ndarray, nth: int) -> np.ndarray:
        others = distances(a, a)
        np.fill_diagonal(others, np.inf)
        return np.sort(others, 1)[:, nth - 1]

    inside = np.less if strict else np.less_equal
    between = distances(x, y)
    dense = inside(between, radii(x, density_k)[:, None])
    precision = inside(between, radii(x, k)[:, None]).any(0).mean()
    recall = inside(between, radii(y, k)[None]).any(1).mean()
    return [precision, recall, dense.sum() / (density_k * len(y)), dense.any(1).mean()]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_scores_equal_numpy(name: str, strict: bool):
    real, fake = SETS[name]
    for k, density_k in ((3, 5), (1, 1), (5, 2)):
        expected = by_hand(real, fake, k, density_k, strict)
        assert [
            float(v) for v in manifold_scores(real, fake, k, density_k, strict)
        ] == pytest.approx(expected, abs=1e-12), (k, density_k)
        assert [float(v) for v in precision_recall(real, fake, k, strict)] == pytest.approx(
            expected[:2], abs=1e-12
        )
        assert [float(v) for v in density_coverage(real, fake, density_k, strict)] == pytest.approx(
            expected[2:], abs=1e-12
        )


@pytest.mark.parametrize(("rows", "columns"), [(7, 13), (13, 5), (1, 1), (8, 8)])
def test_blocks_change_nothing(monkeypatch, rows: int, columns: int):
    real, fake = SETS["ties"]
    manifold = Manifold.of(real, 6)
    expected = manifold_scores(real, fake, 3, 5)
    monkeypatch.setattr(functional, "ROWS", rows)
    monkeypatch.setattr(functional, "COLUMNS", columns)
    assert manifold_scores(real, fake, 3, 5) == expected
    assert torch.allclose(Manifold.of(real, 6).nearest, manifold.nearest, atol=1e-6)


def test_fakes_may_stream_past_a_kept_manifold():
    real, fake = SETS["random"]
    manifold = Manifold.of(real, 5)
    kept = real.clone()
    parts = [manifold.meet(part) for part in fake.split(9)]
    balls, held = (
        torch.cat([part[0] for part in parts]),
        torch.stack([part[1] for part in parts]).any(0),
    )
    scores = manifold_scores(real, fake, 5)
    assert (balls > 0).double().mean() == scores.precision
    assert balls.double().mean() / 5 == scores.density
    assert held.double().mean() == scores.coverage
    assert manifold_scores(manifold, Manifold.of(fake, 4), 3, 5) == manifold_scores(
        real, fake, 3, 5
    )
    assert torch.equal(manifold.radii(2), Manifold.of(real, 2).radii(2))
    assert torch.equal(real, kept)


def test_equal_distributions_give_the_known_level():
    real, fake = gaussian(700, 64, 20), gaussian(700, 64, 21)
    density, coverage = density_coverage(real, fake)
    assert float(density) == pytest.approx(1, abs=0.12)
    # Of real and fake neighbours taken together the nearest five are all real with probability 1 /
    # 2^5, nearly.
    assert float(coverage) == pytest.approx(1 - 1 / 32, abs=0.03)


def test_a_crowded_mode_is_dense_and_covers_little():
    real = gaussian(300, 4, 22)
    density, coverage = density_coverage(real, gaussian(300, 4, 23) * 1e-2)
    assert float(density) > 1.2 and float(coverage) < 0.2


def test_what_cannot_be_scored_is_refused():
    real, fake = SETS["random"]
    with pytest.raises(ValueError, match="k = 5 needs at least 6 samples, not 5"):
        density_coverage(real[:5], fake)
    density_coverage(real[:6], fake[:1])
    with pytest.raises(ValueError, match="k = 0 names no neighbour"):
        density_coverage(real, fake, k=0)
    with pytest.raises(ValueError, match="k = 0 names no neighbour"):
        manifold_scores(real, fake, 3, 0)
    with pytest.raises(ValueError, match="not finite"):
        Manifold.of(real, 3).meet(torch.full((2, 6), torch.inf))
    with pytest.raises(ValueError, match="equal d"):
        Manifold.of(real, 3).meet(torch.zeros(2, 5))
    with pytest.raises(
        ValueError, match=("k = 4 is outside what this manifold knows: expected 1 to 3")
    ):
        manifold_scores(Manifold.of(real, 3), fake, 3, 4)
