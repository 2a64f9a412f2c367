"""Metrics as pure functions: distances between sets of features [N, d], computed in float64, and
the overlap of masks. The rules of benchmarks are handed on from their own files.

All distances depend on N: compare only numbers of equal N, and state it. Features may be of any
floating dtype and are converted in blocks of rows, so that no whole float64 copy and no N x N
matrix is ever held: beside twice 30,000 x 2,048 float32 features (0.5 GB) about 0.4 GB are at work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from conf.describe import show_count
from lightning_modules.metrics.geneval import geneval_correct
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

ROWS = 1024  # Rows of one set in a block
# Rows of the other set beside it: 1024 x 4096 float64 are 34 MB, and 4096 x 2048 of them 67 MB
COLUMNS = 4096
# What the matrix product leaves on |a|^2 + |b|^2 is below this share; equal distances must still
# compare as equal
NOISE = 1e-12


EMPTY = {"one": 1.0, "zero": 0.0, "nan": torch.nan}  # The overlap of two empty masks


# --- masks ----------------------------------------------------------------------------------------


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


# --- Gaussians and kernels ------------------------------------------------------------------------


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
    check_features("the Fréchet distance", 2, x, y)
    return frechet_distance_of_moments(*moments(x), *moments(y))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and unbiased covariance [d, d] (ddof 1) of features [N, d], float64. Raises
    ValueError for fewer than 2 samples."""
    check_features("a covariance", 2, x)
    mean = column_mean(x)
    cov = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in row_slices(len(x)):
        centred = centered(x[rows], mean)
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
    check_features("the kernel distance", 2, x, y)
    n, m, d = len(x), len(y), x.shape[1]
    # Unlike distances, the kernel depends on the origin
    nowhere = torch.zeros(d, dtype=torch.float64, device=x.device)

    def total(a: Tensor, b: Tensor, upper: bool = False) -> Tensor:
        result = torch.zeros((), dtype=torch.float64, device=a.device)
        for rows, columns, left, right in block_pairs(a, b, nowhere, upper):
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
            f"{show_count(subsets, 'subset')} of {show_count(subset_size, 'sample')}: expected at "
            "least 1 subset of at least 2"
        )
    check_features(f"the kernel distance over subsets of {subset_size}", subset_size, x, y)
    generator = torch.Generator().manual_seed(seed)

    def draw(features: Tensor) -> Tensor:
        return features[
            torch.randperm(len(features), generator=generator)[:subset_size].to(features.device)
        ]

    values = torch.stack([kernel_distance(draw(x), draw(y)) for _ in range(subsets)])
    return values.mean(), values.std(correction=0)


# --- manifolds: balls around samples --------------------------------------------------------------
#
# Distances are squared ones in float64, taken from blocks of |a|^2 + |b|^2 - 2 a.b after a common
# origin is subtracted: the distances do not change, and a common offset costs no digits.


class ManifoldScores(NamedTuple):
    """Float64 scalars; all but the density lie in [0, 1]."""

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


