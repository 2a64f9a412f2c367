"""Two sweeps, or two versions of one, compared cell by cell; what one sweep shows belongs above."""

from __future__ import annotations

import re
from pathlib import Path

from reports import export, typeset
from reports.collect import collect
from reports.compare.answer import conclude_comparison
from reports.compare.content import build_content, explain_method, warn
from reports.compare.differences import compare
from reports.compare.figure import draw_comparison
from reports.compare.tables import comparison_csv, main_tables
from reports.files import drafting, publish
from reports.results import ReportError, hide_password

__all__ = ["compare", "name_sides", "write_comparison"]

Side = tuple[str, str, str]  # Sweep, folder or address as the user said it, tracking URI


def write_comparison(sides: tuple[Side, Side], folder: Path) -> Path:
    """Write ``<left>-vs-<right>`` as .pdf, .json, .csv, .md, .tex, .svg and .png into ``folder``.

    Returns the PDF's path. Raises ReportError (one line) where a sweep is not there or the two
    have nothing in common.
    """
    (first, place, uri), (second, other, other_uri) = sides
    labels = name_sides((first, hide_password(place)), (second, hide_password(other)))
    if (first, uri) == (second, other_uri):
        cure = "name two sweeps, or one in two places, FOLDER:SWEEP"
        raise ReportError(f"{labels[0]} would be compared with itself: {cure}")
    stem = "-vs-".join(re.sub(r"[^\w.-]+", "-", label) for label in labels)
    left, right = collect(uri, first), collect(other_uri, second)
    with left.folder, right.folder, drafting(folder) as draft:
        comparison = compare((labels[0], left), (labels[1], right))
        picture = draw_comparison(comparison, draft / "figures", stem)
        content = build_content(comparison, picture)
        (draft / f"{stem}.pdf").write_bytes(typeset.typeset(draft, content))
        typeset.write_text(draft / f"{stem}.csv", comparison_csv(comparison))
        export.write_texts(
            draft / stem,
            title=f"{labels[0]} and {labels[1]}",
            above=warn(comparison),
            answer=conclude_comparison(comparison),
            below=explain_method(comparison),
            tables=main_tables(comparison),
            label=stem,
        )
        (draft / "report.json").rename(draft / f"{stem}.json")
        publish(draft / "figures", [file.name for file in (draft / "figures").iterdir()], folder)
        publish(draft, [file.name for file in draft.glob(f"{stem}.*")])
    return folder / f"{stem}.pdf"


def name_sides(left: tuple[str, str], right: tuple[str, str]) -> tuple[str, str]:
    """What two sweeps are called, from (sweep, folder or address) of each.

    The sweep; with the last part of where it is if the sweeps have one name; with all of it if
    the last parts have, too.
    """
    names = [sweep for sweep, _ in (left, right)]
    places = [place for _, place in (left, right)]
    last = [re.split(r"[/\\]", p.removesuffix("/mlflow.db").rstrip("/\\"))[-1] or p for p in places]
    for labels in (names, [f"{p}:{n}" for p, n in zip(last, names, strict=True)]):
        if labels[0] != labels[1]:
            return labels[0], labels[1]
    return f"{places[0]}:{names[0]}", f"{places[1]}:{names[1]}"
