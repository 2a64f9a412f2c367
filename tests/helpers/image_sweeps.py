"""Sweeps of ``image_results`` over one factor or several, with facts of prompts and times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from helpers.image_results import BACKBONE, SUCCESS, make_results

from reports.results import SEPARATOR, ReportedMetric, SweepResults, SweptFactor

SCORE = ReportedMetric("score", "Score", "higher", "", delta=0.1)


def make_sweep(
    levels: Mapping[Any, np.ndarray],
    control: Any,
    *,
    untouched: np.ndarray | None = None,
    factors: Mapping[str, Sequence[str]] | None = None,
    metric: ReportedMetric = SUCCESS,
    within: str = "",
    noise: Sequence[int] | None = None,
    **facts: Any,
) -> SweepResults:
    """``levels``: level of one factor, or one of each of ``factors``, -> values [seeds, prompts].
    With ``within``, the first factor, the other levels of ``control`` are compared with in each of
    its levels. ``facts``: ``objects`` and ``skills`` of all prompts; the noise of an image is
    1000 × seed + its place unless ``noise`` is given for all seeds."""
    keys = factors or {"factor": list(levels)}
    parts = {level: (level,) if isinstance(level, str) else level for level in levels}
    tables = {SEPARATOR.join(parts[level]): {metric.key: rows} for level, rows in levels.items()}
    controls = [
        SEPARATOR.join(own)
        for level, own in parts.items()
        if level == control or (within and own[1:] == control[1:])
    ]
    if untouched is not None:
        tables = {BACKBONE: {metric.key: untouched}, **tables}
    results = make_results(tables, controls, metric, factors=[*keys])
    results.within = within
    results.factors = [
        SweptFactor(key, key.capitalize(), tuple(own), "", False) for key, own in keys.items()
    ]
    for _, trial in results.trials():
        samples = trial.samples
        assert samples is not None
        places = range(len(samples.ids))
        own = [1000 * trial.seed + i for i in places] if noise is None else list(noise)
        trial.samples = dataclasses.replace(samples, noise=own, **facts)
        trial.seconds = {"train": 30.0, "sample": 0.1 * len(places)}
    return results