@dataclass(frozen=True)
class Manifold:
    """A set of features and how far each sample's neighbours are: the costly half, computed once,
    which any number of fakes can meet.

    features: [N, d]; nearest: float64 [N, K], distances to the 1st to K-th nearest *other* sample
    of the set.
    """

    features: Tensor
    nearest: Tensor

    @classmethod
    def of(cls, features: Tensor, k: int) -> Manifold:
        """The manifold with radii for all neighbours up to ``k``. Raises ValueError for fewer than
        k + 1 samples, or not finite ones."""
        if k < 1:
            raise ValueError(f"k = {k} names no neighbour: expected at least 1")
        check_features(f"a manifold with k = {k}", k + 1, features)
        return cls(features, _nearest(features, k))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def k(self) -> int:
        return self.nearest.shape[1]

    def radii(self, k: int) -> Tensor:
        """Radius of each sample's ball, float64 [N]: the distance to its k-th nearest other sample.
        Raises ValueError if k is unknown."""
        if not 1 <= k <= self.k:
            raise ValueError(
                f"k = {k} is outside what this manifold knows: expected 1 to {self.k}, or "
                f"Manifold.of(features, {k})"
            )
        return self.nearest[:, k - 1]

    def meet(
        self, fake: Tensor, k: int | None = None, strict: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Which balls (of radius ``k``, by default the largest known) hold which fakes; call it
        once for each part of a stream of fakes.

        fake: [M, d]. Returns in how many balls each fake lies, int64 [M], and which balls hold at
        least one, bool [N]. Of all fakes, precision is ``(balls > 0).mean()``, density
        ``balls.sum() / (k M)`` and coverage ``held.mean()``, held being joined by ``|``. A fake on
        the rim is inside unless ``strict``. Raises ValueError for features of another d, or not
        finite.
        """
        check_features("a manifold", 1, self.features[:1], fake)
        balls = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
        held = torch.zeros(len(self), dtype=torch.bool, device=fake.device)
        radii = self.radii(k or self.k).square()
        for rows, columns, squared, noise in _squared_distances(self.features, fake):
            inside = _within(squared, radii[rows, None], noise, strict)
            balls[columns] += inside.sum(0)
            held[rows] |= inside.any(1)
        return balls, held


def manifold_scores(
    real: Tensor | Manifold,
    fake: Tensor | Manifold,
    k: int = 3,
    density_k: int | None = None,
    strict: bool = False,
) -> ManifoldScores:
    """Precision and recall at ``k``, density and coverage at ``density_k`` (by default also k),
    from one pass over all distances.

    real: [N, d], fake: [M, d], or manifolds of them that know both k. The definitions, ``strict``
    and what is raised: as `precision_recall` and `density_coverage`, whose values these are.
    """
    density_k = k if density_k is None else density_k
    if min(k, density_k) < 1:
        raise ValueError(f"k = {min(k, density_k)} names no neighbour: expected at least 1")
    x, y = (side.features if isinstance(side, Manifold) else side for side in (real, fake))
    check_features(f"precision / recall with k = {k}", k + 1, x, y)
    real = real if isinstance(real, Manifold) else Manifold.of(real, max(k, density_k))
    fake = fake if isinstance(fake, Manifold) else Manifold.of(fake, k)
    real_radius, dense_radius, fake_radius = (
        real.radii(k).square(),
        real.radii(density_k).square(),
        fake.radii(k).square(),
    )

    precise, dense = (
        torch.zeros(len(y), dtype=dtype, device=y.device) for dtype in (torch.bool, torch.int64)
    )
    recalled, held = (torch.zeros(len(x), dtype=torch.bool, device=x.device) for _ in range(2))
    for rows, columns, squared, noise in _squared_distances(x, y):
        inside = _within(squared, real_radius[rows, None], noise, strict)
        precise[columns] |= inside.any(0)
        recalled[rows] |= _within(squared, fake_radius[None, columns], noise, strict).any(1)
        if density_k != k:
            inside = _within(squared, dense_radius[rows, None], noise, strict)
        dense[columns] += inside.sum(0)
        held[rows] |= inside.any(1)
    precision, recall, coverage = (part.double().mean() for part in (precise, recalled, held))
    return ManifoldScores(precision, recall, dense.double().mean() / density_k, coverage)


def precision_recall(
    real: Tensor | Manifold, fake: Tensor | Manifold, k: int = 3, strict: bool = False
) -> tuple[Tensor, Tensor]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    The ball of a sample reaches to its k-th nearest other sample of the same set. Precision: share
    of fakes in at least one ball of a real (any ball, not only the nearest real's). Recall: share
    of reals in at least one ball of a fake. A sample on the rim counts as inside (``<=``, as in the
    paper); ``strict`` leaves it out (``<``), which gives about 0 on sets with more than k copies of
    one image.

    real: [N, d], fake: [M, d], or manifolds of them. Returns two float64 scalars in [0, 1]. Raises
    ValueError unless both sets hold at least k + 1 samples.
    """
    scores = manifold_scores(real, fake, k, strict=strict)
    return scores.precision, scores.recall


def density_coverage(
    real: Tensor | Manifold, fake: Tensor, k: int = 5, strict: bool = False
) -> tuple[Tensor, Tensor]:
    """Density and coverage (Naeem et al. 2020, section 3).

    Density: in how many balls of reals a fake lies on average, over k; 1 is expected when both come
    from one distribution, and it may exceed 1. Coverage: share of reals whose ball holds at least
    one fake. The rim counts as inside; ``strict`` leaves it out, as the authors' code does.

    real: [N, d], at least k + 1 samples, or their manifold; fake: [M, d], at least 1. Returns two
    float64 scalars. Raises ValueError as `precision_recall` does.
    """
    real = real if isinstance(real, Manifold) else Manifold.of(real, k)
    balls, held = real.meet(fake, k, strict)
    return balls.double().mean() / k, held.double().mean()


def _within(squared: Tensor, radius: Tensor, noise: Tensor, strict: bool) -> Tensor:
    return squared < radius - noise if strict else squared <= radius + noise


def _squared_distances(
    a: Tensor, b: Tensor, upper: bool = False
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """(rows of a, rows of b, their squared distances, the rounding noise on them), block by block
    as `block_pairs`."""
    for rows, columns, left, right in block_pairs(a, b, column_mean(a), upper):
        norms = left.square().sum(1)[:, None] + right.square().sum(1)[None, :]
        squared = torch.addmm(norms, left, right.T, alpha=-2).clamp_(min=0)
        yield rows, columns, squared, norms.mul_(NOISE)


def _nearest(x: Tensor, k: int) -> Tensor:
    """Distances from each sample to its 1st to k-th nearest other one, float64 [N, k],
    nearest first."""
    best = torch.full((len(x), k), torch.inf, dtype=torch.float64, device=x.device)

    def offer(rows: slice, squared: Tensor) -> None:
        few = squared.topk(min(k, squared.shape[1]), dim=1, largest=False, sorted=False).values
        best[rows] = torch.cat([best[rows], few], dim=1).topk(k, dim=1, largest=False).values

    # Each pair is computed once and offered to both its samples.
    for rows, columns, squared, _ in _squared_distances(x, x, upper=True):
        if columns.start < rows.stop:
            at = torch.arange(rows.start, rows.stop, device=x.device)[:, None]
            other = torch.arange(columns.start, columns.stop, device=x.device)[None, :]
            squared.masked_fill_(other <= at, torch.inf)
        offer(rows, squared)
        offer(columns, squared.T)
    return best.sqrt()


# --- blocks of feature matrices -------------------------------------------------------------------


def check_features(what: str, least: int, *sets: Tensor) -> None:
    """Raises ValueError unless all are finite matrices [N, d] of the same d with at least ``least``
    rows."""
    shapes, sizes = (
        " and ".join(map(str, values))
        for values in ([list(x.shape) for x in sets], [len(x) for x in sets])
    )
    for features in sets:
        if features.ndim != 2 or features.shape[1] != sets[0].shape[1]:
            raise ValueError(f"{what} takes feature matrices [N, d] of equal d, not {shapes}")
        if len(features) < least:
            side = " on each side" if len(sets) > 1 else ""
            raise ValueError(
                f"{what} needs at least {show_count(least, 'sample')}{side}, not {sizes}: "
                "generate or "
                "load more images"
            )
        if not all(
            bool(torch.isfinite(features[rows]).all()) for rows in row_slices(len(features))
        ):
            raise ValueError(
                f"{what} got features that are not finite: look at the images and the extractor"
            )


def row_slices(count: int, size: int | None = None) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` rows (by default ``ROWS``) that cover ``count``."""
    size = size or ROWS
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def centered(x: Tensor, origin: Tensor) -> Tensor:
    """A float64 copy of ``x - origin``, held once."""
    return x.to(torch.float64, copy=True).sub_(origin)


def column_mean(x: Tensor) -> Tensor:
    """Mean of the rows, float64 [d]."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for rows in row_slices(len(x)):
        total += x[rows].sum(0, dtype=torch.float64)
    return total / len(x)


def block_pairs(
    a: Tensor, b: Tensor, origin: Tensor, upper: bool = False
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """(rows of a, rows of b, those rows of a, those of b), the values float64 with ``origin``
    subtracted, for each block of an N x M matrix. ``upper``: only blocks with entries above the
    diagonal of a symmetric matrix (a is b)."""
    for columns in row_slices(len(b), COLUMNS):
        right = centered(b[columns], origin)
        for rows in row_slices(len(a)):
            if upper and rows.start >= columns.stop - 1:
                break
            yield rows, columns, centered(a[rows], origin), right
