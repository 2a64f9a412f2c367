"""The report of a comparison: one sentence first, then what differs in the making, then numbers."""

from __future__ import annotations

from typing import Any

from reports import prose, typeset
from reports.answer.conclusion import conclude
from reports.compare.answer import conclude_comparison
from reports.compare.differences import OTHER_CODE, Comparison
from reports.compare.tables import (
    all_metric_tables,
    change_table,
    differing_settings,
    facts_table,
    headline_table,
    settings_table,
)
from reports.provenance import (
    code_conflicts,
    code_versions,
    explain_missing,
    explain_other_code,
)
from reports.statistics import fewest_seeds_for_holm, smallest_sign_flip_p
from reports.tables import Table, widen
from reports.typeset import Picture
from reports.verdicts import IMAGES_ALONE, POOLED, UNTRAINED

__all__ = ["build_content", "explain_method", "warn"]


def warn(comparison: Comparison) -> str:
    parts, unfinished = [], []
    for side in comparison.sides:
        finished, planned = side.results.count_trials()
        if finished < planned:
            missing = f"{planned - finished} of {prose.count(planned, 'trial')} missing"
            unfinished.append(f"{side.label} ({missing})")
    if unfinished:
        parts.append(f"Unfinished: {' and '.join(unfinished)}. The answer may change.")
    trials = [[trial for _, trial in side.results.trials()] for side in comparison.sides]
    if code_conflicts(trials[0] + trials[1]) and code_versions(trials[0]) != code_versions(
        trials[1]
    ):
        short = [", ".join(code_versions(own).values()) or "not recorded" for own in trials]
        parts.append(
            f"Made by different code ({' and '.join(short)}): a difference may come from that as "
            "well as from settings."
        )
    if other := [label for label, why in comparison.refused.items() if OTHER_CODE in why]:
        parts.append(
            f"Measured by different code, so not compared: {', '.join(other)}; --remeasure on the "
            "older one scores its kept images again."
        )
    parts += [
        f"{side.label}: {explain_other_code(side.results)}."
        for side in comparison.sides
        if side.results.other_code
    ]
    return " ".join(parts)


def list_unshared(comparison: Comparison) -> list[tuple[str, str]]:
    """What only one side has, and what is not compared."""
    pairs = []
    common = {cell.name for cell, _ in comparison.cells}
    for one, other in (comparison.sides, comparison.sides[::-1]):
        metrics = {metric.key for metric in other.results.metrics}
        only = {
            "Cells": [cell.name for cell in one.results.cells if cell.name not in common],
            "Metrics": [m.label for m in one.results.metrics if m.key not in metrics],
            "Seeds": [str(s) for s in one.results.seeds if s not in other.results.seeds],
        }
        pairs += [
            (f"{k} of {one.label} only", ", ".join(names)) for k, names in only.items() if names
        ]
    pairs += [(label, f"not compared: {why}") for label, why in comparison.refused.items()]
    pairs += [(label, f"compared, but: {why}") for label, why in comparison.counts.items()]
    return pairs or [("", "Nothing: both have the same cells, metrics and seeds.")]


def explain_method(comparison: Comparison) -> list[str]:
    """How the two were compared."""
    first, second = comparison.left.label, comparison.right.label
    most = max(d.plain.n for d in comparison.differences)
    if comparison.unpaired:
        pairing = (
            f"Seeds do not pair: {comparison.unpaired}. So a seed of {second} has no partner in "
            f"{first}, and means are compared by Welch's t-interval, which takes the seeds of both "
            "sides as independent and does not suppose that they scatter alike. It is mostly wider "
            "than a paired one: a difference that a paired comparison would show may hide in it. "
            "No p value is given."
        )
    else:
        p = " p is that of the exact sign-flip test, adjusted by Holm's method over the common "
        p += "cells of a metric."
        judged = max(1, sum(d.wide is not None for d in comparison.headline_differences))
        if most < fewest_seeds_for_holm(judged):
            p = f" With {prose.count(most, 'seed')} a sign-flip test of {judged}, adjusted by "
            p += "Holm's method, cannot give a p below "
            p += f"{min(1.0, judged * smallest_sign_flip_p(most)):g}, so none is shown."
        pairing = (
            "Seeds pair: the same seed gave both sides the same prompts and the same noise (read "
            f"from {comparison.by}). So {second} is compared with {first} seed by seed, over the "
            "seeds that both have. What the sides do not share, "
            f"such as other training settings, is in these differences.{p}"
        )
    return [
        pairing,
        f"{_explain_verdicts(comparison)} Metrics are not adjusted for each other. An interval "
        "without width claims nothing. The two were run at different times: what changed between "
        "them and is not listed under “What differs” is in the difference, too.",
    ]


