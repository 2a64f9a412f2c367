"""Metrics image by image, from the columns of scores.parquet.

The column of a metric's name holds the value of each image. A plain mean over images is the mean of
that column; a ratio, such as a mean over the objects of all images, is its mean weighted by another
column. Of a ratio R = Σ wᵢ xᵢ / Σ wᵢ an image's share is linearised, R + wᵢ (xᵢ − R) / w̄, whose
plain mean is R and whose variance is that of the ratio to first order (Cochran 1977, section 6.5);
an image of weight 0 has the value R.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from reports.results import ReportedMetric, Samples

__all__ = ["linearise", "metric_values", "read_columns"]

# Columns that are no measured value
FACTS = {"split", "id", "prompt", "noise", "number", "objects", "skill", "atoms"} | {
    *("image", "sample", "mask")
}


def read_columns(table: pd.DataFrame) -> dict[str, list[float | None]]:
    """Every column of numbers or truth values, but for what describes the images; None where it has
    no value, or one that is not finite."""
    columns: dict[str, list[float | None]] = {}
    for name in table.columns.difference(FACTS, sort=False):
        try:
            values = table[name].astype("float64").tolist()
        except (TypeError, ValueError):
            continue  # Of words
        columns[name] = [value if math.isfinite(value) else None for value in values]
    return columns


def metric_values(
    samples: Samples, metric: ReportedMetric, prompts: Collection[str] | None = None
) -> dict[str, float]:
    """Name of each image ("split/prompt#number") that has a value -> what it adds to the metric:
    their mean is the metric. Of ``prompts`` ("split/prompt") alone, where they are given. A metric
    of one split has the images of that split. Empty where no column holds the metric."""
    column, split = _find_column(samples, metric.key)
    if column is None or (metric.weight and metric.weight not in samples.columns):
        return {}
    weights = samples.columns[metric.weight] if metric.weight else [1.0] * len(samples.ids)
    rows = {
        name: (value, weight)
        for name, of, value, weight in zip(
            samples.ids, samples.splits, samples.columns[column], weights, strict=True
        )
        if split in (None, of)
        and (prompts is None or name.rpartition("#")[0] in prompts)
        and weight is not None
        and (value is not None or not weight)
    }
    shares = linearise([value for value, _ in rows.values()], [w for _, w in rows.values()])
    return dict(zip(rows, shares, strict=bool(shares)))


def linearise(values: Sequence[float | None], weights: Sequence[float]) -> list[float]:
    """What each image adds to Σ wᵢ xᵢ / Σ wᵢ, as above; a value of weight 0 may be None. Nothing
    where no image has weight. With equal weights these are the values."""
    total = math.fsum(weights)
    if not total:
        return []
    pairs = [(value or 0.0, weight) for value, weight in zip(values, weights, strict=True)]
    if len(set(weights)) == 1:
        return [value for value, _ in pairs]
    ratio, mean = math.fsum(x * w for x, w in pairs) / total, total / len(pairs)
    return [ratio + w * (x - ratio) / mean for x, w in pairs]


def _find_column(samples: Samples, key: str) -> tuple[str | None, str | None]:
    """The column of a metric and, if it is one of a single split, that split."""
    if key in samples.columns:
        return key, None
    for split in dict.fromkeys(samples.splits):
        if key.endswith(f"_{split}") and (base := key.removesuffix(f"_{split}")) in samples.columns:
            return base, split
    return None, None
