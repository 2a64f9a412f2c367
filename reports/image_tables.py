"""Images of a metric as a table of cell, seed and prompt, on the prompts that all trials have.

A row of the table is a trial, its values are those of ``metric_values`` averaged over a prompt's
noises. It stands for the metric only where its mean is the value that the trial logged: a metric
that is not a mean over images, or whose images are not all there, has no table, and says why.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from reports.per_image import metric_values
from reports.results import CellResults, ReportedMetric, Samples, SweepResults, Trial

__all__ = [
    "ImageTable",
    "NoTable",
    "build_table",
    "keep_common_prompts",
    "keep_first",
    "read_plain_values",
]

EQUAL = 1e-6  # Of a mean over images and the value that was logged


class NoTable(Exception):
    """Why a metric has no table."""


@dataclass(frozen=True)
class ImageTable:
    """``y``: cell -> seed -> values [prompts]; ``prompts``: "split/id" of each.

    ``binary``: every image is right or wrong. ``own_prompts``: each seed has prompts of its own,
    as many as the others and none of theirs, and ``prompts`` are those of the first.
    """

    metric: ReportedMetric
    prompts: tuple[str, ...]
    y: dict[str, dict[int, np.ndarray]]
    binary: bool
    own_prompts: bool = False


def build_table(results: SweepResults, metric: ReportedMetric) -> ImageTable:
    """The table of all trials that have a value of ``metric``. Raises NoTable."""
    rows: dict[int, dict[str, dict[str, float]]] = {}  # Seed -> cell -> prompt -> value
    binary = not metric.weight
    for cell, trial in results.trials():
        if not math.isfinite(trial.metrics.get(metric.key, math.nan)):
            continue
        images = _read_images(cell, trial, metric)
        binary = binary and set(images.values()) <= {0.0, 1.0}
        own = _average_noises(images)
        mean, logged = float(np.mean([*own.values()])), trial.metrics[metric.key]
        if not _is_equal(mean, logged):
            raise NoTable(
                f"its mean over images is not the value that was logged ({mean:g} and {logged:g} "
                f"in {cell.name}, seed {trial.seed})"
            )
        rows.setdefault(trial.seed, {})[cell.name] = own
    if not rows:
        raise NoTable("no trial has a value")
    _check_same_prompts(results, rows)
    first = [[*next(iter(of_seed.values()))] for of_seed in rows.values()]
    own_prompts = any(set(prompts) != set(first[0]) for prompts in first)
    if own_prompts and len({len(prompts) for prompts in first}) > 1:
        raise NoTable("seeds have different numbers of prompts of their own")
    if own_prompts and sum(map(len, first)) > len(set().union(*first)):
        raise NoTable("seeds share some of their prompts, so that the two cannot be told apart")
    y: dict[str, dict[int, np.ndarray]] = {}
    for prompts, (seed, of_seed) in zip(first, rows.items(), strict=True):
        for name, own in of_seed.items():
            order = prompts if own_prompts else first[0]
            y.setdefault(name, {})[seed] = np.array([own[prompt] for prompt in order])
    in_order = {c.name: dict(sorted(y[c.name].items())) for c in results.cells if c.name in y}
    return ImageTable(metric, tuple(first[0]), in_order, binary, own_prompts)


def read_plain_values(results: SweepResults, table: ImageTable) -> ImageTable:
    """The table of the values of images as they are, where the metric weights them: ``table`` has
    each image's share in the ratio of its trial. An image of weight 0 has no value, and 0 here on
    all sides. Raises NoTable where cells have values of other images."""
    metric = table.metric
    if not metric.weight:
        return table
    y: dict[str, dict[int, np.ndarray]] = {}
    first: dict[int, set[str]] = {}
    for cell, trial in results.trials():
        if trial.seed not in table.y.get(cell.name, {}) or trial.samples is None:
            continue
        weights = metric_values(
            trial.samples, dataclasses.replace(metric, key=metric.weight, weight="")
        )
        values = metric_values(trial.samples, dataclasses.replace(metric, weight=""))
        counted = {name for name in values if weights.get(name)}
        if first.setdefault(trial.seed, counted) != counted:
            raise NoTable("cells have values of other images")
        shares = metric_values(trial.samples, metric)
        own = _average_noises({name: values[name] if name in counted else 0.0 for name in shares})
        y.setdefault(cell.name, {})[trial.seed] = np.array([*own.values()])
    return dataclasses.replace(table, y=y)


def _read_images(cell: CellResults, trial: Trial, metric: ReportedMetric) -> dict[str, float]:
    where = f"{cell.name}, seed {trial.seed}"
    if trial.samples is None:
        raise NoTable(f"{where} has no table of its images")
    values = metric_values(trial.samples, metric)
    if not values:
        raise NoTable(
            "images have no value of it"
            if metric.key not in trial.samples.columns
            else f"no image of {where} has a value"
        )
    return values


def _average_noises(images: Mapping[str, float]) -> dict[str, float]:
    """Prompt -> mean over the images of its noises."""
    noises: dict[str, list[float]] = {}
    for name, value in images.items():
        noises.setdefault(name.rpartition("#")[0], []).append(value)
    return {prompt: math.fsum(values) / len(values) for prompt, values in noises.items()}


def _check_same_prompts(
    results: SweepResults, rows: Mapping[int, Mapping[str, Mapping[str, float]]]
) -> None:
    """Raises NoTable unless all cells of a seed have values of the same prompts, in words too."""
    cells = {cell.name: cell for cell in results.cells}
    for seed, of_seed in rows.items():
        (first, expected), *others = of_seed.items()
        texts = _read_texts(cells[first].trials[seed])
        for name, own in others:
            if lacking := sorted(expected.keys() ^ own.keys()):
                without = first if lacking[0] in own else name
                raise NoTable(f"prompt {lacking[0]} has no value in {without}, seed {seed}")
            other = _read_texts(cells[name].trials[seed])
            if any(texts[prompt] != other[prompt] for prompt in expected):
                raise NoTable(f"{name} has other prompts than {first} in seed {seed}")


def _read_texts(trial: Trial) -> dict[str, str]:
    assert trial.samples is not None
    names = (name.rpartition("#")[0] for name in trial.samples.ids)
    return dict(zip(names, trial.samples.prompts, strict=True))


# ---- Trials with different numbers of prompts


def keep_common_prompts(results: SweepResults) -> None:
    """Leave in every trial the images of the prompts that all have, where some have more of the
    same: metrics that are means over images become those over these. ``results.fewer_prompts``
    says so; nothing changes where all have the same prompts, or some have none of the others'."""
    images = [
        (cell.values.get(results.within, ""), trial, _list_prompts(trial.samples))
        for cell, trial in results.trials()
        if trial.samples is not None
    ]
    groups = [images]
    if not _is_nested([prompts for _, _, prompts in images]):  # A level may have its own
        levels = dict.fromkeys(level for level, _, _ in images)
        groups = [[one for one in images if one[0] == level] for level in levels]
    cut: set[str] = set()
    for group in groups:
        chain = sorted((set(prompts) for _, _, prompts in group), key=len)
        if not _is_nested(chain) or not chain[0] or len(chain[0]) == len(chain[-1]):
            continue
        for _, trial, prompts in group:
            if len(prompts) > len(chain[0]):
                cut |= _cut_to(trial, chain[0], results.metrics)
        results.fewer_prompts = (len(chain[0]), len(chain[-1]))
    for _, trial in results.trials():
        for key in cut & trial.facts.keys():  # How many images a mean is over is not how
            trial.facts[key] = {k: v for k, v in trial.facts[key].items() if k != "images"}


