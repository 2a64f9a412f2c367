"""The tables of a comparison, and its CSV."""

from __future__ import annotations

import re

from reports import prose
from reports.answer.words import show_shift, verdict_word
from reports.compare.answer import decimals_of
from reports.compare.differences import ComparedSweep, Comparison, EffectChange
from reports.correcting import read_errors, show_mean
from reports.export import EFFECT, pick, write_csv
from reports.provenance import flatten, gather_facts
from reports.results import CellResults, ReportedMetric
from reports.statistics import fewest_seeds_for_holm
from reports.tables import DIFFERENCES_A_TABLE, Table, mark_rows, metric_tables

# Settings that say where, when and how often trials run, and change no trial's numbers
WITHOUT_EFFECT = re.compile(
    r"seeds?|levels|mode|cells|candidates|sampler|sampler_seed|prune|objectives|headline|delta|retries"
    r"|output|tracking_uri|workers|devices|launcher|launch|executor|(slurm|ray)(\.\w+)?|fresh|data\.workers"
    r"|trainer\.(log_every|checkpoint_every)|evaluation\.(keep_images|image_format)"
)


def main_tables(comparison: Comparison) -> list[Table]:
    """The tables of the text files."""
    optional = [settings_table(comparison), change_table(comparison)]
    own = [table for table in optional if table]
    return [headline_table(comparison), *own, *all_metric_tables(comparison)]


def _name_difference(comparison: Comparison) -> str:
    how = "by Welch's t-interval, since seeds do not pair"
    how = how if comparison.unpaired else "seed by seed"
    return f"{comparison.right.label} minus {comparison.left.label}, {how}"


def headline_table(comparison: Comparison) -> Table:
    """Common cells as rows."""
    metric, digits = comparison.headline, decimals_of(comparison, comparison.headline)
    differences = comparison.headline_differences
    fewest = fewest_seeds_for_holm(max(1, sum(d.holm is not None for d in differences)))
    has_p = {id(d): d.holm is not None and d.plain.n >= fewest for d in differences}
    shows_p = any(has_p.values())
    rates = [read_errors(side.results, metric) for side in comparison.sides]
    rows = []
    for d in differences:
        means = [
            show_mean(side.mean, digits, errors)
            for side, errors in zip((d.left, d.right), rates, strict=True)
        ]
        shift = [prose.show_signed(d.plain.mean, digits), prose.show_interval(d.plain, digits)]
        p = [f"{d.holm:.3f}" if has_p[id(d)] else prose.DASH] if shows_p else []
        n = f"{d.left.n} and {d.right.n}" if comparison.unpaired else f"{d.plain.n}"
        word = verdict_word(d.verdict) if d.verdict else prose.DASH
        wide = prose.show_interval(d.wide, digits)
        rows.append([d.cell.label, *means, *shift, wide, *p, n, word])
    unit = f", {metric.unit}" if metric.unit else ""
    over = "seeds" if comparison.unpaired else "the seeds that both have"
    title = f"{metric.title}{unit}: mean over {over}, and {_name_difference(comparison)}."
    columns = ["Cell", *(side.label for side in comparison.sides), "Difference", "95 % t of seeds"]
    columns += ["All at once", *["p (Holm)"] * shows_p, "Seeds", "Verdict"]
    return Table(title, columns, rows, "", mark_rows([d.cell for d in differences]))


def all_metric_tables(comparison: Comparison) -> list[Table]:
    """Metrics as rows, common cells as columns."""
    by_place = {(d.metric.key, d.cell.name): d.plain for d in comparison.differences}
    names = {cell for _, cell in by_place}

    def show(metric: ReportedMetric, cell: CellResults) -> str:
        shift = by_place.get((metric.key, cell.name))
        if shift is None:
            return prose.DASH
        digits = decimals_of(comparison, metric)
        return f"{prose.show_signed(shift.mean, digits)}\n{prose.show_interval(shift, digits)}"

    title = (
        f"All common metrics: {_name_difference(comparison)}, with 95 % intervals that are not "
        "widened for the number of cells."
    )
    cells = [cell for cell, _ in comparison.cells if cell.name in names]
    metrics = comparison.metrics
    return metric_tables(title, cells, DIFFERENCES_A_TABLE, metrics, show, mark=False)


