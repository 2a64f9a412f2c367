"""Results of a sweep made of tables of images, in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.results import (
    CellResults,
    ReportedMetric,
    Samples,
    SweepResults,
    SweptFactor,
    Trial,
)

SUCCESS = ReportedMetric("success", "Success", "higher", "share", delta=0.05)
SCORE = ReportedMetric("score", "Score", "higher", "")
BACKBONE = "untouched backbone"


def make_samples(columns: Mapping[str, Sequence[float | None]], noises: int = 1) -> Samples:
    """Of prompts val/0, val/1, …, each with so many images."""
    size = len(next(iter(columns.values())))
    prompts = [f"prompt {i // noises}" for i in range(size)]
    return Samples(
        ids=[f"val/{i // noises}#{i % noises}" for i in range(size)],
        prompts=prompts,
        splits=["val"] * size,
        images=[None] * size,
        success=[None] * size,
        masks=[None] * size,
        noise=[*range(size)],
        columns={key: [*values] for key, values in columns.items()},
    )


def make_results(
    tables: Mapping[str, Mapping[str, Any]],
    control: str | Sequence[str],
    *metrics: ReportedMetric,
    noises: int = 1,
    within: bool = False,
    factors: Sequence[str] = (),
) -> SweepResults:
    """``tables``: label of a cell -> metric -> values [seeds, images], NaN where an image has none;
    a seed of NaN alone is missing. The label BACKBONE is the untouched backbone. With ``within``
    labels are "level of the other factor / level", with several ``factors`` a level of each. The
    first metric is the headline."""
    controls = [control] if isinstance(control, str) else [*control]
    keys = [*factors] or (["block", "level"] if within else ["level"])
    cells = []
    for label, columns in tables.items():
        values = {} if label == BACKBONE else dict(zip(keys, label.split(" / "), strict=True))
        cell = CellResults(label, label, values, "r", label in controls, label == BACKBONE)
        arrays = {key: np.asarray(array, dtype=float) for key, array in columns.items()}
        for seed in range(len(next(iter(arrays.values())))):
            rows = {key: array[seed] for key, array in arrays.items()}
            if all(np.isnan(row).all() for row in rows.values()):
                cell.unfinished[seed] = "not started"
                continue
            lists = {k: [None if np.isnan(v) else float(v) for v in x] for k, x in rows.items()}
            logged = {key: float(np.nanmean(row)) for key, row in rows.items()}
            samples = make_samples(lists, noises)
            cell.trials[seed] = Trial(seed, "r", "a", 1.0, logged, {}, {}, {}, samples)
        cells.append(cell)
    levels = [[*dict.fromkeys(c.values[key] for c in cells if c.values)] for key in keys]
    swept = [
        SweptFactor(key, key.capitalize(), tuple(own), "", False)
        for key, own in zip(keys, levels, strict=True)
    ]
    seeds = max(len(np.asarray(next(iter(c.values())))) for c in tables.values())
    return SweepResults(
        sweep="made",
        uri="memory:",
        experiment_id="1",
        tags={},
        factors=swept,
        metrics=[*metrics],
        headline=metrics[0],
        seeds=[*range(seeds)],
        config={},
        published=[],
        cells=cells,
        left_out=[],
        folder=tempfile.TemporaryDirectory(prefix="report-"),
        within="block" if within else "",
    )
