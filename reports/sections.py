"""What stands in a report and in which order, as plain data for the template: page one (answer, figure, table), then the details."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.answer import Answer
from reports.blocks import heading_block, pairs_block, picture_block, table_block, text_block
from reports.figures import Picture
from reports.heatmap import leads
from reports.precision_recall import CROWD
from reports.provenance import codes, missing, provenance
from reports.statistics import clustered_difference, detectable_effect, smallest_sign_flip_p, wilson
from reports.study import Cell, Study
from reports.tables import (
    HOLM_FROM,
    Entry,
    Table,
    decimals,
    difference_tables,
    effect_tables,
    headline_table,
    in_sentence,
    listed,
    mean_tables,
    number,
    of_metric,
    signed,
)

__all__ = ["document"]

POWER = 0.8
DRAWS = 4000
LONG = 12  # rows that the table on page one may have
WIDE_METRIC = 4.4  # cm: the first column of the tables that have one row per metric


def document(study: Study, found: Sequence[Entry], said: Answer, pictures: Mapping[str, Picture], no_cases: str = "") -> dict[str, Any]:
    """The content of report.json; strings, numbers of layout, lists and dicts only. `no_cases` says why best and worst cases are absent."""
    first, second = ("heatmap", "response") if leads(study) else ("response", "heatmap")
    widths = {second: 100, "precision_recall": 78 if len(study.cells) <= CROWD else 100}
    widths |= dict.fromkeys(("images", "cases", "gates", "maps", "curves"), 100)
    blocks = [picture_block(pictures[name], width) | {"float": True} for name, width in widths.items() if name in pictures]
    if len(study.metrics) > 1:  # else the table on page one says it all
        blocks += [heading_block("All metrics")]
        for table in (*mean_tables(study, found), *difference_tables(study, found)):
            blocks.append(table_block(table, widths=[WIDE_METRIC, *["fill"] * (len(table.columns) - 1)], size=8.2))
    if images := _images_table(study):
        blocks += [heading_block("Image by image"), table_block(images, widths=["fill", *["auto"] * 5], size=8.8)]
        blocks += [text_block(no_cases)] if no_cases else []
    blocks += [heading_block("Statistics"), *map(text_block, _statistics(study, found, said))]
    blocks += [table_block(table, ["fill", *["auto"] * 4], size=8.8) for table in effect_tables(study, found)]
    blocks += measured(study)
    blocks += [heading_block("Context"), *_context(study)]
    blocks += [heading_block("What is missing"), text_block(missing(study))]
    blocks += provenance(study)
    front = headline_table(study, found)
    long = len(front.rows) > LONG  # for page one; the details follow it at once
    several = not study.reference and not study.within or any(factor.key in ("method", "method.name", "recipe") for factor in study.factors)
    method = "several methods" if several else study.config.get("method", {}).get("name", "method")
    return {
        "title": study.sweep,
        "kicker": f"Ablation report · {method} · {len(study.cells)} cells × {len(study.seeds)} seeds",
        "footer": study.sweep,
        "question": study.tags.get("question", ""),
        "origin": study.tags.get("origin", ""),
        "warning": _warning(study),
        "answer": said.text,
        "small": f"{said.brackets} {_resolution(study, of_metric(found, study.headline), decimals(found, study.headline))}".strip(),
        "front": [
            picture_block(pictures[first], 100),
            table_block(front, widths=["fill", *["auto"] * (len(front.columns) - 1)], size=8.8 if long else 9.5),
        ],
        "alone": not long,
        "blocks": blocks,
    }


def _warning(study: Study) -> str:
    missed = f"Unfinished: {study.lacking} of {study.planned} trials are missing, see “What is missing”. The answer may change."
    parts = [missed] if study.lacking else []
    if len(found := codes(study)) > 1:
        parts.append(
            f"Made by {len(found)} versions of the code ({', '.join(code[:12] for code in found)}), so that a difference between cells may "
            "be one between versions: the table of runs at the end says which made what."
        )
    if study.tags.get("mode") == "search":
        tried = sum(not cell.baseline for cell in study.levels)
        parts.append(
            f"Searched: the best of {tried} settings was chosen on these very seeds, so that its mean flatters it. Measure it on other "
            "seeds before you claim it."
        )
    return " ".join(parts)


# ---- image by image


def _outcomes(left: Cell, right: Cell) -> tuple[np.ndarray, np.ndarray] | None:
    """Success of two cells as [seeds, prompts], a prompt's mean over its images, over the seeds and prompts that both have."""
    sides = [{s: t.samples.by_prompt() for s, t in cell.trials.items() if t.samples} for cell in (left, right)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    prompts = sorted(set.intersection(*(set(side[s]) for side in sides for s in seeds)))
    if not prompts:
        return None
    first, second = (np.array([[side[s][p] for p in prompts] for s in seeds], dtype=float) for side in sides)
    return first, second


def _images_table(study: Study) -> Table | None:
    rows: list[list[str]] = []
    marks: dict[int, str] = {}
    for cell in study.cells:
        outcomes = [right for trial in cell.trials.values() if trial.samples for right in trial.samples.success]
        judged = [right for right in outcomes if right is not None]
        if not judged:
            continue
        if cell.baseline or cell.reference:
            marks[len(rows)] = "baseline" if cell.baseline else "reference"
        low, high = wilson(sum(judged), len(judged))
        row = [
            cell.label + (" (baseline)" if cell.baseline else ""),
            f"{sum(judged)} of {len(judged)}",
            f"[{number(low, 3)}, {number(high, 3)}]",
        ]
        base = study.base_of(cell)
        both = None if base is None else _outcomes(cell, base)
        if both is None:
            rows.append([*row, "–", "–", "–"])
            continue
        mean, low, high = clustered_difference(*both, draws=DRAWS)
        gained, lost = int((both[0] > both[1]).sum()), int((both[0] < both[1]).sum())
        rows.append([*row, f"{gained} / {lost}", signed(mean, 3), f"[{signed(low, 3)}, {signed(high, 3)}]"])
    if not rows:
        return None
    title = (
        "Images that are right, over all seeds and prompts, and the same prompt and seed compared with the baseline "
        f"{study.noun}: "
        "images won and lost, and "
        f"the difference in share with a 95 % interval from {DRAWS} bootstrap samples that draw prompts and seeds independently "
        f"(generator seed 0). Wilson's interval "
        "takes images as independent, which they are not: it is a lower bound of the uncertainty. With few seeds the bootstrap interval "
        "is too narrow, with three it misses the true value up to four times as often as it should; "
        "the answer does not rest on it."
    )
    return Table(title, ["Cell", "Right", "Wilson 95 %", "Won / lost", "Difference", "Clustered 95 %"], rows, "", marks)


# ---- statistics, how it was measured, context


def measured(study: Study) -> list[dict[str, Any]]:
    """What each number was measured with, metrics of the same way together; warnings; what is not shown, and why."""
    ways: dict[str, list[str]] = {}
    for metric in study.metrics:
        facts = next((t.facts[metric.key] for _, t in study.trials() if t.facts.get(metric.key)), None)
        if facts:
            way = "; ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in facts.items())
            ways.setdefault(way, []).append(metric.label)
    pairs = [(", ".join(labels), way) for way, labels in ways.items()]
    pairs += [(label, f"not shown: {why}") for label, why in study.refused.items()]
    return [heading_block("How it was measured"), pairs_block(pairs)] if pairs else []


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _statistics(study: Study, found: Sequence[Entry], said: Answer) -> list[str]:
    entries = of_metric(found, study.headline)
    digits, name = decimals(found, study.headline), in_sentence(study.headline.label)
    n = len(study.seeds)
    texts = [
        said.rule,
        "Seeds are the unit of replication: a seed fixes training order, initial noise and prompts alike in every cell, so that cells "
        "are compared seed by seed. "
        "Intervals of means and of differences are t-intervals over seeds. Differences use common seeds only.",
    ]
    if n >= HOLM_FROM:
        texts.append(
            f"Below each difference stands the p value of the exact sign-flip test over all {2**n} sign patterns, adjusted by Holm's "
            f"method over the compared "
            f"{study.noun}s of one metric; metrics are not adjusted for each other."
        )
    else:
        texts.append(
            f"With {n} seeds an exact sign-flip test cannot give a p below {smallest_sign_flip_p(n):g}, whatever the data; so no p values "
            f"and no stars are shown. "
            f"Six seeds are the fewest that can reach p < .05."
        )
    spreads = [(e.cell, e.summary.sd) for e in entries if e.cell.baseline and e.summary and math.isfinite(e.summary.sd)]
    if spreads:
        unit = f" ({study.headline.unit})" if study.headline.unit else ""
        told = [f"{number(sd, digits + 1)}{unit}" + (f" ({study.words(cell)})" if study.within else "") for cell, sd in spreads]
        noise = f"Noise floor: the standard deviation of {name} over the seeds of the baseline {study.noun} is {listed(told)}. "
        texts.append((noise + _resolution(study, entries, digits)).strip())
    return texts


def _resolution(study: Study, entries: Sequence[Entry], digits: int) -> str:
    """The smallest difference that the seeds at hand could have shown; empty where there is no spread to go by."""
    spreads = [e.versus.interval for e in entries if e.versus and e.wide and e.versus.interval.n > 1]
    wide = next((e.wide for e in entries if e.wide), None)
    if not spreads or wide is None:
        return ""
    n = max(s.n for s in spreads)
    pooled = math.sqrt(sum(s.sd**2 for s in spreads) / len(spreads))
    if pooled == 0:
        return ""
    smallest = number(detectable_effect(pooled, n, wide.level, POWER), digits)
    return (
        f"Differences from the baseline {study.noun} scatter by {number(pooled, digits + 1)} between seeds (standard deviation, pooled "
        f"over {study.noun}s); with {n} seeds a true "
        f"difference in {in_sentence(study.headline.label)} has to be {smallest} to be found with probability {100 * POWER:.0f} %."
    )


def _context(study: Study) -> list[dict[str, Any]]:
    varied = {factor.key: list(map(str, factor.levels)) for factor in study.factors}
    backbones, data = (varied.get(part) or [str(study.config.get(part, {}).get("name", "unknown"))] for part in ("backbone", "data"))
    named = listed([f"“{name}”" for name in backbones])
    on = listed([f"“{name}”" for name in data])
    text = f"All numbers of this report come from the backbone{'s' if len(backbones) > 1 else ''} {named} on the data {on}."
    if "embedded" in backbones:
        text += (
            " The embedded one is a small model trained in a small rendered world: its numbers are not comparable with those of any "
            "paper, only with each other. "
            "An effect here is a reason to look for it in the large models, not evidence that it is there."
        )
    if not study.published:
        return [text_block(text), text_block("No published number is listed for this sweep.")]
    columns = {
        "what": "Published elsewhere",
        "metric": "Metric",
        "value": "Value",
        "data": "Data",
        "backbone": "Backbone",
        "n": "N",
        "source": "Source",
    }
    rows = [[str(entry.get(key) or "–") for key in columns] for entry in study.published]
    table = Table(
        "Numbers published elsewhere, not measured here and not comparable unless data, backbone and N agree.", list(columns.values()), rows
    )
    widths = [3.2, "auto", "auto", "fill", "auto", "auto", 2.6]
    return [text_block(text), table_block(table, widths, size=8.5, left=range(len(columns)))]
