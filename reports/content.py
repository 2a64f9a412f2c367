"""What stands in a report and in which order: page one (answer, figure, table), then details."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports import prose, typeset
from reports.answer.conclusion import Conclusion
from reports.answer.explain import explain_resolution, explain_statistics
from reports.answer.looks import warn_of_looks
from reports.answer.words import count_conclusive
from reports.collect import JUDGED
from reports.correcting import ERRORS, correct_cells, show_corrected
from reports.factor_tables import factor_blocks
from reports.figures.heatmap import is_main_figure
from reports.figures.precision_recall import CROWD
from reports.importance import importance_blocks
from reports.lucky import luck_blocks
from reports.measuring import UNKNOWN
from reports.provenance import (
    code_conflicts,
    describe_conflicts,
    explain_missing,
    explain_other_code,
    fact_differences,
    list_differences,
    provenance_blocks,
)
from reports.pruning import pruning_blocks
from reports.results import CellResults, SweepResults
from reports.rewards import reward_blocks
from reports.statistics import clustered_difference, wilson
from reports.tables import (
    CellMetric,
    Table,
    alike_tables,
    difference_tables,
    effect_tables,
    headline_table,
    mean_tables,
    verdicts_of,
)
from reports.typeset import Picture
from reports.variances import explain_variance, variance_blocks

__all__ = ["build_content"]

DRAWS = 4000
BOTH_FRONT = 12  # Cells up to which page one has two figures
LONGEST_FRONT = 12  # Rows that the table on page one may have
VERDICT_WIDTH = 2.4  # Cm: the last column of the table on page one
METRIC_WIDTH = 4.4  # Cm: the first column of the tables that have one row per metric
EMBEDDED = {"embedded", "embedded_strong"}  # Backbones of the embedded world
METHOD_FACTORS = ("method", "method.name", "recipe")  # Factors whose levels are methods


def build_content(
    results: SweepResults,
    entries: Sequence[CellMetric],
    conclusion: Conclusion,
    pictures: Mapping[str, Picture],
    no_cases: str = "",
) -> dict[str, Any]:
    """The content of report.json; ``no_cases`` says why best and worst cases are absent."""
    first = select_front(results, pictures)
    narrow = {"precision_recall": 78 if len(results.cells) <= CROWD else 100}
    order = ["heatmap", "response", "groups", "precision_recall", "images"]
    order += ["cases", "gates", "maps", "curves"]
    blocks = [
        typeset.picture(pictures[name], narrow.get(name, 100), float=True)
        for name in order
        if name in pictures and name not in first
    ]
    factors = factor_blocks(results, entries)
    if "effects" in pictures:
        factors.insert(1, typeset.picture(pictures["effects"]))  # Below the heading
    blocks += factors
    if len(results.metrics) > 1:  # Else the table on page one says it all
        blocks.append(typeset.heading("All metrics"))
        for table in mean_tables(results, entries):
            blocks.append(typeset.table(table, [METRIC_WIDTH, "fill"], 8.2))
        for table in difference_tables(results, entries):
            blocks.append(typeset.table(table, [METRIC_WIDTH, "fill"], 8.2, roomy=True))
    blocks += reward_blocks(results, entries, pictures.get("rewards"))
    if images := images_table(results):
        blocks.append(typeset.heading("Image by image"))
        blocks.append(typeset.table(images, ["fill", "auto"], 8.8))
        blocks += [typeset.paragraph(no_cases)] if no_cases else []
    variance = explain_variance(results, verdicts_of(entries, results.headline))
    blocks += variance_blocks(variance, pictures.get("variance"))
    blocks += luck_blocks(results) if variance else []
    blocks.append(typeset.heading("Statistics"))
    blocks += map(typeset.paragraph, explain_statistics(results, entries, conclusion))
    for table in alike_tables(results, entries):
        blocks.append(typeset.table(table, [METRIC_WIDTH, "fill"], 8.2))
    for table in effect_tables(results, entries):
        blocks.append(typeset.table(table, ["fill", "auto"], 8.8))
    blocks += [*importance_blocks(results), *pruning_blocks(results)]
    blocks += measurement_blocks(results)
    blocks += [typeset.heading("Context"), *_context_blocks(results)]
    provenance = provenance_blocks(results)  # Reads files, of which some may be damaged
    blocks.append(typeset.heading("What is missing"))
    blocks.append(typeset.paragraph(explain_missing(results)))
    blocks += provenance

    front = headline_table(results, entries)
    long = len(front.rows) > LONGEST_FRONT  # For page one; the details follow it at once
    widths = ["fill", *["auto"] * (len(front.columns) - 2), VERDICT_WIDTH]
    several = not results.untouched and not results.within
    several = several or any(factor.key in METHOD_FACTORS for factor in results.factors)
    method = results.config.get("method", {}).get("name", "method")
    # A factor that is no setting changes several at once, the method perhaps
    bundles = any("." not in factor.key for factor in results.factors)
    subject = "several methods" if several else "" if bundles else method
    size = " × ".join(
        [prose.count(len(results.cells), "cell"), prose.count(len(results.seeds), "seed")]
    )
    verdicts = verdicts_of(entries, results.headline).levels
    conclusive = f"Conclusive: {count_conclusive(verdicts)} {results.noun}s." if verdicts else ""
    small = [conclusion.brackets, conclusive, explain_resolution(results, entries)]
    return typeset.page(
        results.sweep,
        kicker=" · ".join(filter(None, ["Ablation report", subject, size])),
        question=results.tags.get("question", ""),
        origin=results.tags.get("origin", ""),
        warning=_warn(results),
        answer=conclusion.text,
        small=" ".join(filter(None, small)),
        front=[
            typeset.picture(pictures[first[0]]),
            typeset.table(front, widths, 8.8 if long or "P(better)" in front.columns else 9.5),
            *(typeset.picture(pictures[name]) for name in first[1:]),
        ],
        alone=not long and len(first) == 1,
        blocks=blocks,
    )


def select_front(results: SweepResults, pictures: Mapping[str, Picture]) -> list[str]:
    """The figures of page one: what was compared, and where there is room beside it the curve of a
    numeric factor, or the map of two factors."""
    other = "heatmap" if is_main_figure(results) else "response"
    if "forest" not in pictures:
        return [other]
    room = len(results.levels) <= BOTH_FRONT
    return ["forest", other] if room and (results.numeric or other == "heatmap") else ["forest"]


def _warn(results: SweepResults) -> str:
    parts = []
    finished, planned = results.count_trials()
    if finished < planned:
        missing = f"{planned - finished} of {prose.count(planned, 'trial')} missing"
        parts.append(f"Unfinished: {missing}, see “What is missing”. The answer may change.")
    trials = [trial for _, trial in results.trials()]
    if not_as_asked := list_differences(trials):
        parts.append(f"Not as asked: {'; '.join(not_as_asked)}.")
    if conflicts := code_conflicts(trials):
        parts.append(
            f"Made by several versions of the code ({describe_conflicts(conflicts)}), so "
            "that a difference between cells may be one between versions: the table of runs at "
            "the end says which made what."
        )
    if results.other_code:
        parts.append(f"{explain_other_code(results)}.")
    if results.damaged:
        files = prose.count(len(results.damaged), "damaged file")
        parts.append(f"Without {files} of the store: see “What is missing”.")
    if differences := fact_differences(trials):
        parts.append(
            f"Not computed alike ({', '.join(differences)}): see “Differences” under Provenance."
        )
    if again := warn_of_looks(results.tags):
        parts.append(again)
    if results.tags.get("mode") == "search":
        tried = sum(not cell.control for cell in results.levels)
        parts.append(
            f"Searched: the best of {prose.count(tried, 'setting')} was selected on these very "
            "seeds, so that its "
            "mean flatters it. Measure it on other seeds before you claim it."
        )
    return " ".join(parts)


# ---- Image by image


def _pair_outcomes(left: CellResults, right: CellResults) -> tuple[np.ndarray, np.ndarray] | None:
    """Success of two cells as [seeds, prompts] over what both have, a prompt's mean over images."""
    sides = [
        {seed: t.samples.success_by_prompt() for seed, t in cell.trials.items() if t.samples}
        for cell in (left, right)
    ]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    shared = [set(side[seed]) for side in sides for seed in seeds]
    prompts = sorted(set.intersection(*shared)) if shared else []
    if not prompts:
        return None
    first, second = (
        np.array([[side[seed][prompt] for prompt in prompts] for seed in seeds], dtype=float)
        for side in sides
    )
    return first, second


