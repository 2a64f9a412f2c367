"""Distances between sets of feature vectors, pure functions of tensors [N, d] computed in float64; and the overlap of masks.

All distances depend on N: compare only numbers of equal N, and state it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

EMPTY = {"one": 1.0, "zero": 0.0, "nan": torch.nan}  # the overlap of two empty masks
ROWS = 1024  # rows of a distance matrix held at a time: 1024 x 30,000 float64 are 245 MB


def _checked(x: Tensor, y: Tensor, least: int, what: str) -> tuple[Tensor, Tensor]:
    for tensor in (x, y):
        if tensor.ndim != 2 or tensor.shape[1] != x.shape[1]:
            raise ValueError(f"{what} compares two feature matrices [N, d] of equal d, not {list(x.shape)} and {list(y.shape)}")
        if len(tensor) < least:
            raise ValueError(f"{what} needs at least {least} samples on each side, not {len(x)} and {len(y)}: generate or load more images")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{what} got features that are not finite: look at the images and the extractor")
    return x.double(), y.double()


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    """Fréchet distance between Gaussians fitted to two feature sets (FID, Heusel et al. 2017, eq. 6).

    ``|mx - my|^2 + Tr(Sx + Sy - 2 (Sx Sy)^1/2)`` with unbiased covariances (ddof 1). The trace of the square root is taken from the
    eigenvalues of the symmetric ``Sx^1/2 Sy Sx^1/2``, which are real and non-negative, so that no imaginary part has to be dropped.

    x: [N, d], y: [M, d]. Returns a float64 scalar >= 0. Raises ValueError for fewer than 2 samples or features that are not finite.
    Below about 2 d samples the covariances are rank deficient and the value is dominated by its bias, which falls as 1 / N.
    """
    x, y = _checked(x, y, 2, "the Fréchet distance")
    mean_x, mean_y = x.mean(0), y.mean(0)
    cov_x = (x - mean_x).T @ (x - mean_x) / (len(x) - 1)
    cov_y = (y - mean_y).T @ (y - mean_y) / (len(y) - 1)
    values, vectors = torch.linalg.eigh(cov_x)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ cov_y @ root
    trace_root = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * trace_root
    return distance.clamp(min=0)


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """Kernel distance (KID, Binkowski et al. 2018): unbiased squared MMD with ``k(a, b) = (a.b / d + 1)^3`` over the full sets.

    No random subsets, so that two calls agree. x: [N, d], y: [M, d]. Returns a float64 scalar; being unbiased it may be below 0.
    Raises ValueError for fewer than 2 samples.
    """
    x, y = _checked(x, y, 2, "the kernel distance")
    n, m, d = len(x), len(y), x.shape[1]

    def total(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([((rows @ b.T / d + 1) ** 3).sum() for rows in a.split(ROWS)]).sum()

    def diagonal(a: Tensor) -> Tensor:
        return ((a.square().sum(1) / d + 1) ** 3).sum()

    within = (total(x, x) - diagonal(x)) / (n * (n - 1)) + (total(y, y) - diagonal(y)) / (m * (m - 1))
    return within - 2 * total(x, y) / (n * m)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, strict: bool = False) -> tuple[Tensor, Tensor]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    The ball of a sample reaches to its k-th nearest other sample of the same set. Precision: share of fakes in at least one ball of a real
    (any ball, not only the nearest real's). Recall: share of reals in at least one ball of a fake. A sample on the rim counts as inside
    (``<=``, as in the paper); ``strict`` leaves it out (``<``), which gives about 0 on sets with more than k copies of one image.

    real: [N, d], fake: [M, d]. Returns two float64 scalars in [0, 1]. Raises ValueError unless both sets hold at least k + 1 samples.
    Distances are taken after the joint mean is subtracted: they do not change, and a common offset costs no digits.
    """
    if k < 1:
        raise ValueError(f"k = {k} names no neighbour: expected at least 1")
    real, fake = _checked(real, fake, k + 1, f"precision / recall with k = {k}")
    mean = (real.sum(0) + fake.sum(0)) / (len(real) + len(fake))
    real, fake = real - mean, fake - mean
    # The matrix product leaves rounding noise of this size on squared distances; equal distances must still compare as equal.
    noise = 1e-12 * torch.cat([real, fake]).square().sum(1).max()

    def within(squared: Tensor, radius: Tensor) -> Tensor:
        return squared < radius - noise if strict else squared <= radius + noise

    real_radius, fake_radius = _radii(real, k), _radii(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    covered = []
    for rows, squared in _squared_distances(real, fake):  # [rows, M]
        inside |= within(squared, real_radius[rows, None]).any(0)
        covered.append(within(squared, fake_radius[None, :]).any(1))
    return inside.double().mean(), torch.cat(covered).double().mean()


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the matrix of squared distances, a block at a time."""
    norms = b.square().sum(1)
    for start in range(0, len(a), ROWS):
        rows = slice(start, start + ROWS)
        yield rows, (a[rows].square().sum(1)[:, None] + norms[None, :] - 2 * a[rows] @ b.T).clamp(min=0)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance from each sample to its k-th nearest other one, [N]."""
    radii = []
    for rows, squared in _squared_distances(x, x):
        at = torch.arange(rows.start, min(rows.stop, len(x)), device=x.device)
        squared[at - rows.start, at] = torch.inf
        radii.append(squared.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def mask_iou(pred: Tensor, target: Tensor, empty: str = "one") -> Tensor:
    """Intersection over union of masks, one by one.

    ``empty`` says what two empty masks give: "one" (they agree, the default), "zero" (as torchmetrics' BinaryJaccardIndex), or "nan", which
    marks them so that ``nanmean`` skips them. One empty mask beside one that is not always gives 0.

    pred, target: bool [..., H, W], of the same shape. Returns float32 [...] in [0, 1]. Raises ValueError on an unknown ``empty``, on masks
    that are not bool, and on shapes that differ.
    """
    if empty not in EMPTY:
        raise ValueError(f"empty={empty!r} is unknown: expected one of {', '.join(EMPTY)}")
    if pred.dtype != torch.bool or target.dtype != torch.bool:
        raise ValueError(f"masks must be bool, not {pred.dtype} and {target.dtype}: compare them with a threshold first")
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(f"masks must have one shape [..., H, W], not {list(pred.shape)} and {list(target.shape)}")
    union = (pred | target).sum((-2, -1))
    overlap = (pred & target).sum((-2, -1)) / union.clamp(min=1)
    return torch.where(union > 0, overlap, EMPTY[empty])
