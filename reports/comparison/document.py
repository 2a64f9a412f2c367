"""The report of a comparison: one sentence with its uncertainty first, then what differs in the making, then every number."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from reports import export
from reports.answer import answer
from reports.blocks import heading_block, pairs_block, picture_block, table_block, text_block
from reports.collect import collect
from reports.comparison.differences import Comparison, compare, side_of
from reports.comparison.figure import draw
from reports.comparison.text import (
    change_table,
    comparison_csv,
    headline_table,
    made_table,
    metric_tables,
    sentence,
    settings_table,
    settings_that_differ,
    tables_of,
)
from reports.document import printable, put, typeset
from reports.figures import Picture
from reports.provenance import codes, missing
from reports.statistics import smallest_sign_flip_p
from reports.study import ReportError
from reports.tables import DASH, HOLM_FROM, Table, number

__all__ = ["content", "named", "write_comparison"]


def named(sides: tuple[tuple[str, str], tuple[str, str]]) -> tuple[str, str]:
    """What the two are called, from (sweep, folder or address as given) of each: the sweep, with the last part of where it is if the
    sweeps have one name, with all of it if the last parts have, too."""
    (first, place), (second, other) = sides
    short = [re.split(r"[/\\\\]", where.removesuffix("/mlflow.db").rstrip("/\\"))[-1] or where for where in (place, other)]
    for names in ((first, second), (f"{short[0]}:{first}", f"{short[1]}:{second}")):
        if names[0] != names[1]:
            return names
    return f"{place}:{first}", f"{other}:{second}"


def write_comparison(uris: tuple[str, str], sweeps: tuple[str, str], labels: tuple[str, str], folder: Path) -> Path:
    """Write `<left>-vs-<right>` as .pdf, .json, .csv, .md, .tex, .svg and .png into `folder`, named by the labels; return the PDF's path.

    Raises ReportError (one line) where a sweep is not there or the two have nothing in common.
    """
    if uris[0] == uris[1] and sweeps[0] == sweeps[1]:
        raise ReportError(f"{labels[0]} would be compared with itself: name two sweeps, or one in two places, FOLDER:SWEEP")
    stem = "-vs-".join(re.sub(r"[^\w.-]+", "-", label) for label in labels)
    left, right = (collect(uri, sweep) for uri, sweep in zip(uris, sweeps, strict=True))
    with left.folder, right.folder, tempfile.TemporaryDirectory(prefix="report-") as temporary:
        draft = Path(temporary)
        found = compare(side_of(labels[0], left), side_of(labels[1], right))
        shown = content(found, draw(found, draft / "figures", stem))
        put(draft / "report.json", json.dumps(printable(shown), indent=1, ensure_ascii=False))
        (draft / f"{stem}.pdf").write_bytes(typeset(draft))
        put(draft / f"{stem}.csv", comparison_csv(found))
        put(draft / f"{stem}.md", _markdown(found))
        put(draft / f"{stem}.tex", _latex(found, stem))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(draft / "report.json", folder / f"{stem}.json")
        for file in (*draft.glob(f"{stem}.*"), *(draft / "figures").iterdir()):
            shutil.copyfile(file, folder / file.name)
    return folder / f"{stem}.pdf"


def _markdown(found: Comparison) -> str:
    title = f"# {export.markdown(found.left.label)} and {export.markdown(found.right.label)}"
    parts = [title, warning(found), f"**Answer.** {export.markdown(sentence(found))}", *map(export.markdown, how(found))]
    return "\n\n".join([part for part in parts if part] + [export.to_markdown(table).rstrip() for table in tables_of(found)]) + "\n"


def _latex(found: Comparison, stem: str) -> str:
    lines = [f"% {sentence(found)}".replace("\n", " "), "% needs \\usepackage{booktabs}", ""]
    return "\n".join(lines + [export.to_latex(table, f"{stem}-{i + 1}") for i, table in enumerate(tables_of(found))])


def warning(comparison: Comparison) -> str:
    sides = (comparison.left, comparison.right)
    behind = [f"{s.label} ({s.study.lacking} of {s.study.planned} trials are missing)" for s in sides if s.study.lacking]
    parts = [f"Unfinished: {' and '.join(behind)}. The answer may change."] if behind else []
    made = [codes(side.study) for side in sides]
    if set(made[0]) != set(made[1]):
        told = " and ".join(" / ".join(code[:12] for code in found) or "not recorded" for found in made)
        parts.append(f"Made by different code ({told}): a difference may come from that as well as from settings.")
    return " ".join(parts)


def only(comparison: Comparison) -> list[tuple[str, str]]:
    """What only one side has."""
    pairs = []
    common = {cell.name for cell, _ in comparison.cells}
    for one, other in ((comparison.left, comparison.right), (comparison.right, comparison.left)):
        cells = [cell.name for cell in one.study.cells if cell.name not in common]
        metrics = [m.label for m in one.study.metrics if m.key not in {o.key for o in other.study.metrics}]
        seeds = [str(seed) for seed in one.study.seeds if seed not in other.study.seeds]
        for what, names in (("cells", cells), ("metrics", metrics), ("seeds", seeds)):
            if names:
                pairs.append((f"{what.capitalize()} of {one.label} only", ", ".join(names)))
    pairs += [(label, f"not compared: {why}") for label, why in comparison.refused.items()]
    pairs += [(label, f"compared, but: {why}") for label, why in comparison.counts.items()]
    return pairs or [("", "Nothing: both have the same cells, metrics and seeds.")]


def how(comparison: Comparison) -> list[str]:
    first, second = comparison.left.label, comparison.right.label
    if comparison.unpaired:
        pairing = (
            f"Seeds do not pair: {comparison.unpaired}. So a seed of {second} has no partner in {first}, and means are compared by "
            "Welch's t-interval, which takes the seeds of both sides as independent and does not suppose that they scatter alike. It is "
            "mostly wider than a paired one: a difference that a paired comparison would show may hide in it. No p value is given."
        )
    else:
        pairing = (
            f"Seeds pair: the same seed gave both sides the same prompts and the same noise (read from {comparison.by}). So {second} is "
            f"compared with {first} seed by seed, over the seeds that both have, by t-intervals of the differences. What the sides do not "
            "share, such as other training settings, is in these differences."
        )
        most = max(d.plain.n for d in comparison.differences)
        pairing += (
            " p is that of the exact sign-flip test, adjusted by Holm's method over the common cells of a metric."
            if most >= HOLM_FROM
            else f" With {most} seed{'s' if most > 1 else ''} a sign-flip test cannot give a p below {smallest_sign_flip_p(most):g}, so "
            "none is shown."
        )
    count = sum(d.wide is not None for d in comparison.of(comparison.headline))
    each = number(100 * (1 - 0.05 / max(1, count)), 2).rstrip("0").rstrip(".")
    widened = (
        f"The sentence at the top goes by intervals that are widened to hold for all {count} common cells at once (Bonferroni: {each} % "
        "each). The untouched backbone is a control and not one of them. " if count > 1 else ""
    )
    return [
        pairing,
        f"Cells are matched by name. {widened}Metrics are not adjusted for each other. An interval without width claims nothing. The two "
        "were run at different times: whatever changed between them and is not listed under “What differs” is in the difference, too.",
    ]


def content(comparison: Comparison, picture: Picture) -> dict[str, Any]:
    """The content of report.json."""
    left, right = comparison.left, comparison.right
    rows, others = settings_that_differ(comparison)
    front = headline_table(comparison)
    blocks: list[dict[str, Any]] = [heading_block("What differs")]
    if table := settings_table(comparison):
        blocks.append(table_block(table, [5.2, "fill", "fill"], 8.5, left=(0, 1, 2)))
    else:
        blocks.append(text_block("No setting that numbers depend on differs."))
    if others:
        blocks.append(text_block(f"Differ as well, but change no trial's numbers: {', '.join(others)}."))
    blocks.append(table_block(made_table(comparison), [1.9, "fill", "fill"], 8, left=(0, 1, 2)) | {"tall": True})
    blocks += [heading_block("Did the answer change?")]
    blocks.append(pairs_block([(side.label, answer(side.study, side.found).text) for side in (left, right)]))
    if changed := change_table(comparison):
        blocks.append(table_block(changed, ["fill", "auto", "auto", "auto"], 8.8) | {"tall": True})
    else:
        blocks.append(text_block("No common cell is compared with a baseline cell that both have, so that effects cannot be compared."))
    if len(comparison.metrics) > 1:
        blocks.append(heading_block("All metrics"))
        blocks += [table_block(t, [4.4, *["fill"] * (len(t.columns) - 1)], 8.2) for t in metric_tables(comparison)]
    blocks += [heading_block("How they were compared"), *map(text_block, how(comparison))]
    blocks += [heading_block("What only one side has"), pairs_block(only(comparison))]
    blocks += [heading_block("What is missing"), pairs_block([(side.label, missing(side.study)) for side in (left, right)])]
    runs = [
        [cell.label, str(seed), *(c.trials[seed].run_id if seed in c.trials else DASH for c in (cell, other))]
        for cell, other in comparison.cells
        for seed in sorted(cell.trials.keys() | other.trials.keys())
    ]
    table = Table("The MLflow runs behind the common cells.", ["Cell", "Seed", left.label, right.label], runs)
    blocks += [heading_block("Runs"), table_block(table, ["auto"] * 4, 8, left=(0, 2, 3))]
    counted = "1 common cell" if len(comparison.cells) == 1 else f"{len(comparison.cells)} common cells"
    differ = "1 setting differs" if len(rows) == 1 else f"{len(rows)} settings differ"
    questions = dict.fromkeys(side.study.tags.get("question", "") for side in (left, right))
    return {
        "title": f"{left.label} and {right.label}",
        "kicker": f"Comparison · {counted} · seeds {'do not pair' if comparison.unpaired else 'pair'} · {differ}",
        "footer": f"{left.label} and {right.label}",
        "question": " / ".join(filter(None, questions)),
        "origin": "",
        "warning": warning(comparison),
        "answer": sentence(comparison),
        "small": f"Differences are {right.label} minus {left.label}. Brackets: 95 % intervals, widened to hold for all common cells.",
        "front": [picture_block(picture, 100), table_block(front, ["fill", *["auto"] * (len(front.columns) - 1)], 8.8)],
        "alone": True,
        "blocks": blocks,
    }