def images_table(results: SweepResults) -> Table | None:
    """Cells as rows: images that are right, won and lost; None where nobody judged images."""
    rows: list[list[str]] = []
    marks: dict[int, str] = {}
    judged_by = next((metric for metric in results.metrics if metric.key == JUDGED), None)
    corrected = correct_cells(results, judged_by) if judged_by else {}

    def bounds(low: float, high: float, show: Any) -> str:
        return f"[{show(low, 3)}, {show(high, 3)}]"

    for cell in results.cells:
        outcomes = [right for t in cell.trials.values() if t.samples for right in t.samples.success]
        judged = [right for right in outcomes if right is not None]
        if not judged:
            continue
        if cell.mark:
            marks[len(rows)] = cell.mark
        right = sum(judged)
        interval = bounds(*wilson(right, len(judged)), prose.show)
        row = [cell.marked_label, f"{right} of {len(judged)}", interval]
        row += [show_corrected(corrected.get(cell.name), 3)] if corrected else []
        control = results.control_of(cell)
        both = None if control is None else _pair_outcomes(cell, control)
        if both is None:
            rows.append([*row, prose.DASH, prose.DASH, prose.DASH])
            continue
        mean, low, high = clustered_difference(*both, draws=DRAWS)
        won, lost = int((both[0] > both[1]).sum()), int((both[0] < both[1]).sum())
        shift = [prose.show_signed(mean, 3), bounds(low, high, prose.show_signed)]
        rows.append([*row, f"{won} / {lost}", *shift])
    title = (
        "Images that are right, over all seeds and prompts, and the same prompt and seed compared "
        f"with the control {results.noun}: images won and lost, and the difference in share with a "
        f"95 % interval from {DRAWS} bootstrap samples that draw prompts and seeds independently "
        "(generator seed 0). Wilson's interval takes images as independent, which they are not: of "
        "other prompts like these it is too narrow. With few seeds the bootstrap interval is too "
        "narrow, with three it misses the true value up to four times as often as it should; the "
        "answer does not rest on it."
    )
    columns = ["Cell", "Right", "Wilson 95 %", *(["Corrected"] if corrected else [])]
    columns += ["Won / lost", "Difference", "Clustered 95 %"]
    return Table(title, columns, rows, "", marks) if rows else None


