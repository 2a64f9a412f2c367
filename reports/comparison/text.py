"""A comparison as a sentence with its uncertainty, as tables, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from reports.answer import verb
from reports.comparison.differences import Change, Comparison, Difference, Side
from reports.export import exact
from reports.provenance import facts_of, flat
from reports.statistics import Interval
from reports.study import Metric
from reports.tables import (
    DASH,
    DIFFERENCES_A_TABLE,
    HOLM_FROM,
    Table,
    chunks,
    decimals,
    in_sentence,
    listed,
    number,
    signed,
    span,
    stacked,
    titled,
)

__all__ = [
    "change_table",
    "comparison_csv",
    "headline_table",
    "made_table",
    "metric_tables",
    "sentence",
    "settings_table",
    "settings_that_differ",
    "tables_of",
]

NO_CLAIM = "no claim"
QUOTED = 3  # cells that a sentence names
# settings that say where, when and how often trials run, and change no trial's numbers
NO_NUMBERS = (
    "seed", "seeds", "levels", "mode", "cells", "candidates", "sampler", "sampler_seed", "prune", "objectives", "headline", "retries",
    "output", "tracking_uri", "storage", "workers", "devices", "launcher", "launch", "fresh", "data.workers", "trainer.log_every",
    "trainer.checkpoint_every", "evaluation.keep_images", "evaluation.image_format",
)  # fmt: skip


def digits_of(comparison: Comparison, metric: Metric) -> int:
    return max(decimals(side.found, metric) for side in (comparison.left, comparison.right))


# ---- the answer


def sentence(comparison: Comparison) -> str:
    """Whether the two differ in the headline metric, and whether what they claim against their own baselines differs."""
    return f"{_difference_words(comparison)} {_change_words(comparison)}".strip()


def _difference_words(comparison: Comparison) -> str:
    metric, first, second = comparison.headline, comparison.left.label, comparison.right.label
    digits, name = digits_of(comparison, metric), in_sentence(metric.label)
    found = comparison.of(metric)
    compared = [(d, d.wide) for d in found if d.wide]
    if not compared:
        only = f"The untouched backbone is the only cell with {name} that both have"
        return f"{only}: its difference, {second} minus {first}, is {_quoted(found[0].plain, digits)} ({_seeds(found)})."
    everything = [d for d in comparison.differences if d.pairs]
    if everything and not any(x for d in everything if d.pairs for x in d.pairs.differences):
        return f"{second} gives the same numbers as {first} in every common cell, metric and seed ({_seeds(found)})."
    judged = [(d, wide) for d, wide in compared if wide.n > 1]
    if not judged:
        largest = max((d for d, _ in compared), key=lambda d: abs(d.plain.mean))
        where = f"{signed(largest.plain.mean, digits)} at {largest.cell.name}"
        return f"One seed cannot tell: the largest difference in {name}, {second} minus {first}, is {where}, with no spread to judge it by."
    real: dict[str, list[tuple[Difference, Interval]]] = {}
    for d, wide in sorted(judged, key=lambda item: -abs(item[1].mean)):
        if wide.excludes_zero:
            real.setdefault(verb(metric.better, wide.mean), []).append((d, wide))
    flat = [f"{d.cell.name} ({signed(wide.mean, digits)})" for d, wide in judged if wide.high == wide.low and wide.mean != 0]
    note = f"; all seeds gave the same difference at {listed(flat)}, which has no spread to judge by" if flat else ""
    if not real:
        d, wide = max(judged, key=lambda item: abs(item[1].mean))
        return (
            f"No common cell differs in {name} by more than its interval: the largest difference, {second} minus {first}, is "
            f"{_quoted(wide, digits)} at {d.cell.name}{note} ({_seeds(found)})."
        )
    parts = []
    for word, items in sorted(real.items()):
        named = [f"{d.cell.name} ({_quoted(wide, digits)})" for d, wide in items[:QUOTED]]
        parts.append(f"{word} at {listed(named + ([f'{len(items) - QUOTED} more'] if len(items) > QUOTED else []))}")
    rest = len(judged) - sum(map(len, real.values()))
    others = f"; of the other {rest} none differs by more than its interval" if rest > 1 else ""
    others = "; the other one does not differ by more than its interval" if rest == 1 else others
    return f"Compared with {first}, {name} of {second} is {' and '.join(parts)}{others}{note} ({_seeds(found)})."


def _quoted(interval: Interval, digits: int) -> str:
    """A difference with its interval where it has one."""
    return f"{signed(interval.mean, digits)} {span(interval, digits, sign=True)}" if interval.n > 1 else signed(interval.mean, digits)


def _seeds(found: Sequence[Difference]) -> str:
    if found[0].pairs:
        counts = sorted({d.plain.n for d in found})
        words = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"n = {words} paired seed{'s' if counts[-1] > 1 else ''}"
    sides = [sorted({getattr(d, side).n for d in found}) for side in ("left", "right")]
    words = " and ".join(f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" for counts in sides)
    return f"n = {words} seeds, not paired"


def _verdict(interval: Interval, better: str) -> str:
    return verb(better, interval.mean) if interval.excludes_zero else NO_CLAIM


def _change_words(comparison: Comparison) -> str:
    if not comparison.changes:
        return ""
    better, digits = comparison.headline.better, digits_of(comparison, comparison.headline)
    claims = {c.cell.name: [_verdict(side, better) for side in (c.left, c.right)] for c in comparison.changes}
    other = [c for c in comparison.changes if len(set(claims[c.cell.name])) > 1 or c.change.excludes_zero]
    if not other and all(claim == NO_CLAIM for pair in claims.values() for claim in pair):
        return "Neither side claims anything of these cells against its own baseline."
    if not other:
        return "What either side claims of these cells against its own baseline is the same."

    def told(change: Change) -> str:
        first, second = claims[change.cell.name]
        both = f"{first} in {comparison.left.label}, {second} in {comparison.right.label}" if first != second else f"{first} on both sides"
        return f"{change.cell.name} ({both}; the effect itself changes by {_quoted(change.change, digits)}, {_zero(change.change)})"

    more = [f"{len(other) - QUOTED} more"] if len(other) > QUOTED else []
    return f"Against its own baseline either side says something else of {listed([*map(told, other[:QUOTED]), *more])}."


def _zero(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return "which one seed cannot judge"
    return "which excludes zero" if interval.excludes_zero else "which does not exclude zero, so that the two may well agree"


# ---- tables


def _pair_title(comparison: Comparison) -> str:
    how = "by Welch's t-interval, since seeds do not pair" if comparison.unpaired else "seed by seed"
    return f"{comparison.right.label} minus {comparison.left.label}, {how}"


def headline_table(comparison: Comparison) -> Table:
    metric = comparison.headline
    digits, found = digits_of(comparison, metric), comparison.of(metric)
    speaks = any(d.holm is not None and d.plain.n >= HOLM_FROM for d in found)
    rows = []
    for d in found:
        n = f"{d.left.n} and {d.right.n}" if comparison.unpaired else f"{d.plain.n}"
        p = [f"{d.holm:.3f}" if d.holm is not None and d.plain.n >= HOLM_FROM else DASH] if speaks else []
        numbers = [number(d.left.mean, digits), number(d.right.mean, digits), signed(d.plain.mean, digits)]
        rows.append([d.cell.label, *numbers, span(d.plain, digits, sign=True), span(d.wide, digits, sign=True), *p, n])
    unit = f", {metric.unit}" if metric.unit else ""
    sides = [comparison.left.label, comparison.right.label]
    head = ["Cell", *sides, "Difference", "95 % interval", "Widened", *(["p (Holm)"] if speaks else [])]
    over = "seeds" if comparison.unpaired else "the seeds that both have"
    title = f"{titled(metric)}{unit}: mean over {over}, and {_pair_title(comparison)}."
    return Table(title, [*head, "Seeds"], rows, "", _marks(comparison, [d.cell.name for d in found]))


def _marks(comparison: Comparison, names: Sequence[str]) -> dict[int, str]:
    cells = {cell.name: cell for cell, _ in comparison.cells}
    return {
        i: "reference" if cells[name].reference else "baseline"
        for i, name in enumerate(names)
        if cells[name].reference or cells[name].baseline
    }


def metric_tables(comparison: Comparison) -> list[Table]:
    """Metrics as rows, common cells as columns."""
    by = {(d.cell.name, d.metric.key): d for d in comparison.differences}
    cells = [cell for cell, _ in comparison.cells if any((cell.name, m.key) in by for m in comparison.metrics)]
    tables = []
    for part in chunks(cells, DIFFERENCES_A_TABLE):
        rows = []
        for metric in comparison.metrics:
            digits = digits_of(comparison, metric)
            shown = [by.get((cell.name, metric.key)) for cell in part]
            texts = [f"{signed(d.plain.mean, digits)}\n{span(d.plain, digits, sign=True)}" if d else DASH for d in shown]
            rows.append([titled(metric) + (f" ({metric.unit})" if metric.unit else ""), *texts])
        title = f"All common metrics: {_pair_title(comparison)}, with 95 % intervals that are not widened for the number of cells."
        tables.append(Table(title, ["Metric", *(stacked(cell) for cell in part)], rows))
    return tables


def change_table(comparison: Comparison) -> Table | None:
    if not comparison.changes:
        return None
    metric = comparison.headline
    digits = digits_of(comparison, metric)

    def told(change: Change) -> list[str]:
        sides = [f"{_verdict(side, metric.better)}\n{_quoted(side, digits)}" for side in (change.left, change.right)]
        return [change.cell.label, *sides, _quoted(change.change, digits)]

    title = (
        f"{metric.label}: what each side says of a cell against its own baseline, with the interval that its own answer goes by, and how "
        "much that effect differs, second minus first, widened to hold for all rows at once. That one side claims something and the other "
        "does not is no difference by itself; the last column is what would show one."
    )
    head = ["Cell", comparison.left.label, comparison.right.label, "Change of the effect"]
    return Table(title, head, [told(change) for change in comparison.changes])


def settings_that_differ(comparison: Comparison) -> tuple[list[list[str]], list[str]]:
    """Rows [setting, left, right] of what numbers may depend on, and the names of the others that differ."""
    sides = [dict(flat(side.study.config)) for side in (comparison.left, comparison.right)]
    keys = [key for key in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(key) != sides[1].get(key)]
    rows = [[key, *(side.get(key, "not set") for side in sides)] for key in keys if key not in NO_NUMBERS]
    return rows, [key for key in keys if key in NO_NUMBERS]


def settings_table(comparison: Comparison) -> Table | None:
    rows, _ = settings_that_differ(comparison)
    if not rows:
        return None
    return Table("Settings that differ and that numbers may depend on.", ["Setting", comparison.left.label, comparison.right.label], rows)


def made_table(comparison: Comparison) -> Table:
    sides = [comparison.left, comparison.right]
    facts = [{**_plan(side), **facts_of(side.study)} for side in sides]
    rows: list[list[str]] = []
    marks: dict[int, str] = {}
    for name in facts[0]:
        if facts[0][name] != facts[1][name]:
            marks[len(rows)] = "baseline"
        rows.append([name, facts[0][name], facts[1][name] if facts[0][name] != facts[1][name] else "the same"])
    return Table("What either side was made with; bold: not the same.", ["", *(side.label for side in sides)], rows, "", marks)


def _plan(side: Side) -> dict[str, str]:
    study = side.study
    return {
        "Sweep": f"{study.sweep}, experiment {study.experiment_id}",
        "Finished": f"{study.planned - study.lacking} of {study.planned} trials",
        "Factors": "; ".join(f"{f.key}: {', '.join(map(str, f.levels))}" for f in study.factors),
        "Baseline": study.base_words,
    }


def tables_of(comparison: Comparison) -> list[Table]:
    found = [headline_table(comparison), settings_table(comparison), change_table(comparison), *metric_tables(comparison)]
    return [table for table in found if table]


# ---- CSV


def comparison_csv(comparison: Comparison) -> str:
    """One line per common cell and metric, full precision, empty where undefined; refused metrics with the reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["cell", "role", "metric", "label", "unit", "better", "paired", "left", "right"]
    numbers = ["left_mean", "left_sd", "left_n", "right_mean", "right_sd", "right_n", "difference", "low95", "high95", "low_widened"]
    writer.writerow([*head, *numbers, "high_widened", "p_sign_flip", "p_holm", "effect_size", "effect_size_low95", "effect_size_high95",
                     "seeds", "why_not"])  # fmt: skip
    names = [comparison.left.label, comparison.right.label]
    for d in comparison.differences:
        effect, wide, pairs = d.effect, d.wide, d.pairs
        role = "reference" if d.cell.reference else "baseline" if d.cell.baseline else "level"
        about = [d.cell.name, role, d.metric.key, d.metric.label, d.metric.unit, d.metric.better]
        means = [exact(d.left.mean), exact(d.left.sd), d.left.n, exact(d.right.mean), exact(d.right.sd), d.right.n]
        shown = [d.plain.mean, d.plain.low, d.plain.high, wide.low if wide else None, wide.high if wide else None]
        tests = [pairs.p if pairs else None, d.holm, *((effect.g, effect.low, effect.high) if effect else (None,) * 3)]
        seeds = " ".join(map(str, pairs.seeds)) if pairs else ""
        writer.writerow([*about, "yes" if pairs else "no", *names, *means, *map(exact, [*shown, *tests]), seeds, ""])
    for label, why in comparison.refused.items():
        writer.writerow(["", "", "", label, "", "", "", *names, *[""] * 17, why])
    return out.getvalue()
