from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from lightning_modules.metrics import functional
from lightning_modules.metrics.functional import (
    frechet_distance,
    frechet_distance_of_moments,
    kernel_distance,
    kernel_distance_subsets,
    manifold_scores,
    moments,
    precision_recall,
)


def gaussian(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def with_moments(n: int, mean: torch.Tensor, cov: torch.Tensor, seed: int) -> torch.Tensor:
    """Samples whose mean and unbiased covariance are exactly those given."""
    x = gaussian(n, len(mean), seed)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T @ x / (n - 1)), x.T, upper=False
    ).T
    return white @ torch.linalg.cholesky(cov).T + mean


def test_frechet_distance_of_gaussians_is_the_closed_form():
    a, b = (
        torch.tensor([1.0, 4.0, 9.0, 0.25]).double(),
        torch.tensor([4.0, 1.0, 16.0, 0.25]).double(),
    )
    mean = torch.tensor([1.0, 2.0, 0.0, -1.0]).double()
    x = with_moments(50, torch.zeros(4).double(), a.diag(), 0)
    y = with_moments(70, mean, b.diag(), 1)
    assert float(frechet_distance(x, y)) == pytest.approx(6 + 1 + 1 + 1 + 0, abs=1e-9)


def test_frechet_distance_of_commuting_full_covariances():
    basis = torch.linalg.qr(gaussian(5, 5, 2)).Q
    a, b = (
        torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double(),
        torch.tensor([5.0, 1.0, 2.0, 0.5, 3.0]).double(),
    )
    x = with_moments(40, torch.ones(5).double(), basis @ a.diag() @ basis.T, 3)
    y = with_moments(40, torch.ones(5).double(), basis @ b.diag() @ basis.T, 4)
    assert float(frechet_distance(x, y)) == pytest.approx(
        float((a.sqrt() - b.sqrt()).square().sum()), abs=1e-9
    )


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (6, 5, 16)])
def test_frechet_distance_equals_torchmetrics(n: int, m: int, d: int):
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(torch.nn.Module):
        num_features = d

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    x, y = gaussian(n, d, 5), gaussian(m, d, 6) * 1.3 + 0.2
    reference = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    reference.update(x, real=True)
    reference.update(y, real=False)
    # The reference takes the root of a product that is not symmetric; with rank-deficient
    # covariances that costs it half its digits.
    assert float(frechet_distance(x, y)) == pytest.approx(
        float(reference.compute()), abs=1e-8 if n > d else 1e-4
    )


def test_frechet_distance_is_symmetric_and_zero_on_itself():
    x, y = gaussian(60, 8, 7), gaussian(90, 8, 8) + 1
    assert float(frechet_distance(x, y)) == pytest.approx(float(frechet_distance(y, x)), rel=1e-10)
    assert 0 <= float(frechet_distance(x, x)) < 1e-9
    assert float(frechet_distance(x, x + 3)) == pytest.approx(8 * 9, rel=1e-9)


def test_frechet_distance_takes_float32_and_survives_constant_features():
    x = torch.ones(4, 3)
    assert frechet_distance(x, x + 1).dtype == torch.float64
    assert float(frechet_distance(x, x + 1)) == pytest.approx(3)


@pytest.mark.parametrize("function", [frechet_distance, kernel_distance])
def test_one_sample_is_refused(function):
    with pytest.raises(ValueError, match="at least 2 samples on each side, not 1 and 5"):
        function(torch.zeros(1, 3), torch.zeros(5, 3))


@pytest.mark.parametrize("function", [frechet_distance, kernel_distance, precision_recall])
def test_bad_features_are_refused(function):
    with pytest.raises(ValueError, match="equal d"):
        function(torch.zeros(6, 3), torch.zeros(6, 4))
    with pytest.raises(ValueError, match="not finite"):
        function(torch.zeros(6, 3), torch.full((6, 3), torch.nan))