# ---- Statistics, how it was measured, context


def measurement_blocks(results: SweepResults) -> list[typeset.Block]:
    """How each number was measured, metrics of one way together; what is not shown, and why."""
    ways: dict[str, list[str]] = {}
    for metric in results.metrics:
        trials = [trial for _, trial in results.trials() if metric.key in trial.metrics]
        if facts := next(filter(None, (trial.facts.get(metric.key) for trial in trials)), None):
            code, _ = trials[0].measuring.of_value(metric.key)
            facts = facts if code == UNKNOWN else facts | {"measuring code": code}
            parts = [
                f"{name.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
                for name, value in facts.items()
                if name != ERRORS
            ]
            ways.setdefault("; ".join(parts), []).append(metric.label)
    pairs = [(", ".join(labels), way) for way, labels in ways.items()]
    pairs += [(label, f"not shown: {why}") for label, why in results.refused.items()]
    return [typeset.heading("How it was measured"), typeset.pairs(pairs)] if pairs else []


def _context_blocks(results: SweepResults) -> list[typeset.Block]:
    varied = {factor.key: list(map(str, factor.levels)) for factor in results.factors}

    def names(part: str) -> list[str]:
        return varied.get(part) or [str(results.config.get(part, {}).get("name", "unknown"))]

    backbones, data = names("backbone"), names("data")
    of = f"{'s' if len(backbones) > 1 else ''} {prose.join([f'“{name}”' for name in backbones])}"
    on = prose.join([f"“{name}”" for name in data])
    text = f"All numbers of this report come from the backbone{of} on the data {on}."
    if EMBEDDED & {*backbones}:
        text += (
            " Embedded ones are small models trained in a small rendered world: their numbers are "
            "not comparable with those of any paper, only with each other. An effect here is a "
            "reason to look for it in the large models, not evidence that it is there."
        )
    blocks = [typeset.paragraph(text)]
    if not results.published:
        return [*blocks, typeset.paragraph("No published number is listed for this sweep.")]
    title = (
        "Numbers published elsewhere, not measured here and not comparable unless data, backbone "
        "and N agree."
    )
    keys = ["what", "metric", "value", "data", "backbone", "n", "source"]
    columns = ["Published elsewhere", "Metric", "Value", "Data", "Backbone", "N", "Source"]
    rows = [[str(entry.get(key) or prose.DASH) for key in keys] for entry in results.published]
    # All are wrapped: what columns of their own width leave is nothing where one of them is long
    widths = [2.8, 2.3, 2.0, "fill", 2.5, 1.9, 2.5]
    table = Table(title, columns, rows)
    return [*blocks, typeset.table(table, widths, 8.5, left=range(len(columns)), tall=True)]
