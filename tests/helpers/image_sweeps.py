"""Collected sweeps with a value of each image, in memory and without files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.results import (
    SEPARATOR,
    CellResults,
    ReportedMetric,
    Samples,
    SweepResults,
    SweptFactor,
    Trial,
)

SUCCESS = ReportedMetric("success", "Success", "higher", "share", delta=0.05)
SCORE = ReportedMetric("score", "Score", "higher", "", delta=0.1)


def make_trial(
    seed: int,
    values: Sequence[float],
    metric: ReportedMetric,
    objects: Sequence[int | None] = (),
    skills: Sequence[str | None] = (),
    noise: Sequence[int] | None = None,
) -> Trial:
    """A trial of one image a prompt, ``val/0``, ``val/1``, …; the noise of an image is 1000 × seed
    + its place unless given."""
    count = len(values)
    places = range(count)
    samples = Samples(
        ids=[f"val/{i}#0" for i in places],
        prompts=[f"prompt {i}" for i in places],
        splits=["val"] * count,
        images=[None] * count,
        success=[None] * count,
        masks=[None] * count,
        noise=[1000 * seed + i for i in places] if noise is None else list(noise),
        objects=list(objects),
        skills=list(skills),
        columns={metric.key: [float(value) for value in values]},
    )
    mean = {metric.key: float(np.mean(values))}
    seconds = {"train": 30.0, "sample": 0.1 * count}
    return Trial(seed, f"run{seed}", "", 1.0, mean, seconds, {}, {}, samples)


def make_sweep(
    levels: Mapping[Any, Mapping[int, Sequence[float]] | np.ndarray],
    control: Any,
    *,
    untouched: np.ndarray | None = None,
    factors: Mapping[str, Sequence[Any]] | None = None,
    metric: ReportedMetric = SUCCESS,
    numeric: bool = False,
    within: str = "",
    **facts: Any,
) -> SweepResults:
    """``levels``: level (of one factor, or a tuple of several) -> [seeds, prompts], or seed ->
    values. ``facts``: of every trial (``objects``, ``skills``, ``noise``)."""
    keys = factors or {"factor": list(levels)}
    described = [
        SweptFactor(key, key.capitalize(), tuple(of), "", numeric) for key, of in keys.items()
    ]
    cells = []
    given = dict(levels) if untouched is None else {None: untouched, **levels}
    for level, rows in given.items():
        parts = () if level is None else level if isinstance(level, tuple) else (level,)
        values = dict(zip(keys, map(str, parts), strict=False))
        label = SEPARATOR.join(values.values()) or "untouched backbone"
        name = ", ".join(f"{key}={text}" for key, text in values.items()) or label
        is_control = level is not None and level == control
        if within and level is not None:
            is_control = parts[1:] == control[1:]
        seeds = rows if isinstance(rows, Mapping) else dict(enumerate(rows))
        trials = {seed: make_trial(seed, row, metric, **facts) for seed, row in seeds.items()}
        cells.append(CellResults(name, label, values, name, is_control, level is None, trials))
    return SweepResults(
        sweep="made",
        uri="",
        experiment_id="0",
        tags={},
        factors=described,
        metrics=[metric],
        headline=metric,
        seeds=sorted({seed for cell in cells for seed in cell.trials}),
        config={},
        published=[],
        cells=cells,
        left_out=[],
        folder=tempfile.TemporaryDirectory(prefix="report-"),
        within=within,
    )
