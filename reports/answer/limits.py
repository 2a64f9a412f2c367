"""Where the limits of the rule are near: warnings beside an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from reports import prose
from reports.answer.words import describe_collapse
from reports.judging import scatters
from reports.results import SweepResults
from reports.statistics import Collapse, find_collapsed_seeds
from reports.verdicts import COLLAPSED, IDENTICAL, MetricVerdicts, Verdict

__all__ = ["find_fallen_controls", "warn_of_limits"]

FEW_IMAGES = 30  # Fewer images a cell, and their mean may not be near normal


def find_fallen_controls(verdicts: MetricVerdicts) -> dict[str, Collapse]:
    """Controls that are worse than all their cells by the limit of a collapse, in the same seeds
    and not in all; what scatters then is the control."""
    if verdicts.apart:
        each = [find_fallen_controls(part) for part in verdicts.apart]
        return {name: collapse for own in each for name, collapse in own.items()}
    if verdicts.table is None or verdicts.metric.better == "none":
        return {}
    found: dict[str, list[Collapse]] = {}
    for verdict in verdicts.levels:
        c = verdict.images
        if c is None or len(c.seeds) < 2:
            continue
        left, right = (
            [verdicts.table.y[name][seed] for seed in c.seeds]
            for name in (verdict.control, verdict.cell)
        )
        collapse = find_collapsed_seeds(
            left,
            right,
            better=verdicts.metric.better,
            binary=verdicts.table.binary,
            seeds=c.seeds,
            level=c.level,
        )
        if not (collapse.mixed and scatters(c)):
            collapse = replace(collapse, seeds=())
        found.setdefault(verdict.control, []).append(collapse)
    return {
        control: own[0]
        for control, own in found.items()
        if len(own) > 1 and own[0].seeds and len({each.seeds for each in own}) == 1
    }


def _describe_common(verdicts: MetricVerdicts) -> str:
    """From which seeds the design effect is where some are missing."""
    pooled = verdicts.pooled
    if pooled is None or not math.isfinite(pooled.design_effect):
        return ""
    if not pooled.seeds:
        return " Cells have no two seeds in common: the design effect is from each pair's own."
    seeds = prose.join([str(seed) for seed in pooled.seeds])
    return f" The design effect is from seeds {seeds} of {prose.count(len(pooled.pool), 'cell')}."


def warn_of_limits(results: SweepResults, verdicts: MetricVerdicts) -> list[str]:
    """Where the rule's limits are near."""
    notes = []
    names = {cell.name: prose.name_cell(results, cell) for cell in results.cells}

    def listed(own: Sequence[Verdict]) -> str:
        return prose.join([names[v.cell] for v in own])

    if unstable := [v for v in verdicts.levels if v.unstable]:
        pools = [verdicts.part_of(v.cell).pooled for v in unstable]
        pool = max((p.design_effect for p in pools if p), default=math.nan)
        own = [prose.show(v.images.own_design_effect, 1) for v in unstable if v.images]
        notes.append(
            f"Near the rule's limit: trainings at {listed(unstable)} scatter beyond their images "
            f"by {prose.join(own)}, in the pool by {prose.show(pool, 1)} (design effects). Where "
            "one cell alone is wild, an interval misses in 8 to 11 % of sweeps instead of 5. Of "
            "sweeps whose cells scatter alike 7 to 13 % show such a cell by chance."
        )
    fallen_controls = find_fallen_controls(verdicts)
    for name, collapse in fallen_controls.items():
        notes.append(
            f"Trainings of the control {names[name]} seem to have collapsed, "
            f"{describe_collapse(collapse)}: it is far worse there than all that is compared with "
            "it, and every interval is as wide as that makes it."
        )
    unsteady = [part.pooled for part in verdicts.parts if part.pooled]
    if any(pooled.unstable_control for pooled in unsteady) and not fallen_controls:
        notes.append(
            "Near the rule's limit: trainings of the control seem to scatter more than those of "
            f"other {results.noun}s. Where it alone is wild, an interval misses in 8 to 11 % of "
            "sweeps, instead of 5."
        )
    if fallen := [v for v in (*verdicts.levels, *verdicts.untouched) if v.verdict == COLLAPSED]:
        notes.append(
            f"Trainings collapsed at {listed(fallen)}: of its mean nothing is claimed, and more "
            "seeds say how often it happens."
        )
    lacking: dict[tuple[object, ...], list[Verdict]] = {}
    for verdict in verdicts.levels:
        if verdict.missing_seeds:
            lacking.setdefault(verdict.missing_seeds, []).append(verdict)
    for seeds, without in lacking.items():
        named = f"seed{'s' if len(seeds) > 1 else ''} {prose.join([str(s) for s in seeds])}"
        notes.append(
            f"Compared without {named}, which one side lacks: {listed(without)}."
            f"{_describe_common(verdicts)}"
        )
    if results.fewer_prompts:
        fewer, most = results.fewer_prompts
        notes.append(
            f"Trials have different numbers of prompts, up to {most}: all means over images, and "
            f"all comparisons, are over the {fewer} that every trial has."
        )
    images = [len(v.seeds) * v.prompts for v in verdicts.levels if v.prompts]
    if images and min(images) < FEW_IMAGES:
        few = prose.count(min(images), "image")
        notes.append(f"With {few} a cell, means may be far from normal: the interval is rough.")
    if any(v.verdict == IDENTICAL for v in verdicts.levels):
        notes.append(
            f"Cells that are {IDENTICAL} to the control do not count for the design effect."
        )
    return notes
