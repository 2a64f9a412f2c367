"""Feature matrices [N, d] in blocks of rows, in float64: no whole float64 copy of the features and
no N x N matrix is ever held."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 1024  # rows of one set in a block
# Rows of the other set beside it: 1024 x 4096 float64 are 34 MB, and 4096 x 2048 of them 67 MB
COLUMNS = 4096


def check(what: str, least: int, *sets: Tensor) -> None:
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
                f"{what} needs at least {least} samples{side}, not {sizes}: generate or "
                "load more images"
            )
        if not all(bool(torch.isfinite(features[rows]).all()) for rows in spans(len(features))):
            raise ValueError(
                f"{what} got features that are not finite: look at the images and the extractor"
            )


def spans(count: int, size: int | None = None) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` rows (by default ``ROWS``) that cover ``count``."""
    size = size or ROWS
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def moved(x: Tensor, origin: Tensor) -> Tensor:
    """A float64 copy of ``x - origin``, held once."""
    return x.to(torch.float64, copy=True).sub_(origin)


def column_mean(x: Tensor) -> Tensor:
    """Mean of the rows, float64 [d]."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for rows in spans(len(x)):
        total += x[rows].sum(0, dtype=torch.float64)
    return total / len(x)


def pairs(
    a: Tensor, b: Tensor, origin: Tensor, upper: bool = False
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """(rows of a, rows of b, those rows of a, those of b), the values float64 with ``origin``
    subtracted, for each block of an N x M matrix. ``upper``: only blocks with entries above the
    diagonal of a symmetric matrix (a is b)."""
    for columns in spans(len(b), COLUMNS):
        right = moved(b[columns], origin)
        for rows in spans(len(a)):
            if upper and rows.start >= columns.stop - 1:
                break
            yield rows, columns, moved(a[rows], origin), right
