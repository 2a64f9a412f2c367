"""Where a set of features lies: the balls around its samples. Precision, recall, density and
coverage.

All distances are squared distances in float64, taken from blocks of ``|a|^2 + |b|^2 - 2 a.b`` after
a common origin is subtracted: the distances do not change, and a common offset costs no digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.metrics.blocks import check, column_mean, pairs

# What the matrix product leaves on |a|^2 + |b|^2 is below this share; equal distances must still
# compare as equal
NOISE = 1e-12


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
        check(f"a manifold with k = {k}", k + 1, features)
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
        check("a manifold", 1, self.features[:1], fake)
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
    check(f"precision / recall with k = {k}", k + 1, x, y)
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
    as `blocks.pairs`."""
    for rows, columns, left, right in pairs(a, b, column_mean(a), upper):
        norms = left.square().sum(1)[:, None] + right.square().sum(1)[None, :]
        squared = torch.addmm(norms, left, right.T, alpha=-2).clamp_(min=0)
        yield rows, columns, squared, norms.mul_(NOISE)


def _nearest(x: Tensor, k: int) -> Tensor:
    """DistributionScorer from each sample to its 1st to k-th nearest other one, float64 [N, k],
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
