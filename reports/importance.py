"""Which factors the best candidates of a search differ in, as it was measured (PED-ANOVA)."""

from __future__ import annotations

import json

from reports import prose, typeset
from reports.results import SweepResults
from reports.tables import Table

__all__ = ["importance_blocks"]

LIMITS = (
    "What it does not say: in which direction a factor acts, how much is gained, and what "
    "factors do together, since each is looked at alone. Shares add up to 1 also where nothing "
    "matters; then p is large. A candidate’s value is its mean over seeds, whose scatter is "
    "taken for an effect. Candidates that were pruned or failed are missing, and a sampler that "
    "learns proposes more where it was good before, which narrows what is compared: shares and p "
    "are those of the candidates tried, not of the whole range. A factor that is important here "
    "is one to vary in a grid with seeds of its own; the intervals of this report rest on "
    "nothing of it."
)


def importance_blocks(results: SweepResults) -> list[typeset.Block]:
    """A heading, a table and its limits; nothing where there was no search."""
    known = json.loads(results.tags.get("importance", "null"))
    if not known:
        return []
    labels = {metric.key: metric.label for metric in results.metrics}
    names = {factor.key: factor.label for factor in results.factors}
    count = prose.count(known["candidates"], "measured candidate")
    blocks = [typeset.heading("Importance of the factors")]
    for part in known["objectives"]:
        metric = labels.get(part["metric"], part["metric"])
        if why := part["why"]:
            text = f"Which factors the best candidates by {prose.lower(metric)} differ in cannot be"
            blocks.append(typeset.paragraph(f"{text} said: {why}."))
            continue
        rows = [
            [
                names.get(one["key"], one["key"]),
                f"{one['share']:.2f}",
                f"{one['p']:.2f}",
                f"{one['candidates']} of {known['candidates']}",
            ]
            for one in part["factors"]
        ]
        title = (
            f"{metric}, by PED-ANOVA (arXiv 2304.10255, 2601.20800): how far the levels of the "
            f"best {part['best']} of {count}, the control among them, are spread otherwise than "
            "those of all, as shares of the sum. p: how often values that are shuffled among the "
            "candidates give a factor as much, for all factors at once (Bonferroni). Last: the "
            "candidates in which the factor is read and varied."
        )
        table = Table(title, ["Factor", "Importance", "p", "Candidates"], rows)
        blocks.append(typeset.table(table, ["fill", "auto"], 8.8))
    if any(part["factors"] for part in known["objectives"]):
        blocks.append(typeset.paragraph(LIMITS))
    return blocks