def _is_nested(prompts: Iterable[Iterable[str]]) -> bool:
    """Whether each has all that those with fewer have."""
    chain = sorted(map(set, prompts), key=len)
    return bool(chain) and all(fewer <= more for fewer, more in pairwise(chain))


def keep_first(results: SweepResults, seeds: Mapping[str, int], prompts: int) -> SweepResults:
    """``results`` as they were when each cell had so many of its first ``seeds``, and each split so
    many of its first ``prompts``; ``results`` stay as they are. Cells that are not in ``seeds`` are
    left out."""
    cells = []
    for cell in results.cells:
        own = results.seeds[: seeds.get(cell.name, 0)]
        trials = {s: copy.copy(cell.trials[s]) for s in own if s in cell.trials}
        for trial in trials.values():
            trial.metrics, trial.facts = dict(trial.metrics), dict(trial.facts)
            trial.undefined = dict(trial.undefined)
            if trial.samples is not None:
                _cut_to(trial, _list_first(trial.samples, prompts), results.metrics)
                trial.prompts = min(prompts, trial.prompts or prompts)
        if cell.name in seeds:
            missing = {s: why for s, why in cell.unfinished.items() if s in own}
            cells.append(dataclasses.replace(cell, trials=trials, unfinished=missing))
    most = max(seeds.values(), default=0)
    fewer = {name: count for name, count in seeds.items() if count < most}
    tags = results.tags | {"cell_seeds": json.dumps(fewer, ensure_ascii=False)}
    return dataclasses.replace(results, cells=cells, seeds=results.seeds[:most], tags=tags)


def _list_first(samples: Samples, prompts: int) -> set[str]:
    """The first so many prompts of each split."""
    by_split: dict[str, list[str]] = {}
    for name in _list_prompts(samples):
        by_split.setdefault(name.partition("/")[0], []).append(name)
    return {name for own in by_split.values() for name in own[:prompts]}


def _list_prompts(samples: Samples) -> list[str]:
    return list(dict.fromkeys(name.rpartition("#")[0] for name in samples.ids))


def _cut_to(trial: Trial, prompts: set[str], metrics: Iterable[ReportedMetric]) -> set[str]:
    """Leave the images of ``prompts``; returns the metrics that are means over them now."""
    samples, changed = trial.samples, set()
    assert samples is not None
    kept = [i for i, name in enumerate(samples.ids) if name.rpartition("#")[0] in prompts]

    def cut(values: list[Any]) -> list[Any]:
        return [values[i] for i in kept] if values else values

    names = {field.name for field in dataclasses.fields(samples)} - {"columns"}
    lists = {name: cut(getattr(samples, name)) for name in names}
    columns = {name: cut(values) for name, values in samples.columns.items()}
    trial.samples = dataclasses.replace(samples, **lists, columns=columns)
    for metric in metrics:
        whole = metric_values(samples, metric)
        logged = trial.metrics.get(metric.key, math.nan)
        if not whole or not _is_equal(math.fsum(whole.values()) / len(whole), logged):
            continue
        changed.add(metric.key)
        if part := metric_values(trial.samples, metric):
            trial.metrics[metric.key] = math.fsum(part.values()) / len(part)
        else:
            del trial.metrics[metric.key]
            trial.undefined[metric.key] = "none of the prompts that all trials have has a value"
    return changed


def _is_equal(mean: float, logged: float) -> bool:
    return abs(mean - logged) <= EQUAL * max(1.0, abs(logged))