def test_kernel_distance_equals_the_double_sum(monkeypatch):
    x, y = gaussian(9, 5, 9), gaussian(7, 5, 10) + 0.5

    def k(a, b):
        return float((a @ b / 5 + 1) ** 3)

    expected = (
        sum(k(x[i], x[j]) for i in range(9) for j in range(9) if i != j) / 72
        + sum(k(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / 42
        - 2 * sum(k(a, b) for a in x for b in y) / 63
    )
    assert float(kernel_distance(x, y)) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(functional, "ROWS", 4)
    monkeypatch.setattr(functional, "COLUMNS", 3)
    assert float(kernel_distance(x, y)) == pytest.approx(expected, rel=1e-10)


SETS = {
    "random": (gaussian(40, 6, 40), gaussian(33, 6, 41) * 1.5 + 0.3),
    "identical": (gaussian(30, 5, 42), gaussian(30, 5, 42)),
    "duplicates": (gaussian(8, 5, 43).repeat(5, 1), gaussian(6, 5, 44).repeat(6, 1)),
    "one collapsed mode": (gaussian(30, 5, 45), gaussian(1, 5, 46).repeat(20, 1)),
    "fewer samples than features": (gaussian(5, 24, 47), gaussian(7, 24, 48)),
    "constant features": (torch.full((9, 4), 2.0), torch.full((7, 4), 5.0)),
    "some constant features": (
        gaussian(20, 6, 49) * column(1, 0, 1, 0, 1, 1).T,
        gaussian(20, 6, 50) * column(1, 0, 0, 1, 1, 1).T,
    ),
    "common offset": (
        gaussian(40, 8, 51, torch.float32) + 100,
        gaussian(40, 8, 52, torch.float32) * 2 + 100,
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_distances_equal_numpy(name: str):
    x, y = SETS[name]
    a, b = x.double().numpy(), y.double().numpy()
    n, m, d = *map(len, (a, b)), a.shape[1]
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    # The trace of the root is the nuclear norm of Xc Yc^T: a way that takes neither a root nor an
    # eigenvalue of a covariance.
    trace = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum() / np.sqrt(
        (n - 1) * (m - 1)
    )
    spread = np.trace(np.cov(a.T)) + np.trace(np.cov(b.T))
    fid = ((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * trace
    assert float(frechet_distance(x, y)) == pytest.approx(fid, abs=1e-7 * max(1, spread))

    k_aa, k_bb, k_ab = ((p @ q.T / d + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
    np.fill_diagonal(k_aa, 0)
    np.fill_diagonal(k_bb, 0)
    kid = k_aa.sum() / (n * (n - 1)) + k_bb.sum() / (m * (m - 1)) - 2 * k_ab.mean()
    assert float(kernel_distance(x, y)) == pytest.approx(kid, rel=1e-9, abs=1e-12 * k_ab.max())


def test_moments_are_numpys(monkeypatch):
    x = gaussian(50, 4, 53, torch.float32) + 100
    monkeypatch.setattr(functional, "ROWS", 7)
    mean, cov = moments(x)
    assert mean.numpy() == pytest.approx(x.double().numpy().mean(0), rel=1e-13)
    assert cov.numpy() == pytest.approx(np.cov(x.double().numpy().T), rel=1e-10)
    assert frechet_distance_of_moments(mean, cov, mean + 2, cov) == pytest.approx(16)


def test_kernel_distance_of_subsets():
    x, y = gaussian(60, 4, 54), gaussian(50, 4, 55) + 0.5
    state = torch.get_rng_state()
    mean, sd = kernel_distance_subsets(x, y, subsets=80, subset_size=20)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    assert (mean, sd) == kernel_distance_subsets(x, y, subsets=80, subset_size=20)
    other, _ = kernel_distance_subsets(x, y, subsets=80, subset_size=20, seed=1)
    assert mean != other and abs(float(mean - other)) < 6 * float(sd) / 80**0.5
    assert float(mean) == pytest.approx(float(kernel_distance(x, y)), abs=4 * float(sd) / 80**0.5)
    # A subset of everything is everything: no sample is drawn twice.
    mean, sd = kernel_distance_subsets(x[:50], y, subsets=3, subset_size=50)
    assert float(mean) == pytest.approx(float(kernel_distance(x[:50], y)), rel=1e-9)
    assert float(sd) < 1e-9
    with pytest.raises(ValueError, match="at least 1,000 samples on each side, not 60 and 50"):
        kernel_distance_subsets(x, y)
    with pytest.raises(ValueError, match="0 subsets"):
        kernel_distance_subsets(x, y, subsets=0)


def test_autocast_changes_nothing():
    x, y = gaussian(40, 8, 56, torch.float32), gaussian(40, 8, 57, torch.float32) + 0.2

    def everything() -> list[float]:
        values = [
            frechet_distance(x, y),
            kernel_distance(x, y),
            *kernel_distance_subsets(x, y, 3, 20),
            *manifold_scores(x, y, 3, 5),
        ]
        assert all(value.dtype == torch.float64 for value in values)
        return [float(value) for value in values]

    expected = everything()
    with torch.autocast("cpu", torch.bfloat16):
        assert everything() == expected


MEMORY = """
import resource
import torch
from lightning_modules.metrics import functional
from lightning_modules.metrics.functional import frechet_distance, kernel_distance, manifold_scores

def growth(x, y, *runs):
    for run in runs:
        run(x[:70, :8], y[:70, :8])  # loads libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for run in runs:
        run(x, y)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)

# Only a new peak is seen, so inputs grow from one to the next, and less than what must not be held.
functional.ROWS, functional.COLUMNS = 512, 512
growth(torch.rand(5000, 2), torch.rand(5000, 2), kernel_distance, manifold_scores)  # All: 191 MiB
growth(torch.rand(75_000, 96), torch.rand(75_000, 96), frechet_distance)  # 55 MiB, float64 110
functional.ROWS, functional.COLUMNS = 16, 32
x, y = torch.randn(2, 150, 48_000)  # 55 MiB for both, 110 as float64
growth(x, y, kernel_distance, manifold_scores)
"""


@pytest.mark.slow
def test_memory_holds_no_copy_of_the_features_and_no_whole_matrix():
    pytest.importorskip("resource")
    answer = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    assert all(float(line) < 80 for line in answer.stdout.splitlines()), answer.stdout


def test_kernel_distance_is_unbiased():
    values = [
        float(kernel_distance(gaussian(20, 4, 2 * s), gaussian(20, 4, 2 * s + 1)))
        for s in range(60)
    ]
    assert min(values) < 0 < max(values)  # Not clipped
    mean = torch.tensor(values).mean()
    assert abs(float(mean)) < 3 * float(torch.tensor(values).std()) / 60**0.5


def test_precision_asks_for_any_ball_not_the_nearest():
    real = column(0.0, 0.1, 1.0)  # K = 1: radii 0.1, 0.1, 0.9
    fake = column(0.25, 50.0)  # 0.25 is nearest to 0.1, outside its ball, but inside that of 1.0
    assert float(precision_recall(real, fake, k=1)[0]) == 0.5


def test_rim_counts_as_inside_unless_strict():
    # Radii 1 1 1 and 1 1 6; only 2 and 3 are one apart
    real, fake = column(0, 1, 2), column(3, 4, 10)
    assert [float(v) for v in precision_recall(real, fake, k=1)] == pytest.approx([1 / 3, 1 / 3])
    assert [float(v) for v in precision_recall(real, fake, k=1, strict=True)] == [0, 0]


def test_copies_of_one_image_are_inside_each_other():
    image = gaussian(1, 32, 11, torch.float32) * 50 + 100
    copies = image.repeat(8, 1)
    assert [float(v) for v in precision_recall(copies, copies)] == [1, 1]
    assert [float(v) for v in precision_recall(copies, copies, strict=True)] == [0, 0]


def test_swapped_roles_swap_precision_and_recall():
    real, fake = gaussian(120, 6, 12), gaussian(80, 6, 13) * 0.5
    precision, recall = precision_recall(real, fake)
    assert (recall, precision) == precision_recall(fake, real)
    assert precision > recall


def test_collapsed_generator_is_precise_and_recalls_nothing():
    real = gaussian(400, 4, 14)
    fake = gaussian(400, 4, 15) * 1e-3
    precision, recall = precision_recall(real, fake)
    assert float(precision) == 1
    assert float(recall) < 0.02


def test_scattered_generator_recalls_but_is_imprecise():
    real = gaussian(400, 4, 16) * 1e-2
    fake = gaussian(400, 4, 17) * 10
    precision, recall = precision_recall(real, fake)
    assert float(precision) < 0.02
    assert float(recall) == 1


def test_equal_distributions_give_the_known_level():
    precision, recall = precision_recall(gaussian(1000, 64, 18), gaussian(1000, 64, 19))
    assert float(precision) == pytest.approx(0.62, abs=0.06)
    assert float(recall) == pytest.approx(0.62, abs=0.06)


def test_distances_ignore_offset_rotation_and_scale():
    real, fake = gaussian(90, 10, 20), gaussian(110, 10, 21) * 1.2 + 0.3
    expected = precision_recall(real, fake)
    basis = torch.linalg.qr(gaussian(10, 10, 22)).Q
    assert precision_recall(real + 1e4, fake + 1e4) == expected
    assert precision_recall(7 * real @ basis, 7 * fake @ basis) == expected


def test_smallest_sets():
    precision_recall(gaussian(4, 2, 25), gaussian(4, 2, 26), k=3)
    with pytest.raises(
        ValueError, match=("k = 3 needs at least 4 samples on each side, not 4 and 3")
    ):
        precision_recall(gaussian(4, 2, 27), gaussian(3, 2, 28), k=3)
    with pytest.raises(ValueError, match="k = 0"):
        precision_recall(gaussian(4, 2, 29), gaussian(4, 2, 30), k=0)