def _explain_verdicts(comparison: Comparison) -> str:
    """What the sentence at the top goes by."""
    verdicts = [d.verdict for d in comparison.headline_differences if d.verdict]
    if not verdicts:
        return "Cells are matched by name."
    text = "Cells are matched by name. The untouched backbone is in no family of them. "
    count, rule = prose.count(len(verdicts), "common cell"), verdicts[0].rule
    if rule == UNTRAINED:
        return text + (
            f"The sentence at the top goes by images: one family of {count}. Nothing is trained "
            "for the first of them, and where that is so prompts are clusters with their noises "
            "within: these intervals speak of prompts like these and other noise."
        )
    if rule in (POOLED, IMAGES_ALONE):
        return text + (
            f"The sentence at the top goes by images: one family of {count}, as in the report of a "
            "sweep with several controls (pooled design effect, Dunnett's quantile of independent "
            "comparisons). These intervals speak of prompts like these and other seeds, and "
            "suppose that a cell's trainings scatter, relative to its images, as the pool's do or "
            "more."
        )
    if len(verdicts) > 1:
        each = prose.show(100 * widen(0.95, len(verdicts)), 2).rstrip("0").rstrip(".")
        text += (
            f"The sentence at the top goes by t-intervals that are widened to hold for all {count} "
            f"at once (Bonferroni: {each} % each)."
        )
    return text.strip()


def build_content(comparison: Comparison, picture: Picture) -> dict[str, Any]:
    """The content of report.json."""
    left, right = comparison.sides
    rows, others = differing_settings(comparison)
    blocks = [typeset.heading("What differs")]
    if table := settings_table(comparison):
        blocks.append(typeset.table(table, [5.2, "fill"], 8.5, left=(0, 1, 2)))
    else:
        blocks.append(typeset.paragraph("No setting that numbers depend on differs."))
    if others:
        text = f"Differ as well, but change no trial's numbers: {', '.join(others)}."
        blocks.append(typeset.paragraph(text))
    facts = facts_table(comparison)
    blocks.append(typeset.table(facts, [1.9, "fill"], 8, left=(0, 1, 2), tall=True))
    blocks.append(typeset.heading("Did the answer change?"))
    answers = [(side.label, conclude(side.results, side.entries).text) for side in comparison.sides]
    blocks.append(typeset.pairs(answers))
    if table := change_table(comparison):
        blocks.append(typeset.table(table, ["fill", "auto"], 8.8, tall=True))
    else:
        why = "No common cell is compared with a control that both have"
        blocks.append(typeset.paragraph(f"{why}, so that effects cannot be compared."))
    if len(comparison.metrics) > 1:
        blocks.append(typeset.heading("All metrics"))
        tables = all_metric_tables(comparison)
        blocks += [typeset.table(table, [4.4, "fill"], 8.2) for table in tables]
    blocks.append(typeset.heading("How they were compared"))
    blocks += map(typeset.paragraph, explain_method(comparison))
    blocks += [typeset.heading("What only one side has"), typeset.pairs(list_unshared(comparison))]
    missing = [(side.label, explain_missing(side.results)) for side in comparison.sides]
    blocks += [typeset.heading("What is missing"), typeset.pairs(missing)]
    runs = [
        [
            cell.label,
            str(seed),
            *(c.trials[seed].run_id if seed in c.trials else prose.DASH for c in both),
        ]
        for both in comparison.cells
        for cell in both[:1]
        for seed in sorted(both[0].trials.keys() | both[1].trials)
    ]
    columns = ["Cell", "Seed", left.label, right.label]
    table = Table("The MLflow runs behind the common cells.", columns, runs)
    blocks += [typeset.heading("Runs"), typeset.table(table, ["auto"], 8, left=(0, 2, 3))]
    count = len(rows)
    differ = "1 setting differs" if count == 1 else f"{count} settings differ"
    pair = "seeds do not pair" if comparison.unpaired else "seeds pair"
    questions = dict.fromkeys(s.results.tags.get("question", "") for s in comparison.sides)
    common = prose.count(len(comparison.cells), "common cell")
    return typeset.page(
        f"{left.label} and {right.label}",
        kicker=f"Comparison · {common} · {pair} · {differ}",
        question=" / ".join(filter(None, questions)),
        warning=warn(comparison),
        answer=conclude_comparison(comparison),
        small=f"Differences are {right.label} minus {left.label}. Brackets: 95 % intervals that "
        "hold for all common cells at once.",
        front=[
            typeset.picture(picture),
            typeset.table(headline_table(comparison), ["fill", "auto"], 8.8),
        ],
        blocks=blocks,
    )