def change_table(comparison: Comparison) -> Table | None:
    """What each side claims of a cell, and how the effect differs; None without such a cell."""
    metric, digits = comparison.headline, decimals_of(comparison, comparison.headline)

    def describe(change: EffectChange) -> list[str]:
        sides = [
            f"{verdict_word(side)}\n{show_shift(side)}" for side in (change.left, change.right)
        ]
        return [change.cell.label, *sides, prose.show_difference(change.change, digits)]

    title = (
        f"{metric.label}: what each side says of a cell against its own control, with the "
        "interval that its own answer goes by, and how much that effect differs, second minus "
        "first, for all rows at once. That a cell differs on one side and not on the other is no "
        "difference between the sides by itself; the last column is what would show one."
    )
    columns = ["Cell", *(side.label for side in comparison.sides), "Change of the effect"]
    rows = [describe(change) for change in comparison.changes]
    return Table(title, columns, rows) if rows else None


def differing_settings(comparison: Comparison) -> tuple[list[list[str]], list[str]]:
    """Rows [setting, left, right] that numbers may depend on, and the names of the others."""
    left, right = (dict(flatten(side.results.config)) for side in comparison.sides)
    keys = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    rows = [
        [key, *(side.get(key, "not set") for side in (left, right))]
        for key in keys
        if not WITHOUT_EFFECT.fullmatch(key)
    ]
    return rows, [key for key in keys if WITHOUT_EFFECT.fullmatch(key)]


def settings_table(comparison: Comparison) -> Table | None:
    rows, _ = differing_settings(comparison)
    title = "Settings that differ and that numbers may depend on."
    columns = ["Setting", *(side.label for side in comparison.sides)]
    return Table(title, columns, rows) if rows else None


def facts_table(comparison: Comparison) -> Table:
    """What each side was made with."""
    left, right = (_gather_plan(s) | gather_facts(s.results) for s in comparison.sides)
    differing = [name for name in left if left[name] != right[name]]
    rows = [[n, left[n], right[n] if n in differing else "the same"] for n in left]
    marks = {i: "control" for i, name in enumerate(left) if name in differing}  # Set in bold
    title = "What either side was made with; bold: not the same."
    return Table(title, ["", *(side.label for side in comparison.sides)], rows, "", marks)


def _gather_plan(side: ComparedSweep) -> dict[str, str]:
    results = side.results
    finished, planned = results.count_trials()
    return {
        "Sweep": f"{results.sweep}, experiment {results.experiment_id}",
        "Finished": f"{finished} of {prose.count(planned, 'trial')}",
        "Factors": "; ".join(f"{f.key}: {', '.join(map(str, f.levels))}" for f in results.factors),
        "Control": prose.name_control(results),
    }


def comparison_csv(comparison: Comparison) -> str:
    """One line per common cell and metric; refused metrics with the reason."""
    labels = {"left": comparison.left.label, "right": comparison.right.label}
    rows = []
    for d in comparison.differences:
        rows.append(
            {
                "cell": d.cell.name,
                "role": d.cell.mark or "level",
                **pick(d.metric, metric="key", label="label", unit="unit", better="better"),
                "paired": "yes" if d.pairs else "no",
                **labels,
                **pick(d.left, left_mean="mean", left_sd="sd", left_n="n"),
                **pick(d.right, right_mean="mean", right_sd="sd", right_n="n"),
                **pick(d.plain, difference="mean", low95="low", high95="high"),
                **pick(d.wide, low_widened="low", high_widened="high"),
                "verdict": d.verdict and verdict_word(d.verdict),
                **pick(d.verdict and d.metric, delta="delta"),
                **pick(d.verdict, bound="bound", rule="rule"),
                **pick(d.pairs, p_sign_flip="p"),
                "p_holm": d.holm,
                **pick(d.effect, **EFFECT),
                "seeds": " ".join(map(str, d.pairs.seeds)) if d.pairs else "",
                "why_not": "",
            }
        )
    empty = dict.fromkeys(rows[0], "")
    for label, why in comparison.refused.items():
        rows.append(empty | labels | {"label": label, "why_not": why})
    return write_csv(rows)
