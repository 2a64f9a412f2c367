"""Metrics as pure functions: distances between sets of features [N, d], computed in float64; the
overlap of masks; benchmarks' rules.

All distances depend on N: compare only numbers of equal N, and state it. Features may be of any
floating dtype and are converted in blocks: beside twice 30,000 x 2,048 float32 features (0.5 GB)
about 0.4 GB are at work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.metrics.blocks import check, column_mean, moved, pairs, spans
from lightning_modules.metrics.geneval import geneval_correct
from lightning_modules.metrics.manifold import (
    Manifold,
    ManifoldScores,
    density_coverage,
    manifold_scores,
    precision_recall,
)
from lightning_modules.metrics.t2i_spatial import spatial_score

__all__ = [
    "Manifold",
    "ManifoldScores",
    "density_coverage",
    "frechet_distance",
    "frechet_distance_of_moments",
    "geneval_correct",
    "kernel_distance",
    "kernel_distance_subsets",
    "manifold_scores",
    "mask_iou",
    "moments",
    "precision_recall",
    "spatial_score",
]

EMPTY = {"one": 1.0, "zero": 0.0, "nan": torch.nan}  # the overlap of two empty masks


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    """Fréchet distance between Gaussians fitted to two feature sets (FID, Heusel et al. 2017, eq.
    6).

    ``|mx - my|^2 + Tr(Sx + Sy - 2 (Sx Sy)^1/2)`` with unbiased covariances (ddof 1). The trace of
    the square root is taken from the eigenvalues of the symmetric ``Sx^1/2 Sy Sx^1/2``, which are
    real and non-negative, so that no imaginary part has to be dropped.

    x: [N, d], y: [M, d]. Returns a float64 scalar >= 0. Raises ValueError for fewer than 2 samples
    or features that are not finite. Below about 2 d samples the covariances are rank deficient and
    the value is dominated by its bias, which falls as 1 / N.
    """
    check("the Fréchet distance", 2, x, y)
    return frechet_distance_of_moments(*moments(x), *moments(y))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and unbiased covariance [d, d] (ddof 1) of features [N, d], float64. Raises
    ValueError for fewer than 2 samples."""
    check("a covariance", 2, x)
    mean = column_mean(x)
    cov = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in spans(len(x)):
        centred = moved(x[rows], mean)
        cov.addmm_(centred.T, centred)
    return mean, cov / (len(x) - 1)


def frechet_distance_of_moments(
    mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor
) -> Tensor:
    """`frechet_distance` of Gaussians with these means [d] and covariances [d, d], in float64, as
    `moments` gives them."""
    values, vectors = torch.linalg.eigh(cov_x)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ cov_y @ root
    trace_root = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * trace_root
    return distance.clamp(min=0)


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """Kernel distance (KID, Binkowski et al. 2018): unbiased squared MMD with ``k(a, b) = (a.b / d
    + 1)^3`` over the full sets.

    No random subsets, so that two calls agree. x: [N, d], y: [M, d]. Returns a float64 scalar;
    being unbiased it may be below 0. Raises ValueError for fewer than 2 samples.
    """
    check("the kernel distance", 2, x, y)
    n, m, d = len(x), len(y), x.shape[1]
    # Unlike distances, the kernel depends on the origin
    nowhere = torch.zeros(d, dtype=torch.float64, device=x.device)

    def total(a: Tensor, b: Tensor, upper: bool = False) -> Tensor:
        result = torch.zeros((), dtype=torch.float64, device=a.device)
        for rows, columns, left, right in pairs(a, b, nowhere, upper):
            kernel = torch.mm(left, right.T).div_(d).add_(1).pow_(3)
            result += (kernel.triu_(rows.start - columns.start + 1) if upper else kernel).sum()
        return result

    return 2 * (
        total(x, x, upper=True) / (n * (n - 1))
        + total(y, y, upper=True) / (m * (m - 1))
        - total(x, y) / (n * m)
    )


def kernel_distance_subsets(
    x: Tensor, y: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (ddof 0) of `kernel_distance` over random subsets, as most papers
    report KID.

    Each subset draws ``subset_size`` samples without repetition from either side. They depend on
    ``seed`` and the set sizes alone, not on torch's global generator, so that two calls agree. x:
    [N, d], y: [M, d]. Returns two float64 scalars. Raises ValueError for sets smaller than a
    subset.
    """
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"{subsets} subsets of {subset_size} samples: expected at least 1 subset of at least 2"
        )
    check(f"the kernel distance over subsets of {subset_size}", subset_size, x, y)
    generator = torch.Generator().manual_seed(seed)

    def draw(features: Tensor) -> Tensor:
        return features[
            torch.randperm(len(features), generator=generator)[:subset_size].to(features.device)
        ]

    values = torch.stack([kernel_distance(draw(x), draw(y)) for _ in range(subsets)])
    return values.mean(), values.std(correction=0)


def mask_iou(pred: Tensor, target: Tensor, empty: str = "one") -> Tensor:
    """Intersection over union of masks, one by one.

    ``empty`` says what two empty masks give: "one" (they agree, the default), "zero" (as
    torchmetrics' BinaryJaccardIndex), or "nan", which marks them so that ``nanmean`` skips them.
    One empty mask beside one that is not always gives 0.

    pred, target: bool [..., H, W], of the same shape. Returns float32 [...] in [0, 1]. Raises
    ValueError on an unknown ``empty``, on masks that are not bool, and on shapes that differ.
    """
    if empty not in EMPTY:
        raise ValueError(f"empty={empty!r} is unknown: expected one of {', '.join(EMPTY)}")
    if pred.dtype != torch.bool or target.dtype != torch.bool:
        raise ValueError(
            f"masks must be bool, not {pred.dtype} and {target.dtype}: compare them with a "
            "threshold first"
        )
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(
            f"masks must have one shape [..., H, W], not {list(pred.shape)} and "
            f"{list(target.shape)}"
        )
    union = (pred | target).sum((-2, -1))
    overlap = (pred & target).sum((-2, -1)) / union.clamp(min=1)
    return torch.where(union > 0, overlap, EMPTY[empty])
