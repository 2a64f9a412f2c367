"""What a report shows of several factors: paragraphs and tables."""

from __future__ import annotations

from collections.abc import Sequence

from reports import prose, typeset
from reports.ablation import Ablation, Change, find_ablation
from reports.answer.ablation import (
    name_change,
    need_word,
    state_ablation,
    state_next_path,
    state_path_rule,
)
from reports.answer.factors import (
    describe_design,
    name_effect,
    name_interaction,
    name_part,
    name_reach,
    show_test,
    state_factor_rule,
    word_of_interaction,
)
from reports.answer.words import show_shift, show_verdict_interval, verdict_word
from reports.factors import FactorEffects, judge_factors
from reports.results import SweepResults
from reports.tables import CellMetric, Table, verdicts_of

__all__ = ["factor_blocks", "factor_tables"]


def factor_blocks(results: SweepResults, entries: Sequence[CellMetric]) -> list[typeset.Block]:
    """The section; empty where cells do not differ in two factors."""
    effects = judge_factors(results, verdicts_of(entries, results.headline))
    if effects is None:
        return []
    texts = [describe_design(results, effects), state_factor_rule(effects)]
    blocks = [typeset.heading("Several factors")]
    blocks += [typeset.paragraph(text) for text in texts if text]
    for table in _tables(results, effects):
        blocks.append(typeset.table(table, ["fill", "auto"], 8.8))
    if results.tags.get("mode") == "screen" and (text := state_next_path(results, effects)):
        blocks.append(typeset.paragraph(text))
    ablation = find_ablation(results, verdicts_of(entries, results.headline))
    if ablation is None:
        return blocks
    blocks.append(typeset.heading("Step by step"))
    blocks.append(typeset.paragraph(state_ablation(results, ablation)))
    blocks.append(typeset.paragraph(state_path_rule(results, ablation)))
    for table in _path_tables(results, ablation):
        blocks.append(typeset.table(table, ["fill", "auto"], 8.8))
    return blocks


def factor_tables(results: SweepResults, entries: Sequence[CellMetric]) -> list[Table]:
    """Main effects, interactions and simple effects on the headline; the path and what is
    needed."""
    verdicts = verdicts_of(entries, results.headline)
    effects, ablation = judge_factors(results, verdicts), find_ablation(results, verdicts)
    found = _tables(results, effects) if effects else []
    return found + (_path_tables(results, ablation) if ablation else [])


def _path_tables(results: SweepResults, ablation: Ablation) -> list[Table]:
    label, goal = results.headline.label, prose.name_cell(results, ablation.target)
    steps = [
        [
            f"{i}. {name_change(results, change)}",
            _show_mean(results, change),
            prose.show_signed(change.verdict.mean, change.verdict.decimals),
            show_verdict_interval(change.verdict),
            verdict_word(change.verdict),
            str(change.of),
        ]
        for i, change in enumerate(ablation.steps, 1)
    ]
    removals = [
        [
            name_change(results, change),
            _show_mean(results, change),
            prose.show_signed(change.verdict.mean, change.verdict.decimals),
            show_verdict_interval(change.verdict),
            need_word(change),
        ]
        for change in ablation.removals
    ]
    at = [change.verdict.level for change in (*ablation.steps, *ablation.removals)]
    level = prose.show_level(max(at, default=results.level))
    columns = [f"{label} mean", "Difference", f"{level} %, all at once"]
    tables = [
        Table(
            f"{label}: from the control to {goal}, each step less the one before.",
            ["Change", *columns, "Verdict", "Best of"],
            steps,
        ),
        Table(
            f"{label}: {goal} without one change (mean), and what that change brings to it "
            "(difference).",
            ["Change", *columns, "Needed"],
            removals,
        ),
    ]
    return [table for table in tables if table.rows]


def _show_mean(results: SweepResults, change: Change) -> str:
    values = [*change.cell.per_seed(results.headline.key).values()]
    return prose.show(sum(values) / len(values), change.verdict.decimals)


def _tables(results: SweepResults, effects: FactorEffects) -> list[Table]:
    found = [_main_table(results, effects), _interaction_table(results, effects)]
    return [table for table in (*found, _simple_table(results, effects)) if table.rows]


def _main_table(results: SweepResults, effects: FactorEffects) -> Table:
    control = results.control.values
    rows = [
        [
            name_effect(results, judged),
            control[results.factors[judged.effect.factors[0]].key],
            prose.show_signed(judged.verdict.mean, judged.verdict.decimals),
            show_verdict_interval(judged.verdict),
            verdict_word(judged.verdict),
        ]
        for judged in effects.main
    ]
    title = f"{effects.metric.label}: main effects, {name_reach(effects)}."
    level = prose.show_level(max((e.verdict.level for e in effects.main), default=results.level))
    columns = ["Level", "Against", "Main effect", f"{level} % interval, all at once", "Verdict"]
    return Table(title, columns, rows)


def _interaction_table(results: SweepResults, effects: FactorEffects) -> Table:
    rows = []
    for own in effects.interactions:
        largest, (f, p) = own.largest, show_test(own)
        rows.append(
            [
                name_interaction(results, own),
                f,
                p,
                f"{show_shift(largest.verdict)}{name_part(results, own)}",
                word_of_interaction(own),
            ]
        )
    title = (
        f"{effects.metric.label}: interactions of two factors, with F (its degrees of freedom) and "
        "the largest part, whose interval holds for all parts of all interactions at once."
    )
    columns = ["Interaction", "F (df)", "p", "Largest part", "Verdict"]
    return Table(title, columns, rows)


def _simple_table(results: SweepResults, effects: FactorEffects) -> Table:
    rows = [
        [
            f"{prose.lower(results.factors[factor].label)} {level}",
            prose.show_signed(verdict.mean, verdict.decimals),
            show_verdict_interval(verdict),
            verdict_word(verdict),
        ]
        for factor, level, verdict in effects.simple
    ]
    level = prose.show_level(results.level)
    title = (
        f"{effects.metric.label}: simple effects, a level alone against the control, for factors "
        "of which an interaction is not excluded: a main effect is a mean over effects that may "
        "differ. Intervals as in the table of all combinations."
    )
    return Table(title, ["Level", "Simple effect", f"{level} % interval", "Verdict"], rows)
